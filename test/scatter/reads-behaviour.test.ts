/** Reads over several buckets beside their results: transactions, locks, errors, cancelling, bounds, many rows. */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BOUNDS } from '../../src/base/bounds.ts';
import { RawClient, run, sendCancel } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { open } from './read-pair.ts';

let cluster: TestCluster;
let client: pg.Client;
const KEYS = 24;

beforeAll(async () => {
  cluster = await startTestCluster({ connectionsPerNode: 4 });
  client = await open(cluster.dsn());
  await client.query(
    "CREATE TABLE s (k bigint, v text, n int, PRIMARY KEY (k)) WITH (postern.door = 'sharded', postern.key = 'k', postern.buckets = 8)",
  );
  for (let k = 0; k < KEYS; k++) await client.query(`INSERT INTO s VALUES (${k}, 'row ${k}', ${k})`);
}, 120_000);
afterAll(async () => {
  await client?.end();
  await cluster?.stop();
});

async function failure(promise: Promise<unknown>): Promise<pg.DatabaseError> {
  const error = await promise.then(
    () => undefined,
    (reason: pg.DatabaseError) => reason,
  );
  expect(error).toBeDefined();
  return error!;
}

/** Fails if some connection was not given back in a usable state: each node has four. */
async function everyConnectionWorks(): Promise<void> {
  const clients = await Promise.all(Array.from({ length: 8 }, () => open(cluster.dsn())));
  const counts = await Promise.all(clients.map((one) => one.query('SELECT count(*)::int AS n FROM s')));
  expect(counts.map(({ rows }) => rows[0].n)).toEqual(clients.map(() => KEYS));
  await Promise.all(clients.map((one) => one.end()));
}

describe('messages', () => {
  it('come as one server would send them, in both protocols', async () => {
    const raw = await RawClient.connect({ port: cluster.port });
    expect(await raw.exchange([['query', 'SELECT sum(n) AS s FROM s']])).toEqual([
      'Columns s:20/0/0',
      `Row ${(KEYS * (KEYS - 1)) / 2}`,
      'Complete SELECT 1',
      'Ready I',
    ]);
    expect(
      await raw.exchange([...run('SELECT k FROM s WHERE n >= $1 ORDER BY k DESC LIMIT 2', ['1']), ['sync']]),
    ).toEqual([
      'ParseComplete',
      'BindComplete',
      'Columns k:20/1/0',
      'Row 23',
      'Row 22',
      'Complete SELECT 2',
      'Ready I',
    ]);
    expect(await raw.exchange([['query', 'SELECT k FROM s WHERE n < 0']])).toEqual([
      'Columns k:20/1/0',
      'Complete SELECT 0',
      'Ready I',
    ]);
    raw.end();
  });
});

describe('the same statement again and again', () => {
  it.each([
    ['with other literals', (n: number) => client.query(`SELECT count(*)::int AS n FROM s WHERE n >= ${n}`)],
    [
      'with other lists',
      (n: number) => client.query(`SELECT ${n} AS n FROM s WHERE k IN (${n}, ${n + 1}) LIMIT 1`),
    ],
    ['with other values', (n: number) => client.query('SELECT count(*)::int AS n FROM s WHERE n >= $1', [n])],
    [
      'prepared',
      (n: number) =>
        client.query({ name: 'again', text: 'SELECT count(*)::int AS n FROM s WHERE n >= $1', values: [n] }),
    ],
  ])('%s', async (what, ask) => {
    for (let n = 0; n < 8; n++) {
      const expected = what === 'with other lists' ? n : KEYS - n;
      expect((await ask(n)).rows, `${n}`).toEqual([{ n: expected }]);
    }
  });
});

describe('in a transaction', () => {
  it('what it has written is read on all nodes, and by nobody else', async () => {
    const other = await open(cluster.dsn());
    await client.query('BEGIN');
    for (let k = 100; k < 110; k++) await client.query(`INSERT INTO s VALUES (${k}, 'new', 0)`);
    expect((await client.query("SELECT count(*)::int AS n FROM s WHERE v = 'new'")).rows).toEqual([
      { n: 10 },
    ]);
    expect((await client.query("SELECT k FROM s WHERE v = 'new'")).rows).toHaveLength(10);
    expect((await other.query("SELECT count(*)::int AS n FROM s WHERE v = 'new'")).rows).toEqual([{ n: 0 }]);
    await client.query('ROLLBACK');
    expect((await client.query("SELECT count(*)::int AS n FROM s WHERE v = 'new'")).rows).toEqual([{ n: 0 }]);
    await other.end();
  });

  it('an error fails it, and ROLLBACK ends it', async () => {
    await client.query('BEGIN');
    expect((await failure(client.query('SELECT 1 / (n - 5) AS x FROM s ORDER BY x'))).code).toBe('22012');
    expect((await failure(client.query('SELECT 1'))).code).toBe('25P02');
    await client.query('ROLLBACK');
    await everyConnectionWorks();
  });

  it('a refusal fails it as well', async () => {
    await client.query('BEGIN');
    expect((await failure(client.query('SELECT ctid FROM s'))).code).toBe('0A000');
    await client.query('ROLLBACK');
  });

  it('rows are locked on every node', async () => {
    const other = await open(cluster.dsn());
    await client.query('BEGIN');
    expect((await client.query('SELECT k FROM s WHERE n < 8 FOR UPDATE')).rows).toHaveLength(8);
    for (let k = 0; k < 8; k++) {
      const locked = failure(other.query(`SELECT 1 FROM s WHERE k = ${k} FOR UPDATE NOWAIT`));
      expect((await locked).code).toBe('55P03');
    }
    expect((await other.query('SELECT k FROM s WHERE n < 12 FOR UPDATE SKIP LOCKED')).rows).toHaveLength(4);
    await client.query('COMMIT');
    expect((await other.query('SELECT k FROM s WHERE n < 8 FOR UPDATE NOWAIT')).rows).toHaveLength(8);
    await other.end();
  });
});

