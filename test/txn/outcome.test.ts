/** What clients see of transactions over several nodes beside their own COMMIT: postern.outcome() and postern.prepared. */
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { formatToken } from '../../src/txn/token.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

let cluster: TestCluster;
let client: pg.Client;

beforeAll(async () => {
  cluster = await startTestCluster();
  client = new pg.Client(cluster.dsn());
  await client.connect();
});

afterAll(async () => {
  await client?.end();
  await cluster?.stop();
});

async function onHome(sql: string): Promise<Record<string, string>[]> {
  const home = new pg.Client(cluster.servers[0]!.dsn({ database: 'app' }));
  await home.connect();
  try {
    return (await home.query(sql)).rows;
  } finally {
    await home.end();
  }
}

test('an outcome that nobody has decided is settled as rolled back, in both protocols, for any role', async () => {
  const [row] = await onHome(
    'SELECT key, extract(epoch FROM clock_timestamp())::int8 AS now FROM postern_internal.token_key',
  );
  const token = formatToken(
    {
      transactionId: '00000000-0000-4000-8000-000000000000',
      commitPointNodeId: 2,
      commitPointBackend: { processId: 1, startedAtUs: 1 },
      owner: 'postgres',
      issuedAtUs: Number(row!.now) * 1_000_000,
    },
    Buffer.from(row!.key!, 'hex'),
  );
  const simple = await client.query(`SELECT postern.outcome('${token}')`);
  expect(simple.rows).toEqual([{ outcome: 'rolled back' }]);
  const extended = await client.query({
    name: 's',
    text: `SELECT postern.outcome('${token}') AS o`,
    values: [],
  });
  expect(extended.rows).toEqual([{ o: 'rolled back' }]);
  const old = formatToken(
    {
      transactionId: '00000000-0000-4000-8000-000000000000',
      commitPointNodeId: 2,
      commitPointBackend: { processId: 1, startedAtUs: 1 },
      owner: 'postgres',
      issuedAtUs: (Number(row!.now) - 25 * 3600) * 1_000_000,
    },
    Buffer.from(row!.key!, 'hex'),
  );
  await expect(client.query(`SELECT postern.outcome('${old}')`)).rejects.toMatchObject({
    code: '22023',
    message: 'this outcome token has expired',
  });
});

test('what is no token is refused, and so is the question inside a transaction', async () => {
  await expect(client.query("SELECT postern.outcome('x')")).rejects.toMatchObject({ code: '22023' });
  await client.query('BEGIN');
  await expect(client.query("SELECT postern.outcome('x')")).rejects.toMatchObject({ code: '25001' });
  await client.query('ROLLBACK');
});

test('postern.prepared can be read by everybody', async () => {
  const { rows, fields } = await client.query('SELECT * FROM postern.prepared');
  expect(rows).toEqual([]);
  expect(fields.map(({ name }) => name)).toEqual([
    ...['node', 'gid', 'transaction_id', 'owner', 'commit_point', 'prepared_at', 'age', 'state'],
  ]);
});

test('the functions of the commit are closed to clients', async () => {
  await expect(
    client.query("SELECT postern_commit.decide('00000000-0000-4000-8000-000000000000', '{}', 'app')"),
  ).rejects.toMatchObject({ code: '42501' });
});
