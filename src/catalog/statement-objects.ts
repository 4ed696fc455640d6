/**
 * What `postern.statements` is made of, on home: the counts of all routers, by role and normalized text, and when they were
 * set back. The table is not logged: it costs no WAL, and is empty after a crash of the server, as pg_stat_statements is after
 * one of its own.
 */
import { quoteLiteral } from '../pg/identifier.ts';

export function statementObjects(internal: string): string {
  return `
CREATE UNLOGGED TABLE IF NOT EXISTS ${internal}.statements (
  role name NOT NULL,
  query_id uuid NOT NULL,
  query text NOT NULL,
  calls bigint NOT NULL,
  errors bigint NOT NULL,
  row_count bigint NOT NULL,
  total_ms double precision NOT NULL,
  min_ms double precision NOT NULL,
  max_ms double precision NOT NULL,
  node_ids int[] NOT NULL,
  placements text[] NOT NULL,
  first_at timestamptz NOT NULL,
  last_at timestamptz NOT NULL,
  PRIMARY KEY (role, query_id)
);
CREATE UNLOGGED TABLE IF NOT EXISTS ${internal}.statement_resets (
  role name PRIMARY KEY,
  reset_at timestamptz NOT NULL
);`;
}

/** A role sees the texts of its own, and a member of pg_read_all_stats those of all. */
const MAY_READ = `(s.role = current_user OR pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'MEMBER'))`;

export const STATEMENTS_VIEW = {
  name: 'statements',
  comment:
    'Statements that routers have sent to nodes, by role and text without values. Written every few seconds.',
  query: (internal: string) => `SELECT s.role, CASE WHEN ${MAY_READ} THEN s.query_id END AS query_id,
  CASE WHEN ${MAY_READ} THEN s.query ELSE '<insufficient privilege>' END AS query,
  s.calls, s.errors, s.row_count AS rows, s.total_ms, s.total_ms / s.calls AS mean_ms, s.min_ms, s.max_ms,
  ARRAY(SELECT n.node_name FROM ${internal}.nodes n WHERE n.node_id = ANY (s.node_ids) ORDER BY n.node_id) AS nodes,
  s.placements, s.first_at, s.last_at
FROM ${internal}.statements s ORDER BY s.total_ms DESC`,
  columns: {
    role: 'The role that has sent it.',
    query_id: 'The same for all rows of one text.',
    query: 'Its text, with $n in place of values; of other roles only for members of pg_read_all_stats.',
    calls: 'How often it was carried out, failures included.',
    errors: 'How often it has failed.',
    rows: 'Rows that it has returned or changed, as its command tags say.',
    total_ms: 'Time from when it was sent to its answer, all calls together, with all waiting in between.',
    mean_ms: 'The same for one call.',
    min_ms: 'Of the quickest call.',
    max_ms: 'Of the slowest call.',
    nodes: 'Nodes that it has been sent to.',
    placements: 'How it was placed: keyed, scattered, reference, home, …',
    first_at: 'When it was counted first since the last reset.',
    last_at: 'When it was counted last.',
  },
} as const;

export interface StatementRow {
  readonly role: string;
  readonly query: string;
  readonly calls: number;
  readonly errors: number;
  readonly row_count: number;
  readonly total_ms: number;
  readonly min_ms: number;
  readonly max_ms: number;
  readonly age_ms: number;
  readonly node_ids: readonly number[];
  readonly placements: readonly string[];
}

/** $1: an array of StatementRow in JSON. What began before a reset is not written. In the order of the key, as all routers do. */
export function writeStatements(internal: string): string {
  return `INSERT INTO ${internal}.statements AS s
SELECT r.role, md5(r.query)::uuid, r.query, r.calls, r.errors, r.row_count, r.total_ms, r.min_ms, r.max_ms, r.node_ids, r.placements,
  now() - r.age_ms * interval '1 millisecond', now()
FROM jsonb_to_recordset($1::jsonb) AS r (role name, query text, calls bigint, errors bigint, row_count bigint, total_ms float8,
  min_ms float8, max_ms float8, age_ms float8, node_ids int[], placements text[])
WHERE NOT EXISTS (SELECT FROM ${internal}.statement_resets x
  WHERE x.role IN ('', r.role) AND x.reset_at > now() - r.age_ms * interval '1 millisecond')
ORDER BY 1, 2
ON CONFLICT (role, query_id) DO UPDATE SET calls = s.calls + excluded.calls, errors = s.errors + excluded.errors,
  row_count = s.row_count + excluded.row_count, total_ms = s.total_ms + excluded.total_ms,
  min_ms = least(s.min_ms, excluded.min_ms), max_ms = greatest(s.max_ms, excluded.max_ms),
  node_ids = ARRAY(SELECT DISTINCT unnest(s.node_ids || excluded.node_ids) ORDER BY 1),
  placements = ARRAY(SELECT DISTINCT unnest(s.placements || excluded.placements) ORDER BY 1), last_at = excluded.last_at`;
}

/** $1: how many are kept. Those go that were called least, and not in the last minute. */
export function evictStatements(internal: string): string {
  return `DELETE FROM ${internal}.statements s USING (
  SELECT role, query_id FROM ${internal}.statements
  ORDER BY (last_at > now() - interval '1 minute') DESC, calls DESC, last_at DESC OFFSET $1) AS surplus
WHERE s.role = surplus.role AND s.query_id = surplus.query_id`;
}

/** $1: the role that asks. Its own, or all if it may read all. One row: `everything`. */
export function resetStatements(internal: string): string {
  return `WITH asked AS (SELECT $1::name AS role, pg_has_role($1::name, 'pg_read_all_stats', 'MEMBER') AS everything),
gone AS (DELETE FROM ${internal}.statements s USING asked WHERE asked.everything OR s.role = asked.role),
noted AS (INSERT INTO ${internal}.statement_resets SELECT CASE WHEN everything THEN ${quoteLiteral('')} ELSE role END, now() FROM asked
  ON CONFLICT (role) DO UPDATE SET reset_at = excluded.reset_at)
SELECT everything FROM asked`;
}
