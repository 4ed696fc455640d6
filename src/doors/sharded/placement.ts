/**
 * Which buckets a table has, and which node gets which: it joins the buckets and places of the tables it is colocated with, or
 * gets some of its own.
 *
 * Invariant: runs under the placement lock, so two tables that should share a group never make one each.
 */
import { assert } from '../../base/assert.ts';
import { BOUNDS } from '../../base/bounds.ts';
import { invalidParameter, objectError } from '../../base/errors.ts';
import type { NodeInfo, TablePlacement } from '../../catalog/map.ts';
import { type PartitionStrategy, partitionStrategy } from '../../catalog/placement-sql.ts';
import { INTERNAL_SCHEMA } from '../../catalog/schema.ts';
import type { SqlConnection } from '../../ddl/context.ts';
import type { KeyTypeName } from '../../pg/hash/key-type.ts';
import type { PlacementOptions } from '../../plan/placement-options.ts';
import { readPlacement } from './placement-request.ts';

const BUCKET_COUNT_MAX = BOUNDS.bucketsMax;

export interface Placement {
  readonly colocationId: number;
  readonly placement: TablePlacement;
  /** Index = bucket. */
  readonly nodeIds: readonly number[];
}

export interface ColocationRequest {
  /** Undefined: that of the table it is colocated with, or by hash. */
  readonly placement: PlacementOptions | undefined;
  /** A table's name as the user wrote it, 'none' for a group of its own, 'default' or undefined for Citus' rule. */
  readonly colocateWith: string | undefined;
  /** The client's search_path, by which `colocateWith` is looked up. */
  readonly searchPath: string;
}

export interface PlacementRequest extends ColocationRequest {
  readonly keyType: KeyTypeName;
  /** Names of the nodes of the buckets that have bounds or values, in order; undefined: in turn. */
  readonly nodes: readonly string[] | undefined;
}

/** Read as it stands in the catalog. */
interface Group {
  readonly id: number;
  readonly keyType: string;
  readonly placement: TablePlacement;
}

const BY_HASH: PlacementOptions = { method: 'hash', bucketCount: undefined };

/** How the face will be partitioned: asked for before there is one, whose key's type the rest depends on. */
export async function strategyOf(
  home: SqlConnection,
  request: ColocationRequest,
): Promise<PartitionStrategy> {
  const { placement } = request;
  checkBucketCount(placement);
  if (placement)
    return partitionStrategy({ method: placement.method, hashBuckets: hashBucketsOf(placement) });
  if (!isNamed(request.colocateWith)) return 'HASH';
  return partitionStrategy((await groupOfTable(home, request)).placement);
}

export async function choosePlacement(
  context: { readonly nodes: readonly NodeInfo[] },
  home: SqlConnection,
  request: PlacementRequest,
): Promise<Placement> {
  const { keyType, colocateWith } = request;
  const wanted =
    request.placement || !isNamed(colocateWith)
      ? await readPlacement(home, keyType, request.placement ?? BY_HASH)
      : undefined;
  let group: Group | undefined;
  if (isNamed(colocateWith)) {
    group = await groupOfTable(home, request);
    refuseOtherGroup(group, { colocateWith, keyType, wanted });
  } else if (colocateWith !== 'none') {
    assert(wanted, 'a table that names no other has a placement of its own');
    group = await sharedGroup(home, keyType, wanted);
    if (group && request.nodes)
      await refuseOtherNodes(home, context, { group, nodes: request.nodes, wanted });
  }
  if (!group) {
    assert(wanted, 'a table that names no other has a placement of its own');
    group = await makeGroup(home, context, { ...request, wanted });
  }
  return { colocationId: group.id, placement: group.placement, nodeIds: await nodeIdsOf(home, group.id) };
}

function isNamed(colocateWith: string | undefined): colocateWith is string {
  return colocateWith !== undefined && colocateWith !== 'none' && colocateWith !== 'default';
}

/** Of keys that have no bucket of their own. */
function hashBucketsOf(options: PlacementOptions): number {
  if (options.method === 'range') return 0;
  // Any number above 1 has the same strategy.
  return options.bucketCount ?? (options.method === 'hash' ? BUCKET_COUNT_MAX : 0);
}

function checkBucketCount(options: PlacementOptions | undefined): void {
  if (!options || options.method === 'range' || options.bucketCount === undefined) return;
  const { method, bucketCount } = options;
  const least = method === 'list' ? 0 : 1;
  if (Number.isInteger(bucketCount) && bucketCount >= least && bucketCount <= BUCKET_COUNT_MAX) return;
  throw invalidParameter(
    `the number of buckets must be between ${least} and ${BUCKET_COUNT_MAX}, not ${bucketCount}`,
  );
}

