/** A schema for each tenant, each on a node of its own, through a router: what goes there, what is refused, and the way back. */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value, values } from '../support/router-clients.ts';

/** A bound, for a busy machine. */
const soon = <T>(read: () => T) => expect.poll(read, { timeout: 30_000 });

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 3 });
  const client = new pg.Client({ connectionString: cluster.dsn() });
  await client.connect();
  await client.query(
    "CREATE TABLE country (code text PRIMARY KEY, name text) WITH (postern.door = 'reference')",
  );
  await client.query("INSERT INTO country VALUES ('de', 'Germany'), ('fr', 'France')");
  await client.query(
    "CREATE TABLE events (id bigserial PRIMARY KEY, v text) WITH (postern.door = 'sharded', postern.key = 'id')",
  );
  await client.query('CREATE TABLE single (id int)');
  for (const tenant of ['acme', 'globex']) {
    await client.query(`CREATE SCHEMA ${tenant}`);
    await client.query(
      `CREATE TABLE ${tenant}.users (id bigserial PRIMARY KEY, name text NOT NULL CHECK (name <> ''), country text REFERENCES country,
         upper_name text GENERATED ALWAYS AS (upper(name)) STORED, UNIQUE (name))`,
    );
    await client.query(
      `CREATE TABLE ${tenant}.orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id bigint REFERENCES ${tenant}.users ON DELETE CASCADE, total numeric(10,2) DEFAULT 1)`,
    );
    await client.query(`CREATE INDEX orders_user ON ${tenant}.orders (user_id)`);
    await client.query(`CREATE SEQUENCE ${tenant}.numbers START 100`);
    await client.query(`SELECT nextval('${tenant}.numbers')`);
    await client.query(
      `INSERT INTO ${tenant}.users (name, country) VALUES ('${tenant} one', 'de'), ('${tenant} two', 'fr')`,
    );
    await client.query(`INSERT INTO ${tenant}.orders (user_id) SELECT id FROM ${tenant}.users`);
  }
  await client.end();
});

afterAll(async () => {
  await cluster?.stop();
});

/** In the application's database of a node. */
async function onNode(index: number, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: cluster.servers[index]!.dsn({ database: 'app' }) });
  await client.connect();
  try {
    return (await client.query({ text: sql, rowMode: 'array' })).rows;
  } finally {
    await client.end();
  }
}

const TABLES = `SELECT relname FROM pg_class WHERE relnamespace = 'acme'::regnamespace AND relkind = 'r' ORDER BY 1`;

test('a schema moves with its rows, keys and sequences', async () => {
  const client = await connectClient(cluster);
  await client.query("SELECT postern.distribute_schema('acme', node => 'n2')");
  await client.query("SELECT citus_schema_distribute('globex')");
  expect(await values(client, 'SELECT schema_name, node, relations FROM postern.schemas')).toEqual([
    ['acme', 'n2', ['numbers', 'orders', 'orders_id_seq', 'users', 'users_id_seq']],
    ['globex', 'n1', ['numbers', 'orders', 'orders_id_seq', 'users', 'users_id_seq']],
  ]);
  expect(await onNode(1, TABLES)).toEqual([['orders'], ['users']]);
  expect(await onNode(0, TABLES)).toEqual([]);
  expect(await values(client, 'SELECT id::int, name, upper_name FROM acme.users ORDER BY id')).toEqual([
    [1, 'acme one', 'ACME ONE'],
    [2, 'acme two', 'ACME TWO'],
  ]);
  expect(await value(client, "INSERT INTO acme.users (name) VALUES ('three') RETURNING id::int")).toBe(3);
  expect(await value(client, 'INSERT INTO acme.orders (user_id) VALUES ($1) RETURNING id', [3])).toBe(3);
  expect(await value(client, "SELECT nextval('acme.numbers')::int")).toBe(101);
  for (const [sql, state] of [
    ["INSERT INTO acme.users (name) VALUES ('')", '23514'],
    ["INSERT INTO acme.users (name) VALUES ('three')", '23505'],
    ["INSERT INTO acme.users (name, country) VALUES ('x', 'zz')", '23503'],
    ['INSERT INTO acme.orders (user_id) VALUES (99)', '23503'],
  ])
    expect(await value(client, sql!)).toBe(`!${state}`);
  await client.query('DELETE FROM acme.users WHERE id = 3');
  expect(await value(client, 'SELECT count(*)::int FROM acme.orders WHERE user_id = 3')).toBe(0);
});

