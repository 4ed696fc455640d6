/**
 * What a node has recorded of a table with a door: its face and leaves if it is sharded, the table itself if it is a reference
 * table. Only what is recorded is ever dropped (doors/sharded/SPEC.md, 3).
 */
import { assert } from '../base/assert.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { asAdmin, asClient, type DdlSession } from './context.ts';

/** The table's own relation on this node, and who has it; undefined if there is no such name. */
export async function findRelation(
  connection: ControlConnection,
  schema: string,
  name: string,
): Promise<{ readonly oid: number; readonly tableId: number | null } | undefined> {
  const rows = await connection.query<{ oid: number; tableId: number | null }>(
    `SELECT c.oid AS oid, f.table_id AS "tableId"
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN postern_internal.local_tables f ON f.face = c.oid
     WHERE n.nspname = $1 AND c.relname = $2`,
    [schema, name],
  );
  return rows[0];
}

export interface RecordedTable {
  readonly face: string;
  readonly leaves: readonly string[];
}

/** Quoted, qualified names of what is recorded and still there; undefined if nothing is recorded. */
export async function readRecorded(
  connection: ControlConnection,
  tableId: number,
): Promise<RecordedTable | undefined> {
  const rows = await connection.query<{ face: string | null; leaves: string[] }>(
    `SELECT (SELECT c.oid::regclass::text FROM pg_class c WHERE c.oid = f.face) AS face,
       ARRAY(SELECT c.oid::regclass::text FROM ${INTERNAL_SCHEMA}.local_leaves l JOIN pg_class c ON c.oid = l.leaf
             WHERE l.table_id = f.table_id ORDER BY l.bucket)
         || ARRAY(SELECT c.oid::regclass::text FROM ${INTERNAL_SCHEMA}.local_lookups l JOIN pg_class c ON c.oid = l.leaf
             WHERE l.table_id = f.table_id ORDER BY l.lookup_id, l.bucket) AS leaves
     FROM ${INTERNAL_SCHEMA}.local_tables f WHERE f.table_id = $1 FOR UPDATE`,
    [tableId],
  );
  const row = rows[0];
  if (!row) return undefined;
  return { face: row.face ?? '', leaves: row.leaves };
}

/**
 * Has anything been written into what is recorded of this table? Where the catalog does not know it, it need not be half made: a
 * catalog that a failover has set back may have lost it, with rows on other nodes that clients were told are committed.
 */
export async function mayHoldRows(connection: ControlConnection, tableId: number): Promise<boolean> {
  const [row] = await connection.query<{ held: boolean }>(
    `SELECT EXISTS (
       SELECT FROM pg_class c WHERE c.relkind = 'r' AND pg_relation_size(c.oid) > 0 AND c.oid IN (
         SELECT face FROM ${INTERNAL_SCHEMA}.local_tables WHERE table_id = $1
         UNION ALL SELECT leaf FROM ${INTERNAL_SCHEMA}.local_leaves WHERE table_id = $1)) AS held`,
    [tableId],
  );
  return row?.held === true;
}

/**
 * Drops what is recorded of a table on this node, and the record. As `session`'s role if given, so that PostgreSQL judges
 * its rights (the face is named first: its owner is who counts); else as the admin.
 */
export async function dropRecorded(
  connection: ControlConnection,
  tableId: number,
  options: { readonly session?: DdlSession; readonly cascade: boolean },
): Promise<void> {
  const recorded = await readRecorded(connection, tableId);
  if (!recorded) return;
  const names = recorded.face === '' ? recorded.leaves : [recorded.face, ...recorded.leaves];
  if (options.session) await asClient(connection, options.session);
  if (names.length > 0)
    await connection.query(`DROP TABLE ${names.join(', ')}${options.cascade ? ' CASCADE' : ''}`);
  if (options.session) await asAdmin(connection);
  const deleted = await connection.query(
    `DELETE FROM ${INTERNAL_SCHEMA}.local_tables WHERE table_id = $1 RETURNING table_id`,
    [tableId],
  );
  assert(deleted.length === 1, 'the record was there a moment ago');
}
