/** create_distributed_table of tables that are unique off the shard key: as ORMs make them, first the table, then its door. */
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { checkLookups } from './agreement.ts';

let cluster: TestCluster;
let client: pg.Client;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 3 });
});
afterAll(() => cluster.stop());
beforeEach(async () => {
  client = new pg.Client(cluster.dsn());
  await client.connect();
  await client.query('DROP TABLE IF EXISTS users');
  return () => client.end();
});

async function errorOf(text: string) {
  try {
    await client.query(text);
    return undefined;
  } catch (error) {
    const { code, message, constraint } = error as pg.DatabaseError;
    return { code, message, constraint };
  }
}

const USERS = `CREATE TABLE users (id bigint PRIMARY KEY, email varchar(80) NOT NULL UNIQUE, "Team" int, number int,
  CONSTRAINT "Numbers" UNIQUE ("Team", number), UNIQUE (id, email));
  CREATE UNIQUE INDEX users_number ON users (number DESC, email)`;
const FIRST = 1_152_921_504_606_846_976n;

async function isUnique(rows: number): Promise<void> {
  const insert = (id: number | bigint, email: string, team: number, number: number) =>
    errorOf(`INSERT INTO users VALUES (${id}, '${email}', ${team}, ${number})`);
  expect(await insert(1, 'e7', 1000, 1000)).toEqual({
    code: '23505',
    message: 'duplicate key value violates unique constraint "users_email_key"',
    constraint: 'users_email_key',
  });
  expect(await insert(1, 'new', 3, 7)).toMatchObject({ code: '23505', constraint: 'Numbers' });
  await client.query(`UPDATE users SET number = NULL, email = 'was e7' WHERE email = 'e7'`);
  expect(await insert(1, 'e7', 3, 7)).toBeUndefined();
  await client.query('DELETE FROM users WHERE id = 1');
  const { rows: found } = await client.query('SELECT count(*)::int AS n FROM users');
  expect(found).toEqual([{ n: rows }]);
  expect(await checkLookups(cluster)).toEqual([]);
}

/** Keys that JavaScript's numbers do not hold. */
const ROWS = `INSERT INTO users SELECT ${FIRST} + i, 'e' || i, i % 4, i FROM generate_series(0, 4999) i`;

describe('create_distributed_table', () => {
  it('of a table with rows', async () => {
    await client.query(USERS);
    await client.query(ROWS);
    await client.query(`SELECT create_distributed_table('users', 'id')`);
    await isUnique(5000);
  });

  it('of a table without rows, whose rows come after', async () => {
    await client.query(USERS);
    await client.query(`ALTER TABLE users SET (postern.door = 'sharded', postern.key = 'id')`);
    expect(await checkLookups(cluster)).toEqual([]);
    for (let i = 0; i < 10; i++)
      await client.query(`INSERT INTO users VALUES (${FIRST + BigInt(i)}, 'e${i}', ${i % 4}, ${i})`);
    await isUnique(10);
  });

  it('inside the transaction that makes the table, and rolled back', async () => {
    for (const end of ['ROLLBACK', 'COMMIT']) {
      await client.query('BEGIN');
      await client.query(USERS);
      await client.query(`SELECT create_distributed_table('users', 'id')`);
      await client.query(`INSERT INTO users VALUES (5, 'e7', 3, 7)`);
      await client.query(end);
    }
    await isUnique(1);
  });

  it('and back, and again', async () => {
    await client.query(USERS);
    await client.query(`INSERT INTO users VALUES (5, 'e7', 3, 7)`);
    for (let i = 0; i < 2; i++) {
      await client.query(`SELECT create_distributed_table('users', 'id')`);
      await client.query(`SELECT postern.unshard_table('users')`);
    }
    await client.query(`SELECT create_distributed_table('users', 'id')`);
    await isUnique(1);
  });

  it('reads all rows, whatever policies show to their owner', async () => {
    await client.query(USERS);
    await client.query(`INSERT INTO users VALUES (5, 'e7', 3, 7), (6, 'e6', 1, 2)`);
    await client.query(`ALTER TABLE users ENABLE ROW LEVEL SECURITY; ALTER TABLE users FORCE ROW LEVEL SECURITY;
      CREATE POLICY few ON users USING (id = 6)`);
    await client.query(`SELECT create_distributed_table('users', 'id')`);
    expect(await checkLookups(cluster)).toEqual([]);
    expect((await client.query('SELECT id FROM users')).rows).toEqual([{ id: '6' }]);
  });

  it('adds one to a table whose policies show few of its rows', async () => {
    await client.query('CREATE TABLE users (id int PRIMARY KEY, email text)');
    await client.query(`SELECT create_distributed_table('users', 'id')`);
    await client.query(`INSERT INTO users SELECT i, 'e' || i FROM generate_series(1, 20) i`);
    await client.query(`ALTER TABLE users ENABLE ROW LEVEL SECURITY`);
    await client.query(`ALTER TABLE users FORCE ROW LEVEL SECURITY`);
    await client.query(`CREATE POLICY few ON users USING (id = 6)`);
    await client.query('ALTER TABLE users ADD UNIQUE (email)');
    expect(await checkLookups(cluster)).toEqual([]);
    expect((await client.query('SELECT id FROM users')).rows).toEqual([{ id: 6 }]);
  });

  it.each([
    [
      'email text UNIQUE DEFERRABLE',
      '"users_email_key", which is unique without the shard key and has DEFERRABLE',
    ],
    ['email text, UNIQUE (email) INCLUDE (id)', 'INCLUDE'],
    ['email text UNIQUE NULLS NOT DISTINCT', 'NULLS NOT DISTINCT'],
    ['email jsonb UNIQUE', 'column "email" cannot be unique over all nodes'],
  ])('refuses what it can’t keep, and leaves the table as it is: %s', async (column, said) => {
    await client.query(`CREATE TABLE users (id int PRIMARY KEY, ${column})`);
    await client.query(`INSERT INTO users (id) VALUES (1)`);
    const error = await errorOf(`SELECT create_distributed_table('users', 'id')`);
    expect(error?.code).toBe('0A000');
    expect(error?.message).toContain(said);
    expect((await client.query('SELECT id FROM users')).rows).toEqual([{ id: 1 }]);
    await client.query('BEGIN');
    await client.query('DELETE FROM users');
    expect(await errorOf(`SELECT create_distributed_table('users', 'id')`)).toMatchObject({ code: '0A000' });
    await client.query('ROLLBACK');
  });
});
