import { describe, expect, test } from 'vitest';
import { APP, createCommand, useShardedCluster } from '../../../test/support/sharded-cluster.ts';
import { leafName } from '../../catalog/map.ts';
import { dropTables } from '../../ddl/drop.ts';
import { sweep } from '../../ddl/sweep.ts';
import { ServerError } from '../../platform/control-connection.ts';
import { createShardedTable } from './create.ts';

const cluster = useShardedCluster(3);

async function failure(work: Promise<unknown>): Promise<Record<string, unknown>> {
  try {
    await work;
  } catch (error) {
    return error as Record<string, unknown>;
  }
  throw new Error('expected a failure');
}

/** Inserts ids 1…count by each leaf's own check, as PostgreSQL's hash says, and returns the rows per node. */
async function fill(name: string, count: number): Promise<number[]> {
  const table = await cluster.table(name);
  const perNode = cluster.servers.map(() => 0);
  for (const [bucket, place] of table.buckets.entries()) {
    const index = cluster.identity!.nodes.findIndex((node) => node.id === place.nodeId);
    const leaf = `postern_leaves."${leafName(name, bucket, place.generation)}"`;
    const rows = await cluster.servers[index]!.query(
      `SET LOCAL ROLE app; INSERT INTO ${leaf} (id) SELECT i FROM generate_series(1, ${count}) i
       WHERE satisfies_hash_partition('public.${name}'::regclass, ${table.buckets.length}, ${bucket}, i::int8)
       RETURNING id`,
    );
    perNode[index]! += rows.length;
  }
  return perNode;
}

describe('CREATE TABLE … sharded', () => {
  test('makes face and leaves on all nodes, and the map has it', async () => {
    await createShardedTable(
      cluster.router(),
      createCommand(
        'events',
        `id bigserial PRIMARY KEY, n int CHECK (n > 0), note text DEFAULT 'x', UNIQUE (note, id)`,
      ),
      APP,
    );
    const table = await cluster.table('events');
    expect(table).toMatchObject({
      keyColumn: 'id',
      keyType: 'int8',
      hashFunction: 'pg_catalog.hashint8extended',
      placement: { method: 'hash', hashBuckets: 6, bounds: [], lists: [] },
      directory: undefined,
    });
    expect(table).toMatchObject({ keyTypeModifier: -1, keyTypeText: 'bigint', shadowSchemas: [] });
    expect(table.columns.map((column) => [column.name, column.typeOid, column.sequence])).toEqual([
      ['id', 20, true],
      ['n', 23, false],
      ['note', 25, false],
    ]);
    expect(table.buckets.map((place) => place.nodeId)).toEqual([1, 2, 3, 1, 2, 3]);
    const perNode = await fill('events', 300);
    expect(perNode.reduce((a, b) => a + b)).toBe(300);
    for (const rows of perNode) expect(rows).toBeGreaterThan(50);
    const generation = table.buckets[1]!.generation;
    const names = await cluster.servers[1]!.query(
      `SELECT conname, contype FROM pg_constraint
       WHERE conrelid = 'postern_leaves.events_b1_g${generation}'::regclass AND contype <> 'n' ORDER BY conname`,
    );
    expect(names.map((row) => row.conname)).toEqual([
      'events_n_check',
      `events_note_id_key_b1_g${generation}`,
      `events_pkey_b1_g${generation}`,
      'postern_bucket',
    ]);
  });

  test('a leaf refuses the rows of other buckets, and the face refuses everybody', async () => {
    const table = await cluster.table('events');
    const leaf = `postern_leaves.events_b0_g${table.buckets[0]!.generation}`;
    const home = cluster.servers[0]!;
    const other = await home.query(
      `SELECT i FROM generate_series(1000, 2000) i
       WHERE NOT satisfies_hash_partition('events'::regclass, 6, 0, i::int8) LIMIT 1`,
    );
    await expect(
      home.query(`SET LOCAL ROLE app; INSERT INTO ${leaf} (id) VALUES (${String(other[0]!.i)})`),
    ).rejects.toThrow('violates check constraint "postern_bucket"');
    for (const server of cluster.servers) {
      await expect(server.query('SET LOCAL ROLE app; SELECT * FROM events')).rejects.toThrow(
        'permission denied',
      );
    }
    await expect(
      home.query(`SET LOCAL ROLE app; INSERT INTO ${leaf} (id, n) VALUES (1, 1)`),
    ).rejects.toThrow();
    await expect(home.query(`SET LOCAL ROLE reader; SELECT * FROM ${leaf}`)).rejects.toThrow(
      'permission denied',
    );
  });

  test('users can read the views and nothing else', async () => {
    const home = cluster.servers[0]!;
    const rows = await home.query(
      `SET LOCAL ROLE reader; SELECT * FROM postern.buckets WHERE table_name = 'events'`,
    );
    expect(rows).toHaveLength(6);
    expect(rows[1]).toMatchObject({ table_schema: 'public', bucket: 1, node: 'n2' });
    expect(await home.query('SET LOCAL ROLE reader; SELECT * FROM postern.nodes')).toEqual([
      { node: 'n1', is_home: true },
      { node: 'n2', is_home: false },
      { node: 'n3', is_home: false },
    ]);
    expect(await home.query('SET LOCAL ROLE reader; SELECT door, state FROM postern.tables')).toEqual([
      { door: 'sharded', state: 'ready' },
    ]);
    await expect(home.query('SET LOCAL ROLE reader; SELECT * FROM postern_internal.tables')).rejects.toThrow(
      'permission denied',
    );
    // Who has made none, can make nothing where the leaves are.
    await expect(home.query('SET LOCAL ROLE reader; CREATE TABLE postern_leaves.x ()')).rejects.toThrow(
      'permission denied',
    );
  });

  test('privileges that the owner gives by default hold for the leaves', async () => {
    for (const server of cluster.servers) {
      await server.query(
        'ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA public GRANT SELECT ON TABLES TO reader',
      );
    }
    await createShardedTable(cluster.router(), createCommand('granted', 'id int8 PRIMARY KEY'), APP);
    const generation = (await cluster.table('granted')).buckets[2]!.generation;
    const third = cluster.servers[2]!;
    expect(
      await third.query(`SET LOCAL ROLE reader; SELECT * FROM postern_leaves.granted_b2_g${generation}`),
    ).toEqual([]);
    await expect(third.query('SET LOCAL ROLE reader; SELECT * FROM granted')).rejects.toThrow(
      'permission denied',
    );
    for (const server of cluster.servers) {
      await server.query(
        'ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA public REVOKE SELECT ON TABLES FROM reader',
      );
    }
  });

  test('a schema that other nodes lack is made there', async () => {
    await cluster.servers[0]!.query('CREATE SCHEMA "My App" AUTHORIZATION app');
    const session = { role: 'app', searchPath: '"My App", public' };
    await createShardedTable(cluster.router(), createCommand('things', 'id uuid PRIMARY KEY'), session);
    expect((await cluster.table('things', 'My App')).keyType).toBe('uuid');
    expect(
      await cluster.servers[2]!.query(`SELECT to_regclass('"My App".things') IS NOT NULL AS there`),
    ).toEqual([{ there: true }]);
  });
});

