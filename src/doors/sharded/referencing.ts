/**
 * Foreign keys of other tables to one that is to be sharded, as migrations leave them that make all tables first: they are set aside
 * and made again to its face, so that those tables can be sharded after it. Until they are, nothing can be inserted into them.
 *
 * Invariant: a table that has rows keeps its foreign key, and what it references is not sharded.
 */
import { notSupported } from '../../base/errors.ts';
import type { SqlConnection } from '../../ddl/context.ts';
import { quoteIdentifier } from '../../pg/identifier.ts';

export interface Referencing {
  readonly drop: readonly string[];
  readonly add: readonly string[];
}

/** With search_path pg_catalog, as a role that may read the tables. Throws 0A000. */
export async function readReferencing(
  connection: SqlConnection,
  table: { readonly oid: number; readonly name: string },
): Promise<Referencing> {
  const keys = await connection.query<{ name: string; relation: string; definition: string; kind: string }>(
    `SELECT k.conname AS name, k.conrelid::regclass::text AS relation, pg_get_constraintdef(k.oid) AS definition, c.relkind::text AS kind
     FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
     WHERE k.contype = 'f' AND k.confrelid = $1 AND k.conrelid <> $1 ORDER BY 2, 1`,
    [table.oid],
  );
  for (const { relation, kind } of keys) {
    const [row] = kind === 'r' ? await connection.query<{ filled: boolean }>(filledText(relation)) : [];
    if (row && !row.filled) continue;
    throw notSupported(
      `table "${table.name}" cannot be sharded as it is`,
      `Drop the foreign key, shard both tables by the same key, and add it again.`,
      `Table ${relation} has rows, and a foreign key to it.`,
    );
  }
  return {
    drop: keys.map(
      ({ name, relation }) => `ALTER TABLE ${relation} DROP CONSTRAINT ${quoteIdentifier(name)}`,
    ),
    add: keys.map(
      ({ name, relation, definition }) =>
        `ALTER TABLE ${relation} ADD CONSTRAINT ${quoteIdentifier(name)} ${definition}`,
    ),
  };
}

function filledText(relation: string): string {
  return `SELECT EXISTS (SELECT FROM ${relation}) AS filled`;
}
