/**
 * Connection strings, as libpq reads them: the URI form (postgres://user:password@host:port/database?name=value) and the
 * key=value form (host=… port=… dbname=…). Both may name several hosts, of which one is the primary at a time. What the text leaves out comes from PGHOST, PGPORT, PGUSER, PGPASSWORD,
 * PGDATABASE and PGSSLMODE of the environment that is passed in, then from PostgreSQL's defaults.
 * Source: PostgreSQL documentation, "Connection Strings" and "Environment Variables" of libpq.
 *
 * Invariant: no error of this file contains any part of the text, which may hold a password.
 */
import { invalidParameter, type PosternError } from '../base/errors.ts';

const SSL_MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const;
export type SslMode = (typeof SSL_MODES)[number];

/** A primary and its standbys are a handful. */
const HOSTS_MAX = 16;

export interface Host {
  /** A host name, an address (IPv6 without brackets), or the directory of a Unix socket if it begins with '/'. */
  readonly host: string;
  readonly port: number;
}

export interface Dsn extends Host {
  /** All of them, in the order of the text; `host` and `port` are the first's. */
  readonly hosts: readonly Host[];
  readonly user: string;
  readonly password: string | undefined;
  readonly database: string;
  /** Undefined: not said; libpq would take 'prefer'. */
  readonly sslmode: SslMode | undefined;
  /** Every other parameter by its name: application_name, connect_timeout, sslrootcert, options, … */
  readonly options: ReadonlyMap<string, string>;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Throws 22023 with a hint when the text is no connection string. */
export function parseDsn(text: string, env: Environment = {}): Dsn {
  const trimmed = text.trim();
  const isUri = /^postgres(ql)?:\/\//i.test(trimmed);
  const said = isUri ? parseUri(trimmed) : parseKeyValues(trimmed);
  const take = (name: string): string | undefined => {
    const value = said.get(name);
    said.delete(name);
    return value === undefined || value === '' ? undefined : value;
  };
  const hostAddress = take('hostaddr');
  const hostText = hostAddress ?? take('host') ?? (env.PGHOST || 'localhost');
  said.delete('host');
  const hosts = pairHosts(hostText, take('port') ?? (env.PGPORT || '5432'));
  const user = take('user') ?? (env.PGUSER || env.USER || env.USERNAME || 'postgres');
  return {
    ...hosts[0]!,
    hosts,
    user,
    password: take('password') ?? (env.PGPASSWORD || undefined),
    database: take('dbname') ?? (env.PGDATABASE || user),
    sslmode: parseSslMode(take('sslmode') ?? (env.PGSSLMODE || undefined)),
    options: said,
  };
}

/** parseDsn() for what works with one server, and could not tell which of several is meant. */
export function parseDsnOfOneServer(text: string, env: Environment = {}): Dsn {
  const dsn = parseDsn(text, env);
  if (dsn.hosts.length > 1)
    throw malformed('it names several hosts, and one connection string stands for one server here');
  return dsn;
}

/** For messages and reports: where it points to, and never the password. */
export function describeDsn(dsn: Dsn): string {
  return `${dsn.user}@${describeHosts(dsn.hosts)}/${dsn.database}`;
}

/** `a:5432,[::1]:5433`. */
export function describeHosts(hosts: readonly Host[]): string {
  return hosts.map(({ host, port }) => `${host.includes(':') ? `[${host}]` : host}:${port}`).join(',');
}

/** The same as a URI that holds everything, for parseDsn() to read. */
export function formatDsn(dsn: Dsn): string {
  const secret = dsn.password === undefined ? '' : `:${encodeURIComponent(dsn.password)}`;
  const hosts = dsn.hosts.map(
    ({ host, port }) => `${host.includes(':') ? `[${host}]` : encodeURIComponent(host)}:${port}`,
  );
  const said = [...(dsn.sslmode === undefined ? [] : [['sslmode', dsn.sslmode] as const]), ...dsn.options];
  const query = said.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`);
  return (
    `postgres://${encodeURIComponent(dsn.user)}${secret}@${hosts.join(',')}/${encodeURIComponent(dsn.database)}` +
    (query.length === 0 ? '' : `?${query.join('&')}`)
  );
}

