/**
 * The servers that the exits are tried on, and the two sides of each pair. What is harmless for each session is tried on
 * the given server, if there is one; everything else on scratch servers of this machine, which are gone afterwards.
 *
 *   session settings, front mode   the given server, or a scratch one
 *   durability                     scratch servers
 *   replicas, CPU, primaries       scratch servers that are each capped to a share of a core: a scale model
 *
 * Invariant: whatever ends a stage, its routers, servers and groups are gone when `close` resolves.
 */
import pg from 'pg';
import { CpuQuota } from '../embedded/cpu-quota.ts';
import { ScratchServer } from '../embedded/scratch.ts';
import type { Place } from '../wall/exits/exit.ts';
import type { SideLoad } from '../wall/exits/side-loads.ts';
import type { Target } from '../wall/load/generator-messages.ts';
import { MeasureError } from '../wall/server/measured-server.ts';
import { countersWorkload, eventsWorkload, type Workload, withSchema } from '../wall/workload/workload.ts';
import { type Router, startRouter } from './router.ts';

const SUPERUSER = 'postgres';
const CONNECT_TIMEOUT_MS = 15_000;
const QUERY_TIMEOUT_MS = 60_000;
const SETTLE_TIMEOUT_MS = 10_000;
const SETTLE_POLL_MS = 20;
const COUNTERS = 20_000;
/** Of a core: a primary, two replicas and the generator then fit on two cores. */
const REPLICA_MODEL_SHARE = 0.3;
/** Of a core: eight primaries, a router and the generator then stay below two cores. */
const PRIMARY_MODEL_SHARE = 0.05;
/** Of a core: what more CPU, and all settings together, are tried with, and twice that. */
const DOUBLED_MODEL_SHARE = 0.5;
const PRIMARY_COUNTS = [2, 4, 8];

const SETTINGS: Readonly<Record<string, string>> = {
  ...{ max_connections: '700', shared_buffers: '128MB', max_wal_size: '4GB' },
  // Their turn would fall into one window and not into its neighbour.
  ...{ autovacuum: 'off', checkpoint_timeout: '1h' },
};
const REPLICATING = { ...SETTINGS, wal_level: 'replica', max_wal_senders: '10' };
const MINIMAL = { ...SETTINGS, wal_level: 'minimal', max_wal_senders: '0' };

/** One pair to be measured. */
export interface ExitPlan {
  readonly id: string;
  readonly place: Place;
  readonly without: SideLoad;
  readonly with: SideLoad;
  /** Before each window of that side. */
  readonly prepare?: (side: 'without' | 'with') => Promise<void>;
}

export interface StageOptions {
  /** At each server of a side. */
  readonly clients: number;
  /** Where control groups can be made; undefined: servers can't be capped here. */
  readonly controller: string | undefined;
  /** The exits that are wanted, by id. */
  readonly wanted: ReadonlySet<string>;
}

export class Stage {
  readonly plans: ExitPlan[] = [];
  private readonly routers: Router[] = [];
  private readonly servers: ScratchServer[] = [];
  private readonly quotas: CpuQuota[] = [];

  async scratch(settings: Readonly<Record<string, string>> = REPLICATING): Promise<ScratchServer> {
    const server = await ScratchServer.start({ settings });
    this.servers.push(server);
    return server;
  }

  async standby(primary: ScratchServer, name: string, upstream?: ScratchServer): Promise<ScratchServer> {
    const standby = await primary.startStandby({
      ...{ name, settings: { ...REPLICATING, hot_standby: 'on' } },
      upstreamPort: upstream?.port,
    });
    this.servers.push(standby);
    return standby;
  }

  cap(server: ScratchServer, controller: string, share: number): CpuQuota {
    const quota = new CpuQuota({ directory: controller, name: String(server.port), share });
    this.quotas.push(quota);
    quota.add(server.pid);
    return quota;
  }

  keepRouter(router: Router): void {
    this.routers.push(router);
  }

  async close(): Promise<void> {
    await Promise.all(this.routers.splice(0).map((router) => router.close()));
    await Promise.all(this.servers.splice(0).map((server) => server.stop()));
    // A group can be removed when its processes are gone.
    for (const quota of this.quotas.splice(0)) quota.remove();
  }
}

