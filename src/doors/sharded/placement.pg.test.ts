/** Tables sharded by range and by list: what is made of their bounds and values, and what is refused. */
import { expect, test } from 'vitest';
import { APP, createCommand, useShardedCluster } from '../../../test/support/sharded-cluster.ts';
import { leafName, type ShardedTable } from '../../catalog/map.ts';
import { dropTables } from '../../ddl/drop.ts';
import type { RouterCommand } from '../../plan/plan.ts';
import { createShardedTable } from './create.ts';
import { distributeTable } from './distribute.ts';

const cluster = useShardedCluster(2);

type Options = Parameters<typeof createCommand>[2];

const BY_RANGE: Options = { placement: { method: 'range', bounds: '{0,100}' } };

async function make(name: string, columns: string, options: Options): Promise<ShardedTable> {
  await createShardedTable(cluster.router(), createCommand(name, columns, options), APP);
  return await cluster.table(name);
}

async function refusal(name: string, columns: string, options: Options): Promise<string> {
  const made = createShardedTable(cluster.router(), createCommand(name, columns, options), APP);
  const error = await made.then(
    () => undefined,
    (raised: { sqlState: string; message: string }) => raised,
  );
  return error ? `${error.sqlState} ${error.message}` : 'made';
}

/** What its leaf says of an INSERT. */
async function insert(table: ShardedTable, bucket: number, values: string): Promise<string> {
  const { nodeId, generation } = table.buckets[bucket]!;
  const server = cluster.servers[cluster.identity!.nodes.findIndex(({ id }) => id === nodeId)]!;
  const leaf = `postern_leaves.${leafName(table.name, bucket, generation)}`;
  return await server.query(`INSERT INTO ${leaf} VALUES (${values})`).then(
    () => 'taken',
    (error: { code: string; constraint: string }) => `${error.code} ${error.constraint}`,
  );
}

test('a range has a bucket for each part, a face that says so, and leaves that take nothing else', async () => {
  const table = await make('by_range', 'id int8 PRIMARY KEY, v text', BY_RANGE);
  expect(table.placement).toEqual({ method: 'range', hashBuckets: 0, bounds: ['0', '100'], lists: [] });
  expect(table.buckets.map(({ nodeId }) => nodeId)).toEqual([1, 2, 1]);
  for (const server of cluster.servers)
    expect(await server.query(`SELECT pg_get_partkeydef('public.by_range'::regclass) AS key`)).toEqual([
      { key: 'RANGE (id)' },
    ]);
  for (const [values, bucket] of [
    ['-9223372036854775808', 0],
    ['-1', 0],
    ['0', 1],
    ['99', 1],
    ['100', 2],
    ['9223372036854775807', 2],
  ] as const)
    for (const at of [0, 1, 2])
      expect(await insert(table, at, values), values).toBe(at === bucket ? 'taken' : '23514 postern_bucket');
});

test('NULL is of no range', async () => {
  const table = await make('no_null', 'k int4, v text', { ...BY_RANGE, key: 'k' });
  for (const bucket of [0, 1, 2]) expect(await insert(table, bucket, 'NULL')).toBe('23514 postern_bucket');
});

test('listed values have buckets of their own, and others go by hash, or to one bucket, or nowhere', async () => {
  const lists = ['{acme,globex}', '{"in, itech"}'];
  const hash = await make('listed_hash', 'k text, v text', {
    ...{ key: 'k', placement: { method: 'list', lists, bucketCount: 4 } },
  });
  expect(hash.placement).toEqual({
    ...{ method: 'list', hashBuckets: 4, bounds: [], lists: [['acme', 'globex'], ['in, itech']] },
  });
  expect(hash.buckets).toHaveLength(6);
  expect(await insert(hash, 4, `'acme'`)).toBe('taken');
  expect(await insert(hash, 5, `'in, itech'`)).toBe('taken');
  const others = await Promise.all([0, 1, 2, 3].map((bucket) => insert(hash, bucket, `'other'`)));
  expect(others.filter((answer) => answer === 'taken')).toHaveLength(1);
  for (const bucket of [0, 1, 2, 3, 5])
    expect(await insert(hash, bucket, `'acme'`)).toBe('23514 postern_bucket');
  const nulls = await Promise.all([0, 1, 2, 3, 4, 5].map((bucket) => insert(hash, bucket, 'NULL')));
  expect(nulls.filter((answer) => answer === 'taken')).toHaveLength(1);

  const one = await make('listed_default', 'k text, v text', {
    ...{ key: 'k', placement: { method: 'list', lists, bucketCount: 1 } },
  });
  expect(await insert(one, 0, `'other'`)).toBe('taken');
  expect(await insert(one, 0, `'acme'`)).toBe('23514 postern_bucket');
  const none = await make('listed_only', 'k text, v text', {
    ...{ key: 'k', placement: { method: 'list', lists, bucketCount: undefined } },
  });
  expect(none.buckets).toHaveLength(2);
  for (const bucket of [0, 1]) expect(await insert(none, bucket, `'other'`)).toBe('23514 postern_bucket');
  const keys = await cluster.servers[0]!.query(
    `SELECT pg_get_partkeydef(to_regclass(t)) AS key FROM unnest(ARRAY['listed_hash', 'listed_default', 'listed_only']) t`,
  );
  expect(keys.map(({ key }) => key)).toEqual(['HASH (k)', 'LIST (k)', 'LIST (k)']);
});

