/** The server and the ways to it that are compared: direct, PgBouncer, the router with and without coalescing. */

import { withSchema } from '../../src/wall/workload/workload.ts';
import { startTestServer, type TestServer } from '../../test/support/servers.ts';
import { type RunningProcess, startPostern } from './child.ts';
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

interface Parts {
  readonly server: TestServer;
  readonly others: readonly RunningProcess[];
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
  private readonly others: readonly RunningProcess[];
  private readonly pgbouncerVersion: string | undefined;

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
      const beside = (name: string, process: RunningProcess, called: string): Endpoint => ({
        ...{ name, port: process.port, ...LOGIN },
        pids: { server: server.pid, [called]: process.pid },
      });
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
    for (const each of this.others) await each.stop();
    await this.server.stop();
  }
}
