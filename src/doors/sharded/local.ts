/**
 * What one node holds of a sharded table: its face, its leaves and the record of both, made and dropped in one transaction
 * of that node (the caller's).
 *
 * Invariant: see SPEC.md, 3: made and recorded together; only what is recorded is dropped.
 */
import { objectError } from '../../base/errors.ts';
import type { TablePlacement } from '../../catalog/map.ts';
import { INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import { asAdmin, asClient, type DdlSession } from '../../ddl/context.ts';
import { grantLeafSchema } from '../../ddl/leaf-rights.ts';
import { findRelation } from '../../ddl/recorded.ts';
import { type ControlConnection, ServerError } from '../../platform/control-connection.ts';
import { describeFace, type Face } from './face.ts';
import type { ForeignTargets } from './foreign-keys.ts';
import { readShardKey, type ShardKey } from './key.ts';
import { closeFaceStatements, createLeafStatements, qualifiedLeaf } from './leaf.ts';

export interface FaceDefinition {
  /** Run one after the other as the client; the first one makes the table, partitioned by the key. */
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
    await connection.query(statement).catch((error: unknown) => {
      throw withKeyHint(error);
    });
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

/** PostgreSQL's refusal of a unique constraint without the key, with the reason. */
export function withKeyHint(error: unknown): unknown {
  if (error instanceof ServerError && error.message.startsWith('unique constraint on partitioned table'))
    return error.withHint(
      'Rows with different keys live on different nodes: add the key to the constraint. Without it, UNIQUE is possible, and a primary key is not.',
    );
  return error;
}

/** Makes and records the leaves of the buckets of this node, then closes the face. */
export async function makeLeaves(
  connection: ControlConnection,
  session: DdlSession,
  request: {
    readonly face: Face;
    readonly key: ShardKey;
    readonly tableId: number;
    readonly generation: number;
    readonly placement: TablePlacement;
    readonly buckets: readonly number[];
    readonly storage: ReadonlyMap<string, string>;
    readonly targets: ForeignTargets;
    /** The only one of `buckets` is another node's (LeafSpec). */
    readonly isForCatalog?: boolean;
  },
): Promise<void> {
  const {
    face,
    tableId,
    generation,
    placement,
    key,
    buckets,
    storage,
    targets,
    isForCatalog = false,
  } = request;
  await grantLeafSchema(connection, session.role);
  // The texts of the face's constraints and indexes were printed under this search_path, and mean the same under it.
  await asClient(connection, { role: session.role, searchPath: 'pg_catalog' });
  const statements = buckets.flatMap((bucket) =>
    createLeafStatements(face, { bucket, placement, generation, key, storage, targets, isForCatalog }),
  );
  await connection.query([...statements, ...closeFaceStatements(face)].join(';\n'));
  await asAdmin(connection);
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
