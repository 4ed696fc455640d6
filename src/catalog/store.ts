/**
 * Reads the catalog into a ClusterMap.
 *
 * Invariant: a map is read by one statement, so by one snapshot: no map mixes two epochs.
 */
import { objectError } from '../base/errors.ts';
import type { KeyTypeName } from '../pg/hash/key-type.ts';
import { KeyDirectory } from '../pg/key/directory.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { sequenceOf } from './id-sequences.ts';
import {
  buildMap,
  type ClusterMap,
  type ColumnInfo,
  LEAF_SCHEMA,
  type Lookup,
  lookupName,
  type NodeInfo,
  type ReferenceTable,
  type ShardedTable,
  type ShardedView,
  type TablePlacement,
} from './map.ts';
import { INTERNAL_SCHEMA } from './schema.ts';
import { SHARDED_VIEWS } from './sharded-views.ts';

/** Relations of other schemas that bear the name of a table with a door; temporary ones are the business of their session. */
const SHADOWS = `
  SELECT t.table_id, n.nspname FROM ${INTERNAL_SCHEMA}.tables t
  JOIN pg_class c ON c.relname = t.table_name
  JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname <> t.table_schema
  WHERE t.state = 'ready' AND n.nspname !~ '^pg_(temp|toast)'
  UNION SELECT t.table_id, r.schema_name FROM ${INTERNAL_SCHEMA}.tables t
  JOIN ${INTERNAL_SCHEMA}.schema_relations r ON r.relation_name = t.table_name AND r.schema_name <> t.table_schema
  WHERE t.state = 'ready'`;

/** Of the type y, of what it is an array or a domain of, and of the fields of either. */
const HAS_BINARY_FORM = `(SELECT bool_and(p.typsend <> 0 AND p.typreceive <> 0) FROM pg_type p
  WHERE p.oid IN (y.oid, y.typelem, y.typbasetype) OR p.oid IN (SELECT r.atttypid FROM pg_attribute r JOIN pg_type o ON o.typrelid = r.attrelid
    WHERE o.oid IN (y.oid, y.typelem, y.typbasetype) AND o.typrelid <> 0 AND r.attnum > 0 AND NOT r.attisdropped))`;

