/**
 * Which table with a door a name means: by schema, or along the search_path as PostgreSQL looks it up (documentation:
 * "The Schema Search Path").
 */
import type { RangeVar } from '@pgsql/types';
import type { ClusterMap, ReferenceTable, ShardedTable, ShardedView } from '../catalog/map.ts';

export interface PlanContext {
  readonly map: ClusterMap;
  /** Schemas in order, "$user" replaced. */
  readonly searchPath: readonly string[];
  /** Undefined: PostgreSQL's catalogs are read as they are. */
  readonly shown?: ShownCatalogs | undefined;
}

/** What there is in schema `postern_shown` of the home node: introspection.ts puts it into queries. */
export interface ShownCatalogs {
  /** Names of relations of pg_catalog. */
  readonly relations: ReadonlySet<string>;
  /** Those of `relations` that are tables. */
  readonly tables: ReadonlyMap<string, ShownTable>;
  /** Names of views of information_schema. */
  readonly information: ReadonlySet<string>;
  /** Names of functions of pg_catalog. */
  readonly functions: ReadonlySet<string>;
}

/** The queries behind the views of a table, which are put in where no view may be. */
export interface ShownTable {
  readonly shown: string;
  /** Has tableoid and xmin as well, which every table has and no view. They would be part of `*`. */
  readonly shownWithSystemColumns: string;
  /** Both without what is no part of a dump. */
  readonly dumped: string;
  readonly dumpedWithSystemColumns: string;
}

export function resolveTable(
  context: PlanContext,
  schema: string | undefined,
  name: string,
): ShardedTable | undefined {
  if (schema !== undefined) return context.map.tables.get(schema)?.get(name);
  return firstOnPath(context.map.tablesByName.get(name), context.searchPath);
}

export function resolveReference(
  context: PlanContext,
  schema: string | undefined,
  name: string,
): ReferenceTable | undefined {
  if (schema !== undefined) return context.map.references.get(schema)?.get(name);
  return firstOnPath(context.map.referencesByName.get(name), context.searchPath);
}

/** A view that reads sharded tables. */
export function resolveView(
  context: PlanContext,
  { schemaname, relname = '' }: RangeVar,
): ShardedView | undefined {
  if (schemaname !== undefined) return context.map.views.get(schemaname)?.get(relname);
  return firstOnPath(context.map.viewsByName.get(relname), context.searchPath);
}

function firstOnPath<T extends { readonly schema: string; readonly shadowSchemas: readonly string[] }>(
  candidates: readonly T[] | undefined,
  path: readonly string[],
): T | undefined {
  if (!candidates) return undefined;
  // pg_catalog is searched first when the path does not name it.
  const implicit = !path.includes('pg_catalog');
  for (const [index, schemaName] of path.entries()) {
    const table = candidates.find((candidate) => candidate.schema === schemaName);
    if (!table) continue;
    const shadowed = table.shadowSchemas.some(
      (shadow) => path.lastIndexOf(shadow, index) !== -1 || (implicit && shadow === 'pg_catalog'),
    );
    return shadowed ? undefined : table;
  }
  return undefined;
}

/** What a RangeVar means where no CTE can be meant. A catalog name (db.schema.table) is taken as PostgreSQL's no-op. */
export function resolveRangeVar(context: PlanContext, rangeVar: RangeVar): ShardedTable | undefined {
  return resolveTable(context, rangeVar.schemaname, rangeVar.relname ?? '');
}

export function resolveReferenceVar(context: PlanContext, rangeVar: RangeVar): ReferenceTable | undefined {
  return resolveReference(context, rangeVar.schemaname, rangeVar.relname ?? '');
}
