/** Transactions over two nodes where something is scarce: prepared transactions, connections, time, and the locks of another. */
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { type Router, startRouter } from '../../src/cli/router.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

let cluster: TestCluster;
let narrow: Router;
const keys: number[] = [];
const clients: pg.Client[] = [];

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 2, settings: { max_prepared_transactions: '2' } });
  narrow = await startRouter({ ...cluster.routerOptions, connectionsPerNode: 1 });
  const client = await connect();
  await client.query(
    "CREATE TABLE k (id int8 PRIMARY KEY, n int) WITH (postern.door = 'sharded', postern.key = 'id')",
  );
  for (let id = 0; id < 16; id++) await client.query('INSERT INTO k VALUES ($1, 0)', [id]);
  for (const server of cluster.servers) {
    const node = new pg.Client(server.dsn({ database: 'app' }));
    await node.connect();
    const { rows } = await node.query(
      "SELECT relname FROM pg_class WHERE relname ~ '^k_b' AND relkind = 'r'",
    );
    const union = rows.map(({ relname }) => `SELECT id FROM postern_leaves."${relname}"`).join(' UNION ALL ');
    keys.push(Number((await node.query(union)).rows[0].id));
    await node.end();
  }
}, 60_000);

beforeEach(async () => {
  const client = await connect();
  for (const key of keys) await client.query('UPDATE k SET n = 0 WHERE id = $1', [key]);
});

afterAll(async () => {
  await Promise.all(clients.map((client) => client.end().catch(() => {})));
  await narrow?.close();
  await cluster?.stop();
});

async function connect(port = cluster.port): Promise<pg.Client> {
  const client = new pg.Client(`postgres://app@127.0.0.1:${port}/app`);
  client.on('error', () => {});
  await client.connect();
  clients.push(client);
  return client;
}

const add = (client: pg.Client, at: number) =>
  client.query('UPDATE k SET n = n + 1 WHERE id = $1', [keys[at]]);

async function values(): Promise<number[]> {
  const client = await connect();
  const found: number[] = [];
  for (const key of keys)
    found.push(Number((await client.query('SELECT n FROM k WHERE id = $1', [key])).rows[0].n));
  return found;
}

async function nothingIsLeft(): Promise<void> {
  await vi.waitFor(
    async () => {
      for (const server of cluster.servers)
        expect(
          await server.query(
            `SELECT gid FROM pg_prepared_xacts UNION ALL
             SELECT state FROM pg_stat_activity WHERE usename = 'app' AND backend_type = 'client backend' AND state <> 'idle'`,
          ),
        ).toEqual([]);
    },
    { timeout: 15_000, interval: 50 },
  );
}

/** Each adds one to both rows, in its own order; gives the SQLSTATEs of those who could not. */
async function together(count: number, port: number): Promise<string[]> {
  const all = await Promise.all(Array.from({ length: count }, () => connect(port)));
  const results = await Promise.all(
    all.map(async (client, i) => {
      try {
        await client.query('BEGIN');
        for (const at of i % 2 ? [0, 1] : [1, 0]) await add(client, at);
        await client.query('COMMIT');
        return 'COMMIT';
      } catch (error) {
        await client.query('ROLLBACK');
        return (error as { code: string }).code;
      }
    }),
  );
  return results;
}

test('too few prepared transactions: who finds none is rolled back, and hears the server’s words', async () => {
  const blockers = await Promise.all(
    cluster.servers.map(async (server, at) => {
      const node = new pg.Client(server.dsn({ database: 'app' }));
      await node.connect();
      for (let i = 0; i < 2; i++)
        await node.query(`BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'taken ${at} ${i}'`);
      return node;
    }),
  );
  try {
    const client = await connect();
    await client.query('BEGIN');
    for (const at of [0, 1]) await add(client, at);
    await expect(client.query('COMMIT')).rejects.toMatchObject({ code: '53200' });
    expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    expect(await values()).toEqual([0, 0]);
  } finally {
    for (const [at, node] of blockers.entries()) {
      for (let i = 0; i < 2; i++) await node.query(`ROLLBACK PREPARED 'taken ${at} ${i}'`);
      await node.end();
    }
  }
  await nothingIsLeft();
});

test('one connection a node: transactions that cross go through, or one hears of the deadlock', async () => {
  const results = await together(8, narrow.port);
  expect(results.filter((result) => result !== 'COMMIT' && result !== '40P01')).toEqual([]);
  const committed = results.filter((result) => result === 'COMMIT').length;
  expect(committed).toBeGreaterThan(0);
  expect(await values()).toEqual([committed, committed]);
  await nothingIsLeft();
}, 40_000);

test('a victim of a deadlock lets go of what it has locked since its savepoint', async () => {
  const [a, b] = [await connect(), await connect()];
  for (const client of [a, b]) {
    await client.query('BEGIN');
    await client.query('SAVEPOINT s');
  }
  await add(a, 0);
  await add(b, 1);
  const attempt = async (client: pg.Client, at: number): Promise<string> => {
    try {
      await add(client, at);
      return 'done';
    } catch (error) {
      await client.query('ROLLBACK TO s');
      return (error as { code: string }).code;
    }
  };
  const told = await Promise.all([attempt(a, 1), attempt(b, 0)]);
  expect(told.sort()).toEqual(['40P01', 'done']);
  for (const client of [a, b]) await client.query('COMMIT');
  expect(await values()).toEqual([1, 1]);
  await nothingIsLeft();
}, 20_000);

test('idle_in_transaction_session_timeout counts on each node: nothing is committed, and that is told', async () => {
  const client = await connect();
  await client.query("SET idle_in_transaction_session_timeout = '300ms'");
  await client.query('BEGIN');
  await add(client, 0);
  await add(client, 1);
  await expect(client.query('SELECT pg_sleep(0.8) FROM k WHERE id = $1', [keys[1]])).rejects.toMatchObject({
    code: '08006',
  });
  expect((await client.query('COMMIT')).command).toBe('ROLLBACK');
  expect(await values()).toEqual([0, 0]);
  await nothingIsLeft();
});

test('a transaction that could not reach its second node leaves nothing for whoever has its connection next', async () => {
  const router = await startRouter(cluster.routerOptions);
  const second = new pg.Client(cluster.servers[1]!.dsn({ database: 'app' }));
  await second.connect();
  try {
    const [a, b] = [await connect(router.port), await connect(router.port)];
    await a.query('BEGIN');
    for (const at of [0, 1]) await add(a, at);
    await a.query('COMMIT');
    await second.query('ALTER DATABASE app CONNECTION LIMIT 0');
    await second.query("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'app'");
    await a.query('BEGIN');
    await add(a, 0);
    await expect(add(a, 1)).rejects.toThrow();
    await a.query('ROLLBACK');
    await second.query('ALTER DATABASE app CONNECTION LIMIT -1');
    await b.query('BEGIN');
    await add(b, 0);
    await vi.waitFor(
      async () => {
        await a.query('ROLLBACK');
        await a.query('BEGIN');
        await add(a, 1);
      },
      { timeout: 5_000 },
    );
    expect((await a.query('SELECT count(*)::int AS count FROM k')).rows).toEqual([{ count: 16 }]);
    const locks = await b.query(
      "SELECT mode FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    );
    expect(locks.rows).toEqual([]);
    for (const client of [a, b]) await client.query('ROLLBACK');
    for (const client of [a, b]) await client.end();
  } finally {
    await second.query('ALTER DATABASE app CONNECTION LIMIT -1');
    await second.end();
    await router.close();
  }
}, 20_000);
