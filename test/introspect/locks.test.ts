/** LOCK TABLE of tables with a door: what is locked is locked on all nodes, and writes nothing. */
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { run } from './pair.ts';

let cluster: TestCluster;
beforeAll(async () => {
  cluster = await startTestCluster();
  await run(
    cluster.dsn(),
    "CREATE TABLE t (k int PRIMARY KEY, v int) WITH (postern.door = 'sharded', postern.key = 'k', postern.buckets = 4)",
  );
  await run(cluster.dsn(), "CREATE TABLE r (k int PRIMARY KEY) WITH (postern.door = 'reference')");
  await run(cluster.dsn(), 'CREATE TABLE plain (k int)');
  await run(cluster.dsn(), 'INSERT INTO t SELECT i, 0 FROM generate_series(1, 40) i');
});
afterAll(() => cluster?.stop());

async function inTransaction(work: (client: pg.Client) => Promise<void>): Promise<void> {
  const client = new pg.Client({ connectionString: cluster.dsn() });
  await client.connect();
  try {
    await client.query('BEGIN');
    await work(client);
    await client.query('COMMIT');
  } finally {
    await client.end();
  }
}

/** Leaves and copies that somebody has locked, by node. */
async function locked(): Promise<string[][]> {
  const all = cluster.servers.map(async (server) => {
    const text = `SELECT c.relname AS name, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
      WHERE l.mode IN ('AccessShareLock', 'ExclusiveLock') AND c.relkind = 'r' AND (c.relname IN ('r', 'plain') OR c.relname ~ '^t_b') ORDER BY 1, 2`;
    const rows = await run(server.dsn({ database: 'app' }), text);
    return rows.map(({ name, mode }) => `${String(name).replace(/_g\d+$/, '')} ${String(mode)}`);
  });
  return await Promise.all(all);
}

test('all leaves and copies, and other tables on the home node', async () => {
  await inTransaction(async (client) => {
    expect((await client.query('LOCK TABLE t, r, plain IN EXCLUSIVE MODE')).command).toBe('LOCK');
    const [home, other] = await locked();
    expect(home).toEqual([
      'plain ExclusiveLock',
      'r ExclusiveLock',
      't_b0 ExclusiveLock',
      't_b2 ExclusiveLock',
    ]);
    expect(other).toEqual(['r ExclusiveLock', 't_b1 ExclusiveLock', 't_b3 ExclusiveLock']);
    await expect(
      run(cluster.dsn(), "SET lock_timeout = '50ms'; UPDATE t SET v = 1 WHERE k = 1"),
    ).rejects.toMatchObject({
      code: '55P03',
    });
    expect(await run(cluster.dsn(), 'SELECT count(*)::int AS count FROM t')).toEqual([{ count: 40 }]);
    await client.query('UPDATE t SET v = 2');
  });
  expect(await locked()).toEqual([[], []]);
  expect(await run(cluster.dsn(), 'SELECT sum(v)::int AS sum FROM t')).toEqual([{ sum: 80 }]);
});

test('in a transaction that only reads, prepared or not', async () => {
  await inTransaction(async (client) => {
    await client.query('SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY');
    await client.query({ text: 'LOCK TABLE t IN ACCESS SHARE MODE', values: [] });
    await client.query({ name: 'again', text: 'LOCK t IN ACCESS SHARE MODE' });
    expect((await locked()).flat()).toHaveLength(4);
    await expect(client.query('UPDATE t SET v = 3 WHERE k = 1')).rejects.toMatchObject({ code: '25006' });
  });
});

test('NOWAIT, rights, and outside of a transaction', async () => {
  await inTransaction(async (client) => {
    await client.query('LOCK TABLE t IN EXCLUSIVE MODE');
    await inTransaction(async (other) => {
      await expect(other.query('LOCK TABLE t NOWAIT')).rejects.toMatchObject({
        code: '55P03',
        message: 'could not obtain lock on relation "t"',
      });
      await expect(other.query('SELECT 1')).rejects.toMatchObject({ code: '25P02' });
    });
  });
  await expect(run(cluster.dsn(), 'LOCK TABLE t')).rejects.toMatchObject({ code: '25P01' });
});

test('SET TRANSACTION behind BEGIN is a part of it', async () => {
  await inTransaction(async (client) => {
    await client.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
    const { rows } = await client.query("SELECT current_setting('transaction_isolation') AS level");
    expect(rows).toEqual([{ level: 'repeatable read' }]);
  });
  await inTransaction(async (client) => {
    await client.query({ text: 'SET TRANSACTION READ ONLY', values: [] });
    await expect(client.query('INSERT INTO plain VALUES (1)')).rejects.toMatchObject({ code: '25006' });
  });
});
