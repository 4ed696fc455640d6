/**
 * The catalog's tables and views in PostgreSQL, and how they come to be there.
 *
 * On the home node, schema `postern_internal` (nobody but the admin role) holds the truth, and schema `postern` the views
 * that everybody may read. On every node, `postern_internal.local_*` says which faces and leaves of which cluster that
 * node holds; such a row is written in the transaction that makes the table it names, so that whatever Postern has made
 * can be found again, and nothing else is ever taken for Postern's.
 *
 * Invariant: no connection string and no password is in any of these tables.
 * Invariant: a generation is handed out once for the whole cluster (`cluster.next_generation`, committed before use).
 * Invariant: what a version adds, earlier versions can do without; it is added to a catalog that they have made.
 * Invariant: whatever changes what loadMap returns, or whether a table's writes may be merged, adds one to `cluster.epoch`
 * in the same transaction, and notifies.
 */
import { randomUUID } from 'node:crypto';
import { PosternError } from '../base/errors.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { commitObjects, NEWEST_COMMIT_OBJECT } from './commit-objects.ts';
import { CATALOG_SCHEMA, LEAF_SCHEMA, type NodeInfo } from './map.ts';
import { GUARD_IS_THERE, GUARD_OBJECTS } from './reference-guard.ts';

/** Names of what Postern keeps for itself, on every node. */
export const INTERNAL_SCHEMA = 'postern_internal';
export const CATALOG_CHANNEL = 'postern_catalog';
/** Raised when an older router could no longer read what a newer one writes. */
const FORMAT_VERSION = 2;

/** First halves of the two-part advisory lock keys, so that an application's own locks are unlikely to meet them. */
const LOCK_CLASS = 0x706f7374;
const TABLE_LOCK_CLASS = LOCK_CLASS + 1;

/** Held while the catalog is created, in any database of any node. */
const CREATE_CATALOG_LOCK = `pg_catalog.pg_advisory_xact_lock(${LOCK_CLASS}, 0)`;
/** Held by whoever makes a sharded table, from before its name is taken until it is ready. */
export const PLACEMENT_LOCK = `pg_catalog.pg_advisory_xact_lock(${LOCK_CLASS}, 1)`;
/** The key of the session lock that says: the router that makes or drops this table is alive. Takes the id as $1. */
export const TABLE_LOCK_KEY = `${TABLE_LOCK_CLASS}, $1::int4`;

const NODE_OBJECTS = `
CREATE SCHEMA IF NOT EXISTS ${INTERNAL_SCHEMA};
REVOKE ALL ON SCHEMA ${INTERNAL_SCHEMA} FROM PUBLIC;
CREATE SCHEMA IF NOT EXISTS ${LEAF_SCHEMA};
REVOKE ALL ON SCHEMA ${LEAF_SCHEMA} FROM PUBLIC;
GRANT USAGE ON SCHEMA ${LEAF_SCHEMA} TO PUBLIC;
CREATE TABLE IF NOT EXISTS ${INTERNAL_SCHEMA}.local_node (
  one bool PRIMARY KEY DEFAULT true CHECK (one),
  cluster_id text NOT NULL,
  node_id int NOT NULL,
  node_name text NOT NULL
);
CREATE TABLE IF NOT EXISTS ${INTERNAL_SCHEMA}.local_tables (
  table_id int PRIMARY KEY,
  face regclass NOT NULL
);
CREATE TABLE IF NOT EXISTS ${INTERNAL_SCHEMA}.local_leaves (
  table_id int NOT NULL REFERENCES ${INTERNAL_SCHEMA}.local_tables ON DELETE CASCADE,
  bucket int NOT NULL,
  generation bigint NOT NULL,
  leaf regclass NOT NULL,
  PRIMARY KEY (table_id, bucket, generation)
);
${GUARD_OBJECTS}`;

