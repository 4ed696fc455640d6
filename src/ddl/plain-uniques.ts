/**
 * Unique constraints and indexes of a plain table that lack the shard key which it is to get: no index of the face can hold them, so
 * they are taken out of its definition, and made as lookups (lookup/SPEC.md) when its rows are where they belong.
 */
import { notSupported } from '../base/errors.ts';
import type { UniqueSpec } from '../plan/lookups.ts';
import type { SqlConnection } from './context.ts';

export interface PlainUnique extends UniqueSpec {
  /** Of its index. */
  readonly indexOid: number;
}

/** Throws 0A000 for one that can't be kept over several nodes. A primary key is not among them: it is refused as it stands. */
export async function readPlainUniques(
  connection: SqlConnection,
  table: { readonly oid: number; readonly name: string },
  keyColumn: string,
): Promise<readonly PlainUnique[]> {
  const rows = await connection.query<PlainUnique & { columns: readonly string[]; refused: string | null }>(
    `SELECT i.indexrelid AS "indexOid", x.relname::text AS name, k.oid IS NOT NULL AS "isConstraint",
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS u (attnum, place)
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.attnum WHERE u.place <= i.indnkeyatts ORDER BY u.place) AS columns,
       CASE WHEN i.indpred IS NOT NULL THEN 'WHERE' WHEN i.indexprs IS NOT NULL THEN 'expressions'
         WHEN i.indnatts > i.indnkeyatts THEN 'INCLUDE' WHEN k.condeferrable THEN 'DEFERRABLE'
         WHEN to_jsonb(i) ->> 'indnullsnotdistinct' = 'true' THEN 'NULLS NOT DISTINCT'
         WHEN to_jsonb(k) ->> 'conperiod' = 'true' THEN 'WITHOUT OVERLAPS'
         WHEN x.reloptions IS NOT NULL THEN 'storage parameters'
         WHEN EXISTS (SELECT FROM pg_collation l WHERE l.oid = ANY (i.indcollation::oid[]) AND NOT l.collisdeterministic)
           THEN 'a collation that is not deterministic' END AS refused
     FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
     LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype = 'u'
     WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND NOT i.indisprimary AND NOT EXISTS (
       SELECT FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS u (attnum, place)
       JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.attnum
       WHERE u.place <= i.indnkeyatts AND a.attname = $2)
     ORDER BY i.indexrelid`,
    [table.oid, keyColumn],
  );
  for (const { name, refused } of rows) {
    if (refused === null) continue;
    throw notSupported(
      `table "${table.name}" cannot be sharded with "${name}", which is unique without the shard key and has ${refused}`,
      `Drop it, or add the shard key "${keyColumn}" to it.`,
    );
  }
  return rows.map(({ indexOid, name, isConstraint, columns }) => ({ indexOid, name, isConstraint, columns }));
}