/** fsync, full_page_writes, wal_level; and last, since it leaves the servers capped, all of them with more CPU. */
export async function durabilityStage(stage: Stage, options: StageOptions): Promise<void> {
  const { clients, controller } = options;
  const workload = eventsWorkload();
  const [plain, minimal] = await Promise.all([stage.scratch(), stage.scratch(MINIMAL)]);
  const cap = (server: ScratchServer): CpuQuota | undefined =>
    controller === undefined ? undefined : stage.cap(server, controller, Number.POSITIVE_INFINITY);
  const quotas = { plain: cap(plain), minimal: cap(minimal) };
  for (const server of [plain, minimal]) await createTables(server, workload);
  const load = (server: ScratchServer, settings?: Record<string, string>): SideLoad => ({
    ...{ targets: [targetOf(server)], workload, schema: '', clients, settings },
  });
  for (const name of ['full_page_writes', 'fsync']) {
    stage.plans.push({
      ...{ id: `${name}_off`, place: 'scratch server', without: load(plain), with: load(plain) },
      prepare: (side) => setSystem(plain, { [name]: side === 'with' ? 'off' : 'on' }),
    });
  }
  stage.plans.push({
    ...{ id: 'wal_minimal', place: 'scratch server', without: load(plain), with: load(minimal) },
    prepare: () => setSystem(plain, { fsync: 'on', full_page_writes: 'on' }),
  });
  stage.plans.push({
    ...{ id: 'all_combined', place: controller === undefined ? 'scratch server' : 'scale model' },
    ...{ without: load(plain), with: load(minimal, { synchronous_commit: 'off' }) },
    prepare: async () => {
      quotas.plain?.set(DOUBLED_MODEL_SHARE);
      quotas.minimal?.set(2 * DOUBLED_MODEL_SHARE);
      await setSystem(plain, { fsync: 'on', full_page_writes: 'on' });
      await setSystem(minimal, { fsync: 'off', full_page_writes: 'off' });
    },
  });
}

/** Replicas of each kind, and reads over them. */
export async function replicaStage(stage: Stage, options: StageOptions): Promise<void> {
  const { clients, controller } = options;
  const workload = eventsWorkload();
  const counters = countersWorkload({ rows: COUNTERS });
  const [alone, primary, cascading] = await Promise.all([stage.scratch(), stage.scratch(), stage.scratch()]);
  for (const server of [alone, primary, cascading]) await createTables(server, workload);
  for (const server of [alone, primary]) await createTables(server, counters);
  const near = await stage.standby(primary, 'near');
  const other = await stage.standby(primary, 'other');
  const upper = await stage.standby(cascading, 'upper');
  const lower = await stage.standby(cascading, 'lower', upper);
  if (controller !== undefined) {
    const all = [alone, primary, cascading, near, other, upper, lower];
    for (const server of all) stage.cap(server, controller, REPLICA_MODEL_SHARE);
  }
  const load = (...servers: ScratchServer[]): SideLoad => ({
    ...{ targets: servers.map(targetOf), workload, schema: '', clients },
  });
  const place: Place = controller === undefined ? 'scratch server' : 'scale model';
  const waitedFor: Readonly<Record<string, string>> = {
    replicas_async: '',
    replicas_first: 'FIRST 1 (near, other)',
    replicas_any: 'ANY 1 (near, other)',
  };
  for (const [id, names] of Object.entries(waitedFor)) {
    stage.plans.push({
      ...{ id, place, without: load(alone), with: load(primary) },
      prepare: () => setSystem(primary, { synchronous_standby_names: names }),
    });
  }
  stage.plans.push({ id: 'replicas_cascaded', place, without: load(alone), with: load(cascading) });
  const reads = readsOf(counters);
  stage.plans.push({
    ...{ id: 'reads_on_replicas', place },
    without: { ...load(alone), workload: reads },
    with: { ...load(primary, near, other), workload: reads },
    prepare: () => setSystem(primary, { synchronous_standby_names: '' }),
  });
}

/** A larger machine of the scale model. */
export async function cpuStage(
  stage: Stage,
  options: StageOptions & { readonly controller: string },
): Promise<void> {
  const { clients, controller } = options;
  const workload = eventsWorkload();
  const server = await stage.scratch();
  await createTables(server, workload);
  const quota = stage.cap(server, controller, DOUBLED_MODEL_SHARE);
  const load: SideLoad = { targets: [targetOf(server)], workload, schema: '', clients };
  stage.plans.push({
    ...{ id: 'more_cpu', place: 'scale model', without: load, with: load },
    prepare: async (side) => quota.set(DOUBLED_MODEL_SHARE * (side === 'with' ? 2 : 1)),
  });
}

/**
 * One small primary behind a router, and two, four and eight of them, each router over databases of its own. One directly
 * would compare two things at once: merged commits have an exit of their own.
 */