const CATALOG_OBJECTS = `
CREATE TABLE IF NOT EXISTS ${INTERNAL_SCHEMA}.cluster (
  one bool PRIMARY KEY DEFAULT true CHECK (one),
  cluster_id text NOT NULL,
  format_version int NOT NULL,
  epoch bigint NOT NULL DEFAULT 1,
  next_generation bigint NOT NULL DEFAULT 1,
  home_node_id int
);
CREATE TABLE IF NOT EXISTS ${INTERNAL_SCHEMA}.nodes (
  node_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  node_name text NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS ${INTERNAL_SCHEMA}.colocation_groups (
  colocation_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key_type text NOT NULL,
  bucket_count int NOT NULL,
  shared bool NOT NULL
);
CREATE TABLE IF NOT EXISTS ${INTERNAL_SCHEMA}.places (
  colocation_id int NOT NULL REFERENCES ${INTERNAL_SCHEMA}.colocation_groups ON DELETE CASCADE,
  bucket int NOT NULL,
  node_id int NOT NULL REFERENCES ${INTERNAL_SCHEMA}.nodes,
  PRIMARY KEY (colocation_id, bucket)
);
CREATE TABLE IF NOT EXISTS ${INTERNAL_SCHEMA}.tables (
  table_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  state text NOT NULL CHECK (state IN ('creating', 'ready', 'dropping')),
  generation bigint NOT NULL,
  table_schema text,
  table_name text NOT NULL,
  key_column text,
  key_type text,
  hash_function text,
  colocation_id int REFERENCES ${INTERNAL_SCHEMA}.colocation_groups
);
ALTER TABLE ${INTERNAL_SCHEMA}.tables ADD COLUMN IF NOT EXISTS door text NOT NULL DEFAULT 'sharded'
  CHECK (door IN ('sharded', 'reference'));
ALTER TABLE ${INTERNAL_SCHEMA}.tables ADD COLUMN IF NOT EXISTS copies int[];
ALTER TABLE ${INTERNAL_SCHEMA}.tables DROP CONSTRAINT IF EXISTS tables_check;
ALTER TABLE ${INTERNAL_SCHEMA}.tables ADD CONSTRAINT tables_check CHECK (state = 'creating' OR (table_schema IS NOT NULL
  AND CASE door WHEN 'sharded' THEN num_nulls(key_column, key_type, hash_function, colocation_id) = 0
    ELSE copies IS NOT NULL END));
CREATE UNIQUE INDEX IF NOT EXISTS tables_name ON ${INTERNAL_SCHEMA}.tables (table_schema, table_name)
  WHERE state <> 'creating';
CREATE TABLE IF NOT EXISTS ${INTERNAL_SCHEMA}.leaves (
  table_id int NOT NULL REFERENCES ${INTERNAL_SCHEMA}.tables ON DELETE CASCADE,
  bucket int NOT NULL,
  generation bigint NOT NULL,
  leaf_name text NOT NULL,
  PRIMARY KEY (table_id, bucket)
);
CREATE TABLE IF NOT EXISTS ${INTERNAL_SCHEMA}.id_columns (
  table_id int NOT NULL REFERENCES ${INTERNAL_SCHEMA}.tables ON DELETE CASCADE,
  column_name text NOT NULL,
  next_id bigint NOT NULL,
  leased_last bigint NOT NULL DEFAULT 0,
  max_id bigint NOT NULL,
  PRIMARY KEY (table_id, column_name)
);
CREATE TABLE IF NOT EXISTS ${INTERNAL_SCHEMA}.coalescing (
  relation regclass PRIMARY KEY,
  merges bool NOT NULL
);
CREATE TABLE IF NOT EXISTS ${INTERNAL_SCHEMA}.token_key (
  one bool PRIMARY KEY DEFAULT true CHECK (one),
  key text NOT NULL
);
INSERT INTO ${INTERNAL_SCHEMA}.token_key (key)
  SELECT encode(sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')), 'hex') ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS ${INTERNAL_SCHEMA}.prepared_transactions (
  node_id int NOT NULL REFERENCES ${INTERNAL_SCHEMA}.nodes ON DELETE CASCADE,
  gid text NOT NULL,
  transaction_id uuid NOT NULL,
  owner name NOT NULL,
  commit_point int NOT NULL,
  prepared_at timestamptz NOT NULL,
  state text NOT NULL,
  PRIMARY KEY (node_id, gid)
);
CREATE SCHEMA IF NOT EXISTS ${CATALOG_SCHEMA};
REVOKE ALL ON SCHEMA ${CATALOG_SCHEMA} FROM PUBLIC;
GRANT USAGE ON SCHEMA ${CATALOG_SCHEMA} TO PUBLIC;`;

