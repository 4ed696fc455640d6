/** A table that has been sharded comes back as one plain table with all that it had; and a router that dies on the way. */
import { describe, expect, test } from 'vitest';
import { APP, createCommand, type TestRouter } from '../../../test/support/sharded-cluster.ts';
import { type TransactionCluster, useTransactionCluster } from '../../../test/support/transaction-cluster.ts';
import { findDoorTable } from '../../ddl/door-table.ts';
import type { RouterCommand } from '../../plan/plan.ts';
import { createReferenceTable } from '../reference/create.ts';
import { unshardReferenceTable } from '../reference/unshard.ts';
import { createShardedTable } from './create.ts';
import { distributeTable } from './distribute.ts';
import { unshardTable } from './unshard.ts';

// A control role with no more rights than the documentation asks for.
const cluster = useTransactionCluster(3, { admin: 'manager' });

async function unshard(name: string, router: TestRouter = cluster.router()): Promise<void> {
  const table = await findDoorTable(router, name, APP);
  await (table.door === 'reference' ? unshardReferenceTable : unshardTable)(router, table);
}

/** All that PostgreSQL's catalogs say of a table. */
async function describeTable(name: string): Promise<unknown> {
  const [home] = cluster.servers;
  const [row] = await home!.query(`SELECT json_build_object(
    'kind', c.relkind, 'owner', c.relowner::regrole, 'options', c.reloptions, 'acl', (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(c.relacl) a),
    'rls', c.relrowsecurity, 'forces', c.relforcerowsecurity, 'comment', obj_description(c.oid, 'pg_class'),
    'columns', (SELECT json_agg(json_build_array(attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated,
      pg_get_expr(adbin, adrelid), col_description(c.oid, attnum), attacl) ORDER BY attnum)
      FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
      WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
    'constraints', (SELECT json_agg(json_build_array(conname, pg_get_constraintdef(k.oid)) ORDER BY conname)
      FROM pg_constraint k WHERE conrelid = c.oid AND contype <> 'n'),
    'indexes', (SELECT json_agg(pg_get_indexdef(indexrelid) ORDER BY indexrelid::regclass::text) FROM pg_index WHERE indrelid = c.oid),
    'statistics', (SELECT json_agg(pg_get_statisticsobjdef(oid)) FROM pg_statistic_ext WHERE stxrelid = c.oid),
    'triggers', (SELECT json_agg(json_build_array(pg_get_triggerdef(oid), tgenabled) ORDER BY tgname) FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal),
    'policies', (SELECT json_agg(p ORDER BY policyname) FROM pg_policies p WHERE tablename = c.relname),
    'sequences', (SELECT json_agg(s.relname ORDER BY s.relname) FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
      WHERE d.refobjid = c.oid AND d.deptype IN ('a', 'i'))) AS all
    FROM pg_class c WHERE c.oid = '${name}'::regclass`);
  return row!.all;
}

const DISTRIBUTE: Omit<Extract<RouterCommand, { kind: 'distributeTable' }>, 'relation' | 'key'> = {
  ...{
    kind: 'distributeTable',
    nodes: undefined,
    colocateWith: 'none',
    coalesce: undefined,
    functionName: '',
  },
  placement: { method: 'hash', bucketCount: 6 },
};