const GROUP_COLUMNS = `g.colocation_id AS id, g.key_type AS "keyType", json_build_object('method', g.method,
  'hashBuckets', coalesce(g.hash_buckets, g.bucket_count), 'bounds', to_json(g.bounds),
  'lists', (SELECT coalesce(json_agg(k.keys ORDER BY k.bucket), '[]') FROM (
    SELECT l.bucket, json_agg(l.key ORDER BY l.key COLLATE "C") AS keys FROM ${INTERNAL_SCHEMA}.listed_keys l
    WHERE l.colocation_id = g.colocation_id GROUP BY l.bucket) k)) AS placement`;

/** A group that others may join, of the same keys. Tenants that were pinned since do not count. */
async function sharedGroup(
  home: SqlConnection,
  keyType: KeyTypeName,
  wanted: TablePlacement,
): Promise<Group | undefined> {
  const rows = await home.query<Group>(
    `SELECT ${GROUP_COLUMNS} FROM ${INTERNAL_SCHEMA}.colocation_groups g
     WHERE shared AND key_type = $1 AND method = $2 AND coalesce(hash_buckets, bucket_count) = $3 AND bounds = $4::text[]
       AND NOT EXISTS (SELECT FROM (
         SELECT array_agg(l.key ORDER BY l.key COLLATE "C") AS keys FROM ${INTERNAL_SCHEMA}.listed_keys l
         WHERE l.colocation_id = g.colocation_id AND NOT l.pinned GROUP BY l.bucket) listed
         FULL JOIN (SELECT array(SELECT jsonb_array_elements_text(w.list)) AS keys
           FROM jsonb_array_elements($5::jsonb) AS w (list)) wanted ON wanted.keys = listed.keys
         WHERE wanted.keys IS NULL OR listed.keys IS NULL)
     ORDER BY colocation_id LIMIT 1`,
    [keyType, wanted.method, wanted.hashBuckets, wanted.bounds, JSON.stringify(inOrder(wanted.lists))],
  );
  return rows[0];
}

/** By their UTF-8 bytes, as collation "C" has it. */
function inOrder(lists: readonly (readonly string[])[]): string[][] {
  return lists.map((list) => [...list].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))));
}

export async function groupOf(home: SqlConnection, colocationId: number): Promise<Group> {
  const [group] = await home.query<Group>(
    `SELECT ${GROUP_COLUMNS} FROM ${INTERNAL_SCHEMA}.colocation_groups g WHERE colocation_id = $1`,
    [colocationId],
  );
  assert(group, 'a table that is ready has a group');
  return group;
}

async function groupOfTable(home: SqlConnection, request: ColocationRequest): Promise<Group> {
  const { colocateWith } = request;
  await home.query(`SELECT set_config('search_path', $1, true)`, [request.searchPath]);
  const rows = await home.query<Group>(
    `SELECT ${GROUP_COLUMNS} FROM ${INTERNAL_SCHEMA}.local_tables f
     JOIN ${INTERNAL_SCHEMA}.tables t ON t.table_id = f.table_id AND t.state = 'ready'
     JOIN ${INTERNAL_SCHEMA}.colocation_groups g USING (colocation_id) WHERE f.face = pg_catalog.to_regclass($1)`,
    [colocateWith],
  );
  await home.query('SET LOCAL search_path = pg_catalog');
  const group = rows[0];
  if (group) return group;
  throw objectError('42P01', `there is no sharded table "${colocateWith}" to be colocated with`);
}

function refuseOtherGroup(
  group: Group,
  request: {
    readonly colocateWith: string;
    readonly keyType: string;
    readonly wanted: TablePlacement | undefined;
  },
): void {
  const { colocateWith, keyType, wanted } = request;
  const refused = (why: string, hint: string) =>
    invalidParameter(`the table cannot be colocated with "${colocateWith}": ${why}`, hint);
  if (group.keyType !== keyType) {
    throw refused(
      'the keys have different types',
      `The key of "${colocateWith}" is of type ${group.keyType}, and this one of type ${keyType}.`,
    );
  }
  if (!wanted) return;
  const { placement } = group;
  if (placement.method !== wanted.method)
    throw refused(`that is sharded by ${placement.method}, not by ${wanted.method}`, 'Leave the method out.');
  if (placement.hashBuckets !== wanted.hashBuckets)
    throw refused(
      `that has ${placement.hashBuckets} buckets, not ${wanted.hashBuckets}`,
      'Leave the number of buckets out.',
    );
  const values = ({ bounds, lists }: TablePlacement) => JSON.stringify([bounds, inOrder(lists)]);
  if (wanted.method !== 'hash' && values(placement) !== values(wanted))
    throw refused('its bounds or values are others', 'Leave them out: they are taken from that table.');
}

