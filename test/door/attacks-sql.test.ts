/**
 * What a role without rights tries by SQL: the catalog, leaves, faces, the mesh, signed statements, other roles, the router's own
 * commands, the server's files. Each is refused, and nothing has changed after all of them.
 */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient } from '../support/router-clients.ts';

/** Not found counts: what a role can't see, it isn't told of. */
const REFUSED = /^(42501|0A000|42602|42704|42P01|42883|3F000|22023|28000|55000)$/;
const VICTIM = 'app';
const ATTACKER = 'mallory';

let cluster: TestCluster;
/** A leaf, and the node it is on. */
let leaf: string;
let before: string;

beforeAll(async () => {
  const users = [VICTIM, ATTACKER, 'postgres'].map((name) => ({ name, password: undefined }));
  cluster = await startTestCluster({ users });
  const owner = new pg.Client({ connectionString: cluster.dsn(VICTIM) });
  await owner.connect();
  for (const statement of [
    `CREATE TABLE secrets (id int8 PRIMARY KEY, owner text, word text)
       WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = 4)`,
    `CREATE TABLE rates (code text PRIMARY KEY, rate int) WITH (postern.door = 'reference')`,
    'CREATE TABLE plain_secrets (id int PRIMARY KEY, word text)',
    `INSERT INTO secrets SELECT i, CASE WHEN i % 2 = 0 THEN '${ATTACKER}' ELSE '${VICTIM}' END, 'w' || i FROM generate_series(1, 20) i`,
    "INSERT INTO rates VALUES ('x', 1)",
    "INSERT INTO plain_secrets VALUES (1, 'w')",
    // One that it may read some rows of.
    `CREATE TABLE shared (id int8 PRIMARY KEY, owner text) WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = 4)`,
    `INSERT INTO shared SELECT i, CASE WHEN i % 2 = 0 THEN '${ATTACKER}' ELSE '${VICTIM}' END FROM generate_series(1, 20) i`,
    'ALTER TABLE shared ENABLE ROW LEVEL SECURITY',
    'CREATE POLICY own ON shared USING (owner = current_user)',
    `GRANT SELECT, UPDATE, DELETE, INSERT ON shared TO ${ATTACKER}`,
  ])
    await owner.query(statement);
  // The mesh is made when it is first read: its role is there then.
  await owner.query('SELECT count(*) FROM secrets a JOIN secrets b ON a.id = b.id + 1');
  await owner.end();
  leaf = String(
    (
      await onNode(
        0,
        `SELECT relname FROM pg_class WHERE relname LIKE 'secrets\\_b%' AND relkind = 'r' ORDER BY 1`,
      )
    )[0]!.relname,
  );
  before = await everything();
});
afterAll(() => cluster?.stop());

/** On a server itself, as its superuser, in the database of the application. */
async function onNode(node: number, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: cluster.servers[node]!.dsn({ database: 'app' }) });
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

/** Rows of users, the catalog, roles, and what there is at all, on each node. */
async function everything(): Promise<string> {
  const of = async (node: number) => {
    const relations = await onNode(
      node,
      `SELECT n.nspname, c.relname, c.relkind, pg_get_userbyid(c.relowner) AS owner, c.relacl::text AS acl
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname !~ '^pg_temp' ORDER BY 1, 2`,
    );
    const roles = await onNode(
      node,
      'SELECT rolname, rolsuper, rolcreaterole, rolcanlogin, rolbypassrls FROM pg_roles ORDER BY 1',
    );
    const members = await onNode(
      node,
      'SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members ORDER BY 1, 2',
    );
    const functions = await onNode(
      node,
      `SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.oid >= 16384 ORDER BY 1`,
    );
    const rows: unknown[] = [];
    for (const { nspname, relname, relkind } of relations) {
      if (relkind !== 'r' || !/^(public|postern_leaves)$/.test(String(nspname))) continue;
      rows.push(
        await onNode(
          node,
          `SELECT count(*)::int AS n, md5(string_agg(t::text, ',' ORDER BY t::text)) AS sum FROM "${nspname}"."${relname}" t`,
        ),
      );
    }
    return { relations, roles, members, functions, rows };
  };
  return JSON.stringify([await of(0), await of(1)], null, 1);
}

