/**
 * The views of schema `postern_shown` that stand for the statistics views of pg_catalog: a sharded table has one row, with the
 * sums of the counters of its leaves on all nodes and the latest of their times, as they were measured last (figures.ts).
 */
import { SHOWN_SCHEMA } from '../catalog/map.ts';
import { FIGURES_TABLE, HIDDEN_NAMES } from './shown-catalogs.ts';

/** What the server's view has, in its order. */
export interface StatisticsColumn {
  readonly name: string;
  /** As format_type() prints it. */
  readonly type: string;
}

export interface StatisticsView {
  readonly name: string;
  /** A row is an index, and not a table. */
  readonly ofIndex: boolean;
}

export const STATISTICS_VIEWS: readonly StatisticsView[] = [
  { name: 'pg_stat_all_tables', ofIndex: false },
  { name: 'pg_statio_all_tables', ofIndex: false },
  { name: 'pg_stat_all_indexes', ofIndex: true },
  { name: 'pg_statio_all_indexes', ofIndex: true },
];

const FACES = `${SHOWN_SCHEMA}.faces()`;

const IDENTITY: Readonly<Record<string, string>> = {
  relid: 'f.face',
  schemaname: 'n.nspname',
  relname: 'c.relname',
  indexrelid: 'x.oid',
  indexrelname: 'x.relname',
};

/** Counters and times; the others say whose they are. */
export function isFigure({ name }: StatisticsColumn): boolean {
  return !(name in IDENTITY);
}

export function aggregateOf({ type }: StatisticsColumn): 'sum' | 'max' {
  return type.startsWith('timestamp') ? 'max' : 'sum';
}

export function statisticsView(
  { name, ofIndex }: StatisticsView,
  columns: readonly StatisticsColumn[],
): string {
  const own = columns.map((column) => `s.${column.name}`);
  const sums = columns.map((column) => {
    if (!isFigure(column)) return `${IDENTITY[column.name]} AS ${column.name}`;
    return `g.${column.name}`;
  });
  const figures = columns.filter(isFigure).map((column) => {
    const value = `${aggregateOf(column)}((t.stats ->> '${column.name}')::${column.type})::${column.type}`;
    return `${aggregateOf(column) === 'sum' ? `coalesce(${value}, 0)` : value} AS ${column.name}`;
  });
  const index = ofIndex
    ? 'JOIN pg_index i ON i.indrelid = f.face JOIN pg_class x ON x.oid = i.indexrelid'
    : '';
  return `CREATE VIEW ${SHOWN_SCHEMA}.${name} AS SELECT ${own.join(', ')} FROM pg_catalog.${name} s
WHERE s.schemaname <> ALL (${HIDDEN_NAMES}) AND s.relid NOT IN (SELECT f.face FROM ${FACES} f)
UNION ALL SELECT ${sums.join(', ')} FROM ${FACES} f JOIN pg_class c ON c.oid = f.face
JOIN pg_namespace n ON n.oid = c.relnamespace ${index}
CROSS JOIN LATERAL (SELECT ${figures.join(', ')} FROM ${FIGURES_TABLE} t
  WHERE t.table_id = f.table_id AND t.index_name = ${ofIndex ? 'x.relname' : "''"}) g`;
}

/**
 * Views that only lose rows: what a planner knows of a leaf is not what is to be known of the table. `anyarray` is of no
 * view's columns but PostgreSQL's own.
 */
export function filteredView(name: string, columns: readonly StatisticsColumn[]): string {
  const own = columns.map((column) =>
    column.type === 'anyarray' ? `s.${column.name}::text AS ${column.name}` : `s.${column.name}`,
  );
  return `CREATE VIEW ${SHOWN_SCHEMA}.${name} WITH (security_barrier) AS SELECT ${own.join(', ')} FROM pg_catalog.${name} s
WHERE s.schemaname <> ALL (${HIDDEN_NAMES})`;
}

export const FILTERED_VIEWS: readonly string[] = ['pg_stats', 'pg_stats_ext', 'pg_stats_ext_exprs'];
