/**
 * Nodes that die, freeze or are away, and two routers over one catalog: what was answered OK is there, what was not is told
 * as what it is, clients of other nodes notice nothing, and all go on afterwards.
 */
import { spawnSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { expect, it, onTestFinished } from 'vitest';
import { startRouter } from '../../src/cli/router.ts';
import { startTestCluster, type TestCluster, type TestClusterOptions } from '../support/router.ts';
import { connectClient, value } from '../support/router-clients.ts';
import type { TestServer } from '../support/servers.ts';

/** What a client may hear while a node goes down or comes up. None of them says that nothing was written if it was. */
const EXPECTED = new Set(['08001', '08006', '08007', '25P02', '57P01', '57P02', '57P03', '53300']);

async function startCluster(options: TestClusterOptions = {}): Promise<TestCluster> {
  const cluster = await startTestCluster(options);
  onTestFinished(() => cluster.stop());
  const client = await connectClient(cluster);
  await client.query('CREATE TABLE home (id int PRIMARY KEY)');
  await client.query(
    `CREATE TABLE events (id bigserial PRIMARY KEY, note text) WITH (postern.door = 'sharded', postern.key = 'id')`,
  );
  await client.end();
  return cluster;
}

/** Keys of `events` that live on the node. */
async function keysOn(cluster: TestCluster, node: number, from: number, count: number): Promise<number[]> {
  const admin = cluster.servers[node]!;
  const client = new pg.Client({ connectionString: admin.dsn({ database: 'app' }) });
  await client.connect();
  const { rows } = await client.query(
    `SELECT regexp_replace(relname, '^events_b([0-9]+)_g.*$', '\\1')::int AS bucket FROM pg_class
      WHERE relnamespace = 'postern_leaves'::regnamespace AND relname ~ '^events_b[0-9]+_g[0-9]+$' AND relkind = 'r'`,
  );
  const { rows: counted } = await client.query(
    `SELECT count(*)::int AS n FROM postern_internal.local_leaves`,
  );
  expect(counted[0].n).toBeGreaterThan(0);
  const buckets = rows.map((row) => Number(row.bucket));
  const bucketCount = await bucketsOf(cluster);
  const { rows: keys } = await client.query(
    `SELECT id::int FROM generate_series($1::bigint, $1::bigint + 20 * $2::bigint) AS id
      WHERE ((hashint8extended(id, 8816678312871386365)::numeric + 5305509591434766563 + 36893488147419103232) % 18446744073709551616) % $4
            = ANY ($3::int[]) LIMIT $2`,
    [from, count, buckets, bucketCount],
  );
  await client.end();
  return keys.map((row) => Number(row.id));
}

async function bucketsOf(cluster: TestCluster): Promise<number> {
  let count = 0;
  for (const server of cluster.servers) {
    const client = new pg.Client({ connectionString: server.dsn({ database: 'app' }) });
    await client.connect();
    const { rows } = await client.query(
      `SELECT count(*)::int AS n FROM pg_class WHERE relnamespace = 'postern_leaves'::regnamespace
        AND relname ~ '^events_b[0-9]+_g[0-9]+$' AND relkind = 'r'`,
    );
    count += rows[0].n;
    await client.end();
  }
  return count;
}

class Writer {
  readonly acknowledged: number[] = [];
  readonly unexpected: string[] = [];
  errors = 0;
  readonly #client: pg.Client;
  readonly #text: string;
  readonly #keys: Iterator<number>;
  #stopped = false;
  #loop: Promise<void> | undefined;

  constructor(client: pg.Client, text: string, keys: Iterable<number>) {
    this.#client = client;
    this.#text = text;
    this.#keys = keys[Symbol.iterator]();
  }

  start(): void {
    this.#loop = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#loop;
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const { value: key, done } = this.#keys.next();
      if (done) return;
      try {
        await this.#client.query(this.#text, [key]);
        this.acknowledged.push(key);
      } catch (error) {
        this.errors++;
        const { code, message } = error as { code?: string; message: string };
        if (!EXPECTED.has(code ?? '')) this.unexpected.push(`${code}: ${message}`);
        await sleep(5);
      }
    }
  }
}

function* counting(from: number): Generator<number> {
  for (let key = from; ; key++) yield key;
}

