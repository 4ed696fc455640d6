/**
 * Connection strings, as libpq reads them: the URI form (postgres://user:password@host:port/database?name=value) and the
 * key=value form (host=… port=… dbname=…). What the text leaves out comes from PGHOST, PGPORT, PGUSER, PGPASSWORD,
 * PGDATABASE and PGSSLMODE of the environment that is passed in, then from PostgreSQL's defaults.
 * Source: PostgreSQL documentation, "Connection Strings" and "Environment Variables" of libpq.
 *
 * Invariant: no error of this file contains any part of the text, which may hold a password.
 */
import { invalidParameter, type PosternError } from '../base/errors.ts';

const SSL_MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const;
type SslMode = (typeof SSL_MODES)[number];

export interface Dsn {
  /** A host name, an address (IPv6 without brackets), or the directory of a Unix socket if it begins with '/'. */
  readonly host: string;
  readonly port: number;
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
  const host = hostAddress ?? take('host') ?? (env.PGHOST || 'localhost');
  said.delete('host');
  const portText = take('port') ?? (env.PGPORT || '5432');
  if (host.includes(',') || portText.includes(',')) {
    throw malformed('it names several hosts, and one connection string stands for one server here');
  }
  const user = take('user') ?? (env.PGUSER || env.USER || env.USERNAME || 'postgres');
  return {
    host,
    port: parsePort(portText),
    user,
    password: take('password') ?? (env.PGPASSWORD || undefined),
    database: take('dbname') ?? (env.PGDATABASE || user),
    sslmode: parseSslMode(take('sslmode') ?? (env.PGSSLMODE || undefined)),
    options: said,
  };
}

/** For messages and reports: where it points to, and never the password. */
export function describeDsn(dsn: Dsn): string {
  const host = dsn.host.includes(':') ? `[${dsn.host}]` : dsn.host;
  return `${dsn.user}@${host}:${dsn.port}/${dsn.database}`;
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
  const hostAndPort = authority.slice(atSign + 1);
  const match = /^(?:\[([^\]]*)\]|([^:]*))(?::([^:]*))?$/.exec(hostAndPort);
  if (!match) {
    // Several hosts hold several colons: they are named as that by the caller.
    if (hostAndPort.includes(',')) said.set('host', hostAndPort);
    else throw malformed("its host and port can't be told apart (an IPv6 address stands in brackets)");
  } else {
    said.set('host', decode(match[1] ?? match[2] ?? ''));
    if (match[3] !== undefined) said.set('port', decode(match[3]));
  }
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
