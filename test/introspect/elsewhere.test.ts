/**
 * What a face on home can't have: foreign keys and privileges of a table whose buckets are all on other nodes, long names of
 * foreign keys, and unique constraints off the shard key. psql, information_schema and pg_dump show them all the same.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { comparable, type Pair, run, startPair } from './pair.ts';
import { programsAreThere, psql, runProgram } from './programs.ts';

const there = await programsAreThere();

const LONG = 'orders_have_a_tenant_that_is_known_and_this_name_is_too_long_b';
const LIST = `"postern.door" = sharded, "postern.key" = tenant, "postern.method" = list, "postern.values" = '{acme,globex}'`;

const SCHEMA: readonly string[] = [
  'CREATE TABLE kinds (kind int PRIMARY KEY, name text)/* reference */',
  `CREATE TABLE tenants (tenant text PRIMARY KEY, email text UNIQUE, "Team" int, number int,
     CONSTRAINT "Numbers" UNIQUE ("Team", number))/* sharded by tenant */`,
  'CREATE UNIQUE INDEX tenants_number ON tenants (number, email)',
  `CREATE TABLE there (tenant text PRIMARY KEY, kind int REFERENCES kinds, secret text)
    /* WITH (${LIST}, "postern.nodes" = '{n2,n2}', "postern.colocate_with" = 'none') */`,
  `CREATE TABLE orders (tenant text, id int, kind int, PRIMARY KEY (tenant, id), CONSTRAINT "${LONG}"
     FOREIGN KEY (tenant) REFERENCES there ON DELETE CASCADE)/* WITH ("postern.door" = sharded, "postern.key" = tenant, "postern.colocate_with" = 'there') */`,
  'GRANT SELECT (tenant, kind), UPDATE (kind) ON there TO reader',
  'GRANT SELECT ON orders TO reader',
  'ALTER TABLE orders ADD FOREIGN KEY (kind) REFERENCES kinds',
  'ALTER TABLE there ADD COLUMN more int DEFAULT 1, ADD CHECK (more > 0)',
  'CREATE INDEX ON there (kind)',
  'ALTER TABLE there RENAME CONSTRAINT there_kind_fkey TO there_has_a_kind',
  'ALTER TABLE orders RENAME TO purchases',
];

const ROWS = [
  'INSERT INTO kinds VALUES (1), (2)',
  "INSERT INTO tenants VALUES ('a', 'a@x', 1, 1), ('b', 'b@x', 1, 2)",
  "INSERT INTO there VALUES ('acme', 1), ('globex', 2)",
  "INSERT INTO purchases VALUES ('acme', 1, 1), ('globex', 2, 2)",
];
const TABLES = ['kinds', 'tenants', 'there', 'purchases'];

