/**
 * Two durable servers, one router over both, and a table that is sharded by tenant, with tenants on each node; beside it,
 * in a database of its own on the first server, the same table without a router.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import pg from 'pg';
import { startTestServer, type TestServer } from '../../test/support/servers.ts';
import { type RunningProcess, startPostern } from './child.ts';
import { type Endpoint, Generators } from './point.ts';
import { ROWS_PER_TENANT, type Tenants } from './txn-workloads.ts';

const TENANTS_PER_NODE = 4;
const TENANT_MAX = 200;
const SETTINGS = {
  ...{ max_connections: '200', max_prepared_transactions: '200', shared_buffers: '256MB' },
  ...{ wal_level: 'replica', max_wal_size: '8GB', checkpoint_timeout: '1h' },
};
const COLUMNS = 'tenant int NOT NULL, id int NOT NULL, n bigint NOT NULL DEFAULT 0, PRIMARY KEY (tenant, id)';
const CLEANED_TIMEOUT_MS = 20_000;
const POLL_MS = 50;

export class TxnStage {
  readonly generators = new Generators();
  readonly servers: readonly TestServer[];
  readonly configuration: string;
  readonly tenants: Tenants;
  readonly direct: Endpoint;
  readonly router: Endpoint;
  private readonly process: RunningProcess;

  private constructor(parts: {
    servers: readonly TestServer[];
    configuration: string;
    tenants: Tenants;
    process: RunningProcess;
  }) {
    const { servers, configuration, tenants, process } = parts;
    this.servers = servers;
    this.configuration = configuration;
    this.tenants = tenants;
    this.process = process;
    const pids = { servers: servers.map(({ pid }) => pid) };
    this.direct = {
      ...{ name: 'direct', port: servers[0]!.port, user: 'postgres', database: 'direct', pids },
    };
    this.router = {
      ...{ name: 'postern', port: process.port, user: 'postgres', database: 'bench' },
      pids: { ...pids, router: process.pid },
    };
  }

  static async start(): Promise<TxnStage> {
    const started = await Promise.allSettled(
      [1, 2].map(() => startTestServer({ durable: true, settings: SETTINGS })),
    );
    const servers = started.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
    let router: RunningProcess | undefined;
    try {
      for (const each of started) if (each.status === 'rejected') throw each.reason;
      for (const server of servers) await server.query('CREATE DATABASE cluster');
      await servers[0]!.query('CREATE DATABASE direct');
      const configuration = writeConfiguration(servers);
      router = await startPostern({ args: ['serve', '-c', configuration] });
      await run({ port: router.port, database: 'bench' }, [
        `CREATE TABLE counters (${COLUMNS}) WITH (postern.door = 'sharded', postern.key = 'tenant')`,
      ]);
      const tenants = await Promise.all(servers.map(fillLeaves));
      await run({ port: servers[0]!.port, database: 'direct' }, [
        `CREATE TABLE counters (${COLUMNS}) WITH (fillfactor = 50)`,
        ...tenants[0]!.map((tenant) => rowsOf('counters', tenant)),
        'ANALYZE counters',
      ]);
      return new TxnStage({ servers, configuration, tenants, process: router });
    } catch (error) {
      await router?.stop();
      for (const server of servers) await server.stop();
      throw error;
    }
  }

  /** Until the router has cleared away what is left of transactions over several nodes, which it does seconds after them. */
  async cleaned(): Promise<void> {
    const deadline = performance.now() + CLEANED_TIMEOUT_MS;
    for (const server of this.servers) {
      const client = new pg.Client({ connectionString: server.dsn({ database: 'cluster' }) });
      await client.connect();
      try {
        while (await hasRows(client)) {
          if (performance.now() > deadline) throw new Error('marks and decisions are not cleared away');
          await new Promise((resolve) => setTimeout(resolve, POLL_MS));
        }
      } finally {
        await client.end();
      }
    }
  }

  async checkpoint(): Promise<void> {
    await Promise.all(this.servers.map((server) => server.query('CHECKPOINT')));
  }

  async setting(): Promise<Record<string, string>> {
    const names = ['server_version', 'fsync', 'synchronous_commit', ...Object.keys(SETTINGS)];
    const rows = await this.servers[0]!.query(
      `SELECT name, current_setting(name) AS value FROM unnest('{${names.join()}}'::text[]) AS name`,
    );
    return Object.fromEntries(rows.map(({ name, value }) => [String(name), String(value)]));
  }

  async stop(): Promise<void> {
    await this.generators.close();
    await this.process.stop();
    await Promise.all(this.servers.map((server) => server.stop()));
  }
}

function writeConfiguration(servers: readonly TestServer[]): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'postern-bench-txn-'));
  process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
  const configuration = path.join(directory, 'cluster.yaml');
  const nodes = servers.map((server, index) => ({
    ...{ name: `n${index + 1}`, dsn: server.dsn({ database: 'cluster' }) },
  }));
  // The last one is home: else the first, which stands against itself without a router, would carry the catalog as well.
  const home = nodes.at(-1)!.name;
  // JSON is YAML.
  writeFileSync(
    configuration,
    JSON.stringify({ database: 'bench', home, nodes, users: [{ name: 'postgres', trust: true }] }),
  );
  return configuration;
}

/** Each leaf says by its CHECK which tenants are its own: one of them, of as many leaves as are wanted, gets rows. */
async function fillLeaves(server: TestServer): Promise<number[]> {
  const tenants: number[] = [];
  const client = new pg.Client({ connectionString: server.dsn({ database: 'cluster' }) });
  await client.connect();
  try {
    const leaves: pg.QueryResult<{ leaf: string; own: string }> = await client.query(
      `SELECT conrelid::regclass::text AS leaf, pg_get_expr(conbin, conrelid) AS own
       FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
       WHERE contype = 'c' AND relnamespace = 'postern_leaves'::regnamespace ORDER BY 1`,
    );
    for (const { leaf, own } of leaves.rows) {
      if (tenants.length === TENANTS_PER_NODE) break;
      const found: pg.QueryResult<{ tenant: number }> = await client.query(
        `SELECT tenant FROM generate_series(1, ${TENANT_MAX}) AS tenant WHERE ${own} LIMIT 1`,
      );
      const [row] = found.rows;
      if (row === undefined) continue;
      tenants.push(row.tenant);
      await client.query(`ALTER TABLE ${leaf} SET (fillfactor = 50)`);
      await client.query(rowsOf(leaf, row.tenant));
      await client.query(`ANALYZE ${leaf}`);
    }
  } finally {
    await client.end();
  }
  if (tenants.length < TENANTS_PER_NODE) throw new Error('a node has too few leaves');
  return tenants;
}

function rowsOf(table: string, tenant: number): string {
  return `INSERT INTO ${table} (tenant, id) SELECT ${tenant}, id FROM generate_series(1, ${ROWS_PER_TENANT}) AS id`;
}

async function hasRows(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query(
    `SELECT EXISTS (SELECT FROM postern_internal.transaction_marks)
         OR EXISTS (SELECT FROM postern_internal.decisions) AS found`,
  );
  return rows[0].found;
}

async function run(target: { port: number; database: string }, statements: readonly string[]): Promise<void> {
  const client = new pg.Client({ host: '127.0.0.1', user: 'postgres', ...target });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}
