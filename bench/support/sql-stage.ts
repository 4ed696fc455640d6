/**
 * Four durable servers, and over one, two and four of them a router each, with databases of their own; beside them, on the
 * first server, one database without a router. All hold the same rows.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { finished } from 'node:stream/promises';
import pg from 'pg';
import copyStreams from 'pg-copy-streams';
import { CpuQuota, findCpuController } from '../../src/embedded/cpu-quota.ts';
import { startTestServer, type TestServer } from '../../test/support/servers.ts';
import { type RunningProcess, startPostern } from './child.ts';
import type { Figures } from './point.ts';
import { perTransaction } from './point.ts';
import { type CountedPids, ObservedWindow } from './window.ts';

const SETTINGS = {
  ...{ max_connections: '200', max_prepared_transactions: '100', shared_buffers: '128MB' },
  ...{ wal_level: 'replica', max_wal_size: '8GB', checkpoint_timeout: '1h' },
};
const COLUMNS =
  'device int NOT NULL, at int8 NOT NULL, kind int NOT NULL, value float8 NOT NULL, note text, PRIMARY KEY (device, at)';
const DEVICES = 1_000;
const CHUNK_BYTES = 64 * 1024;
const MEGABYTE = 1_000_000;

/** Where a query is asked, and who works on it. */
export interface SqlEndpoint {
  readonly name: string;
  readonly client: pg.Client;
  readonly pids: CountedPids;
  readonly nodes: number;
}

export class SqlStage {
  readonly servers: readonly TestServer[];
  readonly direct: SqlEndpoint;
  /** By number of nodes. */
  readonly clusters: readonly SqlEndpoint[];
  readonly rowCount: number;
  /** The rows as COPY reads them. */
  readonly rows: readonly Buffer[];
  /** Why servers can't be capped; undefined: they can. */
  readonly cannotCap: string | undefined;
  private readonly quotas: readonly CpuQuota[];
  private readonly routers: readonly RunningProcess[];

  private constructor(parts: {
    servers: readonly TestServer[];
    direct: SqlEndpoint;
    clusters: readonly SqlEndpoint[];
    routers: readonly RunningProcess[];
    rowCount: number;
  }) {
    this.servers = parts.servers;
    this.direct = parts.direct;
    this.clusters = parts.clusters;
    this.routers = parts.routers;
    this.rowCount = parts.rowCount;
    this.rows = textRows(parts.rowCount);
    const controller = findCpuController();
    this.cannotCap = 'missing' in controller ? controller.missing : undefined;
    this.quotas =
      'missing' in controller
        ? []
        : parts.servers.map((server, index) => {
            const name = `n${index + 1}`;
            const quota = new CpuQuota({
              directory: controller.directory,
              name,
              share: Number.POSITIVE_INFINITY,
            });
            quota.add(server.pid);
            return quota;
          });
  }

  static async start(options: { nodeCounts: readonly number[]; rowCount: number }): Promise<SqlStage> {
    const { nodeCounts, rowCount } = options;
    const servers = await Promise.all(
      Array.from({ length: Math.max(...nodeCounts) }, () =>
        startTestServer({ durable: true, settings: SETTINGS }),
      ),
    );
    const routers: RunningProcess[] = [];
    try {
      const [first] = servers;
      await first!.query('CREATE DATABASE direct');
      const direct = await connect(first!.port, 'direct');
      await direct.query(`CREATE TABLE readings (${COLUMNS}); CREATE TABLE copied (${COLUMNS})`);
      const clusters: SqlEndpoint[] = [];
      for (const count of nodeCounts) {
        const own = servers.slice(0, count);
        for (const server of own) await server.query(`CREATE DATABASE over_${count}`);
        const router = await startPostern({ args: ['serve', '-c', writeConfiguration(own, count)] });
        routers.push(router);
        const client = await connect(router.port, 'bench');
        for (const table of ['readings', 'copied'])
          await client.query(
            `CREATE TABLE ${table} (${COLUMNS}) WITH (postern.door = 'sharded', postern.key = 'device', postern.buckets = 16)`,
          );
        const pids = { servers: own.map(({ pid }) => pid), router: router.pid };
        clusters.push({ name: count === 1 ? '1 node' : `${count} nodes`, client, pids, nodes: count });
      }
      const endpoint = { name: 'one PostgreSQL', client: direct, pids: { servers: first!.pid }, nodes: 1 };
      const stage = new SqlStage({ servers, direct: endpoint, clusters, routers, rowCount });
      await stage.fill();
      return stage;
    } catch (error) {
      for (const router of routers) await router.stop();
      for (const server of servers) await server.stop();
      throw error;
    }
  }

  get all(): readonly SqlEndpoint[] {
    return [this.direct, ...this.clusters];
  }

  private async fill(): Promise<void> {
    for (const endpoint of this.all) await this.copyIn(endpoint, 'readings');
    for (const server of this.servers) {
      const databases = await server.query(
        `SELECT datname FROM pg_database WHERE datname ~ '^(direct|over_[0-9]+)$'`,
      );
      for (const { datname } of databases) {
        const client = await connect(server.port, String(datname));
        await client.query('VACUUM ANALYZE');
        await client.end();
      }
    }
  }