describe('errors', () => {
  it('name the table, and the place in the text', async () => {
    const error = await failure(client.query('SELECT count(*) FROM s WHERE v::int > 3'));
    expect(error.code).toBe('22P02');
    const wrong = 'SELECT k FROM s WHERE nope = 1 ORDER BY k';
    const told = await failure(client.query(wrong));
    expect(told).toMatchObject({ code: '42703', position: String(wrong.indexOf('nope') + 1) });
    expect(told.message).not.toContain('postern');
  });

  it('of rights are PostgreSQL’s own', async () => {
    await client.query('REVOKE SELECT ON s FROM app');
    expect(await failure(client.query('SELECT count(*) FROM s'))).toMatchObject({
      code: '42501',
      message: 'permission denied for table s',
    });
    await client.query('GRANT SELECT (k, n) ON s TO app');
    expect((await client.query('SELECT sum(n)::int AS x FROM s t WHERE k > 20')).rows).toEqual([{ x: 66 }]);
    expect((await client.query('SELECT count(*)::int AS x FROM s')).rows).toEqual([{ x: KEYS }]);
    expect((await failure(client.query('SELECT v FROM s'))).code).toBe('42501');
    expect((await failure(client.query('SELECT * FROM s'))).code).toBe('42501');
    await client.query('GRANT SELECT ON s TO app');
    await everyConnectionWorks();
  });
});

describe('many rows', () => {
  const MANY = "SELECT k, g, repeat('x', 1000) AS x FROM s, generate_series(1, 4000) g";

  it('that need no merge pass through, with little kept', async () => {
    const before = process.memoryUsage().arrayBuffers;
    const raw = await RawClient.connect({ port: cluster.port });
    raw.send(['query', MANY]);
    const lines = await raw.readUntil(/^Ready/);
    expect(lines.filter((line) => line.startsWith('Row'))).toHaveLength(4000 * KEYS);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(BOUNDS.gatheredBytesMax);
    raw.end();
  });

  it('that would have to be merged are refused beyond the bound', async () => {
    expect(await failure(client.query(`${MANY} ORDER BY g`))).toMatchObject({
      code: '54000',
      hint: expect.any(String),
    });
    await everyConnectionWorks();
  });

  it('are cut before they are gathered', async () => {
    const { rows } = await client.query(`${MANY} ORDER BY g, k LIMIT 3`);
    expect(rows.map(({ g, k }) => [g, k])).toEqual([
      [1, '0'],
      [1, '1'],
      [1, '2'],
    ]);
  });

  it('stop when their reader leaves', async () => {
    const raw = await RawClient.connect({ port: cluster.port });
    raw.socket.pause();
    raw.send(['query', MANY]);
    raw.socket.destroy();
    await everyConnectionWorks();
  });
});

it('nodes that sort text by other collations are not asked for first rows or least values', async () => {
  await client.query(
    "CREATE TABLE c (k bigint PRIMARY KEY, v text) WITH (postern.door = 'sharded', postern.key = 'k', postern.buckets = 8)",
  );
  for (let k = 0; k < 8; k++) await client.query(`INSERT INTO c VALUES (${k}, '${'aBcDeFgH'[k]}')`);
  expect((await client.query('SELECT min(v), max(v) FROM c')).rows).toEqual([{ min: 'B', max: 'g' }]);
  // As if the second node had another version of the collation.
  const [, second] = cluster.servers;
  const direct = await open(second!.dsn({ database: 'app' }));
  const change = (collation: string) =>
    direct.query(`UPDATE pg_attribute SET attcollation = (SELECT oid FROM pg_collation WHERE collname = '${collation}')
      WHERE attname = 'v' AND (attrelid = 'c'::regclass OR attrelid::regclass::text LIKE 'postern_leaves.c_%')`);
  await change('und-x-icu');
  expect((await failure(client.query('SELECT max(v) FROM c'))).code).toBe('0A000');
  expect((await client.query('SELECT max(k)::int AS m FROM c')).rows).toEqual([{ m: 7 }]);
  const sorted = await client.query('SELECT v FROM c ORDER BY v LIMIT 5');
  expect(['BDFHa', 'aBcDe']).toContain(sorted.rows.map(({ v }) => v).join(''));
  await change('default');
  await direct.end();
});

it('a cancel request stops it on all nodes', async () => {
  const slow = await RawClient.connect({ port: cluster.port });
  slow.send(['query', 'SELECT pg_sleep(20), k FROM s']);
  const running = async () => {
    for (const server of cluster.servers) {
      const rows = await server.query(
        "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(20)%' AND pid <> pg_backend_pid()",
      );
      if (rows.length === 0) return false;
    }
    return true;
  };
  await expect.poll(running, { timeout: 10_000 }).toBe(true);
  await sendCancel(cluster.port, slow.processId, slow.secretKey);
  expect((await slow.readUntil(/^Ready/))[0]).toContain('C=57014');
  slow.end();
  await everyConnectionWorks();
});