async function startWriters(cluster: TestCluster, count: number): Promise<Writer[]> {
  const writers: Writer[] = [];
  for (let i = 0; i < count; i++) {
    const text =
      i % 3 === 0 ? 'INSERT INTO home VALUES ($1)' : `INSERT INTO events (id, note) VALUES ($1, 'x')`;
    writers.push(new Writer(await connectClient(cluster), text, counting(i * 1_000_000 + 1)));
  }
  for (const writer of writers) writer.start();
  return writers;
}

async function progress(writers: readonly Writer[]): Promise<void> {
  const before = writers.map((writer) => writer.acknowledged.length);
  await expect
    .poll(() => writers.every((writer, i) => writer.acknowledged.length > before[i]! + 5), {
      timeout: 20_000,
    })
    .toBe(true);
}

/** All processes of the server. */
function signalServer(server: TestServer, signal: 'SIGSTOP' | 'SIGCONT'): void {
  const children = spawnSync('ps', ['-o', 'pid=', '--ppid', String(server.pid)]).stdout.toString();
  const pids = [server.pid, ...children.split(/\s+/).filter(Boolean).map(Number)];
  for (const pid of pids) {
    try {
      process.kill(pid, signal);
    } catch {
      // It has ended meanwhile.
    }
  }
}

it.each([
  ['another node', 1],
  ['the home node', 0],
])(
  'SIGKILL of %s under load loses nothing that was answered OK',
  { timeout: 120_000 },
  async (_which, node) => {
    const cluster = await startCluster({ durable: true });
    const writers = await startWriters(cluster, 12);
    await progress(writers);
    cluster.servers[node]!.kill();
    await expect.poll(() => writers.some((writer) => writer.errors > 0), { timeout: 20_000 }).toBe(true);
    await cluster.servers[node]!.restart();
    await progress(writers);
    await Promise.all(writers.map((writer) => writer.stop()));
    const reader = await connectClient(cluster);
    for (const [i, writer] of writers.entries()) {
      expect(writer.unexpected).toEqual([]);
      const table = i % 3 === 0 ? 'home' : 'events';
      const lost: number[] = [];
      for (const key of writer.acknowledged) {
        if ((await value(reader, `SELECT id::int FROM ${table} WHERE id = $1`, [key])) !== key)
          lost.push(key);
      }
      expect(lost).toEqual([]);
    }
  },
);

it('a backend that is ended from outside is one error, and the session goes on', async () => {
  const cluster = await startCluster();
  const client = await connectClient(cluster);
  for (const parameters of [undefined, [1]]) {
    const text = `SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(${parameters ? '$1' : '1'})`;
    expect(await value(client, text, parameters)).toMatch(/^!08/);
    expect(await value(client, 'SELECT 1')).toBe(1);
  }
  await client.query('BEGIN');
  await client.query('INSERT INTO home VALUES (1)');
  expect(await value(client, 'SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(1)')).toBe('!08006');
  expect(await value(client, 'SELECT 1')).toBe('!25P02');
  await client.query('ROLLBACK');
  expect(await value(client, 'SELECT count(*)::int FROM home')).toBe(0);
});

it('a frozen node makes its own statements wait, and nobody else', { timeout: 120_000 }, async () => {
  const cluster = await startCluster();
  const [there] = await keysOn(cluster, 1, 1, 1);
  const [here] = await keysOn(cluster, 0, 1, 1);
  const text = 'SELECT id::int FROM events WHERE id = $1';
  const client = await connectClient(cluster);
  const other = await connectClient(cluster);
  for (const key of [there, here]) await client.query('INSERT INTO events (id) VALUES ($1)', [key]);
  signalServer(cluster.servers[1]!, 'SIGSTOP');
  try {
    const waiting = value(client, text, [there]);
    for (let i = 0; i < 50; i++) {
      expect(await value(other, text, [here])).toBe(here);
      expect(await value(other, 'SELECT count(*)::int FROM home')).toBe(0);
    }
    // A new connection to it fails in bounded time, once those that there are are taken.
    const more = await Promise.all(Array.from({ length: 3 }, () => connectClient(cluster)));
    const answers = more.map((one) => value(one, text, [there]));
    expect(await Promise.race(answers)).toMatch(/^!08/);
    signalServer(cluster.servers[1]!, 'SIGCONT');
    expect([there, '!08006']).toContain(await waiting);
    await Promise.all(answers);
    for (const one of [client, ...more]) expect(await value(one, text, [there])).toBe(there);
  } finally {
    signalServer(cluster.servers[1]!, 'SIGCONT');
  }
});

