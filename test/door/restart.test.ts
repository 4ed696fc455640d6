/** Workers that are replaced while clients are at work (src/session/HANDOVER.md): none of them notices. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { workerOf } from '../../src/session/session-ids.ts';
import { makeCertificates } from '../support/certificates.ts';
import { RawClient } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { RouterProcess, until } from '../support/router-process.ts';

const PGBENCH = '/usr/lib/postgresql/15/bin/pgbench';
const LOAD_SECONDS = 5;
const RESTARTS = 3;

let cluster: TestCluster;
let router: RouterProcess;
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'postern-restart-'));
  const { server } = await makeCertificates(directory);
  cluster = await startTestCluster();
  const client = new pg.Client(cluster.dsn());
  await client.connect();
  await client.query(`
    CREATE TABLE accounts (id int8 PRIMARY KEY, n int8 NOT NULL DEFAULT 0)
      WITH (postern.door = 'sharded', postern.key = 'id')`);
  await client.query(`
    CREATE TABLE events (account int8 NOT NULL, id bigserial, by text NOT NULL, PRIMARY KEY (account, id))
      WITH (postern.door = 'sharded', postern.key = 'account')`);
  await client.query('INSERT INTO accounts (id) SELECT generate_series(1, 100)');
  await client.query('CREATE SCHEMA other; CREATE TABLE other.kept (id int)');
  await client.end();
  router = await RouterProcess.start(cluster.routerOptions.nodes, {
    workers: 2,
    drain: { timeout: '2s' },
    tls: { certificate_file: server.certificate, key_file: server.key },
  });
});

afterAll(async () => {
  await router?.stop();
  await cluster?.stop();
  await rm(directory, { recursive: true, force: true });
});

async function connect(options: Partial<pg.ClientConfig> = {}): Promise<pg.Client> {
  const client = new pg.Client({
    host: '127.0.0.1',
    port: router.port,
    user: 'app',
    database: 'app',
    ...options,
  });
  client.on('error', () => {});
  await client.connect();
  return client;
}

/** Gives how many transactions it has committed. Rejects if one has failed, or a connection was lost. */
function pgbench(mode: string, scripts: readonly string[], settings = ''): Promise<number> {
  const args = ['-n', '-M', mode, '-c', '2', '-j', '1', '-T', String(LOAD_SECONDS)];
  // Far from what the machine can do: the time is for the workers to start.
  args.push('-R', '200');
  for (const script of scripts) args.push('-f', script);
  const child = spawn(PGBENCH, [...args, '-h', '127.0.0.1', '-p', String(router.port), '-U', 'app', 'app'], {
    env: { ...process.env, PGOPTIONS: settings, PGSSLMODE: 'disable' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => {
      const processed = /actually processed: (\d+)/.exec(said)?.[1];
      if (code === 0 && /failed transactions: 0 /.test(said) && processed) resolve(Number(processed));
      else reject(new Error(`pgbench ended with ${code}: ${said}`));
    });
  });
}

/** What a pool of an application does: transactions of two statements. Gives how many. */
async function pool(isOver: () => boolean): Promise<number> {
  const clients = new pg.Pool({ host: '127.0.0.1', port: router.port, user: 'app', database: 'app', max: 4 });
  let committed = 0;
  const work = async (seed: number): Promise<void> => {
    for (let i = 0; !isOver(); i++) {
      const client = await clients.connect();
      const id = 1 + ((seed * 31 + i) % 100);
      await client.query('BEGIN');
      await client.query({ name: 'add', text: 'UPDATE accounts SET n = n + 1 WHERE id = $1', values: [id] });
      await client.query({
        name: 'log',
        text: `INSERT INTO events (account, by) VALUES ($1, 'both')`,
        values: [id],
      });
      await client.query('COMMIT');
      client.release();
      committed++;
    }
  };
  await Promise.all([1, 2, 3, 4].map(work));
  await clients.end();
  return committed;
}