describe('by the search_path', () => {
  test('names mean the tenant’s tables, and reference tables are there', async () => {
    for (const [tenant, name] of [
      ['acme', 'acme one'],
      ['globex', 'globex one'],
    ]) {
      const client = await connectClient(cluster);
      await client.query(`SET search_path = ${tenant}, public`);
      expect(await value(client, 'SELECT name FROM users WHERE id = 1')).toBe(name);
      expect(
        await value(
          client,
          'SELECT c.name FROM users u JOIN country c ON c.code = u.country WHERE u.id = $1',
          [2],
        ),
      ).toBe('France');
      expect(await value(client, 'SELECT count(*)::int FROM country')).toBe(2);
      expect(await value(client, "INSERT INTO events (v) VALUES ('x') RETURNING v")).toBe('x');
      expect(await value(client, 'WITH q AS (SELECT 1 AS one) SELECT one FROM q')).toBe(1);
    }
  });

  test('DDL goes there too, alone and in a transaction with rows', async () => {
    const client = await connectClient(cluster);
    await client.query('SET search_path = acme, public');
    await client.query('BEGIN');
    await client.query(
      'CREATE TABLE notes (id serial PRIMARY KEY, user_id bigint REFERENCES users, note text)',
    );
    await client.query("INSERT INTO notes (user_id, note) VALUES (1, 'first')");
    await client.query("CREATE TYPE mood AS ENUM ('good', 'bad')");
    await client.query("ALTER TABLE notes ADD COLUMN mood mood DEFAULT 'good'");
    await client.query('COMMIT');
    await client.query('CREATE INDEX CONCURRENTLY notes_user ON notes (user_id)');
    await client.query(
      'CREATE VIEW noted AS SELECT u.name, n.note, n.mood FROM users u JOIN notes n ON n.user_id = u.id',
    );
    expect(await values(client, 'SELECT * FROM noted')).toEqual([['acme one', 'first', 'good']]);
    expect(await onNode(1, TABLES)).toEqual([['notes'], ['orders'], ['users']]);
    const admin = await connectClient(cluster);
    await soon(() =>
      value(admin, `SELECT 'noted' = ANY (relations) FROM postern.schemas WHERE schema_name = 'acme'`),
    ).toBe(true);
    expect(await values(admin, 'SELECT note FROM acme.noted')).toEqual([['first']]);
    await client.query('DROP VIEW noted');
    await client.query('DROP TABLE notes');
    await client.query('DROP TYPE mood');
    await soon(() =>
      value(admin, `SELECT 'notes' = ANY (relations) FROM postern.schemas WHERE schema_name = 'acme'`),
    ).toBe(false);
  });

  test('a transaction reaches tenants on several nodes', async () => {
    const client = await connectClient(cluster);
    await client.query('BEGIN');
    await client.query("INSERT INTO acme.users (name) VALUES ('both')");
    await client.query("INSERT INTO globex.users (name) VALUES ('both')");
    await client.query("INSERT INTO events (v) VALUES ('both')");
    await client.query('COMMIT');
    expect(await value(client, "SELECT count(*)::int FROM acme.users WHERE name = 'both'")).toBe(1);
    expect(await value(client, "SELECT count(*)::int FROM globex.users WHERE name = 'both'")).toBe(1);
    await client.query("BEGIN; DELETE FROM acme.users WHERE name = 'both'");
    await client.query("DELETE FROM globex.users WHERE name = 'both'");
    await client.query('ROLLBACK');
    expect(await value(client, "SELECT count(*)::int FROM acme.users WHERE name = 'both'")).toBe(1);
  });
});

test('cursors, COPY, EXPLAIN and prepared statements work there', async () => {
  const client = await connectClient(cluster);
  await client.query('BEGIN; DECLARE c CURSOR FOR SELECT id::int FROM acme.users ORDER BY id');
  expect(await values(client, 'FETCH 1 FROM c')).toEqual([[1]]);
  await client.query('COMMIT');
  expect(JSON.stringify(await values(client, 'EXPLAIN SELECT * FROM acme.users'))).toMatch(/Scan on users/);
  await client.query('TRUNCATE acme.orders');
  await client.query('LOCK TABLE acme.orders').catch(() => {});
  expect(await value(client, 'SELECT count(*)::int FROM acme.orders')).toBe(0);
});

test.each([
  ['SELECT * FROM acme.users a JOIN events e ON e.id = a.id', '0A000'],
  ['SELECT * FROM acme.users a JOIN public.single s ON s.id = a.id', '0A000'],
  ['CREATE TABLE acme.events (id int)', '0A000'],
  ['DROP SCHEMA acme CASCADE', '0A000'],
  ['ALTER SCHEMA acme RENAME TO other', '0A000'],
  ["SELECT postern.distribute_schema('acme', node => 'n3')", '42710'],
  ["SELECT postern.distribute_schema('nowhere')", '3F000'],
  ["SELECT postern.distribute_schema('public')", '0A000'],
  ["SELECT postern.undistribute_schema('public')", '0A000'],
  ["SELECT postern.distribute_schema('globex', node => 'n9')", '42710'],
])('%s → %s', async (sql, sqlState) => {
  const client = await connectClient(cluster);
  expect(await value(client, sql)).toBe(`!${sqlState}`);
});

test('two tenants on different nodes are not joined', async () => {
  const client = await connectClient(cluster);
  expect(await value(client, 'SELECT 1 FROM acme.users, globex.users')).toBe('!0A000');
});

test('it comes back', async () => {
  const client = await connectClient(cluster);
  const before = await values(client, 'SELECT * FROM acme.users ORDER BY id');
  await client.query("SELECT postern.undistribute_schema('acme')");
  expect(await values(client, 'SELECT * FROM acme.users ORDER BY id')).toEqual(before);
  expect(await onNode(0, TABLES)).toEqual([['orders'], ['users']]);
  expect(await onNode(1, TABLES)).toEqual([]);
  expect(
    Number(await value(client, "INSERT INTO acme.users (name) VALUES ('back') RETURNING id")),
  ).toBeGreaterThan(3);
  expect(await value(client, "SELECT count(*)::int FROM postern.schemas WHERE schema_name = 'acme'")).toBe(0);
});
