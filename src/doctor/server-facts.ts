/**
 * What a node's server and database say of themselves, beside relations: settings, roles, schemas, types, functions, extensions,
 * prepared transactions, replication slots, and who is logged in.
 *
 * Invariant: verifiers of passwords stay on the server: what is read is a digest of each, to be compared.
 * Invariant: what a role may not read is told as not read; the rest is read all the same.
 */
import { type NodeFacts, readNodeFacts } from '../catalog/requirements.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { TYPES } from '../mesh/definition.ts';
import { USER_SCHEMAS } from '../mesh/mark.ts';
import { meshDatabaseOf, SORTING } from '../mesh/nodes.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { SETTING_NAMES } from './setting-rules.ts';

export interface RoleFacts {
  readonly name: string;
  /** As in CREATE ROLE: LOGIN, NOSUPERUSER, …, without VALID UNTIL. */
  readonly attributes: string;
  readonly validUntil: string | null;
  readonly mayLogIn: boolean;
  /** `app WITH ADMIN OPTION`. */
  readonly memberOf: readonly { readonly role: string; readonly admin: boolean }[];
  /** Undefined: pg_authid may not be read. null: it has none. */
  readonly passwordDigest?: string | null;
}

export interface RoleSetting {
  /** null: of the database, for all roles. */
  readonly role: string | null;
  readonly inDatabase: boolean;
  readonly name: string;
  readonly value: string;
}

export interface NamedText {
  readonly schema: string;
  readonly name: string;
  readonly text: string;
}

export interface SchemaFacts {
  readonly name: string;
  readonly owner: string;
  /** `USAGE app`, without the owner's own; an empty name is PUBLIC. */
  readonly grants: readonly { readonly grantee: string | null; readonly privilege: string }[];
}

export interface FunctionFacts {
  /** As regprocedure prints it. */
  readonly identity: string;
  readonly kind: string;
  readonly digest: string;
  /** null: an aggregate. */
  readonly definition: string | null;
  /** It may name what only one node has: a body that is checked when it is made, or the row of a table. */
  readonly mayBeOfOneNode: boolean;
}

export interface EnumFacts {
  readonly schema: string;
  readonly name: string;
  readonly labels: readonly string[];
}

export interface DomainFacts {
  readonly schema: string;
  readonly name: string;
  readonly constraints: readonly { readonly name: string; readonly definition: string }[];
}

export interface PreparedFacts {
  readonly gid: string;
  readonly owner: string;
  readonly ageSeconds: number;
}

export interface SlotFacts {
  readonly name: string;
  readonly kind: string;
  readonly active: boolean;
  readonly keptBytes: number | null;
  readonly walStatus: string | null;
}

export interface SessionFacts {
  readonly processId: number;
  readonly startedAt: string;
  readonly ageSeconds: number;
  readonly role: string;
  readonly applicationName: string;
  /** null: a Unix socket. */
  readonly address: string | null;
}

export interface ServerFacts {
  readonly node: string;
  readonly requirements: NodeFacts;
  readonly local: { readonly clusterId: string; readonly nodeId: number; readonly nodeName: string } | null;
  readonly database: string;
  readonly settings: Readonly<Record<string, string>>;
  /** What is set in the server's files, of settings that a session of Postern's has set for itself. */
  readonly fileSettings: Readonly<Record<string, string>> | undefined;
  readonly roleSettings: readonly RoleSetting[];
  readonly roles: readonly RoleFacts[];
  readonly schemas: readonly SchemaFacts[];
  readonly extensions: readonly {
    readonly name: string;
    readonly schema: string;
    readonly version: string;
  }[];
  readonly types: readonly NamedText[];
  readonly enums: readonly EnumFacts[];
  readonly domains: readonly DomainFacts[];
  readonly functions: readonly FunctionFacts[];
  readonly sorting: Readonly<Record<string, string>>;
  readonly prepared: readonly PreparedFacts[];
  readonly slots: readonly SlotFacts[];
  readonly hasMesh: boolean;
  /** Of clusters that have databases on this server. */
  readonly meshRoles: readonly {
    readonly name: string;
    readonly mayLogIn: boolean;
    readonly readsAll: boolean;
  }[];
  readonly sessions: readonly SessionFacts[];
  /** Sessions of other roles show who they are. */
  readonly seesSessions: boolean;
  /** By this process's clock, the server's minus its own; `boundMs`: how far off that may be. */
  readonly clock: { readonly offsetMs: number; readonly boundMs: number };
}