test('keys, defaults, indexes, comments, privileges, foreign keys, statistics and sequences are as before', async () => {
  const [home] = cluster.servers;
  await createReferenceTable(
    cluster.router(),
    {
      ...{ kind: 'createReferenceTable', schema: undefined, name: 'country', ifNotExists: false },
      createText: 'CREATE TABLE country (code text PRIMARY KEY)',
    },
    APP,
  );
  await home!.query(`SET ROLE app; CREATE TABLE whole (
      id bigserial, k int4 NOT NULL, v text DEFAULT 'x' CHECK (v <> ''), n numeric(10,2), twice int GENERATED ALWAYS AS (k * 2) STORED,
      country text CONSTRAINT of_country REFERENCES country, PRIMARY KEY (k, id), CONSTRAINT once UNIQUE (k, v)) WITH (fillfactor = 70);
    CREATE INDEX whole_n ON whole (n DESC) WHERE n > 0;
    CREATE STATISTICS whole_stats ON k, n FROM whole;
    COMMENT ON TABLE whole IS 'It''s all'; COMMENT ON COLUMN whole.v IS 'a value';
    GRANT SELECT, INSERT ON whole TO reader; GRANT UPDATE ON whole TO reader WITH GRANT OPTION;
    INSERT INTO whole (k, v, n) SELECT i, 'v' || i, i / 3.0 FROM generate_series(1, 500) i; RESET ROLE`);
  const before = await describeTable('whole');
  const rows = await home!.query('SELECT * FROM whole ORDER BY k');
  await distributeTable(cluster.router(), { ...DISTRIBUTE, relation: 'whole', key: 'k' }, APP);
  // As routers do: ids are drawn in blocks.
  await home!.query(`SELECT nextval('whole_id_seq') FROM generate_series(1, 100)`);
  await unshard('whole');
  expect(await describeTable('whole')).toEqual(before);
  expect(await home!.query('SELECT * FROM whole ORDER BY k')).toEqual(rows);
  const [next] = await home!.query(`INSERT INTO whole (k, v) VALUES (1000, 'new') RETURNING id::int4`);
  expect(next).toEqual({ id: 601 });
  expect(await cluster.traces('whole')).toEqual(['n1: whole', ...extras('whole')]);
  expect((await cluster.map()).tables.size).toBe(0);
  expect(await home!.query('SELECT * FROM postern.colocation_groups')).toEqual([]);
});

/** What a plain table has besides itself. */
function extras(name: string): string[] {
  return [`${name}_id_seq`, `${name}_n`, `${name}_pkey`].map((one) => `n1: ${one}`);
}

test('what leaves alone have comes back: policies, row-level security, triggers, privileges on columns', async () => {
  const columns = 'id int8 GENERATED ALWAYS AS IDENTITY, k int4 PRIMARY KEY, v text';
  const [home] = cluster.servers;
  for (const server of cluster.servers)
    await server.query(
      `CREATE OR REPLACE FUNCTION mark_it() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := ''marked''; RETURN NEW; END'`,
    );
  const extra = (
    table: string,
  ) => `ALTER TABLE ${table} ENABLE ROW LEVEL SECURITY; ALTER TABLE ${table} FORCE ROW LEVEL SECURITY;
    CREATE POLICY small ON ${table} AS RESTRICTIVE FOR UPDATE TO reader, app USING (k < 10) WITH CHECK (k < 5);
    CREATE POLICY every ON ${table};
    CREATE TRIGGER marks BEFORE INSERT ON ${table} FOR EACH ROW WHEN (NEW.v IS NULL) EXECUTE FUNCTION mark_it();
    CREATE TRIGGER off AFTER DELETE ON ${table} EXECUTE FUNCTION mark_it(); ALTER TABLE ${table} DISABLE TRIGGER off;
    GRANT SELECT (k), UPDATE (v) ON ${table} TO reader`;
  await home!.query(`SET ROLE app; CREATE TABLE secured (${columns}); ${extra('secured')}; RESET ROLE`);
  const before = await describeTable('secured');
  await home!.query('DROP TABLE secured');
  await createShardedTable(cluster.router(), createCommand('secured', columns, { key: 'k' }), APP);
  for (const server of cluster.servers) {
    const leaves = await server.query(`SELECT leaf::text FROM postern_internal.local_leaves`);
    for (const { leaf } of leaves)
      await server.query(`INSERT INTO ${String(leaf)} (id, k) SELECT i, i FROM generate_series(1, 60) i
        WHERE satisfies_hash_partition('secured'::regclass, 6, substring('${String(leaf)}' from '_b([0-9]+)_')::int, i) ;
        SET ROLE app; ${extra(String(leaf))}; RESET ROLE`);
  }
  await unshard('secured');
  expect(await describeTable('secured')).toEqual(before);
  expect(await home!.query('SELECT count(*)::int4 AS n, max(id)::int4 AS top FROM secured')).toEqual([
    { n: 60, top: 60 },
  ]);
  expect(await home!.query('INSERT INTO secured (k) VALUES (61) RETURNING id::int4, v')).toEqual([
    { id: 61, v: 'marked' },
  ]);
});

test('a reference table comes back, and its copies go', async () => {
  const [home, second] = cluster.servers;
  await home!.query(`SET ROLE app; INSERT INTO country VALUES ('x'); RESET ROLE`).then(
    () => expect.unreachable('the guard refuses it'),
    () => home!.query('RESET ROLE'),
  );
  await unshard('country');
  await home!.query(`INSERT INTO country VALUES ('x')`);
  expect(await second!.query(`SELECT to_regclass('country') AS there`)).toEqual([{ there: null }]);
  expect((await cluster.map()).references.size).toBe(0);
});

