/** Statements over several buckets against one plain PostgreSQL: what an adversarial review found to be answered wrongly. */
import type pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { open } from './read-pair.ts';

let cluster: TestCluster;
let direct: pg.Client;
let routed: pg.Client;

const TABLES = [
  ['t', 'k', '(k int8, id int, m mood, ms mood[], c pair, n numeric, PRIMARY KEY (k, id))'],
  ['u', 'k', '(k int8 PRIMARY KEY, n int)'],
  ['d', 'k', '(k date PRIMARY KEY)'],
  ['z', 'k', '(k timestamptz PRIMARY KEY, f float8[], p point, r tstzrange)'],
] as const;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 3, version: 15 });
  const [home] = cluster.servers;
  await home!.query('CREATE DATABASE plain OWNER app');
  direct = await open(home!.dsn({ user: 'app', database: 'plain' }));
  // Each node gives the types other numbers.
  const onNodes = await Promise.all(
    cluster.servers.map((server) => open(server.dsn({ user: 'app', database: 'app' }))),
  );
  for (const [index, client] of [direct, ...onNodes].entries()) {
    for (let i = 0; i < index; i++) await client.query(`CREATE TYPE filler${i} AS (a int, b text)`);
    await client.query("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b text)");
    for (let i = 0; i < index; i++) await client.query(`DROP TYPE filler${i}`);
    if (client !== direct) await client.end();
  }
  routed = await open(cluster.dsn());
  for (const [name, key, columns] of TABLES) {
    await direct.query(`CREATE TABLE ${name} ${columns}`);
    await routed.query(
      `CREATE TABLE ${name} ${columns} WITH (postern.door = 'sharded', postern.key = '${key}', postern.buckets = 7)`,
    );
  }
});
afterAll(async () => {
  await direct?.end();
  await routed?.end();
  await cluster?.stop();
});

async function outcome(client: pg.Client, text: string, values?: unknown[]): Promise<unknown> {
  try {
    const { command, rowCount, rows } = await client.query({
      text,
      ...(values && { values }),
      rowMode: 'array',
    });
    return [command, rowCount, rows.map((row) => JSON.stringify(row)).sort()];
  } catch (error) {
    return (error as { code?: string }).code;
  }
}

/** Both give the same. */
async function compare(text: string, values?: unknown[]): Promise<void> {
  const expected = await outcome(direct, text, values);
  expect([text, await outcome(routed, text, values)]).toEqual([text, expected]);
}

it('takes values of types that have another number on each node', async () => {
  for (let k = 0; k < 6; k++) await compare('INSERT INTO t VALUES ($1, 0, $2, $3)', [k, 'sad', '{ok,sad}']);
  await compare(
    'INSERT INTO t (k, id, m, c) VALUES ($1, 1, $2, $3), ($4, 1, $2, $3), (9, 1, NULL, $3) RETURNING k, m',
    [6, 'ok', '(1,"x ""y")', 7],
  );
  await compare('SELECT k, m, ms, c FROM t WHERE m = $1', ['sad']);
  await compare('SELECT m, count(*) FROM t WHERE m <> $1 GROUP BY m', ['ok']);
  await compare('UPDATE t SET m = $1, c = $2 WHERE id = 1', ['sad', '(2,z)']);
  await compare('INSERT INTO t SELECT k + 100, id, m, ms, c FROM t');
  await compare("INSERT INTO t SELECT k + 300, id, 'ok', ms, '(3,q)' FROM t");
  await compare('UPDATE t SET k = k + 50, m = $1 WHERE k < 100', ['ok']);
  await compare('SELECT * FROM t');
});

it('has an aggregate in a subquery, which is the outer query’s, read through the mesh', async () => {
  for (const text of [
    'SELECT (SELECT sum(t.n)) FROM t',
    'SELECT (SELECT max(t.n) FROM generate_series(1, 2) LIMIT 1) FROM t',
    'SELECT (SELECT max(t.n) FROM (SELECT 1 AS n) AS q) FROM t',
    'SELECT * FROM (SELECT (SELECT count(t.k)) FROM t) AS q',
  ])
    await compare(text);
  await compare(
    'SELECT t.k, (SELECT max(n) FROM u WHERE u.k = t.k), (SELECT count(*) FROM u WHERE u.k = t.k) FROM t',
  );
});

it('has each part of SET (a, b) = (SELECT …) read the table once', async () => {
  await compare('UPDATE t SET (n, m) = (SELECT count(*), max(u.n)::text::mood FROM u WHERE u.k = t.k)');
  await compare('UPDATE t SET (n, id) = (SELECT 5, 7 FROM u WHERE u.k = t.k) WHERE k = 3');
});

it('never changes a row twice in one INSERT … SELECT … ON CONFLICT DO UPDATE', async () => {
  const upsert = 'ON CONFLICT (k) DO UPDATE SET n = u.n + 1';
  await compare(`INSERT INTO u SELECT g % 50, g FROM generate_series(1, 100) g ${upsert}`);
  await compare(`INSERT INTO u SELECT g, g FROM generate_series(1, 200) g ${upsert}`);
  await compare(`INSERT INTO u SELECT g, g FROM generate_series(100, 400) g ${upsert} RETURNING k, n`);
  await compare(`INSERT INTO u SELECT n % 300, count(*) FROM u GROUP BY n % 300 ${upsert}`);
  await compare('SELECT * FROM u');
  expect(await outcome(routed, `INSERT INTO u SELECT g, g FROM generate_series(1, 40000) g ${upsert}`)).toBe(
    '0A000',
  );
});

it('compares a key with a number beyond its type', async () => {
  await compare('SELECT k FROM u WHERE k = 99999999999999999999');
  await compare('SELECT k FROM u WHERE k IN (99999999999999999999, 1)');
  await compare('DELETE FROM u WHERE k IN (-99999999999999999999, 1, 2)');
  await compare('SELECT count(*) FROM u');
});

it('moves values exactly, whatever the session shows them as', async () => {
  const settings = { extra_float_digits: '0', datestyle: 'SQL, DMY', timezone: 'Asia/Kolkata' };
  const text = `INSERT INTO z SELECT timestamptz '2024-03-01 00:00Z' + g * interval '13:07:01.234567', array[g / 7.0, pi()],
    point(g / 3.0, 1 / 7.0), tstzrange(now(), NULL) FROM generate_series(1, 20) g`;
  await compare(text.replace('now()', "'2024-01-01 00:00Z'"));
  await compare(
    "INSERT INTO z (k) VALUES ('infinity'), ('-infinity'), ('0044-03-15 12:00:00.000001+00 BC'), ('30000-01-01 00:00Z')",
  );
  for (const [name, value] of Object.entries(settings)) await compare(`SET ${name} = '${value}'`);
  await compare("UPDATE z SET k = k + interval '1 day'");
  await compare("INSERT INTO z SELECT k + interval '300 days', f, p, r FROM z WHERE isfinite(k)");
  for (const name of Object.keys(settings)) await compare(`RESET ${name}`);
  await compare('SELECT * FROM z');
  const { rows } = await direct.query('SELECT k::text FROM z');
  for (const { k } of rows) await compare('SELECT count(*) FROM z WHERE k = $1', [k]);
});

it('asks a server for the bucket of a date, as it is hashed there', async () => {
  await compare(
    "INSERT INTO d VALUES ('infinity'), ('-infinity'), ('0044-03-15 BC'), ('March 5, 2024'), ('2024-03-06')",
  );
  for (const k of ['infinity', '-infinity', '2024-03-05', '5 mar 2024', '2024-03-06'])
    await compare('SELECT k::text FROM d WHERE k = $1', [k]);
});
