/** docs/guide/leaving.md, followed to the letter: afterwards nothing of Postern is on any node, and all rows are on home. */
import { readFile } from 'node:fs/promises';
import pg from 'pg';
import { expect, onTestFinished, test } from 'vitest';
import { startTestCluster } from '../support/router.ts';
import { connectClient, values } from '../support/router-clients.ts';

/** The statements that the page tells to run on each node. */
async function leavingStatements(): Promise<string[]> {
  const page = await readFile('docs/guide/leaving.md', 'utf8');
  return [...page.matchAll(/```sql leave\n([\s\S]*?)```/g)].map(([, text]) => text!);
}

test('all tables come back, and nothing is left', async () => {
  const cluster = await startTestCluster({ nodes: 3 });
  onTestFinished(() => cluster.stop());
  const client = await connectClient(cluster);
  for (const text of [
    "CREATE TABLE country (code text PRIMARY KEY) WITH (postern.door = 'reference')",
    "INSERT INTO country VALUES ('de'), ('fr')",
    "CREATE TABLE users (id bigserial PRIMARY KEY, email text, country text REFERENCES country, n int) WITH (postern.door = 'sharded', postern.key = 'id')",
    "CREATE TABLE dated (d date, v text, PRIMARY KEY (d, v)) WITH (postern.door = sharded, postern.key = d, postern.method = range, postern.bounds = '{2024-01-01,2025-01-01}')",
    'CREATE TABLE single (id int)',
    'CREATE SCHEMA acme',
    'CREATE TABLE acme.notes (id serial, note text)',
    "SELECT postern.distribute_schema('acme', node => 'n3')",
    "INSERT INTO acme.notes (note) VALUES ('kept')",
    "INSERT INTO dated VALUES ('2023-05-05', 'a'), ('2024-05-05', 'b'), ('2025-05-05', 'c')",
  ])
    await client.query(text);
  for (let n = 1; n <= 20; n++)
    await client.query('INSERT INTO users (email, country, n) VALUES ($1, $2, $3)', [
      `u${n}`,
      n % 2 ? 'de' : 'fr',
      n,
    ]);
  const rows = (name: string) => values(client, `SELECT * FROM ${name} ORDER BY 1, 2`);
  const before = await Promise.all(['users', 'dated', 'acme.notes'].map(rows));

  const found = (await values(
    client,
    `SELECT format('SELECT postern.unshard_table(%L);', format('%I.%I', table_schema, table_name)) FROM postern.tables
     ORDER BY door = 'reference', table_schema, table_name`,
  )) as string[][];
  expect(found).toHaveLength(3);
  for (const [text] of found) await client.query(text!);
  const schemas = (await values(
    client,
    `SELECT format('SELECT postern.undistribute_schema(%L);', schema_name) FROM postern.schemas`,
  )) as string[][];
  for (const [text] of schemas) await client.query(text!);
  expect(await values(client, 'SELECT * FROM postern.tables')).toEqual([]);
  expect(await Promise.all(['users', 'dated', 'acme.notes'].map(rows))).toEqual(before);
  await client.end();
  await cluster.router.close();

  const statements = await leavingStatements();
  expect(statements).toHaveLength(2);
  for (const [index, server] of cluster.servers.entries()) {
    const direct = new pg.Client({ connectionString: server.dsn({ database: 'app' }) });
    await direct.connect();
    try {
      for (const text of statements) await direct.query(text);
      const left = await direct.query(`SELECT nspname AS name FROM pg_namespace WHERE nspname LIKE 'postern%'
        UNION ALL SELECT p.proname FROM pg_proc p WHERE p.prosrc ILIKE '%postern%' AND p.oid >= 16384
        UNION ALL SELECT c.relname FROM pg_class c WHERE c.relname ~ '_b[0-9]+_g[0-9]+|postern'
        UNION ALL SELECT t.tgname FROM pg_trigger t WHERE t.tgname LIKE 'postern%'
        UNION ALL SELECT gid FROM pg_prepared_xacts UNION ALL SELECT subname FROM pg_subscription`);
      expect(left.rows).toEqual([]);
      await direct.query('DROP DATABASE IF EXISTS app_postern_mesh');
      const roles = await direct.query(`SELECT rolname FROM pg_roles WHERE rolname LIKE 'postern%'`);
      for (const { rolname } of roles.rows) await direct.query(`DROP ROLE "${rolname}"`);
      const tables = await direct.query(
        `SELECT n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^(pg_|information_schema)' ORDER BY 1`,
      );
      expect(tables.rows.map(({ name }) => name)).toEqual(
        index === 0 ? ['acme.notes', 'public.country', 'public.dated', 'public.single', 'public.users'] : [],
      );
      if (index > 0) continue;
      const { rows: next } = await direct.query(
        "INSERT INTO users (email, country) VALUES ('direct', 'de') RETURNING id > 20 AS behind",
      );
      expect(next).toEqual([{ behind: true }]);
      await expect(direct.query("INSERT INTO users (country) VALUES ('zz')")).rejects.toMatchObject({
        code: '23503',
      });
    } finally {
      await direct.end();
    }
  }
});
