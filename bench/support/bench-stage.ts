/** The server and the ways to it that are compared: direct, PgBouncer, the router with and without coalescing. */

import { withSchema } from '../../src/wall/workload/workload.ts';
import { startTestServer, type TestServer } from '../../test/support/servers.ts';
import { CROWDED_NAME, IDLE_CLIENTS, workersName } from './bench-ratios.ts';
import { type RunningProcess, startPostern } from './child.ts';
import { connectIdleClients, type IdleClients } from './idle-clients.ts';
import { findPgbench, type Pgbench } from './pgbench.ts';
import { startPgBouncer } from './pgbouncer.ts';
import { type Endpoint, Generators } from './point.ts';
import { INSERTS, insertsWithDuplicates, UPDATES } from './workloads.ts';

const LOGIN = { user: 'postgres', database: 'postgres' };
const CLIENTS_MAX = 600;
const SHOWN_SETTINGS = [
  'server_version',
  'fsync',
  'synchronous_commit',
  'wal_sync_method',
  'wal_level',
].concat(['full_page_writes', 'shared_buffers', 'max_wal_size', 'max_connections', 'autovacuum']);

export interface Crowded {
  readonly endpoint: Endpoint;
  readonly idle: IdleClients;
}

interface Parts {
  readonly server: TestServer;
  readonly others: RunningProcess[];
  readonly direct: Endpoint;
  readonly router: Endpoint;
  readonly passing: Endpoint;
  readonly pgbouncer: Endpoint | undefined;
  readonly pgbouncerVersion: string | undefined;
}

export class BenchStage {
  readonly generators = new Generators();
  readonly pgbench: Pgbench | undefined = findPgbench();
  readonly server: TestServer;
  readonly direct: Endpoint;
  /** Commits merged. */
  readonly router: Endpoint;
  /** Every statement passed on by itself. */
  readonly passing: Endpoint;
  readonly pgbouncer: Endpoint | undefined;
  private readonly others: RunningProcess[];
  private readonly pgbouncerVersion: string | undefined;
  private readonly routersByWorkers = new Map<number, Promise<Endpoint>>();
  private crowded: Promise<Crowded> | undefined;

  private constructor(parts: Parts) {
    this.server = parts.server;
    this.others = parts.others;
    this.direct = parts.direct;
    this.router = parts.router;
    this.passing = parts.passing;
    this.pgbouncer = parts.pgbouncer;
    this.pgbouncerVersion = parts.pgbouncerVersion;
  }

  static async start(): Promise<BenchStage> {
    const server = await startTestServer({
      durable: true,
      // A checkpoint that falls into one point and not into its neighbour would decide between them.
      settings: {
        max_connections: '700',
        shared_buffers: '512MB',
        max_wal_size: '8GB',
        wal_level: 'replica',
      },
    });
    const others: RunningProcess[] = [];
    try {
      const workloads = [INSERTS.workload, UPDATES.workload, insertsWithDuplicates(1).workload];
      for (const statement of workloads.flatMap(({ setup }) => setup))
        await server.query(withSchema(statement, ''));
      const start = async (...args: string[]): Promise<RunningProcess> => {
        const started = await startPostern({ args: ['front', server.dsn(), ...args] });
        others.push(started);
        return started;
      };
      const merging = await start();
      const passing = await start('--no-coalesce');
      const pgbouncer = await startPgBouncer({ ...LOGIN, port: server.port, clientsMax: CLIENTS_MAX });
      if (pgbouncer !== undefined) others.push(pgbouncer);
      const beside = (name: string, process: RunningProcess, called: string): Endpoint =>
        endpointBeside({ server, process, name, called });
      return new BenchStage({
        ...{ server, others },
        direct: { name: 'direct', port: server.port, ...LOGIN, pids: { server: server.pid } },
        router: beside('postern', merging, 'router'),
        passing: beside('postern, alone', passing, 'router'),
        pgbouncer: pgbouncer && beside('pgbouncer', pgbouncer, 'pgbouncer'),
        pgbouncerVersion: pgbouncer?.version,
      });
    } catch (error) {
      for (const each of others) await each.stop();
      await server.stop();
      throw error;
    }
  }

  /** A router of its own for each number of workers, from when it is first asked for. */
  routerWithWorkers(workers: number): Promise<Endpoint> {
    let started = this.routersByWorkers.get(workers);
    if (started === undefined) {
      started = this.startRouter(workersName(workers), workers).then(({ endpoint }) => endpoint);
      this.routersByWorkers.set(workers, started);
    }
    return started;
  }

  /** A router of its own that thousands of idle clients are connected to, from when it is first asked for. */
  crowdedRouter(): Promise<Crowded> {
    this.crowded ??= this.startCrowdedRouter();
    return this.crowded;
  }

  private async startCrowdedRouter(): Promise<Crowded> {
    const { endpoint, router } = await this.startRouter(CROWDED_NAME, 1);
    const idle = await connectIdleClients({ router, endpoint, count: IDLE_CLIENTS });
    this.others.push({ ...router, stop: idle.stop });
    // What the logins left behind is collected before anything is measured.
    await this.warmUpRouter(endpoint);
    return { endpoint, idle };
  }

  private async startRouter(
    name: string,
    workers: number,
  ): Promise<{ endpoint: Endpoint; router: RunningProcess }> {
    const { server } = this;
    const router = await startPostern({ args: ['front', server.dsn()], workers });
    this.others.push(router);
    const endpoint = endpointBeside({ server, process: router, name, called: 'router' });
    await this.warmUpRouter(endpoint);
    return { router, endpoint };
  }

  /** It is compared with routers that have long compiled their code. */
  private async warmUpRouter(endpoint: Endpoint): Promise<void> {
    await this.generators.measure(endpoint, {
      ...{ workload: INSERTS.workload, protocol: 'prepared', clients: 64, warmupMs: 300, windowMs: 700 },
    });
  }

  get notes(): string[] {
    return [
      ...(this.pgbouncer ? [] : ['no PgBouncer on this machine: bench/setup.sh installs it']),
      ...(this.pgbench ? [] : ['no pgbench on this machine: bench/setup.sh installs it']),
    ];
  }

  async setting(): Promise<Record<string, string>> {
    const rows = await this.server.query(
      `SELECT name, current_setting(name) AS value FROM unnest('{${SHOWN_SETTINGS.join()}}'::text[]) AS name`,
    );
    return {
      ...Object.fromEntries(rows.map(({ name, value }) => [String(name), String(value)])),
      ...(this.pgbouncerVersion && { pgbouncer: this.pgbouncerVersion }),
      ...(this.pgbench && { pgbench: this.pgbench.version }),
    };
  }

  async stop(): Promise<void> {
    await this.generators.close();
    // The latest first: clients before what they are connected to.
    for (const each of [...this.others].reverse()) await each.stop();
    await this.server.stop();
  }
}

function endpointBeside(options: {
  server: TestServer;
  process: RunningProcess;
  name: string;
  /** The process, in the figures. */
  called: string;
}): Endpoint {
  const { server, process, name, called } = options;
  return { name, port: process.port, ...LOGIN, pids: { server: server.pid, [called]: process.pid } };
}
