/**
 * What each node gives to the meshes, and what a node's server needs to have one: a role that reads the tables, a database
 * beside the node's own, the extension postgres_fdw.
 *
 * Invariant: the role's password is made of the cluster's key, known to routers alone, and stands nowhere but in the user
 * mappings, which no client can read.
 */
import { createHmac } from 'node:crypto';
import { notSupported, type PosternError } from '../base/errors.ts';
import type { NodeInfo } from '../catalog/map.ts';
import { collationQuestion } from '../execute/collations.ts';
import { type Dsn, formatDsn, parseDsn } from '../pg/dsn.ts';
import { IDENTIFIER_BYTES_MAX, quoteIdentifier, quoteLiteral } from '../pg/identifier.ts';
import { ControlConnection, ServerError } from '../platform/control-connection.ts';
import type { LocaleDefinition, Sorter } from './definition.ts';
import { serverName } from './objects.ts';

export interface MeshNode extends NodeInfo {
  readonly dsn: string;
  /** How the servers of other nodes reach it; undefined: as its DSN says. */
  readonly reach: { readonly host: string; readonly port: number } | undefined;
}

/** What a node's server says of itself. */
export interface NodeSide {
  readonly node: MeshNode;
  readonly isSuperuser: boolean;
  readonly roles: ReadonlySet<string>;
  /** Nodes that give the same for a sorter sort alike what it sorts. */
  readonly sorting: Readonly<Record<Sorter, string>>;
}

const ROLE_LOCK = `pg_catalog.pg_advisory_xact_lock(${0x706f7374}, 8)`;
/** Rows that a node sends at once. */
const FETCH_SIZE = 2_000;

export function meshDatabaseOf(database: string): string {
  const suffix = '_postern_mesh';
  let head = database;
  while (Buffer.byteLength(head) > IDENTIFIER_BYTES_MAX - suffix.length) head = head.slice(0, -1);
  return head + suffix;
}

/** Several clusters may have databases on one server. */
export function meshRoleOf(clusterId: string): string {
  return `postern_mesh_${clusterId.replaceAll('-', '').slice(0, 12)}`;
}

function passwordOf(tokenKey: Buffer): string {
  return createHmac('sha256', tokenKey).update('postern mesh').digest('hex');
}

/** Has the node's server give the meshes their role. Throws 0A000 with what to change. */
export async function ensureMeshRole(
  node: ControlConnection,
  { clusterId, tokenKey }: { readonly clusterId: string; readonly tokenKey: Buffer },
): Promise<void> {
  const role = meshRoleOf(clusterId);
  const reads = `pg_catalog.pg_has_role(${quoteLiteral(role)}, 'pg_read_all_data', 'USAGE')`;
  const [found] = await node.query<{ whole: boolean }>(
    `SELECT coalesce((SELECT ${reads} FROM pg_roles WHERE rolname = ${quoteLiteral(role)}), false) AS whole`,
  );
  if (found?.whole) return;
  try {
    await node.transaction(async () => {
      await node.query(`SELECT ${ROLE_LOCK}`);
      const [there] = await node.query(`SELECT FROM pg_roles WHERE rolname = '${role}'`);
      const attributes = `LOGIN INHERIT PASSWORD ${quoteLiteral(passwordOf(tokenKey))}`;
      await node.query(
        `${there ? 'ALTER' : 'CREATE'} ROLE ${role} ${attributes}; GRANT pg_read_all_data TO ${role}`,
      );
    });
  } catch (error) {
    throw asUnavailable(
      node.nodeName,
      error,
      'Let a superuser run there, for the role that Postern has there: ALTER ROLE … CREATEROLE; GRANT pg_read_all_data TO … WITH ADMIN OPTION',
    );
  }
}

/** `CREATE SERVER` and `CREATE USER MAPPING` for all nodes, as the mesh of one needs them. */
export function serversText(
  nodes: readonly MeshNode[],
  options: {
    readonly clusterId: string;
    readonly tokenKey: Buffer;
    readonly isSuperuser: boolean;
  },
): string {
  const role = meshRoleOf(options.clusterId);
  // Without it, a server that lets the role in with no password would be refused for everybody but superusers.
  const required = options.isSuperuser ? ", password_required 'false'" : '';
  return nodes
    .flatMap((node) => {
      const { hosts, database, sslmode } = reachOf(node);
      const server = serverName(node.id);
      const host = quoteLiteral(hosts.map((one) => one.host).join(','));
      const port = hosts.map((one) => one.port).join(',');
      // libpq then asks each of them.
      const primary = hosts.length > 1 ? ", target_session_attrs 'primary'" : '';
      const ssl = sslmode === undefined ? '' : `, sslmode ${quoteLiteral(sslmode)}`;
      return [
        `CREATE SERVER ${server} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host ${host}, port '${port}'${primary},` +
          ` dbname ${quoteLiteral(database)}${ssl}, connect_timeout '5', application_name 'postern mesh',` +
          ` updatable 'false', truncatable 'false', async_capable 'true', fetch_size '${FETCH_SIZE}')`,
        `CREATE USER MAPPING FOR PUBLIC SERVER ${server} OPTIONS (user ${quoteLiteral(role)},` +
          ` password ${quoteLiteral(passwordOf(options.tokenKey))}${required})`,
      ];
    })
    .join(';\n');
}

