/** For tests of the planner: a map with a few sharded tables, and plans over it. */
import {
  buildMap,
  type ClusterMap,
  type ColumnInfo,
  type ReferenceTable,
  type ShardedTable,
  type ShardedView,
} from '../../src/catalog/map.ts';
import type { KeyTypeName } from '../../src/pg/hash/key-type.ts';
import { KeyDirectory } from '../../src/pg/key/directory.ts';
import type { KeySource, QueryPlan, StatementPlan } from '../../src/plan/plan.ts';
import { planQuery } from '../../src/plan/planner.ts';
import { rewriteQuery } from '../../src/plan/rewrite.ts';

interface TableSpec {
  readonly name: string;
  readonly schema?: string;
  readonly key?: string;
  readonly keyType?: KeyTypeName;
  readonly colocationId?: number;
  /** Column names; a name that ends in + is a sequence. */
  readonly columns: string;
  readonly shadowSchemas?: readonly string[];
  /** Of int8 keys; none: by hash. */
  readonly bounds?: readonly string[];
}

const BY_HASH: Pick<ShardedTable, 'placement' | 'directory'> = {
  placement: { method: 'hash', hashBuckets: 4, bounds: [], lists: [] },
  directory: undefined,
};

function rangesOf(bounds: readonly string[]): typeof BY_HASH {
  const placement = { method: 'range', hashBuckets: 0, bounds, lists: [] } as const;
  return { placement, directory: new KeyDirectory({ ...placement, keyType: 'int8' }) };
}

const SPECS: readonly TableSpec[] = [
  { name: 'events', columns: 'id+ account_id payload', key: 'account_id' },
  { name: 'accounts', columns: 'account_id name plan', key: 'account_id' },
  { name: 'users', columns: 'id+ name serial+', key: 'id' },
  { name: 'docs', columns: 'slug body', key: 'slug', keyType: 'text', colocationId: 2 },
  { name: 'Odd "Name"', columns: 'Key é', key: 'Key', colocationId: 3 },
  { name: 'dated', columns: 'day v', key: 'day', keyType: 'date', colocationId: 4 },
  { name: 'amounts', columns: 'amount v', key: 'amount', keyType: 'numeric', colocationId: 5 },
  { name: 'events', schema: 'archive', columns: 'id+ account_id payload', key: 'account_id' },
  { name: 'ranged', columns: 'k v', key: 'k', colocationId: 6, bounds: ['10', '20', '30'] },
  { name: 'hidden', columns: 'id v', key: 'id', shadowSchemas: ['first'] },
];

function exampleTable(spec: TableSpec, index: number): ShardedTable {
  const columns: ColumnInfo[] = spec.columns.split(' ').map((name) => ({
    name: name.replace('+', ''),
    typeOid: 20,
    sequence: name.endsWith('+'),
  }));
  return {
    id: index + 1,
    schema: spec.schema ?? 'public',
    name: spec.name,
    keyColumn: spec.key ?? 'id',
    keyType: spec.keyType ?? 'int8',
    keyTypeModifier: -1,
    keyTypeText: spec.keyType ?? 'bigint',
    hashFunction: 'pg_catalog.hashint8extended',
    colocationId: spec.colocationId ?? 1,
    columns,
    ...(spec.bounds ? rangesOf(spec.bounds) : BY_HASH),
    buckets: Array.from({ length: 4 }, (_, bucket) => ({ nodeId: 1 + (bucket % 2), generation: 7 })),
    shadowSchemas: spec.shadowSchemas ?? [],
  };
}

export const EXAMPLE_MAP: ClusterMap = buildMap({
  epoch: 1,
  nodes: [
    { id: 1, name: 'n1' },
    { id: 2, name: 'n2' },
  ],
  homeNodeId: 1,
  tables: SPECS.map(exampleTable),
  references: [
    exampleReference('countries', 'code name'),
    exampleReference('rates', 'id code rate total='),
    { ...exampleReference('events', 'id name'), schema: 'other' },
  ],
  views: [
    exampleView(
      'named',
      ' SELECT account_id,\n    name\n   FROM public.accounts\n  WHERE (name IS NOT NULL);',
    ),
    exampleView('named2', ' SELECT named.account_id\n   FROM public.named;'),
    { ...exampleView('first_named', ' SELECT 1 FROM public.accounts;'), schema: 'app' },
  ],
});

/** The same tables, with one of schema public changed. */
export function exampleMapWith(name: string, change: (table: ShardedTable) => ShardedTable): ClusterMap {
  const tables = [...EXAMPLE_MAP.tables.values()].flatMap((inSchema) => [...inSchema.values()]);
  const { epoch, nodes, homeNodeId } = EXAMPLE_MAP;
  return buildMap({
    ...{ epoch, nodes, homeNodeId },
    tables: tables.map((table) => (table.schema === 'public' && table.name === name ? change(table) : table)),
    references: [],
    views: [],
  });
}

function exampleView(name: string, query: string): ShardedView {
  return { schema: 'public', name, query, shadowSchemas: [] };
}

/** Column names; a name that ends in = is generated. */
function exampleReference(name: string, columns: string): ReferenceTable {
  return {
    id: 100 + name.length,
    schema: 'public',
    name,
    columns: columns.split(' ').map((column) => ({
      name: column.replace('=', ''),
      typeOid: 25,
      typeText: 'text',
      binary: true,
      generated: column.endsWith('='),
    })),
    primaryKey: name === 'countries' ? ['code'] : [],
    shadowSchemas: [],
  };
}

export function planOf(text: string, searchPath: readonly string[] = ['app', 'public']): QueryPlan {
  return planQuery(text, { map: EXAMPLE_MAP, searchPath });
}

/** The plan of a text with one statement. */
export function statementOf(text: string, searchPath?: readonly string[]): StatementPlan {
  const { statements } = planOf(text, searchPath);
  if (statements.length !== 1) throw new Error(`${statements.length} statements in: ${text}`);
  return statements[0]!;
}

/** Like `5`, `$1`, `$2::int8`, `id0`, `NULL`: the sources of a keyed statement; or where else it goes. */
export function routeOf(text: string, searchPath?: readonly string[]): string {
  const { placement, refusal, command } = statementOf(text, searchPath);
  if (refusal) return `${refusal.sqlState}`;
  if (command) return command.kind;
  if (placement.kind === 'scattered' && placement.scatter.kind === 'mesh') return 'mesh';
  return placement.kind === 'keyed' ? placement.keys.map(sourceText).join(' ') : placement.kind;
}

function sourceText(source: KeySource): string {
  if (source.kind === 'literal') return source.text ?? 'NULL';
  if (source.kind === 'suppliedId') return `id${source.idIndex}`;
  return `$${source.index + 1}${source.castTo === undefined ? '' : `::${source.castTo}`}`;
}

/** The text for bucket 3, with supplied ids 100, 101, …; `"postern_leaves"."x_b3_g7"` is written `<x>`. */
export function rewrittenOf(text: string, idStyle: 'literal' | 'parameter' = 'literal'): string {
  const plan = planOf(text);
  const bindings = plan.statements.map(({ placement }) => ({
    bucket: 3,
    ids: placement.kind === 'keyed' ? placement.suppliedIds.map((_, index) => 100 + index) : [],
  }));
  return rewriteQuery(plan, bindings, idStyle).text.replaceAll(
    /"postern_leaves"\."((?:[^"]|"")*)_b3_g7"/g,
    '<$1>',
  );
}