test.each([
  ['int2', 'smallint', 'hashint2extended'],
  ['int4', 'integer', 'hashint4extended'],
  ['int8', 'bigint', 'hashint8extended'],
  ['text', 'text', 'hashtextextended'],
  ['varchar', 'character varying(12)', 'hashtextextended'],
  ['bpchar', 'character(5)', 'hashbpcharextended'],
  ['uuid', 'uuid', 'uuid_hash_extended'],
  ['timestamp', 'timestamp(3) without time zone', 'timestamp_hash_extended'],
  ['timestamptz', 'timestamp with time zone', undefined],
  ['date', 'date', undefined],
  ['numeric', 'numeric(10,2)', 'hash_numeric_extended'],
])('a key of type %s', async (keyType, keyTypeText, hashFunction) => {
  const name = `key_${keyType}`;
  await createShardedTable(cluster.router(), createCommand(name, `id ${keyTypeText} PRIMARY KEY`), APP);
  const table = await cluster.table(name);
  expect(table).toMatchObject({ keyType, keyTypeText });
  // Which function it is for these two depends on the version.
  if (hashFunction) expect(table.hashFunction).toBe(`pg_catalog.${hashFunction}`);
  else expect(table.hashFunction).toMatch(/^pg_catalog\.\w+extended$/);
});