/** The catalog has all that this version of Postern makes if it has this: what a version adds is added behind the others. */
const NEWEST_OBJECT = `${CATALOG_SCHEMA}.prepared`;

interface View {
  readonly name: string;
  readonly comment: string;
  readonly query: string;
  readonly columns: Readonly<Record<string, string>>;
}

const VIEWS: readonly View[] = [
  {
    name: 'nodes',
    comment: 'The PostgreSQL servers of the cluster.',
    query: `SELECT n.node_name AS node, n.node_id = c.home_node_id AS is_home
FROM ${INTERNAL_SCHEMA}.nodes n CROSS JOIN ${INTERNAL_SCHEMA}.cluster c ORDER BY n.node_id`,
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
  CASE m.merges WHEN true THEN 'on' WHEN false THEN 'off' ELSE 'default' END AS coalesce
FROM ${INTERNAL_SCHEMA}.tables t LEFT JOIN ${INTERNAL_SCHEMA}.colocation_groups g USING (colocation_id)
LEFT JOIN ${INTERNAL_SCHEMA}.local_tables f USING (table_id)
LEFT JOIN ${INTERNAL_SCHEMA}.coalescing m ON m.relation = f.face
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
    },
  },
  {
    name: 'buckets',
    comment: 'Where each bucket of each sharded table lives: one row per table and bucket.',
    query: `SELECT t.table_schema, t.table_name, l.bucket, n.node_name AS node, l.leaf_name AS leaf, l.generation
FROM ${INTERNAL_SCHEMA}.tables t JOIN ${INTERNAL_SCHEMA}.leaves l USING (table_id)
JOIN ${INTERNAL_SCHEMA}.places p ON p.colocation_id = t.colocation_id AND p.bucket = l.bucket
JOIN ${INTERNAL_SCHEMA}.nodes n USING (node_id)
WHERE t.state = 'ready' ORDER BY t.table_schema, t.table_name, l.bucket`,
    columns: {
      table_schema: 'Schema of the table.',
      table_name: 'Name of the table.',
      bucket: 'Number of the bucket, from 0.',
      node: 'Name of the node that holds the bucket.',
      leaf: `Name of the table in schema ${LEAF_SCHEMA} of that node that holds the rows.`,
      generation: 'Changes with each move of the bucket, and is never used again.',
    },
  },
  {
    name: 'coalescing',
    comment:
      'The tables, with a door or without, that say whether their writes may share a transaction with others.',
    query: `SELECT n.nspname AS table_schema, c.relname AS table_name,
  CASE WHEN m.merges THEN 'on' ELSE 'off' END AS coalesce
FROM ${INTERNAL_SCHEMA}.coalescing m JOIN pg_catalog.pg_class c ON c.oid = m.relation
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2`,
    columns: {
      table_schema: 'Schema of the table.',
      table_name: 'Name of the table.',
      coalesce: 'on: also with user triggers and deferrable constraints. off: never.',
    },
  },
  {
    name: 'prepared',
    comment:
      'Parts of transactions over several nodes that wait for their outcome for a second or longer, and parts that were lost.',
    query: `SELECT n.node_name AS node, p.gid, p.transaction_id, p.owner, c.node_name AS commit_point, p.prepared_at,
  pg_catalog.clock_timestamp() - p.prepared_at AS age, p.state
FROM ${INTERNAL_SCHEMA}.prepared_transactions p JOIN ${INTERNAL_SCHEMA}.nodes n USING (node_id)
LEFT JOIN ${INTERNAL_SCHEMA}.nodes c ON c.node_id = p.commit_point ORDER BY p.prepared_at`,
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
];

