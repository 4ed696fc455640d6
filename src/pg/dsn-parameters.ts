/**
 * The names that a connection string may use: libpq's. A slip in one (sslmod=verify-full) would else be passed over, and with it the
 * protection that it asks for.
 * Source: PostgreSQL 18 documentation, "Parameter Key Words" of libpq.
 *
 * Invariant: no error holds a part of the text. What looks like a parameter may be the rest of a password.
 */
import { invalidParameter, notSupported } from '../base/errors.ts';
import type { Dsn } from './dsn.ts';

/** But for those that parseDsn() takes out: host, hostaddr, port, dbname, user, password, sslmode. */
const NAMES: ReadonlySet<string> = new Set([
  ...['passfile', 'require_auth', 'channel_binding', 'connect_timeout', 'client_encoding', 'options'],
  ...['application_name', 'fallback_application_name', 'replication', 'target_session_attrs'],
  ...['load_balance_hosts', 'tcp_user_timeout', 'min_protocol_version', 'max_protocol_version'],
  ...['keepalives', 'keepalives_idle', 'keepalives_interval', 'keepalives_count'],
  ...['requiressl', 'sslnegotiation', 'sslcompression', 'sslcert', 'sslkey', 'sslkeylogfile', 'sslpassword'],
  ...['sslcertmode', 'sslrootcert', 'sslcrl', 'sslcrldir', 'sslsni', 'requirepeer'],
  ...['ssl_min_protocol_version', 'ssl_max_protocol_version'],
  ...['gssencmode', 'krbsrvname', 'gsslib', 'gssdelegation', 'scram_client_key', 'scram_server_key'],
  ...['oauth_issuer', 'oauth_client_id', 'oauth_client_secret', 'oauth_scope'],
]);

/** Throws 22023 for a name that libpq does not know either, and 0A000 for a service file's. */
export function refuseUnknownParameters({ options }: Pick<Dsn, 'options'>): void {
  for (const name of options.keys()) {
    if (NAMES.has(name)) continue;
    if (name === 'service' || name === 'servicefile')
      throw notSupported(
        "the connection string's service is not supported",
        'Write host, port, user and dbname out.',
      );
    throw invalidParameter(
      "the connection string can't be used: one of its parameters is none of libpq's",
      'Look for a slip in their names: sslmode, sslrootcert, application_name, ….',
    );
  }
}