async function nodeIdsOf(home: SqlConnection, colocationId: number): Promise<number[]> {
  const places = await home.query<{ node_id: number }>(
    `SELECT node_id FROM ${INTERNAL_SCHEMA}.places WHERE colocation_id = $1 ORDER BY bucket`,
    [colocationId],
  );
  return places.map((place) => place.node_id);
}

async function refuseOtherNodes(
  home: SqlConnection,
  context: { readonly nodes: readonly NodeInfo[] },
  { group, nodes, wanted }: { group: Group; nodes: readonly string[]; wanted: TablePlacement },
): Promise<void> {
  const wantedIds = namedNodes(context, wanted, nodes);
  const nodeIds = await nodeIdsOf(home, group.id);
  if (wantedIds.every((id, i) => id === nodeIds[wanted.hashBuckets + i])) return;
  throw invalidParameter(
    'tables with the same bounds or values are on other nodes already',
    "Leave postern.nodes out, or say postern.colocate_with = 'none'.",
  );
}

/** Buckets go round the nodes in turn, but for those whose nodes are named. */
async function makeGroup(
  home: SqlConnection,
  context: { readonly nodes: readonly NodeInfo[] },
  request: PlacementRequest & { readonly wanted: TablePlacement },
): Promise<Group> {
  const { keyType, colocateWith, wanted, nodes } = request;
  const bucketCount =
    wanted.method === 'range' ? wanted.bounds.length + 1 : wanted.hashBuckets + wanted.lists.length;
  const nodeIds = Array.from({ length: bucketCount }, (_, bucket) => {
    const node = context.nodes[bucket % context.nodes.length];
    assert(node, 'a cluster has nodes');
    return node.id;
  });
  if (nodes) nodeIds.splice(wanted.hashBuckets, bucketCount, ...namedNodes(context, wanted, nodes));
  const rows = await home.query<{ id: number }>(
    `INSERT INTO ${INTERNAL_SCHEMA}.colocation_groups (key_type, bucket_count, shared, method, hash_buckets, bounds)
     VALUES ($1, $2, $3, $4, $5, $6) RETURNING colocation_id AS id`,
    [keyType, bucketCount, colocateWith !== 'none', wanted.method, wanted.hashBuckets, wanted.bounds],
  );
  const id = rows[0]?.id;
  assert(id !== undefined, 'INSERT … RETURNING gives a row');
  await home.query(
    `INSERT INTO ${INTERNAL_SCHEMA}.places (colocation_id, bucket, node_id)
     SELECT $1, place.ordinality - 1, place.node_id FROM unnest($2::int4[]) WITH ORDINALITY AS place (node_id, ordinality)`,
    [id, nodeIds],
  );
  const keys = wanted.lists.flatMap((list, i) =>
    list.map((key) => ({ key, bucket: wanted.hashBuckets + i })),
  );
  await home.query(
    `INSERT INTO ${INTERNAL_SCHEMA}.listed_keys (colocation_id, bucket, key)
     SELECT $1, listed.bucket, listed.key FROM unnest($2::int4[], $3::text[]) AS listed (bucket, key)`,
    [id, keys.map(({ bucket }) => bucket), keys.map(({ key }) => key)],
  );
  return { id, keyType, placement: { ...wanted, lists: inOrder(wanted.lists) } };
}

/** Of the buckets behind those of the hash. */
function namedNodes(
  context: { readonly nodes: readonly NodeInfo[] },
  wanted: TablePlacement,
  names: readonly string[],
): number[] {
  const count = wanted.method === 'range' ? wanted.bounds.length + 1 : wanted.lists.length;
  if (names.length !== count)
    throw invalidParameter(
      `${names.length} nodes are named for ${count} buckets`,
      'Name the node of each bucket that has bounds or values, in their order.',
    );
  return names.map((name) => {
    const node = context.nodes.find((candidate) => candidate.name === name);
    if (node) return node.id;
    const known = context.nodes.map((candidate) => candidate.name).join(', ');
    throw invalidParameter(`there is no node "${name}"`, `The nodes are ${known}.`);
  });
}
