/**
 * What a connection string says of encryption, as libpq reads it: sslmode, sslrootcert, sslcert, sslkey, sslpassword, sslcrl,
 * sslnegotiation, sslsni, ssl_min_protocol_version, ssl_max_protocol_version and channel_binding.
 * Source: PostgreSQL documentation, "Parameter Key Words" and "SSL Support" of libpq.
 *
 * Unlike libpq, no file of a home directory is taken unasked: verify-ca and verify-full want sslrootcert said.
 *
 * Invariant: what asks for more protection than there is here is refused, never passed over. No error holds a secret.
 */
import { invalidParameter, notSupported } from '../base/errors.ts';
import type { Dsn, SslMode } from './dsn.ts';

const TLS_VERSIONS = ['TLSv1.2', 'TLSv1.3'] as const;
export type TlsVersion = (typeof TLS_VERSIONS)[number];

const CHANNEL_BINDINGS = ['disable', 'prefer', 'require'] as const;
type ChannelBinding = (typeof CHANNEL_BINDINGS)[number];

export interface NodeTls {
  readonly mode: SslMode;
  /** TLS from the first byte on, without asking (PostgreSQL 17). */
  readonly direct: boolean;
  /** What of the server's certificate is checked: nothing, that a root has signed it, and that it names the host too. */
  readonly verify: 'nothing' | 'authority' | 'host';
  /** A file, or the roots that the system trusts. */
  readonly roots: string | 'system' | undefined;
  /** Of this router, as the server's client: both or none. */
  readonly certificateFile: string | undefined;
  readonly keyFile: string | undefined;
  readonly keyPassphrase: string | undefined;
  readonly revocationFile: string | undefined;
  readonly namesServer: boolean;
  readonly minimumVersion: TlsVersion;
  readonly maximumVersion: TlsVersion | undefined;
  readonly channelBinding: ChannelBinding;
}

/** The parameters that name a file, for whoever knows the directory that a relative one starts from. */
export const TLS_FILE_PARAMETERS = ['sslrootcert', 'sslcert', 'sslkey', 'sslcrl'] as const;

/** Each with its values that ask for nothing. */
const NOT_HERE: ReadonlyMap<string, readonly string[]> = new Map([
  ['gssencmode', ['disable', 'prefer']],
  ['require_auth', []],
  ['sslcertmode', ['allow', 'disable']],
  ['sslcrldir', []],
  ['requirepeer', []],
  ['sslcompression', ['0']],
]);

/** Throws 22023 or 0A000 for what can't be, or contradicts itself. Over a Unix socket nothing is ever encrypted. */
export function nodeTlsOf(dsn: Pick<Dsn, 'sslmode' | 'options'>): NodeTls {
  const { options } = dsn;
  const said = (name: string): string | undefined => options.get(name) || undefined;
  for (const [name, harmless] of NOT_HERE) {
    const value = said(name);
    if (value !== undefined && !harmless.includes(value))
      throw notSupported(`the connection string's ${name} is not supported`, `Leave ${name} out.`);
  }
  const roots = said('sslrootcert');
  const mode = dsn.sslmode ?? (roots === 'system' ? 'verify-full' : 'prefer');
  if (roots === 'system' && mode !== 'verify-full')
    throw refused(`sslmode "${mode}" is too weak for sslrootcert=system`, 'Use sslmode=verify-full.');
  if (roots === undefined && mode.startsWith('verify-'))
    throw refused(
      `sslmode "${mode}" needs to know whom to trust`,
      'Name the file of root certificates with sslrootcert=FILE, or the public ones with sslrootcert=system.',
    );
  const direct = oneOf('sslnegotiation', said('sslnegotiation'), ['postgres', 'direct']) === 'direct';
  if (direct && !['require', 'verify-ca', 'verify-full'].includes(mode))
    throw refused(
      `sslmode "${mode}" is too weak for sslnegotiation=direct`,
      'Use sslmode=require, verify-ca or verify-full.',
    );
  const [certificateFile, keyFile] = [said('sslcert'), said('sslkey')];
  if ((certificateFile === undefined) !== (keyFile === undefined))
    throw refused('sslcert and sslkey go together', 'Name both files, or none.');
  if (certificateFile !== undefined && said('sslcertmode') === 'disable')
    throw refused('sslcertmode=disable contradicts sslcert', 'Leave one of them out.');
  const minimumVersion = oneOf('ssl_min_protocol_version', said('ssl_min_protocol_version'), TLS_VERSIONS);
  const maximumVersion = oneOf('ssl_max_protocol_version', said('ssl_max_protocol_version'), TLS_VERSIONS);
  if (maximumVersion === 'TLSv1.2' && minimumVersion === 'TLSv1.3')
    throw refused('ssl_min_protocol_version is above ssl_max_protocol_version', 'Leave one of them out.');
  const channelBinding = oneOf('channel_binding', said('channel_binding'), CHANNEL_BINDINGS) ?? 'prefer';
  if (channelBinding === 'require' && mode === 'disable')
    throw refused(
      'channel_binding=require needs encryption',
      'Use sslmode=require, verify-ca or verify-full.',
    );
  return {
    ...{ mode, direct, roots, certificateFile, keyFile, maximumVersion, channelBinding },
    // libpq: "require" with a file of roots checks against them.
    verify:
      mode === 'verify-full'
        ? 'host'
        : mode === 'verify-ca' || (mode === 'require' && roots)
          ? 'authority'
          : 'nothing',
    keyPassphrase: said('sslpassword'),
    revocationFile: said('sslcrl'),
    namesServer: oneOf('sslsni', said('sslsni'), ['0', '1']) !== '0',
    minimumVersion: minimumVersion ?? 'TLSv1.2',
  };
}

/** For a server in the same process tree, and for tests. */
export const NO_TLS: NodeTls = nodeTlsOf({ sslmode: 'disable', options: new Map() });

export type Encryption = 'tls' | 'plain';

/**
 * What is tried in turn, each over a connection of its own, while the server or the handshake refuses. With `prefer`, a
 * server that says that it has no TLS is gone on with as it is.
 */
export function encryptionsOf(tls: NodeTls, host: string): readonly [Encryption, ...Encryption[]] {
  if (host.startsWith('/')) return ['plain'];
  switch (tls.mode) {
    case 'disable':
      return ['plain'];
    case 'allow':
      return ['plain', 'tls'];
    case 'prefer':
      return ['tls', 'plain'];
    case 'require':
    case 'verify-ca':
    case 'verify-full':
      return ['tls'];
  }
}

function oneOf<Value extends string>(
  name: string,
  value: string | undefined,
  allowed: readonly Value[],
): Value | undefined {
  if (value === undefined) return undefined;
  const found = allowed.find((candidate) => candidate === value);
  if (found === undefined)
    throw refused(`its ${name} is none of ${allowed.join(', ')}`, `Correct ${name}, or leave it out.`);
  return found;
}

function refused(what: string, hint: string): Error {
  return invalidParameter(`the connection string can't be used: ${what}`, hint);
}
