import { describe, expect, test } from 'vitest';
import { APP, createCommand, useShardedCluster } from '../../../test/support/sharded-cluster.ts';
import type { ReferenceTable } from '../../catalog/map.ts';
import { dropTables } from '../../ddl/drop.ts';
import { sweep } from '../../ddl/sweep.ts';
import { createShardedTable } from '../sharded/create.ts';
import { distributeTable } from '../sharded/distribute.ts';
import { createReferenceTable, makeReferenceTable } from './create.ts';

const cluster = useShardedCluster(3);

function command(
  name: string,
  columns: string,
  more: { schema?: string; ifNotExists?: boolean; after?: string } = {},
) {
  const qualified = more.schema === undefined ? name : `${more.schema}.${name}`;
  return {
    kind: 'createReferenceTable',
    schema: more.schema,
    name,
    ifNotExists: more.ifNotExists ?? false,
    createText: `CREATE TABLE ${more.ifNotExists ? 'IF NOT EXISTS ' : ''}${qualified} (${columns}) ${more.after ?? ''}`,
  } as const;
}

async function reference(name: string, schema = 'public'): Promise<ReferenceTable> {
  const table = (await cluster.map()).references.get(schema)?.get(name);
  if (!table) throw new Error(`no reference table ${name} in the map`);
  return table;
}

/** The same question to each node. */
async function everywhere(query: string): Promise<unknown[]> {
  return await Promise.all(cluster.servers.map((server) => server.query(query)));
}

async function expectEqualEverywhere(query: string): Promise<unknown> {
  const [home, ...others] = await everywhere(query);
  for (const other of others) expect(other).toEqual(home);
  return home;
}

const DEFINITION = (name: string) => `SELECT
  (SELECT json_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull ORDER BY a.attnum)
   FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0) AS columns,
  (SELECT json_agg(k.conname || ' ' || pg_get_constraintdef(k.oid) ORDER BY k.conname) FROM pg_constraint k
   WHERE k.conrelid = c.oid AND k.contype <> 'n' AND k.contype <> 't') AS constraints,
  (SELECT json_agg(pg_get_indexdef(i.indexrelid) ORDER BY i.indexrelid::regclass::text) FROM pg_index i WHERE i.indrelid = c.oid) AS indexes,
  pg_get_userbyid(c.relowner) AS owner, c.reloptions,
  (SELECT json_agg(x::text ORDER BY x::text) FROM unnest(c.relacl) AS x WHERE x::text NOT LIKE 'app=%') AS grants,
  obj_description(c.oid, 'pg_class') AS comment
  FROM pg_class c WHERE c.oid = '${name}'::regclass`;