const list = (query: string): string => `(SELECT coalesce(json_agg(x), '[]') FROM (${query}) x)`;
const NOT_OF_EXTENSION = (catalog: string, oid: string): string =>
  `NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '${catalog}'::regclass AND d.objid = ${oid} AND d.deptype = 'e')`;

const ATTRIBUTES = [
  ['rolsuper', 'SUPERUSER'],
  ['rolinherit', 'INHERIT'],
  ['rolcreaterole', 'CREATEROLE'],
  ['rolcreatedb', 'CREATEDB'],
  ['rolcanlogin', 'LOGIN'],
  ['rolreplication', 'REPLICATION'],
  ['rolbypassrls', 'BYPASSRLS'],
]
  .map(([column, word]) => `CASE WHEN r.${column} THEN '${word}' ELSE 'NO${word}' END`)
  .join(', ');

const ROLES = list(`SELECT r.rolname AS name, concat_ws(' ', ${ATTRIBUTES},
    CASE WHEN r.rolconnlimit <> -1 THEN 'CONNECTION LIMIT ' || r.rolconnlimit END) AS attributes,
    (NULLIF(r.rolvaliduntil, 'infinity') AT TIME ZONE 'UTC')::text || '+00' AS "validUntil", r.rolcanlogin AS "mayLogIn",
    (SELECT coalesce(json_agg(DISTINCT jsonb_build_object('role', g.rolname, 'admin', m.admin_option)), '[]')
     FROM (SELECT roleid, bool_or(admin_option) AS admin_option FROM pg_auth_members WHERE member = r.oid GROUP BY 1) m
     JOIN pg_roles g ON g.oid = m.roleid) AS "memberOf"
  FROM pg_roles r WHERE r.rolname !~ '^(pg_|postern_mesh_)' ORDER BY r.rolname`);

const ROLE_SETTINGS =
  list(`SELECT r.rolname AS role, c.setdatabase <> 0 AS "inDatabase", split_part(s.one, '=', 1) AS name,
    substr(s.one, strpos(s.one, '=') + 1) AS value
  FROM pg_db_role_setting c CROSS JOIN unnest(c.setconfig) AS s (one) LEFT JOIN pg_roles r ON r.oid = c.setrole
  WHERE c.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) AND (c.setrole = 0 OR r.oid IS NOT NULL)
  ORDER BY 1 NULLS FIRST, 3`);

const SCHEMAS = list(`SELECT n.nspname AS name, pg_get_userbyid(n.nspowner) AS owner,
    (SELECT coalesce(json_agg(json_build_object('grantee', r.rolname, 'privilege', g.privilege_type)), '[]')
     FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) g LEFT JOIN pg_roles r ON r.oid = g.grantee
     WHERE g.grantee <> n.nspowner AND (g.grantee = 0 OR r.oid IS NOT NULL)) AS grants
  FROM pg_namespace n WHERE n.oid IN (SELECT oid FROM (${USER_SCHEMAS}) u) ORDER BY n.nspname`);

const EXTENSIONS = list(`SELECT e.extname AS name, n.nspname AS schema, e.extversion AS version
  FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace ORDER BY e.oid`);

const ENUMS = list(`SELECT n.nspname AS schema, y.typname AS name,
    (SELECT coalesce(json_agg(e.enumlabel ORDER BY e.enumsortorder), '[]') FROM pg_enum e WHERE e.enumtypid = y.oid) AS labels
  FROM pg_type y JOIN (${USER_SCHEMAS}) n ON n.oid = y.typnamespace WHERE y.typtype = 'e' AND ${NOT_OF_EXTENSION('pg_type', 'y.oid')}`);