test('nodes can be named', async () => {
  const table = await make('on_nodes', 'k text', {
    ...{ key: 'k', nodes: ['n2', 'n2'] },
    placement: { method: 'list', lists: ['{a}', '{b}'], bucketCount: 2 },
  });
  expect(table.buckets.map(({ nodeId }) => nodeId)).toEqual([1, 2, 2, 2]);
});

test('tables whose keys are placed alike are colocated', async () => {
  const range = (bounds: string): Options => ({ placement: { method: 'range', bounds } });
  const a = await make('alike_a', 'id int8 PRIMARY KEY', range('{5, 7}'));
  const b = await make('alike_b', 'id int8 PRIMARY KEY', range('{5,7}'));
  const c = await make('alike_c', 'id int8 PRIMARY KEY', range('{5,8}'));
  const d = await make('alike_d', 'id int8 PRIMARY KEY', { placement: undefined, colocateWith: 'alike_a' });
  const e = await make('alike_e', 'id int8 PRIMARY KEY', { ...range('{5,7}'), colocateWith: 'none' });
  expect([b.colocationId, d.colocationId]).toEqual([a.colocationId, a.colocationId]);
  expect(d.placement).toEqual(a.placement);
  expect(new Set([a, c, e].map(({ colocationId }) => colocationId)).size).toBe(3);
  const listed = (lists: string[]): Options => ({
    ...{ key: 'k', placement: { method: 'list', lists, bucketCount: 1 } },
  });
  const f = await make('alike_f', 'k text', listed(['{x,y}', '{z}']));
  const g = await make('alike_g', 'k text', listed(['{y,x}', '{z}']));
  const h = await make('alike_h', 'k text', listed(['{x}', '{z}']));
  expect(g.colocationId).toBe(f.colocationId);
  expect(h.colocationId).not.toBe(f.colocationId);
  const with_ = { colocateWith: 'alike_a' };
  expect(await refusal('wrong', 'id int8', { ...with_, ...range('{5,8}') })).toMatch(/^22023 .* its bounds/);
  expect(
    await refusal('wrong', 'id int8', { ...with_, placement: { method: 'hash', bucketCount: 3 } }),
  ).toMatch(/^22023 .* by range, not by hash/);
  expect(await refusal('wrong', 'id int4', { ...with_, placement: undefined })).toMatch(/^22023 .* types/);
});

test('bounds are values of the type, finite, and ascend', async () => {
  const range = (bounds: string): Options => ({ key: 'k', placement: { method: 'range', bounds } });
  expect(await refusal('bad', 'k int8', range('{100,100}'))).toMatch(
    /^22023 the bounds do not ascend: "100"/,
  );
  expect(await refusal('bad', 'k int8', range('{9,10}'))).toBe('made');
  expect(await refusal('bad_text', 'k text COLLATE "C"', range('{9,10}'))).toMatch(
    /^22023 .* "10" comes after "9"/,
  );
  expect(await refusal('bad_x', 'k int8', range('{a}'))).toMatch(/^22P02 /);
  expect(await refusal('bad_x', 'k int2', range('{40000}'))).toMatch(/^22003 /);
  expect(await refusal('bad_x', 'k int8', range('{}'))).toMatch(/^22023 .* needs bounds/);
  expect(await refusal('bad_x', 'k int8', range('{NULL}'))).toMatch(/^22023 NULL cannot be/);
  expect(await refusal('bad_x', 'k date', range('{infinity}'))).toMatch(/^0A000 "infinity" cannot be/);
  expect(await refusal('bad_x', 'k text COLLATE "und-x-icu"', range('{a}'))).toMatch(/^0A000 .* by range/);
  expect(await refusal('bad_x', 'k char(3)', range('{a}'))).toMatch(/^0A000 .* by range/);
  expect(await refusal('bad_x', 'id int8 PRIMARY KEY, k int8', range('{5}'))).toMatch(/^0A000 /);
  const many = Array.from({ length: 1024 }, (_, i) => i).join(',');
  expect(await refusal('bad_x', 'k int8', range(`{${many}}`))).toMatch(
    /^22023 the table would have 1025 buckets/,
  );
  const list = (lists: string[], nodes?: string[]): Options => ({
    ...{ key: 'k', nodes, placement: { method: 'list', lists, bucketCount: undefined } },
  });
  expect(await refusal('bad_x', 'k numeric', list(['{1}', '{1.0}']))).toMatch(
    /^22023 .* "1.0" is listed twice/,
  );
  expect(await refusal('bad_x', 'k text', list([]))).toMatch(/^22023 .* needs values/);
  expect(await refusal('bad_x', 'k text', list(['{a}'], ['n9']))).toMatch(/^22023 there is no node "n9"/);
  expect(await refusal('bad_x', 'k text', list(['{a}'], ['n1', 'n2']))).toMatch(
    /^22023 2 nodes .* 1 buckets/,
  );
  expect(await cluster.traces('bad_x')).toEqual([]);
});