describe('CREATE TABLE of a reference table', () => {
  test('is an ordinary table on every node, with all that belongs to it', async () => {
    await createReferenceTable(
      cluster.router(),
      command(
        'countries',
        `code char(2) PRIMARY KEY, name text NOT NULL UNIQUE, area numeric(10,2) CHECK (area > 0),
         upper_name text GENERATED ALWAYS AS (upper(name)) STORED, id bigserial, made timestamptz DEFAULT now()`,
        { after: 'WITH (fillfactor = 70)' },
      ),
      APP,
    );
    const [definition] = (await expectEqualEverywhere(DEFINITION('countries'))) as Record<string, unknown>[];
    expect(definition).toMatchObject({ owner: 'app', reloptions: ['fillfactor=70'] });
    expect(definition?.constraints).toHaveLength(3);
    const table = await reference('countries');
    expect(table.primaryKey).toEqual(['code']);
    expect(table.columns.filter((column) => column.generated).map((column) => column.name)).toEqual([
      'upper_name',
    ]);
    expect(
      await cluster.servers[0]!.query(
        `SELECT table_schema, table_name, door, key_column, state FROM postern.tables WHERE table_name = 'countries'`,
      ),
    ).toEqual([
      {
        table_schema: 'public',
        table_name: 'countries',
        door: 'reference',
        key_column: null,
        state: 'ready',
      },
    ]);
  });

  test('refers to other reference tables and to itself; sharded tables refer to it', async () => {
    await createReferenceTable(
      cluster.router(),
      command(
        'cities',
        'id int PRIMARY KEY, code char(2) REFERENCES countries ON DELETE CASCADE, twin int REFERENCES cities',
      ),
      APP,
    );
    await expectEqualEverywhere(DEFINITION('cities'));
    await createShardedTable(
      cluster.router(),
      createCommand('visits', 'id bigint PRIMARY KEY, city int REFERENCES cities, at date'),
      APP,
    );
    const leaf = (await everywhere(
      `SELECT leaf::text, (SELECT count(*)::int FROM pg_constraint WHERE conrelid = leaf AND contype = 'f'
         AND confrelid = 'cities'::regclass) AS keys
       FROM postern_internal.local_leaves ORDER BY 1`,
    )) as { leaf: string; keys: number }[][];
    expect(leaf.flat().map(({ keys }) => keys)).toEqual([1, 1, 1, 1, 1, 1]);
    // The copy of each node can be written to: nothing looks at the face that nobody may read.
    for (const server of cluster.servers) {
      await server.query(`BEGIN; SET LOCAL ROLE app; SET LOCAL postern.reference_write = '1,2,3';
        INSERT INTO cities (id) VALUES (7); DELETE FROM cities WHERE id = 7; ROLLBACK`);
    }
  });

  test.each([
    ['a foreign key to a plain table', 'id int REFERENCES plain', '', 'foreign keys to tables that are not'],
    ['INHERITS', 'more int', 'INHERITS (plain)', 'inheritance'],
  ])('%s is refused, and nothing is left', async (_, columns, after, detail) => {
    await cluster.servers[0]!.query(
      'CREATE TABLE IF NOT EXISTS plain (id int PRIMARY KEY); ALTER TABLE plain OWNER TO app',
    );
    const making = createReferenceTable(cluster.router(), command('refused', columns, { after }), APP);
    await expect(making).rejects.toMatchObject({
      sqlState: '0A000',
      detail: expect.stringContaining(detail),
    });
    expect(await cluster.traces('refused')).toEqual([]);
  });

  test('what another node lacks is said with its name', async () => {
    await cluster.servers[0]!.query(`CREATE TYPE mood AS ENUM ('ok', 'sad')`);
    const making = createReferenceTable(cluster.router(), command('moods', 'm mood'), APP);
    await expect(making).rejects.toMatchObject({
      sqlState: '42704',
      message: expect.stringContaining('mood'),
    });
    expect(await cluster.traces('moods')).toEqual([]);
  });

  test('a name that is taken on another node is not taken over', async () => {
    await cluster.servers[2]!.query('CREATE TABLE taken (id int)');
    const making = createReferenceTable(cluster.router(), command('taken', 'id int'), APP);
    await expect(making).rejects.toMatchObject({ sqlState: '42P07' });
    await cluster.servers[2]!.query('DROP TABLE taken');
    expect(await cluster.traces('taken')).toEqual([]);
  });

  test('a router that does not know all nodes makes none', async () => {
    const home = cluster.servers[0]!;
    await home.query(`INSERT INTO postern_internal.nodes (node_name) VALUES ('n4')`);
    const making = createReferenceTable(cluster.router(), command('early', 'id int'), APP);
    await expect(making).rejects.toMatchObject({
      sqlState: '55000',
      message: expect.stringContaining('"n4"'),
    });
    await home.query(`DELETE FROM postern_internal.nodes WHERE node_name = 'n4'`);
    expect(await cluster.traces('early')).toEqual([]);
  });

  test('IF NOT EXISTS of one that is there says so', async () => {
    const again = await createReferenceTable(
      cluster.router(),
      command('countries', 'code int', { ifNotExists: true }),
      APP,
    );
    expect(again.notices).toEqual([
      { sqlState: '42P07', message: 'relation "countries" already exists, skipping' },
    ]);
  });

  test('a schema of its own is made where it lacks', async () => {
    await cluster.servers[0]!.query('CREATE SCHEMA geo AUTHORIZATION app');
    await createReferenceTable(
      cluster.router(),
      command('seas', 'id int PRIMARY KEY', { schema: 'geo' }),
      APP,
    );
    await expectEqualEverywhere(DEFINITION('geo.seas'));
    expect((await reference('seas', 'geo')).primaryKey).toEqual(['id']);
  });
});