const DOMAINS = list(`SELECT n.nspname AS schema, y.typname AS name,
    (SELECT coalesce(json_agg(json_build_object('name', o.conname, 'definition', pg_get_constraintdef(o.oid)) ORDER BY o.conname), '[]')
     FROM pg_constraint o WHERE o.contypid = y.oid AND o.contype = 'c') AS constraints
  FROM pg_type y JOIN (${USER_SCHEMAS}) n ON n.oid = y.typnamespace WHERE y.typtype = 'd' AND ${NOT_OF_EXTENSION('pg_type', 'y.oid')}`);

/** What a definition says is printed a little differently by other versions: so its digest is of what was stored. */
const FUNCTIONS = list(`SELECT p.oid::regprocedure::text AS identity, p.prokind::text AS kind,
    md5(concat_ws('|', p.prosrc, pg_get_function_sqlbody(p.oid), pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
      l.lanname, p.provolatile, p.proisstrict, p.prosecdef, p.proleakproof, p.proparallel, array_to_string(p.proconfig, ','))) AS digest,
    CASE WHEN p.prokind IN ('f', 'p', 'w') THEN pg_get_functiondef(p.oid) END AS definition,
    l.lanname = 'sql' OR EXISTS (SELECT FROM pg_type y JOIN pg_class c ON c.oid = y.typrelid AND c.relkind <> 'c'
      WHERE y.oid = ANY (p.proargtypes::oid[] || p.prorettype || coalesce(p.proallargtypes, '{}'))) AS "mayBeOfOneNode"
  FROM pg_proc p JOIN (${USER_SCHEMAS}) n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
  WHERE ${NOT_OF_EXTENSION('pg_proc', 'p.oid')} ORDER BY p.oid`);

const MESH_ROLES =
  list(`SELECT r.rolname AS name, r.rolcanlogin AND coalesce(r.rolvaliduntil > now(), true) AS "mayLogIn",
    pg_has_role(r.oid, 'pg_read_all_data', 'USAGE') AS "readsAll" FROM pg_roles r WHERE starts_with(r.rolname, 'postern_mesh_')`);

const PREPARED =
  list(`SELECT gid, owner::text AS owner, extract(epoch FROM clock_timestamp() - prepared)::float8 AS "ageSeconds"
  FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared`);

const SLOTS = list(`SELECT s.slot_name AS name, s.slot_type AS kind, s.active,
    CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::float8 END AS "keptBytes",
    s.wal_status AS "walStatus"
  FROM pg_replication_slots s WHERE NOT s.temporary AND (s.database IS NULL OR s.database = current_database()) ORDER BY 1`);

/** Of those that log in with PostgreSQL's protocol; what replicates is no client. */
const SESSIONS = `SELECT a.pid AS "processId", a.backend_start::text AS "startedAt",
    extract(epoch FROM clock_timestamp() - a.backend_start)::float8 AS "ageSeconds", a.usename::text AS role,
    a.application_name AS "applicationName", host(a.client_addr) AS address
  FROM pg_stat_activity a WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
    AND a.usename IS NOT NULL AND a.backend_start IS NOT NULL`;

/** Without rights of pg_read_all_stats, sessions of other roles show nothing but that they are there. */
const SEES_SESSIONS = `(SELECT rolsuper OR pg_has_role(rolname, 'pg_read_all_stats', 'USAGE') FROM pg_roles WHERE rolname = current_user)`;

export async function readSessions(
  node: ControlConnection,
): Promise<{ readonly sessions: readonly SessionFacts[]; readonly seesSessions: boolean }> {
  const [row] = await node.query<{ sessions: SessionFacts[]; seesSessions: boolean }>(
    `SELECT ${list(SESSIONS)} AS sessions, ${SEES_SESSIONS} AS "seesSessions"`,
  );
  return row!;
}