/** Sends pipelines in pieces of odd sizes, and checks that each query is answered once and in order. Gives how many. */
async function pipelines(isOver: () => boolean, seed: number): Promise<number> {
  const client = await RawClient.connect({ port: router.port });
  let next = 0;
  for (let round = 0; !isOver(); round++) {
    const count = 1 + ((seed + round) % 7);
    const texts = Array.from({ length: count }, () => `SELECT ${next++} AS n`);
    const bytes = Buffer.concat(texts.map(queryFrame));
    const cut = 1 + (createHash('md5').update(`${seed} ${round}`).digest()[0]! % (bytes.length - 1));
    client.socket.write(bytes.subarray(0, cut));
    await new Promise(setImmediate);
    client.socket.write(bytes.subarray(cut));
    const rows: string[] = [];
    for (let i = 0; i < count; i++)
      rows.push(...(await client.readUntil(/^Ready/)).filter((line) => line.startsWith('Row ')));
    expect(rows).toEqual(texts.map((text) => `Row ${/\d+/.exec(text)![0]}`));
  }
  client.end();
  return next;
}

function queryFrame(text: string): Buffer {
  const frame = Buffer.alloc(text.length + 6);
  frame.write('Q');
  frame.writeInt32BE(text.length + 5, 1);
  frame.write(text, 5);
  return frame;
}