describe('a plain table becomes a reference table', () => {
  test('with its rows, comments, privileges and sequences', async () => {
    const home = cluster.servers[0]!;
    await home.query(`SET ROLE app; CREATE TABLE rates (id serial PRIMARY KEY, at timestamptz, r float8, tags text[], doc jsonb);
      COMMENT ON TABLE rates IS 'it''s rates'; GRANT SELECT ON rates TO reader; CREATE INDEX ON rates (lower(doc->>'a')) WHERE r > 0;
      INSERT INTO rates (at, r, tags, doc) SELECT '2024-01-01'::timestamptz + g * interval '1 second', g / 3.0,
        ARRAY['a,', NULL, '"'], jsonb_build_object('a', g) FROM generate_series(1, 5000) g;
      CREATE TABLE uses (id int REFERENCES rates); RESET ROLE`);
    await makeReferenceTable(
      cluster.router(),
      { kind: 'makeReferenceTable', relation: 'rates', functionName: undefined },
      APP,
    );
    await expectEqualEverywhere(DEFINITION('rates'));
    const sum = await expectEqualEverywhere(
      'SELECT count(*)::int, md5(string_agg(r::text, chr(10) ORDER BY id)) FROM rates AS r',
    );
    expect(sum).toMatchObject([{ count: 5000 }]);
    // The next id is the home node's.
    expect(await home.query(`SELECT nextval('rates_id_seq')::int AS id`)).toEqual([{ id: 5001 }]);
  });

  test('a table that has a door, somebody else’s, or none at all is refused', async () => {
    const make = (relation: string) =>
      makeReferenceTable(
        cluster.router(),
        { kind: 'makeReferenceTable', relation, functionName: undefined },
        APP,
      );
    await cluster.servers[0]!.query(`CREATE TABLE admins (id int);
      CREATE TABLE logged (id int); CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
      CREATE TRIGGER logs BEFORE INSERT ON logged FOR EACH ROW EXECUTE FUNCTION t(); ALTER TABLE logged OWNER TO app`);
    await expect(make('countries')).rejects.toMatchObject({ sqlState: '42P16' });
    await expect(make('visits')).rejects.toMatchObject({ sqlState: '42P16' });
    await expect(make('admins')).rejects.toMatchObject({ sqlState: '42501' });
    await expect(make('nowhere')).rejects.toMatchObject({ sqlState: '42P01' });
    await expect(make('logged')).rejects.toMatchObject({ sqlState: '0A000', detail: 'It has triggers.' });
  });
});

describe('a plain table with foreign keys to reference tables', () => {
  test('can be sharded, and its leaves keep them', async () => {
    await cluster.servers[0]!.query(`SET ROLE app; CREATE TABLE payments (id int PRIMARY KEY, rate int REFERENCES rates);
      INSERT INTO payments SELECT g, g FROM generate_series(1, 50) g; RESET ROLE`);
    await distributeTable(
      cluster.router(),
      {
        ...{
          kind: 'distributeTable',
          relation: 'payments',
          key: 'id',
          placement: { method: 'hash', bucketCount: 6 },
          nodes: undefined,
          colocateWith: undefined,
        },
        ...{ coalesce: undefined, functionName: undefined },
      },
      APP,
    );
    const keys = (await everywhere(
      `SELECT conrelid::regclass::text AS leaf FROM pg_constraint WHERE contype = 'f' AND confrelid = 'rates'::regclass
       AND conrelid::regclass::text LIKE '%payments%'`,
    )) as { leaf: string }[][];
    expect(keys.flat()).toHaveLength(6);
    expect((await cluster.table('payments')).buckets).toHaveLength(6);
  });
});

describe('the guard', () => {
  test('a write that Postern has not sent is refused on each node', async () => {
    for (const server of cluster.servers) {
      for (const write of [
        `INSERT INTO countries (code, name) VALUES ('xx', 'x')`,
        'UPDATE countries SET name = name',
        'DELETE FROM countries',
        'TRUNCATE rates CASCADE',
      ]) {
        await expect(server.query(write)).rejects.toMatchObject({
          code: '0A000',
          message: expect.stringMatching(/^reference table "\w+" cannot be written to from here$/),
        });
      }
    }
  });

  test('a router that knows other nodes writes nothing on home', async () => {
    const write = cluster.servers[0]!.query(
      `BEGIN; SET LOCAL postern.reference_write = '1,2'; DELETE FROM countries; COMMIT`,
    );
    await expect(write).rejects.toMatchObject({ code: '40001' });
    await cluster.servers[0]!.query('ROLLBACK');
  });
});

describe('DROP TABLE', () => {
  test('takes all copies, or none', async () => {
    const tables = [await reference('countries')];
    const drop = (cascade: boolean) =>
      dropTables(cluster.router(), { kind: 'dropTables', tables, cascade }, APP);
    await expect(drop(false)).rejects.toMatchObject({ sqlState: '2BP01' });
    expect(await expectEqualEverywhere(`SELECT to_regclass('countries') IS NOT NULL AS there`)).toEqual([
      { there: true },
    ]);
    await drop(true);
    expect(await cluster.traces('countries')).toEqual([]);
    expect((await cluster.map()).references.get('public')?.has('countries')).toBe(false);
    expect(await sweep(cluster.router())).toEqual([]);
  });
});