it('without the home node, keyed statements of other nodes go on', { timeout: 120_000 }, async () => {
  const cluster = await startCluster();
  const keys = await keysOn(cluster, 1, 1_000_000, 40);
  const client = await connectClient(cluster);
  const named = { name: 'insert', text: 'INSERT INTO events (id, note) VALUES ($1, $2) RETURNING id::int' };
  await client.query({ ...named, values: [keys.pop(), 'before'] });
  await client.query(`INSERT INTO events (note) VALUES ('before')`);
  cluster.servers[0]!.kill();
  await expect.poll(() => value(client, 'SELECT count(*) FROM home'), { timeout: 20_000 }).toMatch(/^!08/);
  for (const key of keys.splice(0, 20)) {
    expect((await client.query({ ...named, values: [key, 'alone'] })).rows).toEqual([{ id: key }]);
    expect(await value(client, `SELECT note FROM events WHERE id = ${key}`)).toBe('alone');
  }
  // Ids come from the leased block; those that fall on the home node can't be written now.
  const answers: unknown[] = [];
  for (let i = 0; i < 20; i++)
    answers.push(await value(client, `INSERT INTO events (note) VALUES ('leased') RETURNING 'written'`));
  expect(new Set(answers.map((answer) => (String(answer).startsWith('!08') ? 'away' : answer)))).toEqual(
    new Set(['written', 'away']),
  );
  const another = await connectClient(cluster);
  expect(await value(another, `SELECT note FROM events WHERE id = ${keys[0]}`)).toBeUndefined();
  await cluster.servers[0]!.restart();
  await expect.poll(() => value(client, 'SELECT count(*)::int FROM home'), { timeout: 20_000 }).toBe(0);
});

it('two routers see each other’s tables come and go, and never write into the void', {
  timeout: 120_000,
}, async () => {
  const cluster = await startCluster();
  const second = await startRouter({ ...cluster.routerOptions, listen: { host: '127.0.0.1', port: 0 } });
  onTestFinished(() => second.close());
  const through = (port: number) => ({ dsn: (user = 'app') => `postgres://${user}@127.0.0.1:${port}/app` });
  const maker = await connectClient(cluster);
  const writers = await Promise.all([0, 1, 2].map(() => connectClient(through(second.port))));
  const create = (buckets: number) =>
    maker.query(
      `CREATE TABLE moving (id int PRIMARY KEY, note text) WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = ${buckets})`,
    );
  await create(4);
  await expect
    .poll(() => value(writers[0]!, 'SELECT count(*) FROM moving WHERE id = 1'), {
      timeout: 1_000,
      interval: 20,
    })
    .toBe('0');
  let key = 0;
  let madeAt = performance.now();
  let written: { key: number; atMs: number }[] = [];
  const outcomes = new Set<string>();
  let stopped = false;
  const loops = writers.map(async (writer, i) => {
    while (!stopped) {
      const mine = ++key;
      const atMs = performance.now();
      const answer = await value(
        writer,
        i === 0
          ? `INSERT INTO moving VALUES (${mine}, 'x') RETURNING 'ok'`
          : `INSERT INTO moving VALUES ($1, 'x') RETURNING 'ok'`,
        i === 0 ? undefined : [mine],
      );
      outcomes.add(String(answer));
      if (answer === 'ok') written.push({ key: mine, atMs });
    }
  });
  for (let round = 1; round <= 6; round++) {
    await maker.query('DROP TABLE moving');
    written = [];
    await create(4 + (round % 3));
    madeAt = performance.now();
    const since = () => written.filter(({ atMs }) => atMs > madeAt);
    await expect.poll(() => since().length > 20, { timeout: 20_000 }).toBe(true);
    const checked = since();
    for (const one of checked)
      expect(await value(maker, 'SELECT id FROM moving WHERE id = $1', [one.key])).toBe(one.key);
  }
  stopped = true;
  await Promise.all(loops);
  // 42501: while it is being made or dropped, nobody has a right to the empty stand-in on the home node.
  for (const outcome of outcomes) expect(['ok', '!40001', '!42P01', '!42501']).toContain(outcome);
});