/** The SQLSTATE of the first statement that fails, or what the last one gave. A connection of its own, that nothing is left on. */
async function tried(statements: readonly string[], options?: string): Promise<string> {
  const client = await connectClient(cluster, options === undefined ? {} : { options }, ATTACKER).catch(
    (error: pg.DatabaseError) => error,
  );
  if (client instanceof Error) return client.code ?? client.message;
  try {
    let last: pg.QueryResult | undefined;
    for (const statement of statements) last = await client.query(statement);
    return `carried out: ${JSON.stringify(last?.rows)}`;
  } catch (error) {
    return (error as pg.DatabaseError).code ?? String(error);
  } finally {
    await client.end();
  }
}

/** The leaf's name stands for LEAF. */
const ATTEMPTS: Record<string, readonly (string | readonly string[])[]> = {
  'the catalog': [
    'SELECT * FROM postern_internal.cluster',
    'SELECT inner_pad FROM postern_internal.local_key',
    'TABLE postern_internal.nodes',
    'SELECT * FROM postern_internal.local_node',
    "UPDATE postern_internal.tables SET table_name = 'mine'",
    'DELETE FROM postern_internal.places',
    'INSERT INTO postern_internal.decisions DEFAULT VALUES',
    'TRUNCATE postern_internal.decisions',
    ['BEGIN', 'LOCK TABLE postern_internal.cluster IN ACCESS EXCLUSIVE MODE'],
    'DROP SCHEMA postern_internal CASCADE',
    'DROP SCHEMA postern CASCADE',
    'ALTER SCHEMA postern_internal OWNER TO mallory',
    'CREATE TABLE postern_internal.mine (a int)',
    'CREATE VIEW mine AS SELECT * FROM postern_internal.cluster',
    'UPDATE postern.nodes SET node = 1',
    'COPY postern_internal.cluster TO STDOUT',
    'EXPLAIN ANALYZE SELECT * FROM postern_internal.cluster',
    'DO $$ BEGIN PERFORM * FROM postern_internal.local_key; END $$',
    "DO $$ BEGIN EXECUTE 'SELECT * FROM postern_' || 'internal.local_key'; END $$",
    ['BEGIN', 'DECLARE c CURSOR FOR SELECT * FROM postern_internal.cluster', 'FETCH c'],
    ['SET search_path = postern_internal', 'SELECT * FROM cluster'],
    ["SELECT set_config('search_path', 'postern_' || 'internal', false)", 'SELECT * FROM local_key'],
    "SELECT query_to_xml('SELECT * FROM postern_internal.cluster', true, true, '')",
    'SELECT * FROM U&"postern\\005finternal".cluster',
  ],
  'leaves and faces': [
    'SELECT * FROM secrets',
    'SELECT * FROM secrets WHERE id = 1',
    'SELECT count(*) FROM secrets',
    "INSERT INTO secrets VALUES (99, 'x', 'x')",
    "UPDATE secrets SET word = 'x' WHERE id = 1",
    'DELETE FROM secrets',
    'SELECT * FROM postern_leaves.LEAF',
    'SELECT * FROM "postern_leaves"."LEAF"',
    'SELECT * FROM U&"postern\\005fleaves".LEAF',
    'DELETE FROM postern_leaves.LEAF',
    'DROP TABLE postern_leaves.LEAF',
    'TRUNCATE postern_leaves.LEAF',
    'WITH x AS (DELETE FROM postern_leaves.LEAF RETURNING *) SELECT * FROM x',
    'ALTER TABLE postern_leaves.LEAF OWNER TO mallory',
    'CREATE TRIGGER t BEFORE INSERT ON postern_leaves.LEAF EXECUTE FUNCTION suppress_redundant_updates_trigger()',
    'CREATE TABLE postern_leaves.mine (a int)',
    ['SET search_path = postern_leaves', 'SELECT * FROM LEAF'],
    ["SELECT set_config('search_path', 'postern_' || 'leaves', false)", 'SELECT * FROM LEAF'],
    "DO $$ BEGIN EXECUTE 'DELETE FROM postern_' || 'leaves.LEAF'; END $$",
    "SELECT query_to_xml('SELECT * FROM postern_' || 'leaves.LEAF', true, true, '')",
    'COPY secrets TO STDOUT',
    'COPY postern_leaves.LEAF TO STDOUT',
    'CREATE INDEX ON secrets (word)',
    'CREATE VIEW mine AS SELECT * FROM secrets; SELECT * FROM mine',
    'CREATE TABLE mine (id int8 REFERENCES secrets)',
    ['BEGIN', 'LOCK TABLE secrets'],
    'TRUNCATE secrets',
    'DROP TABLE secrets',
    'ALTER TABLE secrets ADD COLUMN x int',
    'ALTER TABLE secrets RENAME TO mine',
    'ALTER TABLE secrets DISABLE TRIGGER ALL',
    'GRANT ALL ON secrets TO mallory',
    'COMMENT ON TABLE secrets IS $$mine$$',
    'CREATE POLICY mine ON secrets USING (true)',
    "UPDATE rates SET rate = 2 WHERE code = 'x'",
    'DROP TABLE rates',
    'SELECT * FROM plain_secrets',
    'SELECT * FROM plain_secrets JOIN secrets USING (id)',
    'SELECT s.word FROM shared JOIN secrets s USING (id)',
    'SELECT a.word FROM secrets a JOIN secrets b ON a.id = b.id + 1',
  ],
  'commands of the router’s': [
    "SELECT postern.unshard_table('secrets')",
    "SELECT undistribute_table('secrets')",
    "SELECT postern.pin_tenant('secrets', '1')",
    "SELECT create_distributed_table('plain_secrets', 'id')",
    "SELECT create_reference_table('plain_secrets')",
    "SELECT postern.shard_table('plain_secrets', 'id')",
    "SELECT postern.distribute_schema('public')",
    "SELECT postern.set_coalescing('secrets', false)",
    "ALTER TABLE secrets SET (postern.coalesce = 'off')",
    "ALTER TABLE plain_secrets SET (postern.door = 'sharded', postern.key = 'id')",
  ],
  'signed statements': [
    "SELECT postern_commit.carry_out('CREATE ROLE evil SUPERUSER', false, 'ff')",
    `SELECT postern_commit.carry_out('CREATE ROLE evil SUPERUSER', false, '${'0'.repeat(64)}')`,
    "SELECT postern_commit.carry_out('CREATE ROLE evil SUPERUSER', false, NULL)",
    'CREATE OR REPLACE FUNCTION postern_commit.carry_out(statement text, returns bool, signature text) RETURNS json LANGUAGE sql AS $$ SELECT NULL::json $$',
    'ALTER FUNCTION postern_commit.carry_out(text, bool, text) OWNER TO mallory',
    'DROP FUNCTION postern_commit.carry_out(text, bool, text)',
  ],
  'other roles': [
    'SET ROLE app',
    'SET ROLE postgres',
    'SET LOCAL ROLE postgres',
    'SET SESSION AUTHORIZATION postgres',
    'SET SESSION AUTHORIZATION app',
    "SELECT set_config('role', 'postgres', false)",
    "SELECT set_config('ro' || 'le', 'app', false)",
    "SELECT set_config('session_authorization', 'postgres', false)",
    'GRANT app TO mallory',
    'GRANT postgres TO mallory',
    'ALTER ROLE mallory SUPERUSER',
    'ALTER ROLE mallory BYPASSRLS',
    "ALTER ROLE app PASSWORD 'mine'",
    'CREATE ROLE evil LOGIN',
    'DROP ROLE app',
    'REASSIGN OWNED BY app TO mallory',
    'SELECT rolpassword FROM pg_authid',
    'SELECT passwd FROM pg_shadow',
    'SELECT umoptions FROM pg_user_mapping',
    "DO $$ BEGIN EXECUTE 'SET ROLE postgres'; END $$",
    'CREATE FUNCTION f() RETURNS void LANGUAGE sql SET role = postgres AS $$ SELECT 1 $$',
    ['BEGIN', 'SET LOCAL ROLE app', 'SELECT * FROM secrets', 'COMMIT'],
    ['BEGIN; SET ROLE app; SELECT * FROM secrets; COMMIT'],
  ],
  'files and programs': [
    "COPY plain_secrets TO PROGRAM 'cat >/tmp/postern-attack'",
    "COPY (SELECT 1) TO PROGRAM 'cat >/tmp/postern-attack'",
    "COPY (SELECT 1) TO '/tmp/postern-attack'",
    "COPY secrets FROM PROGRAM 'id'",
    "COPY shared FROM PROGRAM 'id'",
    "COPY shared FROM '/etc/passwd'",
    "COPY shared TO PROGRAM 'id'",
    ['CREATE TEMP TABLE t (a text)', "COPY t FROM '/etc/passwd'"],
    ['CREATE TEMP TABLE t (a text)', "COPY t FROM PROGRAM 'id'"],
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    'CREATE EXTENSION file_fdw',
    'CREATE EXTENSION postgres_fdw',
    'CREATE FUNCTION f() RETURNS int LANGUAGE c AS $$/tmp/x$$, $$f$$',
    "LOAD '/tmp/x'",
    "ALTER SYSTEM SET archive_command = 'id'",
    "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1' PUBLICATION p",
    'SELECT pg_reload_conf()',
    'CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION suppress_redundant_updates_trigger()',
  ],
  'others’ transactions and sessions': [
    "COMMIT PREPARED 'x'",
    "ROLLBACK PREPARED 'postern:x'",
    "PREPARE TRANSACTION 'postern:x'",
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '${VICTIM}' OR usename = 'postgres'`,
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
    "SELECT pg_create_logical_replication_slot('s', 'pgoutput')",
    'SELECT pg_export_snapshot() FROM secrets',
  ],
};

describe.each(Object.entries(ATTEMPTS))('%s', (_, attempts) => {
  test.each(attempts.map((attempt) => [typeof attempt === 'string' ? [attempt] : attempt] as const))(
    '%j',
    async (statements) => {
      expect(await tried(statements.map((text) => text.replaceAll('LEAF', leaf)))).toMatch(REFUSED);
    },
  );
});

test.each([
  '-c role=postgres',
  '-c role=app',
  '-c session_authorization=postgres',
  '-c search_path=postern_leaves',
])('a start-up packet with %s', async (options) => {
  expect(await tried([`SELECT * FROM "${leaf}"`], options)).toMatch(REFUSED);
});

test('rows of others stay hidden, whichever way they are read', async () => {
  const client = await connectClient(cluster, {}, ATTACKER);
  const own = Array.from({ length: 10 }, (_, i) => 2 * (i + 1));
  const ids = async (text: string) =>
    (await client.query(text)).rows.map(({ id }) => Number(id)).sort((a, b) => a - b);
  expect(await ids('SELECT id FROM shared')).toEqual(own);
  expect(await ids('SELECT s.id FROM shared s JOIN generate_series(1, 20) g ON g = s.id')).toEqual(own);
  expect(await ids('SELECT max(id) AS id FROM shared GROUP BY id')).toEqual(own);
  expect(await ids('SELECT id FROM shared WHERE id = 1')).toEqual([]);
  expect((await client.query('DELETE FROM shared WHERE id = 1')).rowCount).toBe(0);
  expect((await client.query("UPDATE shared SET owner = 'mallory' WHERE id IN (1, 3, 5)")).rowCount).toBe(0);
  await expect(client.query(`INSERT INTO shared VALUES (99, '${VICTIM}')`)).rejects.toMatchObject({
    code: '42501',
  });
});

test('what it leaves is nobody’s but its own, and the next client of a backend is itself', async () => {
  const attacker = await connectClient(cluster, {}, ATTACKER);
  for (const text of [
    "SET app.tenant = 'x'",
    'SET work_mem = 64',
    'CREATE TEMP TABLE plain_secrets (id int8)',
    "SELECT set_config('app.' || 'user', 'postgres', false)",
    'PREPARE q AS SELECT 1',
  ])
    await attacker.query(text);
  const victims = await Promise.all(Array.from({ length: 8 }, () => connectClient(cluster, {}, VICTIM)));
  for (const victim of victims) {
    const { rows } = await victim.query(
      `SELECT current_user::text AS who, coalesce(current_setting('app.tenant', true), '') AS tenant, (SELECT count(*)::int FROM secrets) AS n`,
    );
    expect(rows).toEqual([{ who: VICTIM, tenant: '', n: 20 }]);
  }
});

test('after all of it nothing has changed', async () => {
  const after = await everything();
  for (const [i, line] of before.split('\n').entries()) expect(after.split('\n')[i]).toBe(line);
  expect(after).toBe(before);
});
