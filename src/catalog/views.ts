/**
 * The views of schema `postern` on home, which everybody may read: what Postern knows, as tables.
 *
 * Invariant: columns are added at the end and never change their meaning; a catalog of an earlier version gets them added.
 */
import { quoteLiteral } from '../pg/identifier.ts';
import { CATALOG_SCHEMA, LEAF_SCHEMA } from './map.ts';
import { ROUTERS_VIEW } from './router-registry.ts';
import { STATEMENTS_VIEW } from './statement-objects.ts';

interface View {
  readonly name: string;
  readonly comment: string;
  readonly query: string;
  readonly columns: Readonly<Record<string, string>>;
}

function views(internal: string): readonly View[] {
  return [
    {
      name: 'nodes',
      comment: 'The PostgreSQL servers of the cluster.',
      query: `SELECT n.node_name AS node, n.node_id = c.home_node_id AS is_home
FROM ${internal}.nodes n CROSS JOIN ${internal}.cluster c ORDER BY n.node_id`,
      columns: {
        node: 'Name of the node, as in the configuration of the routers.',
        is_home: 'True for the node that holds the catalog and all tables without a door.',
      },
    },
    {
      name: 'tables',
      comment: 'The tables that have a door. Every other table lives wholly on the home node.',
      query: `SELECT t.table_schema, t.table_name, t.door, t.key_column, t.key_type,
  g.bucket_count, t.colocation_id AS colocation_group, t.state,
  CASE m.merges WHEN true THEN 'on' WHEN false THEN 'off' ELSE 'default' END AS coalesce,
  g.method, NULLIF(g.bounds, '{}') AS bounds, (SELECT k.atttypmod FROM pg_attribute k
    WHERE k.attrelid = f.face AND k.attname = t.key_column AND NOT k.attisdropped) AS key_type_modifier
FROM ${internal}.tables t LEFT JOIN ${internal}.colocation_groups g USING (colocation_id)
LEFT JOIN ${internal}.local_tables f USING (table_id)
LEFT JOIN ${internal}.coalescing m ON m.relation = f.face
ORDER BY t.table_schema, t.table_name`,
      columns: {
        table_schema: 'Schema of the table.',
        table_name: 'Name of the table.',
        door: 'How the table gets past a single primary: sharded, or reference (whole on every node).',
        key_column: 'The column whose value decides the bucket of a row.',
        key_type: 'Type of the key column.',
        bucket_count: 'Into how many buckets the table is split.',
        colocation_group: 'Tables of the same group keep rows with the same key on the same node.',
        state: 'creating, ready or dropping; only a ready table can be used.',
        coalesce: 'May writes share a transaction with others: on, off, or default.',
        method: 'How a key finds its bucket: hash, range, or list.',
        bounds: 'Of method range: where one bucket ends and the next one begins.',
        key_type_modifier:
          'Modifier of the type of the key column, as in pg_attribute.atttypmod; -1: it has none.',
      },
    },
    {
      name: 'buckets',
      comment: 'Where each bucket of each sharded table lives: one row per table and bucket.',
      query: `SELECT t.table_schema, t.table_name, l.bucket, n.node_name AS node, l.leaf_name AS leaf, l.generation,
  g.method, CASE g.method WHEN 'range' THEN g.bounds[l.bucket] END AS lower_bound,
  CASE g.method WHEN 'range' THEN g.bounds[l.bucket + 1] END AS upper_bound,
  (SELECT array_agg(k.key ORDER BY k.key COLLATE "C") FROM ${internal}.listed_keys k
   WHERE k.colocation_id = t.colocation_id AND k.bucket = l.bucket) AS keys
FROM ${internal}.tables t JOIN ${internal}.leaves l USING (table_id)
JOIN ${internal}.colocation_groups g ON g.colocation_id = t.colocation_id
JOIN ${internal}.places p ON p.colocation_id = t.colocation_id AND p.bucket = l.bucket
JOIN ${internal}.nodes n USING (node_id)
WHERE t.state = 'ready' ORDER BY t.table_schema, t.table_name, l.bucket`,
      columns: {
        table_schema: 'Schema of the table.',
        table_name: 'Name of the table.',
        bucket: 'Number of the bucket, from 0.',
        node: 'Name of the node that holds the bucket.',
        leaf: `Name of the table in schema ${LEAF_SCHEMA} of that node that holds the rows.`,
        generation: 'Changes with each move of the bucket, and is never used again.',
        method: 'How a key finds this bucket: hash, range, or list.',
        lower_bound: 'Of method range: the least key that the bucket takes; null: it has no end there.',
        upper_bound: 'Of method range: the least key above it; null: it has no end there.',
        keys: 'The keys that are listed for this bucket, or pinned to it; null: it takes others by hash.',
      },
    },
    {
      name: 'coalescing',
      comment:
        'The tables, with a door or without, that say whether their writes may share a transaction with others.',
      query: `SELECT n.nspname AS table_schema, c.relname AS table_name,
  CASE WHEN m.merges THEN 'on' ELSE 'off' END AS coalesce
FROM ${internal}.coalescing m JOIN pg_catalog.pg_class c ON c.oid = m.relation
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2`,
      columns: {
        table_schema: 'Schema of the table.',
        table_name: 'Name of the table.',
        coalesce: 'on: also with user triggers and deferrable constraints. off: never.',
      },
    },
    { ...STATEMENTS_VIEW, query: STATEMENTS_VIEW.query(internal) },
    { ...ROUTERS_VIEW, query: ROUTERS_VIEW.query(internal) },
    {
      name: 'prepared',
      comment:
        'Parts of transactions over several nodes that wait for their outcome for a second or longer, and parts that were lost.',
      query: `SELECT n.node_name AS node, p.gid, p.transaction_id, p.owner, c.node_name AS commit_point, p.prepared_at,
  pg_catalog.clock_timestamp() - p.prepared_at AS age, p.state
FROM ${internal}.prepared_transactions p JOIN ${internal}.nodes n USING (node_id)
LEFT JOIN ${internal}.nodes c ON c.node_id = p.commit_point ORDER BY p.prepared_at`,
      columns: {
        node: 'Node that holds the prepared transaction.',
        gid: 'Its name there, as in pg_prepared_xacts.',
        transaction_id: 'The same for all parts of one transaction.',
        owner: 'The role whose transaction it is.',
        commit_point: 'Node that holds, or will hold, the decision.',
        prepared_at: 'When it was prepared, by the clock of its node.',
        age: 'Time since then.',
        state:
          'waiting: for its commit point or its router. committing, rolling back: decided, and not carried out here yet. unreachable: its commit point does not answer. lost: it had been decided to commit, and is gone from this node.',
      },
    },
    {
      name: 'cluster',
      comment: 'The state of the catalog.',
      query: `SELECT c.epoch, n.node_name AS home
FROM ${internal}.cluster c LEFT JOIN ${internal}.nodes n ON n.node_id = c.home_node_id`,
      columns: {
        epoch: 'Goes up with each change of what routers plan by.',
        home: 'Name of the node that holds the catalog and all tables without a door.',
      },
    },
    {
      name: 'colocation_groups',
      comment: 'Which tables keep rows with the same key on the same node, and how keys find their buckets.',
      query: `SELECT g.colocation_id AS colocation_group, g.method, g.key_type, g.bucket_count,
  coalesce(g.hash_buckets, g.bucket_count) AS hash_buckets, NULLIF(g.bounds, '{}') AS bounds, g.shared,
  ARRAY(SELECT format('%I.%I', t.table_schema, t.table_name) FROM ${internal}.tables t
    WHERE t.colocation_id = g.colocation_id AND t.state = 'ready' ORDER BY 1) AS tables
FROM ${internal}.colocation_groups g ORDER BY g.colocation_id`,
      columns: {
        colocation_group: 'Number of the group.',
        method: 'How a key finds its bucket: hash, range, or list.',
        key_type: 'Type of the key columns of its tables.',
        bucket_count: 'How many buckets it has.',
        hash_buckets: 'How many of them, the first ones, share by hash the keys that no other has.',
        bounds: 'Of method range: where one bucket ends and the next one begins.',
        shared: 'Tables join it by themselves, if their keys are placed alike; else only with colocate_with.',
        tables: 'Its tables.',
      },
    },
    {
      name: 'tenants',
      comment:
        'Tenants with a place of their own: keys that are listed or pinned, and schemas that live on a node.',
      query: `SELECT k.key AS tenant, 'key'::text AS kind, t.table_schema, t.table_name, l.bucket, n.node_name AS node,
  l.leaf_name AS leaf, k.pinned
FROM ${internal}.listed_keys k JOIN ${internal}.tables t ON t.colocation_id = k.colocation_id AND t.state = 'ready'
JOIN ${internal}.leaves l ON l.table_id = t.table_id AND l.bucket = k.bucket
JOIN ${internal}.places p ON p.colocation_id = k.colocation_id AND p.bucket = k.bucket
JOIN ${internal}.nodes n ON n.node_id = p.node_id
UNION ALL SELECT s.schema_name, 'schema', s.schema_name, NULL, NULL, n.node_name, NULL, true
FROM ${internal}.schemas s JOIN ${internal}.nodes n ON n.node_id = s.node_id ORDER BY 1, 3, 4`,
      columns: {
        tenant: 'The key, as text, or the name of the schema.',
        kind: 'key or schema.',
        table_schema: 'Schema of the table that has rows of the tenant, or the schema itself.',
        table_name: 'Name of the table; null: all tables of the schema.',
        bucket: 'The bucket that has the rows.',
        node: 'Name of the node that they are on.',
        leaf: `Name of the table in schema ${LEAF_SCHEMA} of that node that holds the rows.`,
        pinned: 'By postern.pin_tenant or postern.distribute_schema; false: listed when the table was made.',
      },
    },
    {
      name: 'schemas',
      comment: 'The schemas that live, with all their tables, on a node of their own.',
      query: `SELECT s.schema_name, n.node_name AS node,
  ARRAY(SELECT r.relation_name FROM ${internal}.schema_relations r WHERE r.schema_name = s.schema_name
    ORDER BY r.relation_name COLLATE "C") AS relations
FROM ${internal}.schemas s JOIN ${internal}.nodes n USING (node_id) ORDER BY s.schema_name`,
      columns: {
        schema_name: 'Name of the schema.',
        node: 'Name of the node.',
        relations: 'Names of its tables, views and sequences there.',
      },
    },
    {
      name: 'unfinished_ddl',
      comment:
        'DDL that can be in no transaction, and is under way or was cut short: postern.resume_ddl() completes it.',
      query: `SELECT j.statement, j.role, j.started_at, cardinality(j.done) AS steps_done, jsonb_array_length(j.units) AS steps
FROM ${internal}.ddl_jobs j ORDER BY j.job_id`,
      columns: {
        statement: 'As it was sent.',
        role: 'The role that has sent it, and can complete it.',
        started_at: 'When it was sent.',
        steps_done: 'So many of its steps, each of one node, are done.',
        steps: 'How many there are.',
      },
    },
    {
      name: 'node_addresses',
      comment: 'Where the nodes are, as the routers were told; without users and passwords.',
      query: `SELECT n.node_name AS node, a.host, a.port, a.database
FROM ${internal}.nodes n JOIN ${internal}.node_addresses a USING (node_id) ORDER BY n.node_id`,
      columns: {
        node: 'Name of the node.',
        host: 'Name or address of its host, as the routers reach it.',
        port: 'TCP port.',
        database: 'Name of the database.',
      },
    },
  ];
}

