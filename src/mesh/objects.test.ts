import { expect, test } from 'vitest';
import { emptyMap, type ShardedTable, type TablePlacement } from '../catalog/map.ts';
import type { HomeDefinition, RelationDefinition } from './definition.ts';
import { meshObjects } from './objects.ts';

const RELATION: RelationDefinition = {
  ...{
    schema: 'public',
    name: 't',
    kind: 'p',
    door: 'sharded',
    tableId: 1,
    owner: 'app',
    hasRowSecurity: false,
  },
  readers: ['app', 'gone', null],
  columns: [
    {
      name: 'k',
      type: 'bigint',
      collation: null,
      sortedBy: null,
      notNull: true,
      leadsIndex: false,
      readers: ['clerk'],
    },
  ],
  ...{ query: null, options: [], rows: 0, pages: 0 },
};

function textOf(placement: TablePlacement, relation: Partial<RelationDefinition> = {}): string {
  const count =
    placement.hashBuckets +
    placement.lists.length +
    (placement.bounds.length > 0 ? placement.bounds.length + 1 : 0);
  const table = {
    ...{ id: 1, schema: 'public', name: 't', keyColumn: 'k', placement },
    buckets: Array.from({ length: count }, (_, i) => ({ nodeId: 1 + (i % 2), generation: 5 })),
  } as unknown as ShardedTable;
  const map = { ...emptyMap([], 1), tables: new Map([['public', new Map([['t', table]])]]) };
  const definition: HomeDefinition = {
    ...{
      schemas: [],
      extensions: [],
      collations: [],
      types: [],
      functions: [],
      casts: [],
      operators: [],
      settings: [],
    },
    relations: [{ ...RELATION, ...relation }],
    locale: { provider: 'c', collate: 'C', ctype: 'C', locale: null },
  };
  const leaf = {
    tableId: 1,
    hasRowSecurity: false,
    readers: ['app', 'gone'],
    columnReaders: { k: ['clerk'] },
    rows: 1,
    pages: 1,
  };
  const leaves = new Map([['t_b0_g5', { ...leaf, name: 't_b0_g5' }]]);
  const roles = new Set(['app', 'clerk']);
  const objects = meshObjects({ home: { mark: '', map, definition }, leaves, nodeId: 1, roles, servers: '' });
  return objects.tables[0]?.text ?? objects.leftOut.map(({ reason }) => reason).join();
}

const HASHED: TablePlacement = { method: 'hash', hashBuckets: 2, bounds: [], lists: [] };

test('a table is split as its keys are, and may be read by those who may read its leaves', () => {
  expect(textOf(HASHED).split(';\n')).toEqual([
    'CREATE TABLE "public"."t" ("k" bigint NOT NULL) PARTITION BY HASH ("k")',
    expect.stringMatching(/"t_b0_g5" PARTITION OF .* WITH \(MODULUS 2, REMAINDER 0\) SERVER postern_node_1 /),
    expect.stringMatching(/"t_b1_g5" PARTITION OF .* WITH \(MODULUS 2, REMAINDER 1\) SERVER postern_node_2 /),
    'REVOKE ALL ON "public"."t" FROM PUBLIC; GRANT SELECT ON "public"."t" TO "app"',
    'GRANT SELECT ("k") ON "public"."t" TO "clerk"',
  ]);
});

test('ranges and lists', () => {
  const range: TablePlacement = { method: 'range', hashBuckets: 0, bounds: ['5', '9'], lists: [] };
  expect(textOf(range)).toMatch(
    /FROM \(MINVALUE\) TO \('5'\)[\s\S]*FROM \('5'\) TO \('9'\)[\s\S]*FROM \('9'\) TO \(MAXVALUE\)/,
  );
  // NULL is in the first range, where PostgreSQL's own ranges have no place for it.
  const columns = [{ ...RELATION.columns[0]!, notNull: false }];
  expect(textOf(range, { columns }).match(/INHERITS \("public"\."t"\)/g)).toHaveLength(3);
  const list: TablePlacement = { method: 'list', hashBuckets: 2, bounds: [], lists: [['1', '2'], ['7']] };
  expect(textOf(list)).toMatch(/"rest_of_1" PARTITION OF "public"."t" DEFAULT PARTITION BY HASH \("k"\)/);
  expect(textOf(list)).toMatch(/"t_b2_g5" PARTITION OF "public"."t" FOR VALUES IN \('1', '2'\)/);
  expect(textOf({ ...list, hashBuckets: 1 })).toMatch(/"t_b0_g5" PARTITION OF "public"."t" DEFAULT SERVER/);
  expect(textOf({ ...list, hashBuckets: 0 })).not.toMatch(/DEFAULT/);
});

test('row-level security keeps a table out', () => {
  expect(textOf(HASHED, { hasRowSecurity: true })).toBe('it has row-level security');
});
