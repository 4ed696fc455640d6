/**
 * What each node has and lacks for Postern, found before the router serves: errors keep it from starting, warnings name
 * the features that are off, notes are good to know. Settings and rights are probed, the version is only bounded.
 */
import type { ControlConnection } from '../platform/control-connection.ts';

const VERSION_MIN = 14;
const VERSION_MAX = 18;

export interface Finding {
  readonly node: string;
  readonly severity: 'error' | 'warning' | 'note';
  readonly message: string;
  /** What to do about it, or which features are off until then. */
  readonly hint: string;
  /** What to run on that node for it, as a role that may. */
  readonly run?: readonly string[] | undefined;
}

export interface NodeFacts {
  readonly node: string;
  readonly versionNumber: number;
  readonly version: string;
  readonly maxPreparedTransactions: number;
  readonly walLevel: string;
  readonly connectionsMax: number;
  readonly inRecovery: boolean;
  readonly encoding: string;
  readonly postgresFdw: boolean;
  readonly fsync: boolean;
  readonly synchronousCommit: string;
  readonly role: string;
  readonly superuser: boolean;
  readonly mayReplicate: boolean;
  readonly mayCreateInDatabase: boolean;
  /** Databases and roles, for the mesh. */
  readonly mayCreateMesh: boolean;
  /** Equal for two connections only if they lead to the same database of the same server. */
  readonly place: string;
}

export async function readNodeFacts(connection: ControlConnection): Promise<NodeFacts> {
  const rows = await connection.query<Omit<NodeFacts, 'node'>>(
    `SELECT current_setting('server_version_num')::int AS "versionNumber", current_setting('server_version') AS version,
       current_setting('max_prepared_transactions')::int AS "maxPreparedTransactions",
       current_setting('wal_level') AS "walLevel",
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS "connectionsMax",
       pg_is_in_recovery() AS "inRecovery", getdatabaseencoding() AS encoding,
       EXISTS (SELECT FROM pg_available_extensions WHERE name = 'postgres_fdw') AS "postgresFdw",
       current_setting('fsync')::bool AS fsync,
       (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit') AS "synchronousCommit",
       r.rolname AS role, r.rolsuper AS superuser, r.rolsuper OR r.rolreplication AS "mayReplicate",
       has_database_privilege(d.oid, 'CREATE') AS "mayCreateInDatabase",
       r.rolsuper OR r.rolcreatedb AND r.rolcreaterole AS "mayCreateMesh",
       d.oid || '@' || extract(epoch FROM pg_postmaster_start_time()) || ':' || current_setting('port') AS place
     FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()`,
  );
  return { node: connection.nodeName, ...rows[0]! };
}

/** `connectionsPerNode`: how many the router will open at most to each node. */
export function judgeNode(facts: NodeFacts, connectionsPerNode: number): readonly Finding[] {
  const findings: Finding[] = [];
  const add = (severity: Finding['severity'], message: string, hint: string, ...run: string[]) => {
    findings.push({ node: facts.node, severity, message, hint, ...(run.length > 0 && { run }) });
  };
  const set = (name: string, value: string) => `ALTER SYSTEM SET ${name} = ${value}`;
  const reload = 'SELECT pg_reload_conf()';
  const major = Math.floor(facts.versionNumber / 10_000);
  if (major < VERSION_MIN) {
    add('error', `it runs PostgreSQL ${facts.version}`, `Postern needs PostgreSQL ${VERSION_MIN} or later.`);
  } else if (major > VERSION_MAX) {
    add(
      'warning',
      `it runs PostgreSQL ${facts.version}`,
      `Postern is tested with ${VERSION_MIN} to ${VERSION_MAX}.`,
    );
  }
  if (facts.inRecovery) {
    add('error', 'it is a standby', 'Give the connection string of the primary.');
  }
  if (facts.encoding !== 'UTF8') {
    add(
      'error',
      `its database has the encoding ${facts.encoding}`,
      "Use a database with ENCODING 'UTF8': keys are hashed by their bytes, which have to be the same on every node.",
    );
  }
  if (!facts.superuser && !facts.mayCreateInDatabase) {
    add(
      'error',
      `role "${facts.role}" may not create schemas`,
      `GRANT CREATE ON DATABASE … TO "${facts.role}", on this node.`,
    );
  }
  if (!facts.superuser) {
    add(
      'note',
      `role "${facts.role}" is not a superuser`,
      'It has to be a member of each role that makes sharded tables or logs in through Postern: GRANT app TO it.',
    );
  }
  if (facts.connectionsMax < connectionsPerNode) {
    add(
      'warning',
      `it takes ${facts.connectionsMax} connections, and this router may open ${connectionsPerNode}`,
      'Raise max_connections there, or lower the connections per node in the configuration.',
    );
  }
  if (!facts.fsync) {
    add(
      'warning',
      'fsync is off',
      'A crash of that machine can destroy its data. Set fsync = on.',
      set('fsync', 'on'),
      reload,
    );
  }
  if (facts.synchronousCommit === 'off') {
    add(
      'warning',
      'synchronous_commit is off',
      'A crash can lose commits that clients were told of. Set it to on.',
      set('synchronous_commit', "'on'"),
      reload,
    );
  }
  if (facts.maxPreparedTransactions === 0) {
    add(
      'warning',
      'max_prepared_transactions is 0',
      'Off: transactions that write on several nodes, and moving buckets. Set it to 100 and restart that server.',
      set('max_prepared_transactions', '100'),
    );
  }
  if (facts.walLevel !== 'logical') {
    add(
      'warning',
      `wal_level is ${facts.walLevel}`,
      'Off: moving buckets between nodes. Set wal_level = logical and restart that server.',
      set('wal_level', "'logical'"),
    );
  }
  if (!facts.mayReplicate) {
    add(
      'warning',
      `role "${facts.role}" may not replicate`,
      `Off: moving buckets. ALTER ROLE "${facts.role}" REPLICATION.`,
      `ALTER ROLE "${facts.role}" REPLICATION`,
    );
  }
  if (!facts.postgresFdw) {
    add(
      'warning',
      'the extension postgres_fdw is not available',
      'Off: queries over several nodes. Install the package with the contrib modules there.',
    );
  }
  if (!facts.mayCreateMesh) {
    add(
      'note',
      `role "${facts.role}" may not create databases and roles`,
      'Off, unless they are there: reads over several nodes at once through the mesh. Each that is refused says what to run.',
    );
  }
  return findings;
}

/** Two names for one database would make each think that the other's tables are its own. */
export function judgeCluster(all: readonly NodeFacts[]): readonly Finding[] {
  const byPlace = new Map<string, NodeFacts>();
  const findings: Finding[] = [];
  for (const facts of all) {
    const twin = byPlace.get(facts.place);
    if (!twin) {
      byPlace.set(facts.place, facts);
      continue;
    }
    findings.push({
      node: facts.node,
      severity: 'error',
      message: `it is the same database as node "${twin.node}"`,
      hint: 'Give each node a server, or at least a database, of its own.',
    });
  }
  return findings;
}
