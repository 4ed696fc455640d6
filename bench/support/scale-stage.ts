/**
 * The scale model: eight primaries on one machine, each capped to the same small share of a core, and routers over the
 * first one, two, four and eight of them. Each router has a database of its own on its servers, so that all are there at
 * the same time and can be measured in turn; those that are not measured are idle.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import pg from 'pg';
import { CpuQuota } from '../../src/embedded/cpu-quota.ts';
import { countersWorkload, eventsWorkload, type Workload } from '../../src/wall/workload/workload.ts';
import { startTestServer, type TestServer } from '../../test/support/servers.ts';
import { type RunningProcess, startPostern } from './child.ts';
import { type Endpoint, Generators, type Load } from './point.ts';

export const CLIENTS_PER_PRIMARY = 64;
const COUNTERS_PER_PRIMARY = 20_000;
const SETTINGS = {
  ...{ max_connections: '200', shared_buffers: '128MB', wal_level: 'replica', max_wal_size: '4GB' },
  // Their turn would fall into one point and not into its neighbour, and a capped server is slow to end them.
  ...{ autovacuum: 'off', checkpoint_timeout: '1h' },
};

export interface ScaledCluster {
  readonly primaries: number;
  readonly endpoint: Endpoint;
  readonly inserts: Workload;
  readonly updates: Workload;
}

export class ScaleStage {
  readonly generators = new Generators();
  readonly clusters: ScaledCluster[] = [];
  private readonly servers: TestServer[] = [];
  private readonly routers: RunningProcess[] = [];
  private readonly quotas: CpuQuota[] = [];
  private readonly directory = mkdtempSync(path.join(tmpdir(), 'postern-bench-scale-'));

  private constructor() {
    process.on('exit', () => rmSync(this.directory, { recursive: true, force: true }));
  }

  static async start(options: {
    primaryCounts: readonly number[];
    controller: string;
    /** Of one core, to each primary. */
    share: number;
  }): Promise<ScaleStage> {
    const stage = new ScaleStage();
    try {
      await stage.startServers(Math.max(...options.primaryCounts));
      for (const primaries of options.primaryCounts) await stage.startCluster(primaries);
      await stage.warmUp();
      await Promise.all(stage.servers.map((server) => server.query('CHECKPOINT')));
      for (const [index, server] of stage.servers.entries()) {
        const quota = new CpuQuota({
          ...{ directory: options.controller, name: `n${index + 1}`, share: options.share },
        });
        stage.quotas.push(quota);
        quota.add(server.pid);
      }
      return stage;
    } catch (error) {
      await stage.stop();
      throw error;
    }
  }

  async stop(): Promise<void> {
    await this.generators.close();
    for (const router of this.routers) await router.stop();
    await Promise.all(this.servers.map((server) => server.stop()));
    for (const quota of this.quotas) quota.remove();
  }

  /** Before the caps: catalogs are read, plans made and statements prepared, on all connections. */
  private async warmUp(): Promise<void> {
    for (const { endpoint, inserts, updates, primaries } of this.clusters) {
      for (const workload of [inserts, updates]) {
        const clients = CLIENTS_PER_PRIMARY * primaries;
        const load: Load = { workload, protocol: 'prepared', clients, warmupMs: 100, windowMs: 400 };
        await this.generators.measure(endpoint, load);
      }
    }
  }

  private async startServers(count: number): Promise<void> {
    const started = await Promise.allSettled(
      Array.from({ length: count }, () => startTestServer({ durable: true, settings: SETTINGS })),
    );
    for (const result of started) if (result.status === 'fulfilled') this.servers.push(result.value);
    for (const result of started) if (result.status === 'rejected') throw result.reason;
  }

  private async startCluster(primaries: number): Promise<void> {
    const servers = this.servers.slice(0, primaries);
    const database = `scale_${primaries}`;
    await Promise.all(servers.map((server) => server.query(`CREATE DATABASE ${database}`)));
    const configuration = path.join(this.directory, `${database}.yaml`);
    const nodes = servers.map((server, index) => ({ name: `n${index + 1}`, dsn: server.dsn({ database }) }));
    const users = [{ name: 'postgres', trust: true }];
    // The last one is home: else the first server would carry every router's catalog, and be the slower for it.
    const home = `n${primaries}`;
    // JSON is YAML.
    writeFileSync(configuration, JSON.stringify({ database: 'bench', home, nodes, users }));
    const router = await startPostern({ args: ['serve', '-c', configuration] });
    this.routers.push(router);
    const rows = COUNTERS_PER_PRIMARY * primaries;
    await createTables(router.port);
    await Promise.all(servers.map((server) => fillCounters(server.dsn({ database }), rows)));
    this.clusters.push({
      primaries,
      endpoint: {
        ...{ name: `primaries: ${primaries}`, port: router.port, user: 'postgres', database: 'bench' },
        pids: { servers: servers.map(({ pid }) => pid), router: router.pid },
      },
      inserts: { ...eventsWorkload(), name: 'A' },
      updates: { ...countersWorkload({ rows }), name: 'B' },
    });
  }
}

async function createTables(port: number): Promise<void> {
  const client = new pg.Client({ host: '127.0.0.1', port, user: 'postgres', database: 'bench' });
  await client.connect();
  try {
    await client.query(
      `CREATE TABLE events (id bigserial PRIMARY KEY, ts timestamptz DEFAULT now(), payload text)
       WITH (postern.door = 'sharded', postern.key = 'id')`,
    );
    await client.query(
      `CREATE TABLE counters (id bigint PRIMARY KEY, n bigint NOT NULL DEFAULT 0)
       WITH (postern.door = 'sharded', postern.key = 'id')`,
    );
  } finally {
    await client.end();
  }
}

/** Each leaf says by its CHECK which rows are its own. Past the router, since a hundred thousand rows by one would take long. */
async function fillCounters(dsn: string, rows: number): Promise<void> {
  const client = new pg.Client({ connectionString: dsn });
  await client.connect();
  try {
    const leaves: pg.QueryResult<{ leaf: string; own: string }> = await client.query(
      `SELECT conrelid::regclass::text AS leaf, pg_get_expr(conbin, conrelid) AS own
       FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
       WHERE contype = 'c' AND relnamespace = 'postern_leaves'::regnamespace AND relname ~ '^counters_b'`,
    );
    if (leaves.rows.length === 0) throw new Error('a primary has no leaves of counters');
    for (const { leaf, own } of leaves.rows) {
      await client.query(`ALTER TABLE ${leaf} SET (fillfactor = 50)`);
      await client.query(
        `INSERT INTO ${leaf} (id) SELECT id FROM generate_series(1::bigint, ${rows}) AS id WHERE ${own}`,
      );
      await client.query(`ANALYZE ${leaf}`);
    }
  } finally {
    await client.end();
  }
}
