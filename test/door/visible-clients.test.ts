/** Who is at work on a node can be seen there by its application_name, and what a node has to say reaches whom it is said to. */
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient } from '../support/router-clients.ts';

let cluster: TestCluster;
const ROWS = 12;

beforeAll(async () => {
  cluster = await startTestCluster();
  const owner = new pg.Client({ connectionString: cluster.dsn() });
  await owner.connect();
  for (const statement of [
    `CREATE TABLE events (id int8 PRIMARY KEY, writer text DEFAULT current_setting('application_name'),
       made int8 DEFAULT txid_current())
       WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = 4, postern.coalesce = 'on')`,
    `CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'row %', NEW.id; RETURN NEW; END $$`,
    'CREATE TRIGGER tell BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION tell()',
  ])
    await owner.query(statement);
  await owner.end();
});
afterAll(() => cluster?.stop());

/** On each node, of those that have a transaction open. */
async function namesAtWork(): Promise<unknown[]> {
  return await Promise.all(
    cluster.servers.map(async (server) => {
      const rows = await server.query(
        `SELECT DISTINCT application_name FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle in transaction'`,
      );
      return rows.map(({ application_name: name }) => name);
    }),
  );
}

test('a transaction over nodes has its client’s name on each of them', async () => {
  const client = await connectClient(cluster, { application_name: 'till 7' });
  const touchAll = async () => {
    for (let id = 1; id <= ROWS; id++)
      await client.query(`UPDATE events SET writer = writer WHERE id = ${id}`);
  };
  await client.query('BEGIN');
  await touchAll();
  expect(await namesAtWork()).toEqual([['till 7'], ['till 7']]);
  // A node hears of it with the next statement that it gets.
  await client.query(`SET LOCAL application_name = 'till 8'`);
  await touchAll();
  expect(await namesAtWork()).toEqual([['till 8'], ['till 8']]);
  await client.query('ROLLBACK');
  await client.query(`SET application_name = 'till 9'`);
  await client.query('BEGIN');
  await touchAll();
  expect(await namesAtWork()).toEqual([['till 9'], ['till 9']]);
  await client.query('COMMIT');
});

test('writes that share a commit are each by their own client, with its own notices', async () => {
  const names = ['web', 'worker'];
  const clients = await Promise.all(
    Array.from({ length: ROWS }, (_, i) =>
      connectClient(cluster, { application_name: names[i % names.length]! }),
    ),
  );
  const heard = clients.map((client) => {
    const notices: string[] = [];
    client.on('notice', ({ message }) => notices.push(message ?? ''));
    return notices;
  });
  const ROUNDS = 5;
  for (let round = 0; round < ROUNDS; round++)
    await Promise.all(
      clients.map((client, i) => client.query('INSERT INTO events VALUES ($1)', [100 * round + i])),
    );
  const rounds = Array.from({ length: ROUNDS }, (_, round) => round);
  for (const [i, notices] of heard.entries())
    expect(notices).toEqual(rounds.map((round) => `row ${100 * round + i}`));
  const { rows } = await clients[0]!.query('SELECT id::int, writer, made FROM events ORDER BY id');
  expect(rows).toHaveLength(ROUNDS * ROWS);
  // They do share: else nothing is shown here.
  expect(new Set(rows.map(({ made }) => made)).size).toBeLessThan(rows.length);
  for (const { id, writer } of rows) expect(writer).toBe(names[(id % 100) % names.length]);
});

test('a read over all nodes has the name on each', async () => {
  const client = await connectClient(cluster, { application_name: 'report' });
  for (const text of [
    `SELECT current_setting('application_name') AS name, count(*) FROM events GROUP BY 1`,
    `SELECT DISTINCT current_setting('application_name') AS name FROM events`,
  ]) {
    const { rows } = await client.query(text);
    expect(rows.map(({ name }) => name)).toEqual(['report']);
  }
});