type Plain = Omit<
  ServerFacts,
  'node' | 'requirements' | 'local' | 'fileSettings' | 'hasMesh' | 'sessions' | 'seesSessions' | 'clock'
>;

export async function readServer(
  node: ControlConnection,
  unread: (what: string, why: string) => void,
): Promise<ServerFacts> {
  const clock = await readClock(node);
  const requirements = await readNodeFacts(node);
  const [local] = await node.query<{ there: boolean }>(
    `SELECT to_regclass('${INTERNAL_SCHEMA}.local_node') IS NOT NULL AS there`,
  );
  const localRows = local?.there
    ? await node.query<NonNullable<ServerFacts['local']>>(
        `SELECT cluster_id AS "clusterId", node_id AS "nodeId", node_name AS "nodeName" FROM ${INTERNAL_SCHEMA}.local_node`,
      )
    : [];
  const [plain] = await node.query<Plain>(
    `SELECT current_database() AS database,
       (SELECT json_object_agg(name, reset_val) FROM pg_settings WHERE name = ANY ($1)) AS settings,
       ${ROLE_SETTINGS} AS "roleSettings", ${ROLES} AS roles, ${SCHEMAS} AS schemas, ${EXTENSIONS} AS extensions,
       (${TYPES}) AS types, ${ENUMS} AS enums, ${DOMAINS} AS domains, ${FUNCTIONS} AS functions,
       ${PREPARED} AS prepared, ${SLOTS} AS slots, ${SORTING} AS sorting, ${MESH_ROLES} AS "meshRoles"`,
    [SETTING_NAMES],
  );
  const facts = plain!;
  const digests = await readDigests(node).catch((error: Error) => {
    unread('verifiers of passwords', error.message);
    return undefined;
  });
  const fileSettings = await readFileSettings(node).catch((error: Error) => {
    unread('timeouts in the files of the server', error.message);
    return undefined;
  });
  const [mesh] = await node.query<{ there: boolean }>(
    'SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1) AS there',
    [meshDatabaseOf(facts.database)],
  );
  return {
    ...facts,
    ...(await readSessions(node)),
    ...{ node: node.nodeName, requirements, fileSettings, clock, hasMesh: mesh?.there === true },
    local: localRows[0] ?? null,
    roles: facts.roles.map((role) =>
      digests ? { ...role, passwordDigest: digests.get(role.name) ?? null } : role,
    ),
  };
}

async function readDigests(node: ControlConnection): Promise<ReadonlyMap<string, string>> {
  const rows = await node.query<{ name: string; digest: string }>(
    `SELECT rolname AS name, encode(sha256(convert_to(rolpassword, 'UTF8')), 'hex') AS digest
     FROM pg_authid WHERE rolpassword IS NOT NULL`,
  );
  return new Map(rows.map(({ name, digest }) => [name, digest]));
}

async function readFileSettings(node: ControlConnection): Promise<Readonly<Record<string, string>>> {
  const rows = await node.query<{ name: string; setting: string }>(
    `SELECT name, setting FROM pg_file_settings WHERE applied
       AND name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout', 'lock_timeout')`,
  );
  return Object.fromEntries(rows.map(({ name, setting }) => [name, setting]));
}

const CLOCK_LOOKS = 5;

/** Of several looks the shortest: the server's clock was read at some moment between the question and the answer. */
async function readClock(node: ControlConnection): Promise<ServerFacts['clock']> {
  let best: ServerFacts['clock'] | undefined;
  for (let look = 0; look < CLOCK_LOOKS; look++) {
    const [wallMs, askedMs] = [Date.now(), performance.now()];
    const [row] = await node.query<{ ms: number }>(
      'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS ms',
    );
    const halfMs = (performance.now() - askedMs) / 2;
    const seen = { offsetMs: row!.ms - (wallMs + halfMs), boundMs: halfMs };
    if (!best || seen.boundMs < best.boundMs) best = seen;
  }
  return best!;
}