  /** COPY of all rows into an empty table, once: megabytes a second. */
  async loaded(endpoint: SqlEndpoint): Promise<Figures> {
    await endpoint.client.query('TRUNCATE copied');
    const bytes = this.rows.reduce((sum, chunk) => sum + chunk.length, 0);
    return await figuresOf(endpoint, { workload: 'COPY FROM', unit: 'MB/s' }, async () => {
      await this.copyIn(endpoint, 'copied');
      return bytes / MEGABYTE;
    });
  }

  /** COPY of all rows to the client. */
  async unloaded(endpoint: SqlEndpoint): Promise<Figures> {
    return await figuresOf(endpoint, { workload: 'COPY TO', unit: 'MB/s' }, async () => {
      const stream = endpoint.client.query(copyStreams.to('COPY readings TO STDOUT'));
      let bytes = 0;
      stream.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
      });
      await finished(stream);
      return bytes / MEGABYTE;
    });
  }

  /** One client that sends the query again and again: rows read a second. */
  async read(
    endpoint: SqlEndpoint,
    query: { name: string; text: string; windowMs: number },
  ): Promise<Figures> {
    const { name, text, windowMs } = query;
    // The first one makes connections and plans.
    await endpoint.client.query(text);
    return await figuresOf(endpoint, { workload: name, unit: 'krows/s' }, async (took) => {
      const end = performance.now() + windowMs;
      let rows = 0;
      while (performance.now() < end) {
        const began = performance.now();
        await endpoint.client.query(text);
        took.push(performance.now() - began);
        rows += this.rowCount / 1_000;
      }
      return rows;
    });
  }

  /** The same while each server has this share of a core. */
  async readCapped(
    endpoint: SqlEndpoint,
    query: { name: string; text: string; windowMs: number },
    share: number,
  ): Promise<Figures> {
    for (const quota of this.quotas) quota.set(share);
    try {
      return await this.read(endpoint, query);
    } finally {
      for (const quota of this.quotas) quota.set(Number.POSITIVE_INFINITY);
    }
  }

  async checkpoint(): Promise<void> {
    await Promise.all(this.servers.map((server) => server.query('CHECKPOINT')));
  }

  async setting(): Promise<Record<string, string>> {
    const names = ['server_version', 'fsync', 'synchronous_commit', 'max_parallel_workers_per_gather'];
    const rows = await this.servers[0]!.query(
      `SELECT name, current_setting(name) AS value FROM unnest('{${[...names, ...Object.keys(SETTINGS)].join()}}'::text[]) AS name`,
    );
    const settings = Object.fromEntries(rows.map(({ name, value }) => [String(name), String(value)]));
    return { ...settings, rows: String(this.rowCount) };
  }

  async stop(): Promise<void> {
    for (const { client } of this.all) await client.end().catch(() => {});
    for (const router of this.routers) await router.stop();
    await Promise.all(this.servers.map((server) => server.stop()));
    for (const quota of this.quotas) quota.remove();
  }

  private async copyIn({ client }: SqlEndpoint, table: string): Promise<void> {
    const stream = client.query(copyStreams.from(`COPY ${table} FROM STDIN`));
    for (const chunk of this.rows)
      if (!stream.write(chunk)) await new Promise((resolve) => stream.once('drain', resolve));
    stream.end();
    await finished(stream);
  }
}

/** `work` gives how many units it did; the times of single statements go into its argument. */
async function figuresOf(
  { pids }: SqlEndpoint,
  what: { workload: string; unit: string },
  work: (tookMs: number[]) => Promise<number>,
): Promise<Figures> {
  const { workload, unit } = what;
  const window = new ObservedWindow(pids);
  const tookMs: number[] = [];
  window.open();
  const began = performance.now();
  const done = await work(tookMs);
  const elapsedMs = performance.now() - began;
  window.close();
  const { cpuSeconds, steal, others } = window.circumstances();
  const sorted = (tookMs.length > 0 ? tookMs : [elapsedMs]).sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!;
  return {
    ...{ tool: 'client', workload, unit, protocol: 'simple', clients: 1, tps: (done * 1_000) / elapsedMs },
    ...{ failedPerSecond: 0, p50Ms: at(0.5), p99Ms: at(0.99), errors: {}, steal, others, clientBound: false },
    cpuUs: perTransaction(cpuSeconds, done),
  };
}

function textRows(count: number): Buffer[] {
  const chunks: Buffer[] = [];
  let text = '';
  for (let i = 0; i < count; i++) {
    text += `${1 + (i % DEVICES)}\t${1_700_000_000_000 + i}\t${i % 20}\t${(i % 9_973) / 7}\treading number ${i} of a device\n`;
    if (text.length < CHUNK_BYTES && i + 1 < count) continue;
    chunks.push(Buffer.from(text));
    text = '';
  }
  return chunks;
}

function writeConfiguration(servers: readonly TestServer[], count: number): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'postern-bench-sql-'));
  process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
  const configuration = path.join(directory, 'cluster.yaml');
  const nodes = servers.map((server, index) => ({
    ...{ name: `n${index + 1}`, dsn: server.dsn({ database: `over_${count}` }) },
  }));
  const users = [{ name: 'postgres', trust: true }];
  // JSON is YAML.
  writeFileSync(configuration, JSON.stringify({ database: 'bench', home: 'n1', nodes, users }));
  return configuration;
}

async function connect(port: number, database: string): Promise<pg.Client> {
  const client = new pg.Client({ host: '127.0.0.1', port, user: 'postgres', database });
  await client.connect();
  return client;
}
