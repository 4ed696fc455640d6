/**
 * What one node holds of a sharded table: its face, its leaves and the record of both, made and dropped in one transaction
 * of that node (the caller's).
 *
 * Invariant: see SPEC.md, 3: made and recorded together; only what is recorded is dropped.
 */
import { assert } from '../../base/assert.ts';
import { objectError } from '../../base/errors.ts';
import { LEAF_SCHEMA } from '../../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import { quoteIdentifier } from '../../pg/identifier.ts';
import { type ControlConnection, ServerError } from '../../platform/control-connection.ts';
import { asAdmin, asClient, type DdlSession } from './context.ts';
import { describeFace, type Face, findRelation } from './face.ts';
import { readShardKey, type ShardKey } from './key.ts';
import { closeFaceSql, createLeafSql, qualifiedLeaf } from './leaf.ts';

export interface FaceDefinition {
  /** Run one after the other as the client; the first one makes the table, partitioned by hash of the key. */
  readonly statements: readonly string[];
  readonly name: string;
}

export interface MadeFace {
  readonly face: Face;
  readonly key: ShardKey;
}

/** Makes the face as the client. `schema` is where it will be: the one named, or the client's current schema. */
export async function makeFace(
  connection: ControlConnection,
  session: DdlSession,
  definition: FaceDefinition & { readonly schema: string },
): Promise<MadeFace> {
  await asClient(connection, session);
  for (const statement of definition.statements) {
    try {
      await connection.query(statement);
    } catch (error) {
      if (
        error instanceof ServerError &&
        error.message.startsWith('unique constraint on partitioned table')
      ) {
        throw error.withHint(
          'Rows with different keys live on different nodes: add the key to the constraint.',
        );
      }
      throw error;
    }
  }
  await asAdmin(connection);
  const found = await findRelation(connection, definition.schema, definition.name);
  if (!found)
    throw objectError(
      '42P01',
      `table "${definition.schema}"."${definition.name}" was not made where it should be`,
    );
  const face = await describeFace(connection, found.oid);
  return { face, key: await readShardKey(connection, found.oid) };
}

/** Makes and records the leaves of the buckets of this node, then closes the face. */
export async function makeLeaves(
  connection: ControlConnection,
  session: DdlSession,
  request: {
    readonly face: Face;
    readonly keyColumn: string;
    readonly tableId: number;
    readonly generation: number;
    readonly bucketCount: number;
    readonly buckets: readonly number[];
    readonly storage: ReadonlyMap<string, string>;
  },
): Promise<void> {
  const { face, tableId, generation, bucketCount, keyColumn, buckets, storage } = request;
  const role = quoteIdentifier(session.role);
  // Seen by nobody: it is taken back in the same transaction. An owner needs it to make the leaves its own.
  await connection.query(`GRANT CREATE ON SCHEMA ${LEAF_SCHEMA} TO ${role}`);
  // The texts of the face's constraints and indexes were printed under this search_path, and mean the same under it.
  await asClient(connection, { role: session.role, searchPath: 'pg_catalog' });
  const statements = buckets.map((bucket) =>
    createLeafSql(face, { bucket, bucketCount, generation, keyColumn, storage }),
  );
  await connection.query([...statements, closeFaceSql(face)].join(';\n'));
  await asAdmin(connection);
  await connection.query(`REVOKE CREATE ON SCHEMA ${LEAF_SCHEMA} FROM ${role}`);
  await connection.query(
    `INSERT INTO ${INTERNAL_SCHEMA}.local_tables (table_id, face) VALUES ($1, $2::oid::regclass)`,
    [tableId, face.oid],
  );
  const leaves = buckets.map((bucket) => qualifiedLeaf(face.name, bucket, generation));
  await connection.query(
    `INSERT INTO ${INTERNAL_SCHEMA}.local_leaves (table_id, bucket, generation, leaf)
     SELECT $1, made.bucket, $2, made.leaf::regclass FROM unnest($3::int4[], $4::text[]) AS made (bucket, leaf)`,
    [tableId, generation, buckets, leaves],
  );
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
             WHERE l.table_id = f.table_id ORDER BY l.bucket) AS leaves
     FROM ${INTERNAL_SCHEMA}.local_tables f WHERE f.table_id = $1 FOR UPDATE`,
    [tableId],
  );
  const row = rows[0];
  if (!row) return undefined;
  return { face: row.face ?? '', leaves: row.leaves };
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
