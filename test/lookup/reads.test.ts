/** Reads by the columns of a unique constraint off the shard key: of one bucket, and equal to those of one PostgreSQL. */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestCluster, type TestCluster, TRUSTED_USERS } from '../support/router.ts';
import { startTestServer, type TestServer } from '../support/servers.ts';

let cluster: TestCluster;
let alone: TestServer;
let routed: pg.Client;
let plain: pg.Client;

const TABLES = [
  'CREATE TABLE users (id bigint PRIMARY KEY, email varchar(12) UNIQUE, team int, n smallint, tag uuid UNIQUE, UNIQUE (team, n))',
  'CREATE TABLE posts (user_id bigint, no int, title text, PRIMARY KEY (user_id, no))',
];
const ROWS = [
  `INSERT INTO users SELECT i, CASE WHEN i % 7 > 0 THEN 'e' || i END, i % 5, i, ('00000000-0000-0000-0000-' || lpad(i::text, 12, '0'))::uuid
   FROM generate_series(1, 60) i`,
  `INSERT INTO posts SELECT i % 60 + 1, i, 'post ' || i FROM generate_series(1, 200) i`,
];

beforeAll(async () => {
  [cluster, alone] = await Promise.all([
    startTestCluster({ nodes: 3, users: [...TRUSTED_USERS, { name: 'stranger', password: undefined }] }),
    startTestServer(),
  ]);
  await alone.query('CREATE ROLE app LOGIN');
  await alone.query('CREATE DATABASE app OWNER app');
  routed = new pg.Client(cluster.dsn());
  plain = new pg.Client(alone.dsn({ user: 'app', database: 'app' }));
  for (const client of [routed, plain]) {
    await client.connect();
    for (const table of TABLES) await client.query(table);
    for (const rows of ROWS) await client.query(rows);
  }
  await routed.query(`SELECT create_distributed_table('users', 'id')`);
  await routed.query(`SELECT create_distributed_table('posts', 'user_id', colocate_with => 'users')`);
}, 60_000);
afterAll(async () => {
  await Promise.all([routed?.end(), plain?.end()]);
  await Promise.all([cluster?.stop(), alone?.stop()]);
});

async function outcome(client: pg.Client, text: string, values?: unknown[]) {
  try {
    const { rows, fields, rowCount } = await client.query(values ? { text, values } : text);
    return { rows, rowCount, fields: fields.map(({ name, dataTypeID }) => [name, dataTypeID]) };
  } catch (error) {
    const { code, message } = error as pg.DatabaseError;
    return { code, message };
  }
}

async function explained(text: string): Promise<string> {
  const { rows } = await routed.query(`EXPLAIN ${text}`);
  return rows.map((row) => Object.values(row)[0]).join('\n');
}

const ONE_BUCKET: readonly (readonly [string, unknown[]?])[] = [
  [`SELECT * FROM users WHERE email = 'e8'`],
  [`SELECT * FROM users WHERE email = 'nobody'`],
  [`SELECT * FROM users WHERE email = 'longer than its column is'`],
  [`SELECT * FROM users WHERE email = NULL`],
  [`SELECT count(*), max(id) FROM users WHERE email = 'nobody'`],
  [`SELECT count(*), max(id) FROM users u WHERE 'e9' = u.email AND team = 4`],
  [`SELECT count(*) FROM users u WHERE email = 'e9' AND team = 1`],
  [`SELECT id FROM users WHERE n = 12 AND team = 2`],
  [`SELECT id FROM users WHERE (team, n) = (2, 12)`],
  [`SELECT id FROM users WHERE tag = '00000000-0000-0000-0000-000000000013'`],
  [`SELECT email, title FROM users JOIN posts ON user_id = id WHERE email = 'e10' ORDER BY no`],
  [
    `SELECT u.id, count(no) FROM users u LEFT JOIN posts p ON p.user_id = u.id WHERE u.email = 'e11' GROUP BY u.id HAVING count(no) > 1`,
  ],
  [`SELECT title FROM posts, users WHERE user_id = id AND email = 'nobody' LIMIT 1`],
  ['SELECT id FROM users WHERE email = $1', ['e15']],
  ['SELECT id FROM users WHERE email = $1', [null]],
  ['SELECT id FROM users WHERE email = $1::text LIMIT $2', ['e15', 1]],
  ['SELECT id FROM users WHERE team = $1 AND n = $2', [2, 17]],
  ['SELECT id FROM users WHERE tag = $1', ['00000000-0000-0000-0000-000000000016']],
  [`SELECT id FROM users WHERE email = 'it''s\\'`],
];

