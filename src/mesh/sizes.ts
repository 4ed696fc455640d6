/**
 * How large the tables are, as the nodes that have them know: told to a mesh's planner, which would otherwise have to ask at
 * each statement or to read the tables. Needs a superuser, since pg_class is written to; without, PostgreSQL takes all tables
 * for equally small.
 */
import { LEAF_SCHEMA } from '../catalog/map.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import type { HomeState, LeafDefinition } from './definition.ts';

export interface TableSize {
  readonly schema: string;
  readonly name: string;
  readonly rows: number;
  readonly pages: number;
}

/** Those that are known; a table that was never analyzed is as large as PostgreSQL guesses. */
export function sizesOf(
  { definition }: HomeState,
  leaves: ReadonlyMap<string, LeafDefinition>,
): readonly TableSize[] {
  const ofHome = definition.relations.filter(({ door, kind }) => door !== 'sharded' && kind !== 'v');
  const ofLeaves = [...leaves.values()].map((leaf) => ({ ...leaf, schema: LEAF_SCHEMA }));
  return [...ofHome, ...ofLeaves]
    .filter(({ rows }) => rows > 0)
    .map(({ schema, name, rows, pages }) => ({ schema, name, rows, pages }));
}

/** Only what has changed much is written: each change makes every session plan anew. */
export async function tellSizes(mesh: ControlConnection, sizes: readonly TableSize[]): Promise<void> {
  if (sizes.length === 0) return;
  const column = <T>(of: (size: TableSize) => T) => sizes.map(of);
  await mesh.query(
    `UPDATE pg_catalog.pg_class c SET reltuples = s.rows, relpages = s.pages
     FROM unnest($1::name[], $2::name[], $3::float4[], $4::int4[]) AS s (schema, name, rows, pages), pg_catalog.pg_namespace n
     WHERE n.nspname = s.schema AND c.relnamespace = n.oid AND c.relname = s.name AND c.relkind = 'f'
       AND (c.reltuples <= 0 OR s.rows / c.reltuples NOT BETWEEN 0.5 AND 2)`,
    [
      column(({ schema }) => schema),
      column(({ name }) => name),
      column(({ rows }) => rows),
      column(({ pages }) => pages),
    ],
  );
}
