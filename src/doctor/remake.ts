/** Statements that several findings have in common: what makes a thing anew over all nodes, and what records a table on its node. */
import type { Lookup, ReferenceTable, ShardedTable } from '../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { quoteIdentifier, quoteLiteral, quoteQualified } from '../pg/identifier.ts';
import { type Remedy, throughRouter } from './finding.ts';

/** All copies, from home's rows. */
export function remakeCopies({ schema, name }: Pick<ReferenceTable, 'schema' | 'name'>): readonly Remedy[] {
  const table = quoteLiteral(quoteQualified(schema, name));
  return throughRouter(`SELECT postern.unshard_table(${table})`, `SELECT create_reference_table(${table})`);
}

/** A unique constraint off the shard key, from the rows of its table. */
export function remakeLookup(
  { schema, name }: Pick<ShardedTable, 'schema' | 'name'>,
  { name: lookup, columns, isConstraint }: Lookup,
): readonly Remedy[] {
  const table = quoteQualified(schema, name);
  const list = columns.map(quoteIdentifier).join(', ');
  const own = quoteIdentifier(lookup);
  if (isConstraint)
    return throughRouter(
      `ALTER TABLE ${table} DROP CONSTRAINT ${own}`,
      `ALTER TABLE ${table} ADD CONSTRAINT ${own} UNIQUE (${list})`,
    );
  return throughRouter(
    `DROP INDEX ${quoteQualified(schema, lookup)}`,
    `CREATE UNIQUE INDEX ${own} ON ${table} (${list})`,
  );
}

/** On the node itself: what it has recorded is what is dropped with the table. `quoted`: the qualified name. */
export function recordFace(tableId: number, quoted: string): string {
  return `INSERT INTO ${INTERNAL_SCHEMA}.local_tables (table_id, face) VALUES (${tableId}, ${quoteLiteral(quoted)}::regclass) ON CONFLICT (table_id) DO UPDATE SET face = excluded.face`;
}