describe('refusals leave nothing behind', () => {
  const cases: [string, string, string, string][] = [
    ['a syntax error', 'id int8 PRIMARY KEY,,', '42601', 'syntax error'],
    ['a key that is not there', 'x int8', '42703', 'column "id" named in partition key does not exist'],
    [
      'a primary key without the key',
      'id int8, x int PRIMARY KEY',
      '0A000',
      'must include all partitioning columns',
    ],
    ['an enum', 'id mood', '0A000', 'cannot be the key'],
    ['a domain', 'id positive', '0A000', 'cannot be the key'],
    ['an array', 'id int[]', '0A000', 'cannot be the key'],
    ['a float', 'id float8', '0A000', 'cannot be the key'],
    ['an oid', 'id oid', '0A000', 'cannot be the key'],
    [
      'a sequence in an expression',
      `id int8, c text DEFAULT 'a' || nextval('s')`,
      '0A000',
      'from this sequence',
    ],
  ];
  test.each(cases)('%s', async (_, columns, sqlState, message) => {
    for (const server of cluster.servers) {
      await server.query(`
        DROP TYPE IF EXISTS mood; CREATE TYPE mood AS ENUM ('sad', 'ok');
        DROP DOMAIN IF EXISTS positive; CREATE DOMAIN positive AS int CHECK (value > 0);
        DROP SEQUENCE IF EXISTS s; CREATE SEQUENCE s; ALTER SEQUENCE s OWNER TO app`);
    }
    const error = await failure(createShardedTable(cluster.router(), createCommand('refused', columns), APP));
    expect(error.message).toContain(message);
    expect(error.sqlState).toBe(sqlState);
    expect(await cluster.traces('refused')).toEqual([]);
  });

  test('a name that is taken is 42P07, or skipped if asked', async () => {
    const command = createCommand('events', 'id int8');
    const error = await failure(createShardedTable(cluster.router(), command, APP));
    expect(error).toBeInstanceOf(ServerError);
    expect(error.sqlState).toBe('42P07');
    const result = await createShardedTable(cluster.router(), { ...command, ifNotExists: true }, APP);
    expect(result.notices).toEqual([
      { sqlState: '42P07', message: 'relation "events" already exists, skipping' },
    ]);
    expect((await cluster.table('events')).columns).toHaveLength(3);
  });

  test('a temporary or reserved schema is refused', async () => {
    for (const schema of ['pg_temp_3', 'postern_leaves']) {
      const command = createCommand('misplaced', 'id int8', { schema });
      expect((await failure(createShardedTable(cluster.router(), command, APP))).sqlState).toBe('0A000');
    }
    const nowhere = { role: 'app', searchPath: 'no_such_schema' };
    const error = await failure(
      createShardedTable(cluster.router(), createCommand('misplaced', 'id int8'), nowhere),
    );
    expect(error.sqlState).toBe('3F000');
    expect(await cluster.traces('misplaced')).toEqual([]);
  });

  test('a collation that is not deterministic is refused', async () => {
    for (const server of cluster.servers) {
      await server.query(`CREATE COLLATION loose (provider = icu, locale = 'und', deterministic = false)`);
    }
    const columns = 'id text COLLATE loose';
    const error = await failure(createShardedTable(cluster.router(), createCommand('loose_t', columns), APP));
    expect(error.detail).toContain('not deterministic');
    expect(await cluster.traces('loose_t')).toEqual([]);
  });

  test('a relation of that name on another node is not touched', async () => {
    await cluster.servers[2]!.query('CREATE TABLE stranger (); ALTER TABLE stranger OWNER TO app');
    const error = await failure(
      createShardedTable(cluster.router(), createCommand('stranger', 'id int8'), APP),
    );
    expect(error.message).toContain('already exists in schema "public" of node "n3"');
    expect(await cluster.traces('stranger')).toEqual(['n3: stranger']);
    await cluster.servers[2]!.query('DROP TABLE stranger');
  });

  test('a role that a node lacks is named', async () => {
    await cluster.servers[0]!.query('CREATE ROLE only_here; GRANT CREATE ON SCHEMA public TO only_here');
    const session = { role: 'only_here', searchPath: 'public' };
    const error = await failure(
      createShardedTable(cluster.router(), createCommand('lonely', 'id int8'), session),
    );
    expect((error as unknown as ServerError).fields.get('H')).toContain('must exist on node');
    expect(await cluster.traces('lonely')).toEqual([]);
  });

  test('bucket counts out of bounds', async () => {
    for (const bucketCount of [0, 1025, 1.5]) {
      const command = createCommand('counted', 'id int8', { placement: { method: 'hash', bucketCount } });
      expect((await failure(createShardedTable(cluster.router(), command, APP))).sqlState).toBe('22023');
    }
  });
});