/** One row, from which mapOf() makes a map. */
export const MAP_QUERY = `
SELECT c.epoch::text AS epoch, c.home_node_id AS "homeNodeId",
  (SELECT json_agg(json_build_object('id', n.node_id, 'name', n.node_name) ORDER BY n.node_id)
   FROM ${INTERNAL_SCHEMA}.nodes n) AS nodes,
  (SELECT coalesce(json_agg(json_build_object('id', g.colocation_id, 'keyType', g.key_type, 'method', g.method,
     'hashBuckets', coalesce(g.hash_buckets, g.bucket_count), 'bounds', to_json(g.bounds),
     'lists', (SELECT coalesce(json_agg(k.keys ORDER BY k.bucket), '[]') FROM (
       SELECT l.bucket, json_agg(l.key ORDER BY l.key COLLATE "C") AS keys FROM ${INTERNAL_SCHEMA}.listed_keys l
       WHERE l.colocation_id = g.colocation_id GROUP BY l.bucket) k))), '[]')
   FROM ${INTERNAL_SCHEMA}.colocation_groups g) AS groups,
  (SELECT coalesce(json_agg(json_build_object(
     'id', t.table_id, 'schema', t.table_schema, 'name', t.table_name, 'keyColumn', t.key_column,
     'keyType', t.key_type, 'hashFunction', t.hash_function, 'colocationId', t.colocation_id, 'cascades', t.cascades,
     'columns', (
       SELECT json_agg(json_build_object('name', a.attname, 'typeOid', a.atttypid::int8,
         'sequence', i.column_name IS NOT NULL, 'identity', CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' END,
         'idSequence', (SELECT json_build_object('schema', n.nspname, 'name', s.relname, 'restarts', i.restarts)
           FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace
           WHERE i.column_name IS NOT NULL AND s.oid = ${sequenceOf('f.face', 'a')})) ORDER BY a.attnum)
       FROM pg_attribute a LEFT JOIN ${INTERNAL_SCHEMA}.id_columns i ON i.table_id = t.table_id AND i.column_name = a.attname
       WHERE a.attrelid = f.face AND a.attnum > 0 AND NOT a.attisdropped),
     'keyTypeModifier', k.atttypmod, 'keyTypeText', format_type(k.atttypid, k.atttypmod),
     'nodeIds', (SELECT json_agg(p.node_id ORDER BY p.bucket)
       FROM ${INTERNAL_SCHEMA}.places p WHERE p.colocation_id = t.colocation_id),
     'generations', (SELECT json_agg(l.generation ORDER BY l.bucket)
       FROM ${INTERNAL_SCHEMA}.leaves l WHERE l.table_id = t.table_id),
     'shadowSchemas', (SELECT coalesce(json_agg(s.nspname ORDER BY s.nspname), '[]')
       FROM (${SHADOWS}) s WHERE s.table_id = t.table_id),
     'catalogLeaf', EXISTS (SELECT FROM ${INTERNAL_SCHEMA}.local_leaves l WHERE l.table_id = t.table_id)
       AND NOT EXISTS (SELECT FROM ${INTERNAL_SCHEMA}.places p WHERE p.colocation_id = t.colocation_id AND p.node_id = c.home_node_id),
     'lookups', (SELECT coalesce(json_agg(json_build_object('id', u.lookup_id, 'name', u.constraint_name,
         'isConstraint', u.is_constraint, 'columns', u.columns, 'keyType', u.key_type, 'hashFunction', u.hash_function,
         'keyTypeModifier', v.atttypmod, 'keyTypeText', format_type(v.atttypid, v.atttypmod)) ORDER BY u.lookup_id), '[]')
       FROM ${INTERNAL_SCHEMA}.lookups u
       JOIN pg_attribute v ON v.attrelid = f.face AND v.attname = u.columns[1] AND NOT v.attisdropped
       WHERE u.table_id = t.table_id)
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
   WHERE t.state = 'ready' AND t.door = 'reference') AS "references",
  (${SHARDED_VIEWS}) AS views,
  (SELECT coalesce(json_agg(json_build_object('name', s.schema_name, 'nodeId', s.node_id, 'plain', s.plain, 'relations', (
     SELECT coalesce(json_agg(r.relation_name), '[]') FROM ${INTERNAL_SCHEMA}.schema_relations r
     WHERE r.schema_name = s.schema_name))), '[]')
   FROM ${INTERNAL_SCHEMA}.schemas s) AS schemas
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
  readonly cascades: boolean;
  readonly columns: readonly ColumnInfo[] | null;
  readonly nodeIds: readonly number[];
  readonly generations: readonly number[];
  readonly shadowSchemas: readonly string[];
  readonly lookups: readonly LookupJson[];
  readonly catalogLeaf: boolean;
}

type LookupJson = Omit<Lookup, 'table'> &
  Pick<ShardedTable, 'keyType' | 'keyTypeModifier' | 'keyTypeText' | 'hashFunction'>;

type GroupJson = TablePlacement & { readonly id: number; readonly keyType: KeyTypeName };

type ReferenceJson = Omit<ReferenceTable, 'columns'> & { readonly columns: ReferenceTable['columns'] | null };

export interface MapRow {
  readonly epoch: string;
  readonly homeNodeId: number;
  readonly nodes: readonly NodeInfo[];
  readonly groups: readonly GroupJson[];
  readonly tables: readonly TableJson[];
  readonly references: readonly ReferenceJson[];
  readonly views: readonly ShardedView[];
  readonly schemas: readonly {
    readonly name: string;
    readonly nodeId: number;
    readonly plain: boolean;
    readonly relations: readonly string[];
  }[];
}

export async function loadMap(home: ControlConnection): Promise<ClusterMap> {
  const [row] = await home.query<MapRow>(MAP_QUERY);
  return mapOf(row);
}

export function mapOf(row: MapRow | undefined): ClusterMap {
  if (!row) throw catalogDamaged('it has no cluster row');
  const tables: ShardedTable[] = [];
  const groups = readGroups(row.groups);
  for (const { nodeIds, generations, columns, lookups, catalogLeaf, ...table } of row.tables) {
    if (nodeIds.length !== generations.length) {
      throw catalogDamaged(`"${table.name}" has ${nodeIds.length} places and ${generations.length} leaves`);
    }
    // Its face was dropped behind Postern's back: the home node says 42P01, and the other tables go on.
    if (!columns) continue;
    const buckets = nodeIds.map((nodeId, bucket) => ({ nodeId, generation: generations[bucket]! }));
    const group = groups.get(table.colocationId);
    if (!group) throw catalogDamaged(`"${table.name}" is in no colocation group`);
    const own: ShardedTable = { ...table, ...group, columns, buckets };
    const whole: ShardedTable = catalogLeaf ? { ...own, catalogLeaf } : own;
    tables.push(
      lookups.length > 0 ? { ...whole, lookups: lookups.map((one) => lookupOf(whole, one)) } : whole,
    );
  }
  const references = row.references.filter((table): table is ReferenceTable => table.columns !== null);
  return buildMap({
    epoch: Number(row.epoch),
    nodes: row.nodes,
    homeNodeId: row.homeNodeId,
    tables,
    references,
    views: row.views,
    schemas: row.schemas.map((schema) => ({ ...schema, relations: new Set(schema.relations) })),
  });
}

/** Its values are hashed over the same buckets, whatever the table's own placement is. */
function lookupOf(table: ShardedTable, { id, name, isConstraint, columns, ...key }: LookupJson): Lookup {
  const { buckets, colocationId } = table;
  return {
    ...{ id, name, isConstraint, columns },
    table: {
      ...{ id: -id, schema: LEAF_SCHEMA, name: lookupName(name), keyColumn: columns[0]!, ...key },
      ...{ colocationId, columns: [], buckets, shadowSchemas: [], directory: undefined },
      placement: { method: 'hash', hashBuckets: buckets.length, bounds: [], lists: [] },
    },
  };
}

/** Tables of one group share what their keys are found by. */
function readGroups(
  groups: readonly GroupJson[],
): ReadonlyMap<number, Pick<ShardedTable, 'placement' | 'directory'>> {
  return new Map(
    groups.map(({ id, keyType, ...placement }) => {
      const isHash = placement.method === 'hash' && placement.lists.length === 0;
      return [id, { placement, directory: isHash ? undefined : new KeyDirectory({ ...placement, keyType }) }];
    }),
  );
}

/** Equal marks: the map has not changed. It holds the epoch, and the shadowing relations, which have no epoch. */
export async function loadMark(home: ControlConnection): Promise<string> {
  const rows = await home.query<{ mark: string }>(MARK_QUERY);
  return rows[0]?.mark ?? '';
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
