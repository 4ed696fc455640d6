/**
 * Which node gets which bucket: a table joins the places of the tables it is colocated with, or gets places of its own.
 *
 * Invariant: runs under the placement lock, so two tables that should share a group never make one each.
 */
import { assert } from '../../base/assert.ts';
import { BOUNDS } from '../../base/bounds.ts';
import { invalidParameter, objectError } from '../../base/errors.ts';
import { INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import type { DdlContext } from '../../ddl/context.ts';
import type { ControlConnection } from '../../platform/control-connection.ts';

const BUCKET_COUNT_DEFAULT = 32;
const BUCKET_COUNT_MAX = BOUNDS.bucketsMax;

export interface Placement {
  readonly colocationId: number;
  /** Index = bucket. */
  readonly nodeIds: readonly number[];
}

interface PlacementRequest {
  readonly keyType: string;
  readonly bucketCount: number | undefined;
  /** A table's name as the user wrote it, 'none' for a group of its own, 'default' or undefined for Citus' rule. */
  readonly colocateWith: string | undefined;
  /** The client's search_path, by which `colocateWith` is looked up. */
  readonly searchPath: string;
}

export function checkBucketCount(bucketCount: number | undefined): void {
  if (bucketCount === undefined) return;
  if (Number.isInteger(bucketCount) && bucketCount >= 1 && bucketCount <= BUCKET_COUNT_MAX) return;
  throw invalidParameter(
    `the number of buckets must be between 1 and ${BUCKET_COUNT_MAX}, not ${bucketCount}`,
  );
}

export async function choosePlacement(
  context: DdlContext,
  home: ControlConnection,
  request: PlacementRequest,
): Promise<Placement> {
  const named = request.colocateWith !== undefined && !['none', 'default'].includes(request.colocateWith);
  let colocationId = named ? await groupOfTable(home, request) : undefined;
  const bucketCount = request.bucketCount ?? BUCKET_COUNT_DEFAULT;
  if (!named && request.colocateWith !== 'none') {
    const rows = await home.query<{ id: number }>(
      `SELECT colocation_id AS id FROM ${INTERNAL_SCHEMA}.colocation_groups
       WHERE shared AND key_type = $1 AND bucket_count = $2 ORDER BY colocation_id LIMIT 1`,
      [request.keyType, bucketCount],
    );
    colocationId = rows[0]?.id;
  }
  colocationId ??= await makeGroup(context, home, request, bucketCount);
  const places = await home.query<{ node_id: number }>(
    `SELECT node_id FROM ${INTERNAL_SCHEMA}.places WHERE colocation_id = $1 ORDER BY bucket`,
    [colocationId],
  );
  return { colocationId, nodeIds: places.map((place) => place.node_id) };
}

async function groupOfTable(home: ControlConnection, request: PlacementRequest): Promise<number> {
  await home.query(`SELECT set_config('search_path', $1, true)`, [request.searchPath]);
  const rows = await home.query<{ id: number | null; key_type: string | null; bucket_count: number | null }>(
    `SELECT g.colocation_id AS id, g.key_type, g.bucket_count
     FROM (SELECT pg_catalog.to_regclass($1) AS face) named
     LEFT JOIN ${INTERNAL_SCHEMA}.local_tables f ON f.face = named.face
     LEFT JOIN ${INTERNAL_SCHEMA}.tables t ON t.table_id = f.table_id AND t.state = 'ready'
     LEFT JOIN ${INTERNAL_SCHEMA}.colocation_groups g USING (colocation_id)`,
    [request.colocateWith],
  );
  await home.query('SET LOCAL search_path = pg_catalog');
  const group = rows[0];
  assert(group, 'a query without a condition gives a row');
  const { colocateWith, keyType, bucketCount } = request;
  if (group.id === null) {
    throw objectError('42P01', `there is no sharded table "${colocateWith}" to be colocated with`);
  }
  if (group.key_type !== keyType) {
    throw invalidParameter(
      `the table cannot be colocated with "${colocateWith}": the keys have different types`,
      `The key of "${colocateWith}" is of type ${group.key_type}, and this one of type ${keyType}.`,
    );
  }
  if (bucketCount !== undefined && bucketCount !== group.bucket_count) {
    throw invalidParameter(
      `the table cannot be colocated with "${colocateWith}": that has ${group.bucket_count} buckets, not ${bucketCount}`,
      'Leave the number of buckets out.',
    );
  }
  return group.id;
}

/** Buckets go round the nodes in turn. */
async function makeGroup(
  context: DdlContext,
  home: ControlConnection,
  request: PlacementRequest,
  bucketCount: number,
): Promise<number> {
  const rows = await home.query<{ id: number }>(
    `INSERT INTO ${INTERNAL_SCHEMA}.colocation_groups (key_type, bucket_count, shared) VALUES ($1, $2, $3)
     RETURNING colocation_id AS id`,
    [request.keyType, bucketCount, request.colocateWith !== 'none'],
  );
  const id = rows[0]?.id;
  assert(id !== undefined, 'INSERT … RETURNING gives a row');
  const nodeIds = Array.from({ length: bucketCount }, (_, bucket) => {
    const node = context.nodes[bucket % context.nodes.length];
    assert(node, 'a cluster has nodes');
    return node.id;
  });
  await home.query(
    `INSERT INTO ${INTERNAL_SCHEMA}.places (colocation_id, bucket, node_id)
     SELECT $1, place.ordinality - 1, place.node_id FROM unnest($2::int4[]) WITH ORDINALITY AS place (node_id, ordinality)`,
    [id, nodeIds],
  );
  return id;
}