describe('a rolling restart', () => {
  it('under load fails no transaction, loses none, and carries none out twice', async () => {
    const one = join(directory, 'one.sql');
    const both = join(directory, 'both.sql');
    await writeFile(one, `\\set id random(1, 100)\nINSERT INTO events (account, by) VALUES (:id, 'one');\n`);
    await writeFile(
      both,
      `\\set id random(1, 100)\nBEGIN;\nUPDATE accounts SET n = n + 1 WHERE id = :id;\nINSERT INTO events (account, by) VALUES (:id, 'both');\nCOMMIT;\n`,
    );
    let isOver = false;
    const load = Promise.all([
      pgbench('simple', [one, both]),
      pgbench('extended', [one, both], '-c postern.coalesce=off'),
      pgbench('prepared', [one, both]),
      pool(() => isOver),
    ]);
    const reading = Promise.all([1, 2, 3].map((seed) => pipelines(() => isOver, seed)));
    const before = router.workerPids;
    const restarts = async (): Promise<void> => {
      for (let i = 0; i < RESTARTS; i++) await router.restart();
      isOver = true;
    };
    // One that fails is waited for no longer.
    const [committed, read] = await Promise.all([load, reading, restarts()]);
    for (const count of read) expect(count).toBeGreaterThan(0);
    expect(router.workerPids.filter((pid) => before.includes(pid))).toEqual([]);
    const client = await connect();
    const { rows } = await client.query(
      `SELECT count(*)::int AS events, count(*) FILTER (WHERE by = 'both')::int AS both FROM events`,
    );
    const { rows: sum } = await client.query('SELECT sum(n)::int AS n FROM accounts');
    expect(rows[0]).toEqual({ events: committed.reduce((all, count) => all + count, 0), both: sum[0].n });
    await client.end();
  }, 120_000);

  it('takes along all that a session is', async () => {
    const client = await connect({ application_name: 'kept' });
    const prepared = { name: 'add one', text: 'SELECT $1::int4 + 1 AS n' };
    await client.query({ ...prepared, values: [1] });
    await client.query(`SET work_mem = '5MB'; SET search_path = other, public; SET postern.coalesce = off`);
    await client.query(`INSERT INTO public.events (account, by) VALUES (1, 'kept')`);
    const { rows: drawn } = await client.query(`SELECT currval('public.events_id_seq') AS id`);
    const keyed = { name: 'keyed', text: 'SELECT n IS NOT NULL AS there FROM accounts WHERE id = $1' };
    await client.query({ ...keyed, values: [1] });
    const half = await RawClient.connect({ port: router.port });
    const frame = queryFrame(`SELECT 'both halves' AS v`);
    half.socket.write(frame.subarray(0, 9));
    const { processID } = client as unknown as { processID: number };
    const before = router.workerPids;
    await router.restart();
    expect(router.workerPids.some((pid) => before.includes(pid))).toBe(false);
    // pg sends no Parse: the name has to be known.
    expect((await client.query({ ...prepared, values: [41] })).rows).toEqual([{ n: 42 }]);
    expect((await client.query({ ...keyed, values: [1] })).rows).toEqual([{ there: true }]);
    const { rows } = await client.query(
      `SELECT current_setting('work_mem') AS mem, current_setting('application_name') AS name, to_regclass('kept')::text AS found`,
    );
    expect(rows).toEqual([{ mem: '5MB', name: 'kept', found: 'kept' }]);
    expect((await client.query(`SELECT currval('public.events_id_seq') AS id`)).rows).toEqual(drawn);
    half.socket.write(frame.subarray(9));
    expect(await half.readUntil(/^Ready/)).toContain('Row both halves');
    half.end();
    // Its key still cancels, from whatever worker.
    const others = await Promise.all([connect(), connect(), connect()]);
    const slept = client.query('SELECT pg_sleep(60)').catch((error) => error.code);
    await untilRuns('SELECT pg_sleep(60)');
    cancel(client);
    expect(await slept).toBe('57014');
    expect((client as unknown as { processID: number }).processID).toBe(processID);
    expect(workerOf(processID)).toBeLessThan(2);
    await Promise.all([client, ...others].map((one) => one.end()));
  });

  it('leaves a transaction and what a session has on a backend where they are, and ends what can’t be moved in time', async () => {
    const inTransaction = await connect();
    await inTransaction.query('BEGIN; UPDATE accounts SET n = n + 1 WHERE id = 7');
    const withTable = await connect();
    await withTable.query('CREATE TEMP TABLE mine AS SELECT 5 AS v');
    const encrypted = await connect({ ssl: { rejectUnauthorized: false } });
    const endings: string[] = [];
    for (const [name, one] of Object.entries({ withTable, encrypted }))
      one.once('error', (error) => endings.push(`${name}: ${(error as { code?: string }).code}`));
    const before = router.workerPids;
    router.signal('SIGUSR2');
    await until(() => router.workerPids.some((pid) => !before.includes(pid)));
    expect((await withTable.query('SELECT v FROM mine')).rows).toEqual([{ v: 5 }]);
    expect((await encrypted.query('SELECT 1 AS v')).rows).toEqual([{ v: 1 }]);
    await inTransaction.query('COMMIT');
    await until(
      () => !router.workerPids.some((pid) => before.includes(pid)),
      40_000,
      () => router.output,
    );
    expect((await inTransaction.query('SELECT 1 AS v')).rows).toEqual([{ v: 1 }]);
    await inTransaction.end();
    await until(() => endings.length >= 2);
    expect(endings.sort()).toEqual(['encrypted: 57P01', 'withTable: 57P01']);
    await until(() => router.output.split('all workers have been replaced').length - 1 > RESTARTS + 1);
  });

  it('is given up when a replacement cannot start, and the old workers go on', async () => {
    const client = await connect();
    const before = router.workerPids;
    await router.configure({ nonsense: true });
    router.signal('SIGUSR2');
    await router.untilWritten('the restart has ended early: the replacement of worker 0 ended with status 1');
    await router.configure({});
    expect((await client.query('SELECT 1 AS v')).rows).toEqual([{ v: 1 }]);
    expect(router.workerPids.sort()).toEqual(before.sort());
    await client.end();
  });
});

async function untilRuns(query: string): Promise<void> {
  await until(async () => {
    for (const server of cluster.servers) {
      const rows = await server.query(
        `SELECT FROM pg_stat_activity WHERE state = 'active' AND query = '${query}'`,
      );
      if (rows.length > 0) return true;
    }
    return false;
  });
}

function cancel(client: pg.Client): void {
  const canceler = new pg.Client({ host: '127.0.0.1', port: router.port }) as unknown as {
    cancel(target: unknown, query: unknown): void;
  };
  canceler.cancel(client, (client as unknown as { _activeQuery?: unknown })._activeQuery);
}