test('times are read in UTC, and kept so', async () => {
  const bounds = '{2024-01-01,"2024-06-01 12:00:00+02"}';
  const table = await make('times', 'k timestamptz', { key: 'k', placement: { method: 'range', bounds } });
  expect(table.placement.bounds).toEqual(['2024-01-01 00:00:00+00', '2024-06-01 10:00:00+00']);
  expect(await insert(table, 1, `'2024-01-01 01:00+01'`)).toBe('taken');
  expect(await insert(table, 0, `'2023-12-31 23:59:59.999999+00'`)).toBe('taken');
});

const DISTRIBUTE: Extract<RouterCommand, { kind: 'distributeTable' }> = {
  ...{ kind: 'distributeTable', relation: 'plain', key: 'k', placement: undefined, nodes: undefined },
  ...{ colocateWith: 'none', coalesce: undefined, functionName: 'shard_table' },
};

test.each<[string, Options]>([
  ['range', { placement: { method: 'range', bounds: '{30,60}' } }],
  ['list with hash', { placement: { method: 'list', lists: ['{1,2}', '{3}'], bucketCount: 5 } }],
  ['list with a default', { placement: { method: 'list', lists: ['{1,2}', '{3}'], bucketCount: 1 } }],
])('a table with rows is sharded by %s', async (_, options) => {
  const [home] = cluster.servers;
  await home!.query(`SET ROLE app; CREATE TABLE plain (k int4 NOT NULL, v text);
    INSERT INTO plain SELECT i, 'v' || i FROM generate_series(1, 90) i; RESET ROLE`);
  await distributeTable(cluster.router(), { ...DISTRIBUTE, ...options } as typeof DISTRIBUTE, APP);
  const table = await cluster.table('plain');
  const counts: number[] = [];
  for (const [bucket, { nodeId, generation }] of table.buckets.entries()) {
    const rows = await cluster.servers[nodeId - 1]!.query(
      `SELECT count(*)::int4 AS n FROM postern_leaves.${leafName('plain', bucket, generation)}`,
    );
    counts.push(rows[0]!.n as number);
  }
  expect(counts.reduce((sum, n) => sum + n)).toBe(90);
  if (table.placement.method === 'range') expect(counts).toEqual([29, 30, 31]);
  else expect(counts.slice(-2)).toEqual([2, 1]);

  await dropTables(cluster.router(), { kind: 'dropTables', tables: [table], cascade: false }, APP);
  expect(await cluster.traces('plain')).toEqual([]);
});

test('rows that no bucket takes keep the table as it is', async () => {
  const [home] = cluster.servers;
  await home!.query(
    `SET ROLE app; CREATE TABLE unlisted (k int4); INSERT INTO unlisted VALUES (1), (7); RESET ROLE`,
  );
  const command = { ...DISTRIBUTE, relation: 'unlisted' };
  const listed = { method: 'list', lists: ['{1}'], bucketCount: undefined } as const;
  await expect(
    distributeTable(cluster.router(), { ...command, placement: listed }, APP),
  ).rejects.toMatchObject({ sqlState: '23514', message: expect.stringContaining('takes the key "7"') });
  expect(await home!.query('SELECT k FROM unlisted ORDER BY k')).toEqual([{ k: 1 }, { k: 7 }]);
});

test('the views tell bounds, values and tenants', async () => {
  const [home] = cluster.servers;
  const rows = await home!.query(
    `SELECT bucket, lower_bound, upper_bound, keys FROM postern.buckets WHERE table_name = 'by_range' ORDER BY bucket`,
  );
  expect(rows).toEqual([
    { bucket: 0, lower_bound: null, upper_bound: '0', keys: null },
    { bucket: 1, lower_bound: '0', upper_bound: '100', keys: null },
    { bucket: 2, lower_bound: '100', upper_bound: null, keys: null },
  ]);
  const tenants = await home!.query(
    `SELECT tenant, bucket, node, pinned FROM postern.tenants WHERE table_name = 'listed_hash'`,
  );
  expect(tenants).toEqual([
    { tenant: 'acme', bucket: 4, node: 'n1', pinned: false },
    { tenant: 'globex', bucket: 4, node: 'n1', pinned: false },
    { tenant: 'in, itech', bucket: 5, node: 'n2', pinned: false },
  ]);
  const [group] = await home!.query(
    `SELECT method, key_type, bucket_count, hash_buckets, bounds, tables FROM postern.colocation_groups
     WHERE 'public.alike_a' = ANY (tables)`,
  );
  expect(group).toEqual({
    ...{ method: 'range', key_type: 'int8', bucket_count: 3, hash_buckets: 0, bounds: ['5', '7'] },
    tables: ['public.alike_a', 'public.alike_b', 'public.alike_d'],
  });
});
