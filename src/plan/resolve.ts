/**
 * Which table with a door a name means: by schema, or along the search_path as PostgreSQL looks it up (documentation:
 * "The Schema Search Path").
 */
import type { RangeVar } from '@pgsql/types';
import type { ClusterMap, ReferenceTable, ShardedTable } from '../catalog/map.ts';

export interface PlanContext {
  readonly map: ClusterMap;
  /** Schemas in order, "$user" replaced. */
  readonly searchPath: readonly string[];
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

function firstOnPath<T extends ShardedTable | ReferenceTable>(
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