export async function primariesStage(
  stage: Stage,
  options: StageOptions & { readonly controller: string },
): Promise<void> {
  const { clients, controller, wanted } = options;
  const workload = eventsWorkload();
  const counts = PRIMARY_COUNTS.filter((count) => wanted.has(`primaries_${count}`));
  const servers = await Promise.all(Array.from({ length: Math.max(...counts) }, () => stage.scratch()));
  const over = async (count: number): Promise<SideLoad> => {
    const target = await shardedEvents(stage, servers.slice(0, count));
    return { targets: [target], workload, schema: '', clients: clients * count };
  };
  const one = await over(1);
  for (const count of counts) {
    stage.plans.push({
      ...{ id: `primaries_${count}`, place: 'scale model', with: await over(count) },
      // As many clients on both sides: with more of them batches are larger, and would be a gain of their own.
      without: { ...one, clients: clients * count },
    });
  }
  for (const server of servers) stage.cap(server, controller, PRIMARY_MODEL_SHARE);
}

/** A router over a new database on each of the servers, with `events` sharded over them. */
async function shardedEvents(stage: Stage, servers: readonly ScratchServer[]): Promise<Target> {
  const database = `over_${servers.length}`;
  for (const server of servers)
    await asSuperuser(targetOf(server), (client) => client.query(`CREATE DATABASE ${database}`));
  const nodes = servers.map((server, index) => ({
    name: `n${index + 1}`,
    dsn: `postgres://${SUPERUSER}@127.0.0.1:${server.port}/${database}`,
  }));
  const router = await startRouter({
    listen: { host: '127.0.0.1', port: 0 },
    database,
    nodes,
    // The last one: the first would carry every router's catalog, and be the slower for it.
    home: nodes.at(-1)!.name,
    users: [{ name: SUPERUSER, password: undefined }],
  });
  stage.keepRouter(router);
  const target = { ...loopback(router.port), database };
  await asSuperuser(target, (client) =>
    client.query(
      `CREATE TABLE events (id bigserial PRIMARY KEY, ts timestamptz DEFAULT now(), payload text)
       WITH (postern.door = 'sharded', postern.key = 'id')`,
    ),
  );
  return target;
}

function targetOf(server: ScratchServer): Target {
  return loopback(server.port);
}

function loopback(port: number): Target {
  return {
    ...{ host: '127.0.0.1', port, user: SUPERUSER, password: undefined, database: SUPERUSER },
    ...{ parameters: [], tls: undefined, connectTimeoutMs: CONNECT_TIMEOUT_MS },
  };
}

/** The point reads of the rows that a counters workload updates. */
function readsOf(counters: Workload): Workload {
  const [update] = counters.transactions;
  const script = update!.script.replace(/^UPDATE .*$/m, 'SELECT n FROM {schema}counters WHERE id = :id;');
  return {
    ...counters,
    ...{ name: 'reads', description: 'One row read by its key.', reads: true, writes: { rows: 0, bytes: 0 } },
    setup: [],
    transactions: [{ name: 'read', weight: 1, script }],
  };
}

async function createTables(server: ScratchServer, workload: Workload): Promise<void> {
  await asSuperuser(targetOf(server), async (client) => {
    for (const statement of workload.setup) await client.query(withSchema(statement, ''));
  });
}

/** ALTER SYSTEM, and until new sessions have it. Nothing is done when they have it already. */
async function setSystem(server: ScratchServer, settings: Readonly<Record<string, string>>): Promise<void> {
  await asSuperuser(targetOf(server), async (client) => {
    for (const [name, value] of Object.entries(settings)) {
      if ((await show(client, name)) === value) continue;
      await client.query(`ALTER SYSTEM SET ${name} = ${pg.escapeLiteral(value)}`);
      await client.query('SELECT pg_reload_conf()');
      const deadline = performance.now() + SETTLE_TIMEOUT_MS;
      while ((await show(client, name)) !== value) {
        if (performance.now() > deadline)
          throw new MeasureError(`the server did not take ${name} = ${value}`);
        await new Promise((resolve) => setTimeout(resolve, SETTLE_POLL_MS));
      }
    }
  });
}

async function show(client: pg.Client, name: string): Promise<string> {
  const { rows } = await client.query('SELECT current_setting($1) AS value', [name]);
  return String(rows[0]?.value);
}

async function asSuperuser<T>(target: Target, act: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({
    ...{ host: target.host, port: target.port, user: target.user, database: target.database, password: '' },
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    query_timeout: QUERY_TIMEOUT_MS,
  });
  // A server that goes away fails the query under way; it need not end the process, too.
  client.on('error', () => {});
  await client.connect();
  try {
    return await act(client);
  } finally {
    await client.end();
  }
}
