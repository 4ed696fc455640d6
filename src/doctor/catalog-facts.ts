/**
 * What the catalog on home says should be, beside the map: tables that are half made, DDL that is not complete, routers that have
 * registered. And what each node has recorded of its own.
 */
import type { ClusterMap } from '../catalog/map.ts';
import { INTERNAL_SCHEMA, TABLE_LOCK_KEY } from '../catalog/schema.ts';
import { loadMap } from '../catalog/store.ts';
import type { ControlConnection } from '../platform/control-connection.ts';

export interface UnfinishedTable {
  readonly name: string;
  readonly state: string;
  /** Whoever makes or drops it holds its lock. */
  readonly isWorkedOn: boolean;
}

export interface UnfinishedDdl {
  readonly tableId: number;
  readonly statement: string;
  readonly role: string;
  readonly ageSeconds: number;
}

export interface RouterFacts {
  readonly name: string;
  readonly version: string;
  readonly heartbeatSeconds: number;
}

export interface CatalogFacts {
  readonly clusterId: string;
  readonly home: string;
  readonly nodes: readonly { readonly id: number; readonly name: string }[];
  readonly map: ClusterMap;
  readonly unfinishedTables: readonly UnfinishedTable[];
  readonly unfinishedDdl: readonly UnfinishedDdl[];
  /** Undefined: no router has ever registered. */
  readonly routers: readonly RouterFacts[] | undefined;
  /** Long names that leaves have cut, by table. */
  readonly cutNames: readonly { readonly tableId: number; readonly name: string }[];
  /** Tables of the map that are gone on home: their faces were dropped there. */
  readonly faceless: readonly { readonly id: number; readonly schema: string; readonly name: string }[];
}

/** undefined: there is no catalog, as no router has served yet. */
export async function readCatalog(home: ControlConnection): Promise<CatalogFacts | undefined> {
  const [found] = await home.query<{ there: boolean; routers: boolean }>(
    `SELECT to_regclass('${INTERNAL_SCHEMA}.cluster') IS NOT NULL AS there,
       to_regclass('${INTERNAL_SCHEMA}.routers') IS NOT NULL AS routers`,
  );
  if (!found?.there) return undefined;
  const map = await loadMap(home);
  const [row] = await home.query<Omit<CatalogFacts, 'map' | 'routers'>>(
    `SELECT c.cluster_id AS "clusterId", n.node_name AS home,
       (SELECT coalesce(json_agg(json_build_object('id', n.node_id, 'name', n.node_name) ORDER BY n.node_id), '[]')
        FROM ${INTERNAL_SCHEMA}.nodes n) AS nodes,
       (SELECT coalesce(json_agg(json_build_object('name', t.table_name, 'state', t.state, 'isWorkedOn', EXISTS (
          SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objid = t.table_id AND l.objsubid = 2
            AND l.classid = ${TABLE_LOCK_KEY.split(',')[0]} AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())))
          ORDER BY t.table_id), '[]') FROM ${INTERNAL_SCHEMA}.tables t WHERE t.state <> 'ready') AS "unfinishedTables",
       (SELECT coalesce(json_agg(json_build_object('tableId', j.table_id, 'statement', j.statement, 'role', j.role,
          'ageSeconds', extract(epoch FROM clock_timestamp() - j.started_at)) ORDER BY j.job_id), '[]')
        FROM ${INTERNAL_SCHEMA}.ddl_jobs j) AS "unfinishedDdl",
       (SELECT coalesce(json_agg(json_build_object('tableId', x.table_id, 'name', x.name)), '[]')
        FROM ${INTERNAL_SCHEMA}.cut_names x) AS "cutNames",
       (SELECT coalesce(json_agg(json_build_object('id', t.table_id, 'schema', t.table_schema, 'name', t.table_name)), '[]')
        FROM ${INTERNAL_SCHEMA}.tables t LEFT JOIN ${INTERNAL_SCHEMA}.local_tables f USING (table_id)
        LEFT JOIN pg_class k ON k.oid = f.face WHERE t.state = 'ready' AND k.oid IS NULL) AS faceless
     FROM ${INTERNAL_SCHEMA}.cluster c LEFT JOIN ${INTERNAL_SCHEMA}.nodes n ON n.node_id = c.home_node_id`,
  );
  if (!row) return undefined;
  const routers = found.routers
    ? await home.query<RouterFacts>(
        `SELECT router_name AS name, version, extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS "heartbeatSeconds"
         FROM ${INTERNAL_SCHEMA}.routers ORDER BY slot`,
      )
    : undefined;
  return { ...row, map, routers };
}

/** What a node has recorded of faces, leaves and lookups; `relation`: null: it is not there any more. */
export interface LocalRecords {
  readonly faces: readonly {
    readonly tableId: number;
    readonly relation: string | null;
    readonly oid: number;
  }[];
  readonly leaves: readonly LeafRecord[];
  readonly lookups: readonly (LeafRecord & { readonly lookupId: number })[];
}

export interface LeafRecord {
  readonly tableId: number;
  readonly bucket: number;
  readonly generation: number;
  /** Bare name. */
  readonly relation: string | null;
}

export async function readRecords(node: ControlConnection): Promise<LocalRecords> {
  const leaf = (
    table: string,
    more: string,
  ) => `(SELECT coalesce(json_agg(json_build_object('tableId', l.table_id,
      'bucket', l.bucket, 'generation', l.generation, 'relation', c.relname${more})), '[]')
    FROM ${INTERNAL_SCHEMA}.${table} l LEFT JOIN pg_class c ON c.oid = l.leaf)`;
  const [row] = await node.query<LocalRecords>(
    `SELECT (SELECT coalesce(json_agg(json_build_object('tableId', f.table_id, 'oid', f.face::oid::int8,
        'relation', CASE WHEN c.oid IS NOT NULL THEN n.nspname || '.' || c.relname END)), '[]')
      FROM ${INTERNAL_SCHEMA}.local_tables f LEFT JOIN pg_class c ON c.oid = f.face LEFT JOIN pg_namespace n ON n.oid = c.relnamespace) AS faces,
      ${leaf('local_leaves', '')} AS leaves, ${leaf('local_lookups', ", 'lookupId', l.lookup_id")} AS lookups`,
  );
  return row!;
}
