/**
 * Measures what each node has of the sharded tables, and writes it down on the home node, where the catalogs that users see take
 * their sums from (shown-catalogs.ts, shown-statistics.ts). Each router does it now and then; one at a time.
 *
 * Invariant: a node's figures are of one moment of that node, and take the place of its earlier ones as a whole. Those of a node
 * that can't be reached stay, with their age.
 */
import type { ClusterMap, NodeInfo } from '../catalog/map.ts';
import { FIGURES_LOCK_KEY, INTERNAL_SCHEMA } from '../catalog/schema.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { MEASURED_TABLE } from './figures-table.ts';
import { isIndexOfFace } from './helper-functions.ts';
import { FIGURES_TABLE } from './shown-catalogs.ts';
import { aggregateOf, isFigure, STATISTICS_VIEWS, type StatisticsColumn } from './shown-statistics.ts';

/** Held while a router measures. */
const LOCK = `pg_catalog.pg_advisory_lock(${FIGURES_LOCK_KEY})`;
const TRY_LOCK = `pg_catalog.pg_try_advisory_lock(${FIGURES_LOCK_KEY})`;
const UNLOCK = `SELECT pg_catalog.pg_advisory_unlock(${FIGURES_LOCK_KEY})`;

export interface FiguresContext {
  readonly nodes: readonly NodeInfo[];
  readonly homeNodeId: number;
  /** A fresh connection of the control path, closed by the caller. */
  connect(nodeId: number): Promise<ControlConnection>;
  /** The map as it is now. */
  map(): ClusterMap;
}

/** A call has 100 arguments at most. */
const PAIRS_MAX = 40;

interface FiguresRow {
  readonly table_id: number;
  readonly index_name: string;
  readonly reltuples: number;
  readonly relpages: string;
  readonly relallvisible: string;
  readonly main_bytes: string;
  readonly table_bytes: string | null;
  readonly index_bytes: string | null;
  readonly acl: readonly string[] | null;
  readonly stats: object;
}

/**
 * Measures all nodes. `olderThanMs`: only if that was not done for so long, and nobody is doing it now; else it is waited for.
 * Gives the nodes that could not be measured, with the reasons.
 */
export async function measureFigures(
  context: FiguresContext,
  olderThanMs: number | undefined,
): Promise<readonly { readonly node: string; readonly reason: string }[]> {
  const home = await context.connect(context.homeNodeId);
  try {
    if (olderThanMs === undefined) await home.query(`SELECT ${LOCK}`);
    else if (!(await isDue(home, olderThanMs))) return [];
    const failed: { node: string; reason: string }[] = [];
    const measured = context.nodes.map(async (node) => {
      if (node.id === context.homeNodeId) return await measureNode(home, node.id, context.map());
      const connection = await context.connect(node.id);
      try {
        return await measureNode(connection, node.id, context.map());
      } finally {
        await connection.close();
      }
    });
    for (const [i, result] of (await Promise.allSettled(measured)).entries()) {
      const node = context.nodes[i]!;
      if (result.status === 'fulfilled') await store(home, node.id, result.value);
      else failed.push({ node: node.name, reason: (result.reason as Error).message });
    }
    if (!home.lost) await home.query(UNLOCK);
    return failed;
  } finally {
    await home.close();
  }
}

async function isDue(home: ControlConnection, olderThanMs: number): Promise<boolean> {
  const [row] = await home.query<{ due: boolean }>(
    `SELECT NOT EXISTS (SELECT FROM ${MEASURED_TABLE} WHERE measured_at > now() - $1 * interval '1 millisecond')
       AND ${TRY_LOCK} AS due`,
    [olderThanMs],
  );
  return row?.due === true;
}

/** Which of the leaves on this node hold the rows of their buckets now: another one may be a move's copy. */
function leavesOf(nodeId: number, map: ClusterMap): { id: number; bucket: number; generation: number }[] {
  const leaves: { id: number; bucket: number; generation: number }[] = [];
  for (const inSchema of map.tables.values()) {
    for (const { id, buckets } of inSchema.values()) {
      for (const [bucket, place] of buckets.entries())
        if (place.nodeId === nodeId) leaves.push({ id, bucket, generation: place.generation });
    }
  }
  return leaves;
}