describe('refused, and nothing has happened', () => {
  test('what has no door, or another owner', async () => {
    await cluster.servers[0]!.query(
      'CREATE TABLE foreign_plain (); SET ROLE app; CREATE TABLE plain (); RESET ROLE',
    );
    await expect(unshard('plain')).rejects.toMatchObject({ sqlState: '42809' });
    await expect(unshard('foreign_plain')).rejects.toMatchObject({ sqlState: '42501' });
    await expect(unshard('nowhere')).rejects.toMatchObject({ sqlState: '42P01' });
  });

  test('a table on which a view depends', async () => {
    await createShardedTable(cluster.router(), createCommand('viewed', 'id int8 PRIMARY KEY'), APP);
    await cluster.servers[0]!.query('CREATE VIEW of_it AS SELECT id FROM viewed');
    const before = await cluster.traces('viewed');
    await expect(unshard('viewed')).rejects.toMatchObject({ sqlState: '2BP01' });
    expect(await cluster.traces('viewed')).toEqual(before);
    await cluster.servers[0]!.query('DROP VIEW of_it');
    await unshard('viewed');
  });

  test('a lock that is not let go is told, and holds nobody for long', async () => {
    await createShardedTable(cluster.router(), createCommand('held', 'id int8 PRIMARY KEY'), APP);
    const [{ leaf } = { leaf: '' }] = await cluster.servers[1]!.query(
      `SELECT leaf::text FROM postern_internal.local_leaves LIMIT 1`,
    );
    const holder = await cluster.branch(1, [`LOCK TABLE ${String(leaf)} IN ACCESS SHARE MODE`], {
      user: 'postgres',
    });
    let tries = 0;
    const router = cluster.router();
    const table = await findDoorTable(router, 'held', APP);
    const done = unshardTable(router, table).then(() => 'done');
    // It lets go of home's leaves between its tries.
    await expect
      .poll(
        async () => {
          const [row] = await cluster.servers[0]!.query(
            `SELECT count(*)::int4 AS n FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation IN
             (SELECT leaf FROM postern_internal.local_leaves)`,
          );
          if (row!.n === 0) tries++;
          return tries;
        },
        { timeout: 20_000 },
      )
      .toBeGreaterThan(2);
    holder.connection.destroy();
    expect(await done).toBe('done');
  });
});

function crashAt(name: string): (step: string, router: TestRouter) => void {
  return (step, router) => {
    if (step === name) router.crash();
  };
}

async function recovered(at: TransactionCluster): Promise<void> {
  const router = await at.transactions({ times: { leftAloneMs: 0, recoveryAfterMs: 200 } });
  await expect
    .poll(
      async () => {
        await router.recovery.round();
        const left = await at.leftovers();
        return left.filter((one) => one.includes('prepared'));
      },
      { timeout: 20_000 },
    )
    .toEqual([]);
}

describe('a router that dies while it brings a table back', () => {
  test.each([
    ['unsharded, not committed', 'sharded'],
    ['prepared', 'sharded'],
    ['decided', 'plain'],
  ])('after "%s": the table is %s', async (step, expected) => {
    const columns = 'id int8 PRIMARY KEY, v text';
    await cluster.servers[0]!.query(`SET ROLE app; CREATE TABLE dying (${columns});
      INSERT INTO dying SELECT i, 'v' || i FROM generate_series(1, 100) i; RESET ROLE`);
    await distributeTable(cluster.router(), { ...DISTRIBUTE, relation: 'dying', key: 'id' }, APP);
    await expect(unshard('dying', cluster.router(crashAt(step)))).rejects.toThrow();
    await recovered(cluster);
    const isSharded = (await cluster.map()).tables.get('public')?.has('dying') === true;
    expect(isSharded ? 'sharded' : 'plain').toBe(expected);
    if (isSharded) await unshard('dying');
    expect(await cluster.servers[0]!.query('SELECT count(*)::int4 AS n FROM dying')).toEqual([{ n: 100 }]);
    expect(await cluster.traces('dying')).toEqual(['n1: dying', 'n1: dying_pkey']);
    await cluster.servers[0]!.query('DROP TABLE dying');
  });
});
