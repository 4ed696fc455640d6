/**
 * Reads the catalog into a ClusterMap, and leases blocks of ids from it.
 *
 * Invariant: a map is read by one statement, so by one snapshot: no map mixes two epochs.
 */
import { objectError } from '../base/errors.ts';
import type { KeyTypeName } from '../pg/hash/key-type.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import {
  buildMap,
  type ClusterMap,
  type ColumnInfo,
  type NodeInfo,
  type ReferenceTable,
  type ShardedTable,
} from './map.ts';
import { INTERNAL_SCHEMA } from './schema.ts';

/** Relations of other schemas that bear the name of a table with a door; temporary ones are the business of their session. */
const SHADOWS = `
  SELECT t.table_id, n.nspname FROM ${INTERNAL_SCHEMA}.tables t
  JOIN pg_class c ON c.relname = t.table_name
  JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname <> t.table_schema
  WHERE t.state = 'ready' AND n.nspname !~ '^pg_(temp|toast)'`;

/** Of the type y, of what it is an array or a domain of, and of the fields of either. */
const HAS_BINARY_FORM = `(SELECT bool_and(p.typsend <> 0 AND p.typreceive <> 0) FROM pg_type p
  WHERE p.oid IN (y.oid, y.typelem, y.typbasetype) OR p.oid IN (SELECT r.atttypid FROM pg_attribute r JOIN pg_type o ON o.typrelid = r.attrelid
    WHERE o.oid IN (y.oid, y.typelem, y.typbasetype) AND o.typrelid <> 0 AND r.attnum > 0 AND NOT r.attisdropped))`;

const MAP_QUERY = `
SELECT c.epoch::text AS epoch, c.home_node_id AS "homeNodeId",
  (SELECT json_agg(json_build_object('id', n.node_id, 'name', n.node_name) ORDER BY n.node_id)
   FROM ${INTERNAL_SCHEMA}.nodes n) AS nodes,
  (SELECT coalesce(json_agg(json_build_object(
     'id', t.table_id, 'schema', t.table_schema, 'name', t.table_name, 'keyColumn', t.key_column,
     'keyType', t.key_type, 'hashFunction', t.hash_function, 'colocationId', t.colocation_id,
     'columns', (
       SELECT json_agg(json_build_object('name', a.attname, 'typeOid', a.atttypid::int8,
         'sequence', i.column_name IS NOT NULL) ORDER BY a.attnum)
       FROM pg_attribute a LEFT JOIN ${INTERNAL_SCHEMA}.id_columns i ON i.table_id = t.table_id AND i.column_name = a.attname
       WHERE a.attrelid = f.face AND a.attnum > 0 AND NOT a.attisdropped),
     'keyTypeModifier', k.atttypmod, 'keyTypeText', format_type(k.atttypid, k.atttypmod),
     'nodeIds', (SELECT json_agg(p.node_id ORDER BY p.bucket)
       FROM ${INTERNAL_SCHEMA}.places p WHERE p.colocation_id = t.colocation_id),
     'generations', (SELECT json_agg(l.generation ORDER BY l.bucket)
       FROM ${INTERNAL_SCHEMA}.leaves l WHERE l.table_id = t.table_id),
     'shadowSchemas', (SELECT coalesce(json_agg(s.nspname ORDER BY s.nspname), '[]')
       FROM (${SHADOWS}) s WHERE s.table_id = t.table_id)
   ) ORDER BY t.table_id), '[]')
   FROM ${INTERNAL_SCHEMA}.tables t
   LEFT JOIN ${INTERNAL_SCHEMA}.local_tables f ON f.table_id = t.table_id
   LEFT JOIN pg_attribute k ON k.attrelid = f.face AND k.attname = t.key_column AND NOT k.attisdropped
   WHERE t.state = 'ready' AND t.door = 'sharded') AS tables,
  (SELECT coalesce(json_agg(json_build_object(
     'id', t.table_id, 'schema', t.table_schema, 'name', t.table_name,
     'columns', (
       SELECT json_agg(json_build_object('name', a.attname, 'typeOid', a.atttypid::int8,
         'typeText', format_type(a.atttypid, a.atttypmod), 'binary', ${HAS_BINARY_FORM}, 'generated', a.attgenerated <> '') ORDER BY a.attnum)
       FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
       WHERE a.attrelid = f.face AND a.attnum > 0 AND NOT a.attisdropped),
     'primaryKey', (SELECT coalesce(json_agg(a.attname ORDER BY k.place), '[]') FROM pg_constraint c
       CROSS JOIN unnest(c.conkey) WITH ORDINALITY AS k (attnum, place)
       JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.attnum
       WHERE c.conrelid = f.face AND c.contype = 'p'),
     'shadowSchemas', (SELECT coalesce(json_agg(s.nspname ORDER BY s.nspname), '[]')
       FROM (${SHADOWS}) s WHERE s.table_id = t.table_id)
   ) ORDER BY t.table_id), '[]')
   FROM ${INTERNAL_SCHEMA}.tables t LEFT JOIN ${INTERNAL_SCHEMA}.local_tables f ON f.table_id = t.table_id
   WHERE t.state = 'ready' AND t.door = 'reference') AS "references"
FROM ${INTERNAL_SCHEMA}.cluster c`;