async function measureNode(
  connection: ControlConnection,
  nodeId: number,
  map: ClusterMap,
): Promise<readonly FiguresRow[]> {
  const leaves = leavesOf(nodeId, map);
  if (leaves.length === 0) return [];
  const columns = await connection.query<StatisticsColumn & { view: string }>(
    `SELECT c.relname AS view, a.attname AS name, format_type(a.atttypid, NULL) AS type
     FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relname = ANY ($1) AND a.attnum > 0`,
    [STATISTICS_VIEWS.map(({ name }) => name)],
  );
  const stats = (ofIndex: boolean): string => {
    const views = STATISTICS_VIEWS.filter((view) => view.ofIndex === ofIndex).map(({ name }) => name);
    const own = columns.filter((column) => views.includes(column.view) && isFigure(column));
    const pairs = own.map(
      (column) => `'${column.name}', ${aggregateOf(column)}(${column.view}.${column.name})`,
    );
    const objects: string[] = [];
    for (let i = 0; i < pairs.length; i += PAIRS_MAX)
      objects.push(`jsonb_build_object(${pairs.slice(i, i + PAIRS_MAX).join(', ')})`);
    return objects.join(' || ');
  };
  return await connection.query<FiguresRow>(measureQuery(stats(false), stats(true)), [
    JSON.stringify(leaves),
  ]);
}

function measureQuery(tableStats: string, indexStats: string): string {
  return `
WITH leaf AS MATERIALIZED (
  SELECT b.table_id, b.bucket, b.leaf::oid AS leaf, t.face::oid AS face,
    length('_b' || b.bucket || '_g' || b.generation) AS suffix_length
  FROM jsonb_to_recordset($1::jsonb) AS current (id int, bucket int, generation bigint)
  JOIN ${INTERNAL_SCHEMA}.local_leaves b ON b.table_id = current.id AND b.bucket = current.bucket AND b.generation = current.generation
  JOIN ${INTERNAL_SCHEMA}.local_tables t ON t.table_id = b.table_id
)
SELECT l.table_id, '' AS index_name, ${summed('k')}, sum(pg_table_size(k.oid)) AS table_bytes, sum(pg_indexes_size(k.oid)) AS index_bytes,
  jsonb_agg(to_jsonb(k.relacl::text[]) ORDER BY l.bucket) -> 0 AS acl, ${tableStats} AS stats
FROM leaf l JOIN pg_class k ON k.oid = l.leaf
LEFT JOIN pg_stat_all_tables ON pg_stat_all_tables.relid = k.oid LEFT JOIN pg_statio_all_tables ON pg_statio_all_tables.relid = k.oid
GROUP BY l.table_id
UNION ALL
SELECT l.table_id, m.relname, ${summed('x')}, NULL, NULL, NULL, ${indexStats}
FROM leaf l JOIN pg_index i ON i.indrelid = l.leaf JOIN pg_class x ON x.oid = i.indexrelid
JOIN LATERAL (SELECT fx.relname FROM pg_index fi JOIN pg_class fx ON fx.oid = fi.indexrelid
  WHERE fi.indrelid = l.face AND ${isIndexOfFace('fx.relname', 'left(x.relname::text, -l.suffix_length)')} LIMIT 1) m ON true
LEFT JOIN pg_stat_all_indexes ON pg_stat_all_indexes.indexrelid = x.oid LEFT JOIN pg_statio_all_indexes ON pg_statio_all_indexes.indexrelid = x.oid
GROUP BY l.table_id, m.relname`;
}

function summed(relation: string): string {
  return `CASE WHEN bool_and(${relation}.reltuples < 0) THEN -1 ELSE sum(greatest(${relation}.reltuples, 0)) END AS reltuples,
  sum(${relation}.relpages) AS relpages, sum(${relation}.relallvisible) AS relallvisible, sum(pg_relation_size(${relation}.oid)) AS main_bytes`;
}

async function store(home: ControlConnection, nodeId: number, rows: readonly FiguresRow[]): Promise<void> {
  await home.query(
    `WITH gone AS (
       DELETE FROM ${FIGURES_TABLE} f WHERE node_id = $1::int AND NOT EXISTS (SELECT FROM jsonb_to_recordset($2::jsonb)
         AS r (table_id int, index_name name) WHERE r.table_id = f.table_id AND r.index_name = f.index_name)
     ), written AS (
       INSERT INTO ${FIGURES_TABLE} SELECT $1::int, r.* FROM jsonb_to_recordset($2::jsonb) AS r (table_id int, index_name name,
         reltuples float8, relpages bigint, relallvisible bigint, main_bytes bigint, table_bytes bigint, index_bytes bigint,
         acl jsonb, stats jsonb)
       ON CONFLICT (table_id, index_name, node_id) DO UPDATE SET reltuples = excluded.reltuples, relpages = excluded.relpages,
         relallvisible = excluded.relallvisible, main_bytes = excluded.main_bytes, table_bytes = excluded.table_bytes,
         index_bytes = excluded.index_bytes, acl = excluded.acl, stats = excluded.stats
     )
     INSERT INTO ${MEASURED_TABLE} VALUES ($1::int, clock_timestamp())
     ON CONFLICT (node_id) DO UPDATE SET measured_at = excluded.measured_at`,
    [nodeId, JSON.stringify(rows)],
  );
}
