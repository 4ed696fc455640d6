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
import type { ControlConnection } from '../platform/control-connection.ts';
import { commitObjects, NEWEST_COMMIT_OBJECT } from './commit-objects.ts';
import { cutNamesTable } from './cut-names.ts';
import { ADOPT_COUNTERS, HAS_ID_OBJECTS, ID_OBJECTS } from './id-sequences.ts';
import { localLookups, lookupsTable, NEWEST_LOOKUP_OBJECT } from './lookup-objects.ts';
import { CATALOG_SCHEMA, LEAF_SCHEMA, type NodeInfo } from './map.ts';
import { placementObjects } from './placement-objects.ts';
import { GUARD_IS_THERE, GUARD_OBJECTS } from './reference-guard.ts';
import { routerObjects } from './router-registry.ts';
import { keyPads, NEWEST_SIGNED_OBJECT, signedObjects } from './signed-statements.ts';
import { statementObjects } from './statement-objects.ts';
import { viewDefinitions, viewsAreThere } from './views.ts';

/** Names of what Postern keeps for itself, on every node. */
export const INTERNAL_SCHEMA = 'postern_internal';
export const CATALOG_CHANNEL = 'postern_catalog';
/** Raised when an older router could no longer read what a newer one writes. */
const FORMAT_VERSION = 2;

/** First halves of the two-part advisory lock keys, so that an application's own locks are unlikely to meet them. */
const LOCK_CLASS = 0x706f7374;
const TABLE_LOCK_CLASS = LOCK_CLASS + 1;