function reachOf({ dsn, reach }: MeshNode): Dsn {
  const said = parseDsn(dsn);
  return reach ? { ...said, ...reach, hosts: [reach] } : said;
}

const versionOf = (provider: string) =>
  `(SELECT coalesce(max(pg_collation_actual_version(oid)), '') FROM pg_collation WHERE collprovider = '${provider}')`;
export const SORTING = `json_build_object('default', (${collationQuestion([{ schema: 'pg_catalog', name: 'pg_class' }], false)}),
  'libc', ${versionOf('c')}, 'icu', ${versionOf('i')})`;

export async function readSide(node: MeshNode, connection: ControlConnection): Promise<NodeSide> {
  const [row] = await connection.query<
    Omit<NodeSide, 'node' | 'roles'> & { readonly roles: readonly string[] }
  >(
    `SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS "isSuperuser",
       (SELECT json_agg(rolname) FROM pg_roles) AS roles, ${SORTING} AS sorting`,
  );
  return { ...row!, node, roles: new Set(row!.roles) };
}

/** A connection of the admin role to the node's mesh database, which is made if it isn't there. Throws 0A000. */
export async function openMeshDatabase(
  node: MeshNode,
  own: ControlConnection,
  locale: LocaleDefinition,
): Promise<ControlConnection> {
  const dsn = parseDsn(node.dsn);
  const database = meshDatabaseOf(dsn.database);
  const name = quoteIdentifier(database);
  const [there] = await own.query(`SELECT FROM pg_database WHERE datname = $1 AND datallowconn`, [database]);
  if (!there) {
    const text = `CREATE DATABASE ${name} TEMPLATE template0 ENCODING 'UTF8'${localeClause(locale)}`;
    try {
      await own.query(text);
    } catch (error) {
      const isThere = error instanceof ServerError && ['42P04', '23505', '55006'].includes(error.sqlState);
      if (!isThere)
        throw asUnavailable(
          node.name,
          error,
          `Let a superuser run there, for the role that Postern has there: ALTER ROLE … CREATEDB. Or: ${text} OWNER …`,
        );
    }
  }
  const mesh = await ControlConnection.open({
    nodeName: node.name,
    dsn: formatDsn({ ...dsn, database }),
    applicationName: 'postern mesh',
  });
  try {
    await ensureExtension(node, mesh, name);
    return mesh;
  } catch (error) {
    await mesh.close();
    throw error;
  }
}

async function ensureExtension(node: MeshNode, mesh: ControlConnection, database: string): Promise<void> {
  const [found] = await mesh.query(`SELECT FROM pg_extension WHERE extname = 'postgres_fdw'`);
  if (found) return;
  try {
    await mesh.query('CREATE EXTENSION IF NOT EXISTS postgres_fdw WITH SCHEMA pg_catalog');
  } catch (error) {
    if (error instanceof ServerError && error.sqlState === '23505') return;
    throw asUnavailable(
      node.name,
      error,
      `Have PostgreSQL's contrib modules there, and let a superuser run in database ${database}, for the role that Postern has there: ` +
        'CREATE EXTENSION postgres_fdw WITH SCHEMA pg_catalog; GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO …',
    );
  }
}

/** Text has to be sorted there as on home. */
function localeClause({ provider, collate, ctype, locale }: LocaleDefinition): string {
  const libc = ` LC_COLLATE ${quoteLiteral(collate)} LC_CTYPE ${quoteLiteral(ctype)}`;
  if (provider === 'i') return `${libc} LOCALE_PROVIDER icu ICU_LOCALE ${quoteLiteral(locale ?? 'und')}`;
  if (provider === 'b')
    return `${libc} LOCALE_PROVIDER builtin BUILTIN_LOCALE ${quoteLiteral(locale ?? 'C')}`;
  return libc;
}

function asUnavailable(node: string, error: unknown, hint: string): unknown {
  if (!(error instanceof ServerError) || /^(08|53|57|55)/.test(error.sqlState)) return error;
  return meshUnavailable(node, error.message, hint);
}

function meshUnavailable(node: string, why: string, hint: string): PosternError {
  return notSupported(
    `this statement reads several nodes at once, and node "${node}" can't have a mesh: ${why}`,
    hint,
  );
}