describe.skipIf(!there)('what the face on home has not', () => {
  let pair: Pair;
  let fresh: TestCluster | undefined;
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'postern-elsewhere-'));
    [pair, fresh] = await Promise.all([startPair(15, SCHEMA), startTestCluster({ version: 15 })]);
    for (const dsn of [pair.sharded, pair.plain]) for (const text of ROWS) await run(dsn, text);
    for (const server of fresh.servers) await server.query('CREATE ROLE reader LOGIN');
  });
  afterAll(async () => {
    await fresh?.stop();
    await pair?.stop();
    await rm(directory, { recursive: true, force: true });
  });

  const dump = (dsn: string, ...args: string[]) => runProgram('pg_dump', [...args, dsn]);

  /** Statements and rows in an order of their own, without doors. */
  function sorted(dumped: string): string[] {
    const lines = dumped.split('\n').filter((line) => line !== '' && !/^(--|\\(un)?restrict)/.test(line));
    return lines
      .filter((line) => !/^(WITH \("postern.*|\));?$/.test(line))
      .map((line) => line.replace(/,$/, ''))
      .sort();
  }

  test('psql', async () => {
    const commands = TABLES.flatMap((table) => [`\\d ${table}`, `\\d+ ${table}`, `\\dp ${table}`]);
    const lines = (text: string) =>
      text
        .split('\n')
        .filter((line) => !/^Options: /.test(line))
        .map((line) => line.replace(/\b\d+ (bytes|kB|MB)\b/, 'size'));
    const said = await psql(pair.sharded, ...commands, '\\di');
    expect(lines(said)).toEqual(lines(await psql(pair.plain, ...commands, '\\di')));
    expect(said).toContain('"tenants_email_key" UNIQUE CONSTRAINT, btree (email)');
    expect(said).toContain(`"${LONG}" FOREIGN KEY (tenant) REFERENCES there(tenant) ON DELETE CASCADE`);
  });

  test('information_schema and the catalogs', async () => {
    const own = "NOT IN ('postern', 'pg_catalog', 'information_schema')";
    const texts = [
      `SELECT * FROM information_schema.table_constraints WHERE table_schema ${own}`,
      `SELECT * FROM information_schema.key_column_usage WHERE table_schema ${own}`,
      `SELECT * FROM information_schema.constraint_column_usage WHERE table_schema ${own}`,
      `SELECT * FROM information_schema.referential_constraints WHERE constraint_schema ${own}`,
      `SELECT * FROM information_schema.column_privileges WHERE table_schema ${own}`,
      `SELECT * FROM information_schema.table_privileges WHERE table_schema ${own}`,
      `SELECT * FROM pg_indexes WHERE schemaname ${own}`,
      `SELECT conname, contype, condeferrable, convalidated, conislocal, coninhcount::int, connoinherit OR contype = 'p' AS noinherit,
         conrelid::regclass::text, conindid::regclass::text, conkey, pg_get_constraintdef(oid), pg_get_constraintdef(oid, true) AS pretty
         FROM pg_constraint WHERE connamespace = 'public'::regnamespace`,
      `SELECT indexrelid::regclass::text AS name, indisunique, indisvalid, pg_get_indexdef(indexrelid) FROM pg_index
         WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)`,
      `SELECT relname, relhastriggers, relacl::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'`,
      `SELECT has_column_privilege('reader', 'there', 'secret', 'SELECT'), has_column_privilege('reader', 'there', 'kind', 'UPDATE')`,
    ];
    for (const text of texts) {
      const rows = await run(pair.sharded, text);
      expect(comparable(rows), text).toEqual(comparable(await run(pair.plain, text)));
    }
  });

  test('pg_dump writes them, and a restore makes them again', async () => {
    const file = path.join(directory, 'dump.sql');
    const { stderr } = await dump(pair.sharded, '-f', file);
    expect(stderr).toBe('');
    const dumped = await readFile(file, 'utf8');
    expect(sorted(dumped)).toEqual(sorted((await dump(pair.plain)).stdout));
    const restored = await runProgram('psql', [
      ...['-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', file, fresh!.dsn()],
    ]);
    expect(restored.stderr).toBe('');
    expect(sorted((await dump(fresh!.dsn())).stdout)).toEqual(sorted(dumped));
    await expect(run(fresh!.dsn(), "INSERT INTO tenants VALUES ('c', 'a@x')")).rejects.toMatchObject({
      code: '23505',
      constraint: 'tenants_email_key',
    });
    await expect(run(fresh!.dsn(), "INSERT INTO purchases VALUES ('initech', 1, 1)")).rejects.toBeDefined();
  });

  test('the empty leaf on home takes no row, and goes with the table, or when a bucket comes', async () => {
    const [home] = pair.cluster.servers;
    const database = home!.dsn({ database: 'app', user: 'postgres' });
    const leaves = async () =>
      (
        await run(
          database,
          "SELECT relname AS name FROM pg_class WHERE relname ~ '_b[0-9]+_g[0-9]+$' AND relkind = 'r'",
        )
      )
        .map(({ name }) => String(name).replace(/_g\d+$/, ''))
        .filter((name) => /^(there|purchases)/.test(name))
        .sort();
    expect(await leaves()).toEqual(['purchases_b0', 'there_b0']);
    const [leaf] = await run(
      database,
      "SELECT oid::regclass::text AS name FROM pg_class WHERE relname ~ '^there_b0_g[0-9]+$'",
    );
    await expect(run(database, `INSERT INTO ${String(leaf!.name)} VALUES ('acme')`)).rejects.toMatchObject({
      code: '23514',
    });
    const keys = () => psql(pair.sharded, '\\d there', '\\d purchases');
    const before = await keys();
    await run(pair.sharded, 'ALTER TABLE purchases DROP CONSTRAINT orders_kind_fkey');
    expect(await keys()).not.toContain('orders_kind_fkey');
    await run(
      pair.sharded,
      'ALTER TABLE purchases ADD CONSTRAINT orders_kind_fkey FOREIGN KEY (kind) REFERENCES kinds',
    );
    expect(await keys()).toBe(before);
    await run(pair.sharded, 'DROP TABLE purchases');
    expect(await leaves()).toEqual(['there_b0']);
    await run(pair.sharded, 'BEGIN; DROP TABLE there; ROLLBACK');
    expect(await leaves()).toEqual(['there_b0']);
    await run(pair.sharded, 'DROP TABLE there');
    expect(await leaves()).toEqual([]);
  });
});

test('a key that is pinned to home makes the first leaf there, and one elsewhere gives the empty one its new name', async () => {
  const cluster = await startTestCluster();
  try {
    const dsn = cluster.dsn();
    const shown = () =>
      run(
        dsn,
        "SELECT conname, pg_get_constraintdef(oid) AS text FROM pg_constraint WHERE conrelid = 'there'::regclass",
      );
    await run(dsn, "CREATE TABLE kinds (kind int PRIMARY KEY) WITH (postern.door = 'reference')");
    await run(
      dsn,
      `CREATE TABLE there (tenant text PRIMARY KEY, kind int REFERENCES kinds) WITH (postern.door = sharded, postern.key = tenant,
         postern.method = list, postern.values = '{{acme,globex,initech}}', postern.nodes = '{n2}')`,
    );
    const before = await shown();
    expect(before).toContainEqual({
      conname: 'there_kind_fkey',
      text: 'FOREIGN KEY (kind) REFERENCES kinds(kind)',
    });
    for (const [tenant, node] of [
      ['acme', 'n2'],
      ['globex', 'n1'],
    ]) {
      await run(dsn, `SELECT postern.pin_tenant('there', '${tenant}', '${node}')`);
      expect(await shown()).toEqual(before);
      await run(dsn, 'ALTER TABLE there RENAME CONSTRAINT there_kind_fkey TO renamed');
      expect(await shown()).toContainEqual({
        conname: 'renamed',
        text: 'FOREIGN KEY (kind) REFERENCES kinds(kind)',
      });
      await run(dsn, 'ALTER TABLE there RENAME CONSTRAINT renamed TO there_kind_fkey');
    }
    await run(dsn, "INSERT INTO there VALUES ('acme'), ('globex'), ('initech')");
    await run(dsn, 'DROP TABLE there');
  } finally {
    await cluster.stop();
  }
});