function parseUri(text: string): Map<string, string> {
  const said = new Map<string, string>();
  const afterScheme = text.slice(text.indexOf('://') + 3);
  const queryAt = afterScheme.indexOf('?');
  const beforeQuery = queryAt < 0 ? afterScheme : afterScheme.slice(0, queryAt);
  const slashAt = beforeQuery.indexOf('/');
  const authority = slashAt < 0 ? beforeQuery : beforeQuery.slice(0, slashAt);
  if (slashAt >= 0) said.set('dbname', decode(beforeQuery.slice(slashAt + 1)));
  // A password may hold an unescaped '@', as it may for libpq's users who were lucky so far; the last one ends it.
  const atSign = authority.lastIndexOf('@');
  if (atSign >= 0) {
    const userInfo = authority.slice(0, atSign);
    const colon = userInfo.indexOf(':');
    said.set('user', decode(colon < 0 ? userInfo : userInfo.slice(0, colon)));
    if (colon >= 0) said.set('password', decode(userInfo.slice(colon + 1)));
  }
  const places = authority
    .slice(atSign + 1)
    .split(',')
    .map((place) => /^(?:\[([^\]]*)\]|([^:]*))(?::([^:]*))?$/.exec(place));
  if (places.includes(null))
    throw malformed("its host and port can't be told apart (an IPv6 address stands in brackets)");
  said.set('host', places.map((match) => decode(match![1] ?? match![2] ?? '')).join(','));
  if (places.some((match) => match![3] !== undefined))
    said.set('port', places.map((match) => decode(match![3] ?? '')).join(','));
  if (queryAt < 0) return said;
  for (const pair of afterScheme.slice(queryAt + 1).split('&')) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    if (equals <= 0) throw malformed('a parameter after its "?" has no name or no "="');
    said.set(decode(pair.slice(0, equals)), decode(pair.slice(equals + 1)));
  }
  return said;
}

/** `name = value` pairs between blanks; a value in single quotes may hold blanks; a backslash escapes one character. */
function parseKeyValues(text: string): Map<string, string> {
  const said = new Map<string, string>();
  const pair = /\s*([^\s=']+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|$)/gsy;
  let position = 0;
  while (position < text.length) {
    pair.lastIndex = position;
    const match = pair.exec(text);
    if (!match) throw malformed('it is neither a postgres:// URI nor pairs of name=value');
    said.set(match[1]!, (match[2] ?? match[3] ?? '').replace(/\\(.)/gs, '$1'));
    position = pair.lastIndex;
  }
  return said;
}

function decode(text: string): string {
  try {
    const decoded = decodeURIComponent(text);
    if (!decoded.includes('\0')) return decoded;
  } catch {
    // Said below: a percent sign that two hexadecimal digits don't follow, or bytes that are not UTF-8.
  }
  throw malformed(
    'it has a "%" that is not followed by two hexadecimal digits of a UTF-8 text (write %25 for a "%")',
  );
}

/** As libpq: as many ports as hosts, or one for all of them; an empty host or port is the default. */
function pairHosts(hostText: string, portText: string): Host[] {
  const names = hostText.split(',').map((host) => host.trim() || 'localhost');
  const ports = portText.split(',').map((port) => parsePort(port.trim() || '5432'));
  if (ports.length > 1 && ports.length !== names.length)
    throw malformed(
      `it has ${ports.length} ports for ${names.length} ${names.length === 1 ? 'host' : 'hosts'}`,
    );
  if (names.length > HOSTS_MAX) throw malformed(`it names more than ${HOSTS_MAX} hosts`);
  return names.map((host, at) => ({ host, port: ports[at] ?? ports[0]! }));
}

function parsePort(text: string): number {
  const port = /^\s*\d{1,5}\s*$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65_535) throw malformed('its port is not a number from 1 to 65535');
  return port;
}

function parseSslMode(text: string | undefined): SslMode | undefined {
  if (text === undefined) return undefined;
  const mode = SSL_MODES.find((candidate) => candidate === text);
  if (mode === undefined) throw malformed(`its sslmode is none of ${SSL_MODES.join(', ')}`);
  return mode;
}

function malformed(what: string): PosternError {
  return invalidParameter(
    `the connection string can't be read: ${what}`,
    'Write postgres://user:password@host:5432/database, or host=… port=… user=… password=… dbname=….',
  );
}