function viewDefinitions(): string {
  const statements: string[] = [];
  for (const view of VIEWS) {
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

export interface CatalogIdentity {
  readonly clusterId: string;
  readonly nodes: readonly NodeInfo[];
  readonly homeNodeId: number;
}

/**
 * Makes the catalog on the home node, or finds it there, and adds nodes that it doesn't know yet. Several routers may do
 * this at once. Throws if the catalog belongs to a newer Postern, has another home, or has a node that `nodes` lacks.
 */
export async function ensureCatalog(
  home: ControlConnection,
  options: { readonly nodes: readonly string[]; readonly home: string },
): Promise<CatalogIdentity> {
  return await home.transaction(async () => {
    await home.query(`SELECT ${CREATE_CATALOG_LOCK}`);
    const [found] = await home.query<{ there: boolean; whole: boolean }>(
      `SELECT to_regclass('${INTERNAL_SCHEMA}.cluster') IS NOT NULL AS there,
         to_regclass('${NEWEST_OBJECT}') IS NOT NULL AS whole`,
    );
    if (!found?.there) {
      await home.query(NODE_OBJECTS + CATALOG_OBJECTS);
      await home.query(viewDefinitions());
      await home.query(
        `INSERT INTO ${INTERNAL_SCHEMA}.cluster (cluster_id, format_version) VALUES ($1, ${FORMAT_VERSION})`,
        [randomUUID()],
      );
    } else {
      const { format_version: format } = await readCluster(home);
      if (format < FORMAT_VERSION || (!found.whole && format === FORMAT_VERSION)) {
        // Made by an earlier version.
        await home.query(CATALOG_OBJECTS);
        await home.query(viewDefinitions());
        await home.query(`UPDATE ${INTERNAL_SCHEMA}.cluster SET format_version = ${FORMAT_VERSION}`);
      }
    }
    return await joinCatalog(home, options);
  });
}

interface ClusterRow {
  readonly cluster_id: string;
  readonly format_version: number;
  readonly home: string | null;
}

async function readCluster(home: ControlConnection): Promise<ClusterRow> {
  const [cluster] = await home.query<ClusterRow>(
    `SELECT c.cluster_id, c.format_version, n.node_name AS home
     FROM ${INTERNAL_SCHEMA}.cluster c LEFT JOIN ${INTERNAL_SCHEMA}.nodes n ON n.node_id = c.home_node_id FOR UPDATE OF c`,
  );
  if (!cluster) throw configurationError('the catalog is damaged: it has no cluster row', undefined);
  return cluster;
}

async function joinCatalog(
  home: ControlConnection,
  options: { readonly nodes: readonly string[]; readonly home: string },
): Promise<CatalogIdentity> {
  const cluster = await readCluster(home);
  if (cluster.format_version > FORMAT_VERSION) {
    throw configurationError(
      `the catalog has format ${cluster.format_version}, and this Postern knows formats up to ${FORMAT_VERSION}`,
      'Run the newer Postern that wrote it.',
    );
  }
  if (cluster.home !== null && cluster.home !== options.home) {
    throw configurationError(
      `the catalog says that the home node is "${cluster.home}", and the configuration says "${options.home}"`,
      'Give the node that holds the catalog the name that it was created with.',
    );
  }
  const added = await home.query(
    `INSERT INTO ${INTERNAL_SCHEMA}.nodes (node_name)
     SELECT name FROM unnest($1::text[]) WITH ORDINALITY AS given (name, place)
     WHERE name NOT IN (SELECT node_name FROM ${INTERNAL_SCHEMA}.nodes) ORDER BY place RETURNING node_id`,
    [options.nodes],
  );
  if (cluster.home === null) {
    await home.query(
      `UPDATE ${INTERNAL_SCHEMA}.cluster
       SET home_node_id = (SELECT node_id FROM ${INTERNAL_SCHEMA}.nodes WHERE node_name = $1)`,
      [options.home],
    );
  }
  if (added.length > 0) await bumpEpoch(home);
  const nodes = await home.query<NodeInfo>(
    `SELECT node_id AS id, node_name AS name FROM ${INTERNAL_SCHEMA}.nodes ORDER BY node_id`,
  );
  const missing = nodes.filter((node) => !options.nodes.includes(node.name));
  if (missing.length > 0) {
    throw configurationError(
      `the catalog knows nodes that the configuration lacks: ${missing.map((node) => node.name).join(', ')}`,
      'Add them to the configuration, with the names that the catalog has (SELECT * FROM postern.nodes).',
    );
  }
  const homeNodeId = nodes.find((node) => node.name === options.home)?.id;
  if (homeNodeId === undefined) {
    throw configurationError(`the home node "${options.home}" is not among the nodes`, undefined);
  }
  return { clusterId: cluster.cluster_id, nodes, homeNodeId };
}

/**
 * Makes on a node what holds faces and leaves, or finds it there. Throws if the server already is another node, of this
 * cluster or of another one: connection strings that were mixed up must not pass.
 */
export async function ensureNode(
  connection: ControlConnection,
  identity: { readonly clusterId: string; readonly node: NodeInfo },
): Promise<void> {
  const { clusterId, node } = identity;
  await connection.transaction(async () => {
    await connection.query(`SELECT ${CREATE_CATALOG_LOCK}`);
    const there = await connection.query<{ there: boolean }>(
      `SELECT to_regclass('${INTERNAL_SCHEMA}.local_node') IS NOT NULL AND ${GUARD_IS_THERE} AS there`,
    );
    if (!there[0]?.there) await connection.query(NODE_OBJECTS);
    const commits = await connection.query<{ there: boolean }>(
      `SELECT to_regprocedure('${NEWEST_COMMIT_OBJECT}') IS NOT NULL AS there`,
    );
    if (!commits[0]?.there) await connection.query(commitObjects(INTERNAL_SCHEMA));
    await connection.query(
      `INSERT INTO ${INTERNAL_SCHEMA}.local_node (cluster_id, node_id, node_name) VALUES ($1, $2, $3)
       ON CONFLICT DO NOTHING`,
      [clusterId, node.id, node.name],
    );
    const rows = await connection.query<{ cluster_id: string; node_id: number; node_name: string }>(
      `SELECT cluster_id, node_id, node_name FROM ${INTERNAL_SCHEMA}.local_node`,
    );
    const is = rows[0];
    if (is?.cluster_id === clusterId && is.node_id === node.id) return;
    const other = is?.cluster_id === clusterId ? 'of this cluster' : 'of another cluster';
    throw configurationError(
      `the server given as node "${node.name}" is node "${is?.node_name}" ${other}`,
      'Check the connection strings: each node is a server, or at least a database, of its own.',
    );
  });
}

/** Adds one to the epoch and tells all routers when the transaction commits. Call it inside the change's transaction. */
export async function bumpEpoch(home: ControlConnection): Promise<void> {
  await home.query(`UPDATE ${INTERNAL_SCHEMA}.cluster SET epoch = epoch + 1`);
  await home.query(`NOTIFY ${CATALOG_CHANNEL}`);
}

/** What is wrong is in the configuration, not in a statement: the router says so and does not start. */
function configurationError(message: string, hint: string | undefined): PosternError {
  return new PosternError({ sqlState: 'F0000', message, hint });
}