/** Held while the catalog is created, in any database of any node. */
export const CREATE_CATALOG_LOCK = `pg_catalog.pg_advisory_xact_lock(${LOCK_CLASS}, 0)`;
/** Held by whoever makes a sharded table, from before its name is taken until it is ready. */
export const PLACEMENT_LOCK = `pg_catalog.pg_advisory_xact_lock(${LOCK_CLASS}, 1)`;
/** Held by a router that takes a slot (router-registration.ts), to the end of its transaction. */
export const ROUTERS_LOCK = `pg_catalog.pg_advisory_xact_lock(${LOCK_CLASS}, 4)`;
/** The key of the session lock of whoever measures the sharded tables. */
export const FIGURES_LOCK_KEY = `${LOCK_CLASS}, 3`;
/** The first half of the session lock of a job on a table (ddl/jobs.ts). */
export const JOB_LOCK_CLASS: number = LOCK_CLASS + 2;
/** Held by whoever grants on a schema of Postern's, to the end of its transaction: two at once would fail. */
export const GRANT_LOCK = `pg_catalog.pg_advisory_xact_lock(${LOCK_CLASS}, 2)`;
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
ALTER TABLE ${INTERNAL_SCHEMA}.tables ADD COLUMN IF NOT EXISTS cascades bool NOT NULL DEFAULT false;
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
${ID_OBJECTS};
${lookupsTable(INTERNAL_SCHEMA)}
${cutNamesTable(INTERNAL_SCHEMA)}
CREATE TABLE IF NOT EXISTS ${INTERNAL_SCHEMA}.ddl_jobs (
  job_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  role name NOT NULL,
  search_path text NOT NULL,
  statement text NOT NULL,
  tag text NOT NULL,
  table_id int NOT NULL,
  units jsonb NOT NULL,
  done int[] NOT NULL DEFAULT '{}',
  started_at timestamptz NOT NULL DEFAULT clock_timestamp()
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
GRANT USAGE ON SCHEMA ${CATALOG_SCHEMA} TO PUBLIC;
${placementObjects(INTERNAL_SCHEMA)}
${statementObjects(INTERNAL_SCHEMA)}
${routerObjects(INTERNAL_SCHEMA)}`;

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
         ${viewsAreThere(INTERNAL_SCHEMA)} AND ${HAS_ID_OBJECTS}
           AND to_regclass('${INTERNAL_SCHEMA}.cut_names') IS NOT NULL AS whole`,
    );
    if (!found?.there) {
      await home.query(NODE_OBJECTS + CATALOG_OBJECTS);
      await home.query(viewDefinitions(INTERNAL_SCHEMA));
      await home.query(
        `INSERT INTO ${INTERNAL_SCHEMA}.cluster (cluster_id, format_version) VALUES ($1, ${FORMAT_VERSION})`,
        [randomUUID()],
      );
    } else {
      const { format_version: format } = await readCluster(home);
      if (format < FORMAT_VERSION || (!found.whole && format === FORMAT_VERSION)) {
        // Made by an earlier version.
        await home.query(CATALOG_OBJECTS);
        await home.query(ADOPT_COUNTERS);
        await home.query(viewDefinitions(INTERNAL_SCHEMA));
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
  identity: {
    readonly clusterId: string;
    readonly node: NodeInfo;
    /** Default: none, and the node carries out no signed statement (signed-statements.ts). */
    readonly clusterKey?: Buffer | undefined;
  },
): Promise<void> {
  const { clusterId, node, clusterKey } = identity;
  await connection.transaction(async () => {
    await connection.query(`SELECT ${CREATE_CATALOG_LOCK}`);
    const there = await connection.query<{ there: boolean }>(
      `SELECT to_regclass('${INTERNAL_SCHEMA}.local_node') IS NOT NULL AND ${GUARD_IS_THERE} AS there`,
    );
    if (!there[0]?.there) await connection.query(NODE_OBJECTS);
    const [functions] = await connection.query<{ commit: boolean; signed: boolean; lookups: boolean }>(
      `SELECT to_regprocedure('${NEWEST_COMMIT_OBJECT}') IS NOT NULL AS commit,
         to_regprocedure('${NEWEST_SIGNED_OBJECT}') IS NOT NULL AS signed,
         to_regprocedure('${NEWEST_LOOKUP_OBJECT}') IS NOT NULL AS lookups`,
    );
    if (!functions?.commit) await connection.query(commitObjects(INTERNAL_SCHEMA));
    if (!functions?.signed) await connection.query(signedObjects(INTERNAL_SCHEMA));
    if (!functions?.lookups) await connection.query(localLookups(INTERNAL_SCHEMA));
    // A node that is read-only for a while is joined all the same: nothing is written that is there.
    const [has] = await connection.query<{ key: boolean; node: boolean }>(
      `SELECT EXISTS (SELECT FROM ${INTERNAL_SCHEMA}.local_key) AS key, EXISTS (SELECT FROM ${INTERNAL_SCHEMA}.local_node) AS node`,
    );
    if (clusterKey && !has?.key) {
      const { inner, outer } = keyPads(clusterKey, node.id);
      await connection.query(
        `INSERT INTO ${INTERNAL_SCHEMA}.local_key (inner_pad, outer_pad) VALUES ($1, $2) ON CONFLICT DO NOTHING`,
        [inner, outer],
      );
    }
    if (!has?.node) {
      await connection.query(
        `INSERT INTO ${INTERNAL_SCHEMA}.local_node (cluster_id, node_id, node_name) VALUES ($1, $2, $3)
         ON CONFLICT DO NOTHING`,
        [clusterId, node.id, node.name],
      );
    }
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
  for (const statement of bumpEpochStatements) await home.query(statement);
}

/** The first one locks the cluster's row to the end of its transaction. */
export const bumpEpochStatements: readonly string[] = [
  `UPDATE ${INTERNAL_SCHEMA}.cluster SET epoch = epoch + 1`,
  `NOTIFY ${CATALOG_CHANNEL}`,
];

/** What is wrong is in the configuration, not in a statement: the router says so and does not start. */
function configurationError(message: string, hint: string | undefined): PosternError {
  return new PosternError({ sqlState: 'F0000', message, hint });
}