/** Changes whenever what loadMap would return changes; cheap enough to be asked for twice a second. */
const MARK_QUERY = `
SELECT c.epoch || ':' || coalesce((SELECT md5(string_agg(s.table_id || '.' || s.nspname, ',' ORDER BY s.table_id, s.nspname))
  FROM (${SHADOWS}) s), '') AS mark
FROM ${INTERNAL_SCHEMA}.cluster c`;

interface TableJson {
  readonly id: number;
  readonly schema: string;
  readonly name: string;
  readonly keyColumn: string;
  readonly keyType: KeyTypeName;
  readonly keyTypeModifier: number;
  readonly keyTypeText: string;
  readonly hashFunction: string;
  readonly colocationId: number;
  readonly columns: readonly ColumnInfo[] | null;
  readonly nodeIds: readonly number[];
  readonly generations: readonly number[];
  readonly shadowSchemas: readonly string[];
}

type ReferenceJson = Omit<ReferenceTable, 'columns'> & { readonly columns: ReferenceTable['columns'] | null };

export async function loadMap(home: ControlConnection): Promise<ClusterMap> {
  const rows = await home.query<{
    epoch: string;
    homeNodeId: number;
    nodes: readonly NodeInfo[];
    tables: readonly TableJson[];
    references: readonly ReferenceJson[];
  }>(MAP_QUERY);
  const row = rows[0];
  if (!row) throw catalogDamaged('it has no cluster row');
  const tables: ShardedTable[] = [];
  for (const { nodeIds, generations, columns, ...table } of row.tables) {
    if (nodeIds.length !== generations.length) {
      throw catalogDamaged(`"${table.name}" has ${nodeIds.length} places and ${generations.length} leaves`);
    }
    // Its face was dropped behind Postern's back: the home node says 42P01, and the other tables go on.
    if (!columns) continue;
    const buckets = nodeIds.map((nodeId, bucket) => ({ nodeId, generation: generations[bucket]! }));
    tables.push({ ...table, columns, buckets });
  }
  const references = row.references.filter((table): table is ReferenceTable => table.columns !== null);
  return buildMap({
    epoch: Number(row.epoch),
    nodes: row.nodes,
    homeNodeId: row.homeNodeId,
    tables,
    references,
  });
}

/** Equal marks: the map has not changed. It holds the epoch, and the shadowing relations, which have no epoch. */
export async function loadMark(home: ControlConnection): Promise<string> {
  const rows = await home.query<{ mark: string }>(MARK_QUERY);
  return rows[0]?.mark ?? '';
}

export interface IdBlock {
  /** Both ends belong to the block. */
  readonly first: number;
  readonly last: number;
}

/** Takes the next `count` ids of a column, or as many as are left; 2200H when there are none left. */
export async function leaseIdBlock(
  home: ControlConnection,
  request: { readonly tableId: number; readonly column: string; readonly count: number },
): Promise<IdBlock> {
  const values = [request.tableId, request.column];
  const rows = await home.query<{ first: string; last: string }>(
    `UPDATE ${INTERNAL_SCHEMA}.id_columns
     SET next_id = LEAST(next_id + $3, max_id + 1), leased_last = LEAST($3, max_id + 1 - next_id)
     WHERE table_id = $1 AND column_name = $2 AND next_id <= max_id
     RETURNING (next_id - leased_last)::text AS first, (next_id - 1)::text AS last`,
    [...values, request.count],
  );
  const row = rows[0];
  if (row) return { first: Number(row.first), last: Number(row.last) };
  const limits = await home.query<{ max: string; name: string }>(
    `SELECT i.max_id::text AS max, t.table_name AS name FROM ${INTERNAL_SCHEMA}.id_columns i
     JOIN ${INTERNAL_SCHEMA}.tables t USING (table_id) WHERE i.table_id = $1 AND i.column_name = $2`,
    values,
  );
  const limit = limits[0];
  if (!limit) throw objectError('42P01', 'the table was dropped while an id for it was being made');
  throw objectError(
    '2200H',
    `nextval: reached maximum value of sequence "${limit.name}_${request.column}_seq" (${limit.max})`,
  );
}

/** What outcome tokens are signed with, by every router of the cluster. */
export async function readTokenKey(home: ControlConnection): Promise<Buffer> {
  const rows = await home.query<{ key: string }>(`SELECT key FROM ${INTERNAL_SCHEMA}.token_key`);
  if (!rows[0]) throw catalogDamaged('it has no key for outcome tokens');
  return Buffer.from(rows[0].key, 'hex');
}

function catalogDamaged(what: string): Error {
  return objectError('XX001', `the catalog is damaged: ${what}`);
}