/** CREATE OR REPLACE: what a version adds to a view stands behind its other columns. */
export function viewDefinitions(internal: string): string {
  const statements: string[] = [];
  for (const view of views(internal)) {
    const name = `${CATALOG_SCHEMA}.${view.name}`;
    statements.push(`CREATE OR REPLACE VIEW ${name} AS ${view.query}`);
    statements.push(`REVOKE ALL ON ${name} FROM PUBLIC`, `GRANT SELECT ON ${name} TO PUBLIC`);
    statements.push(`COMMENT ON VIEW ${name} IS ${quoteLiteral(view.comment)}`);
    for (const [column, comment] of Object.entries(view.columns)) {
      statements.push(`COMMENT ON COLUMN ${name}.${column} IS ${quoteLiteral(comment)}`);
    }
  }
  return statements.join(';\n');
}

/** An SQL expression: are all views there, with all their columns? */
export function viewsAreThere(internal: string): string {
  const wanted = views(internal).flatMap(({ name, columns }) =>
    Object.keys(columns).map(
      (column) => `(${quoteLiteral(`${CATALOG_SCHEMA}.${name}`)}, ${quoteLiteral(column)})`,
    ),
  );
  return `NOT EXISTS (SELECT FROM (VALUES ${wanted.join(', ')}) AS wanted (view, name) WHERE NOT EXISTS (
    SELECT FROM pg_attribute a WHERE a.attrelid = to_regclass(wanted.view) AND a.attname = wanted.name AND NOT a.attisdropped))`;
}