describe('of one bucket', () => {
  const cases = ONE_BUCKET.map(([text, values]) => ({ text, values }));
  it.each(cases)('$text $values', async ({ text, values }) => {
    for (let i = 0; i < 2; i++)
      expect(await outcome(routed, text, values)).toEqual(await outcome(plain, text, values));
    if (!values) expect(await explained(text)).toMatch(/bucket \d+ of users/);
  });

  it('prepared, and with values in binary', async () => {
    const text = 'SELECT id FROM users WHERE email = $1 AND n = $2';
    const one = 'SELECT id FROM users WHERE team = $1 AND n = $2';
    for (let i = 1; i < 20; i++) {
      const values = [`e${i}`, i];
      expect((await routed.query({ name: 'by email', text, values })).rows).toEqual(
        (await plain.query(text, values)).rows,
      );
      const binary = Buffer.alloc(4);
      binary.writeInt32BE(i % 5);
      const small = Buffer.alloc(2);
      small.writeInt16BE(i);
      expect((await routed.query({ name: 'by team', text: one, values: [binary, small] })).rows).toEqual([
        { id: String(i) },
      ]);
    }
  });
});

describe('of all buckets', () => {
  it.each([
    [`SELECT id FROM users WHERE email = 'e8' OR email = 'e9' ORDER BY id`],
    [`SELECT id FROM users WHERE email IN ('e8', 'e9') ORDER BY id`],
    [`SELECT id FROM users WHERE team = 2 ORDER BY id`],
    [`SELECT id FROM users WHERE email = upper('E8')`],
    [`SELECT id FROM users WHERE email COLLATE "C" = 'e8'`],
    [`SELECT p.no FROM posts p LEFT JOIN users u ON u.id = p.user_id AND u.email = 'e8' ORDER BY no`],
    [`SELECT id FROM users WHERE email = 'e8' FOR UPDATE`],
    [`SELECT id FROM users WHERE n = 'x' AND team = 1`],
    [`SELECT id FROM users WHERE n = 99999 AND team = 1`],
    [`SELECT id FROM users WHERE email = 8`],
  ])('%s', async (text) => {
    const [here, there] = [await outcome(routed, text), await outcome(plain, text)];
    expect(here).toEqual(there);
  });

  it('in a transaction, where its own changes count', async () => {
    await routed.query('BEGIN');
    await routed.query(`UPDATE users SET email = 'was e20' WHERE id = 20`);
    await routed.query(`UPDATE users SET email = 'e20' WHERE id = 21`);
    expect((await routed.query(`SELECT id FROM users WHERE email = 'e20'`)).rows).toEqual([{ id: '21' }]);
    await routed.query('ROLLBACK');
    expect((await routed.query(`SELECT id FROM users WHERE email = 'e20'`)).rows).toEqual([{ id: '20' }]);
  });
});

it('who may not read the table is refused, and learns nothing', async () => {
  const stranger = new pg.Client(cluster.dsn('stranger'));
  await stranger.connect();
  for (const email of ['e8', 'nobody'])
    expect(await outcome(stranger, `SELECT id FROM users WHERE email = '${email}'`)).toMatchObject({
      code: '42501',
    });
  await stranger.end();
  const direct = new pg.Client(cluster.servers[0]!.dsn({ user: 'stranger', database: 'app' }));
  await direct.connect();
  await expect(direct.query(`SELECT postern_commit.find_unique('{}', 'x')`)).rejects.toMatchObject({
    code: '42501',
  });
  await direct.end();
});

it('a row that changes is found by what it has now', async () => {
  for (let i = 0; i < 10; i++) {
    await routed.query(`UPDATE users SET id = id + 1000 WHERE email = 'e30'`);
    const { rows } = await routed.query(`SELECT id FROM users WHERE email = 'e30'`);
    expect(rows).toEqual([{ id: String(30 + 1000 * (i + 1)) }]);
    await routed.query(`UPDATE users SET email = 'x${i}' WHERE email = 'e31'`);
    expect((await routed.query(`SELECT id FROM users WHERE email = 'e31'`)).rows).toEqual([]);
    await routed.query(`UPDATE users SET email = 'e31' WHERE email = 'x${i}'`);
  }
});
