/**
 * What one node holds of a sharded table: its face, its leaves and the record of both, made and dropped in one transaction
 * of that node (the caller's).
 *
 * Invariant: see SPEC.md, 3: made and recorded together; only what is recorded is dropped.
 */
import { objectError } from '../../base/errors.ts';
import { LEAF_SCHEMA } from '../../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import { asAdmin, asClient, type DdlSession } from '../../ddl/context.ts';
import { findRelation } from '../../ddl/recorded.ts';
import { quoteIdentifier } from '../../pg/identifier.ts';
import { type ControlConnection, ServerError } from '../../platform/control-connection.ts';
import { describeFace, type Face } from './face.ts';
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