describe('colocation', () => {
  test('same type and count share places; others and "none" do not', async () => {
    const make = async (name: string, columns: string, options = {}) => {
      await createShardedTable(cluster.router(), createCommand(name, columns, options), APP);
      return await cluster.table(name);
    };
    const first = await make('co_a', 'id int4 PRIMARY KEY');
    const second = await make('co_b', 'id int4 PRIMARY KEY');
    const otherType = await make('co_c', 'id text PRIMARY KEY');
    const alone = await make('co_d', 'id int4 PRIMARY KEY', { colocateWith: 'none' });
    const named = await make('co_e', 'id int4', { colocateWith: 'public.co_d', placement: undefined });
    expect(second.colocationId).toBe(first.colocationId);
    expect(otherType.colocationId).not.toBe(first.colocationId);
    expect(alone.colocationId).not.toBe(first.colocationId);
    expect(named.colocationId).toBe(alone.colocationId);
    expect(named.buckets.length).toBe(6);
    for (const [options, sqlState] of [
      [{ colocateWith: 'co_c' }, '22023'],
      [{ colocateWith: 'co_a', placement: { method: 'hash', bucketCount: 7 } }, '22023'],
      [{ colocateWith: 'nowhere' }, '42P01'],
    ] as const) {
      const command = createCommand('co_x', 'id int4', options);
      expect((await failure(createShardedTable(cluster.router(), command, APP))).sqlState).toBe(sqlState);
      expect(await cluster.traces('co_x')).toEqual([]);
    }
  });

  test('two routers that make the same table at once: one gets 42P07', async () => {
    const results = await Promise.allSettled(
      [0, 1].map(() => createShardedTable(cluster.router(), createCommand('raced', 'id int8'), APP)),
    );
    const failed = results.filter((result) => result.status === 'rejected');
    expect(failed.map((result) => (result.reason as ServerError).sqlState)).toEqual(['42P07']);
    expect((await cluster.table('raced')).buckets).toHaveLength(6);
    expect(await sweep(cluster.router())).toEqual([]);
  });
});

describe('DROP', () => {
  test('leaves nothing, and the name is free again with a new generation', async () => {
    await createShardedTable(cluster.router(), createCommand('gone', 'id int8 PRIMARY KEY'), APP);
    const table = await cluster.table('gone');
    await fill('gone', 50);
    const before = (await cluster.map()).epoch;
    await dropTables(cluster.router(), { kind: 'dropTables', tables: [table], cascade: false }, APP);
    expect(await cluster.traces('gone')).toEqual([]);
    expect((await cluster.map()).epoch).toBeGreaterThan(before);
    await createShardedTable(cluster.router(), createCommand('gone', 'id int8 PRIMARY KEY'), APP);
    const again = await cluster.table('gone');
    expect(again.buckets[0]!.generation).toBeGreaterThan(table.buckets[0]!.generation);
    const stale = await failure(
      dropTables(cluster.router(), { kind: 'dropTables', tables: [table], cascade: false }, APP),
    );
    expect(stale.sqlState).toBe('42P01');
  });

  test('a group that a rolled back transaction has left is swept, when it is no table’s for two sweeps', async () => {
    const home = cluster.servers[0]!;
    const [group] = await home.query(
      `INSERT INTO postern_internal.colocation_groups (key_type, bucket_count, shared) VALUES ('int8', 6, false) RETURNING colocation_id AS id`,
    );
    const isThere = async () =>
      (await home.query(`SELECT FROM postern_internal.colocation_groups WHERE colocation_id = ${group!.id}`))
        .length;
    const router = cluster.router();
    await sweep(router);
    expect(await isThere()).toBe(1);
    await sweep(router);
    expect(await isThere()).toBe(0);
  });

  test('what PostgreSQL refuses is refused with its own words, and nothing has happened', async () => {
    await createShardedTable(cluster.router(), createCommand('kept', 'id int8 PRIMARY KEY'), APP);
    const table = await cluster.table('kept');
    const command = { kind: 'dropTables', tables: [table], cascade: false } as const;
    const foreign = await failure(
      dropTables(cluster.router(), command, { role: 'reader', searchPath: 'public' }),
    );
    expect(foreign.message).toBe('must be owner of table kept');
    await cluster.servers[2]!.query('CREATE VIEW on_kept AS SELECT * FROM kept');
    const dependent = await failure(dropTables(cluster.router(), command, APP));
    expect(dependent.sqlState).toBe('2BP01');
    expect((await cluster.table('kept')).id).toBe(table.id);
    await dropTables(cluster.router(), { ...command, cascade: true }, APP);
    expect(await cluster.traces('kept')).toEqual([]);
  });
});
