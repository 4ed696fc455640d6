/** The `tls` part of postern.yaml, and what a node's connection string says of encryption. Relative files start where the configuration is. */
import { resolve } from 'node:path';
import { z } from 'zod';
import { invalidParameter, PosternError } from '../base/errors.ts';
import type { Dsn } from '../pg/dsn.ts';
import { refuseUnknownParameters } from '../pg/dsn-parameters.ts';
import { nodeTlsOf, TLS_FILE_PARAMETERS } from '../pg/dsn-tls.ts';
import type { ClientTlsOptions } from '../platform/client-tls.ts';
import type { ConfigPlace } from './config-secrets.ts';

const file = z.string().min(1);

/** TLS with clients. Default: none. */
export const tlsSchema = z
  .strictObject({
    certificate_file: file,
    key_file: file,
    /** The variable that holds the passphrase of an encrypted key. */
    key_passphrase_env: z.string().min(1).optional(),
    /** Who signs the certificates of clients. Default: none is asked for. */
    client_ca_file: file.optional(),
    client_crl_file: file.optional(),
    minimum_version: z.enum(['TLSv1.2', 'TLSv1.3']).optional(),
    /** OpenSSL's list. Default: Node.js's. */
    ciphers: z.string().min(1).optional(),
  })
  .optional();

export function tlsOptions(
  config: z.infer<typeof tlsSchema>,
  place: ConfigPlace,
): ClientTlsOptions | undefined {
  if (!config) return undefined;
  const absolute = (name: string | undefined): string | undefined =>
    name === undefined ? undefined : resolve(place.directory, name);
  const variable = config.key_passphrase_env;
  const keyPassphrase = variable === undefined ? undefined : place.environment[variable];
  if (variable !== undefined && keyPassphrase === undefined)
    throw invalidParameter(`the environment has no ${variable}, the passphrase of tls.key_file`);
  return {
    certificateFile: resolve(place.directory, config.certificate_file),
    keyFile: resolve(place.directory, config.key_file),
    keyPassphrase,
    clientCaFile: absolute(config.client_ca_file),
    clientCrlFile: absolute(config.client_crl_file),
    minimumVersion: config.minimum_version,
    ciphers: config.ciphers,
  };
}

/** libpq's variables, for what a connection string leaves out. (PGSSLMODE is read with the string itself.) */
const VARIABLES: ReadonlyMap<string, string> = new Map([
  ['sslrootcert', 'PGSSLROOTCERT'],
  ['sslcert', 'PGSSLCERT'],
  ['sslkey', 'PGSSLKEY'],
  ['sslcrl', 'PGSSLCRL'],
  ['sslnegotiation', 'PGSSLNEGOTIATION'],
  ['sslsni', 'PGSSLSNI'],
  ['ssl_min_protocol_version', 'PGSSLMINPROTOCOLVERSION'],
  ['ssl_max_protocol_version', 'PGSSLMAXPROTOCOLVERSION'],
  ['channel_binding', 'PGCHANNELBINDING'],
]);

/** The same with all that it says of TLS spelled out. Throws 22023 or 0A000, with the node's name, for what can't be. */
export function withTlsSpelledOut(dsn: Dsn, nodeName: string, place: ConfigPlace): Dsn {
  const options = new Map(dsn.options);
  for (const [name, variable] of VARIABLES) {
    const value = place.environment[variable];
    if (value && !options.get(name)) options.set(name, value);
  }
  for (const name of TLS_FILE_PARAMETERS) {
    const value = options.get(name);
    if (value && value !== 'system') options.set(name, resolve(place.directory, value));
  }
  try {
    refuseUnknownParameters(dsn);
    nodeTlsOf({ sslmode: dsn.sslmode, options });
  } catch (error) {
    if (!(error instanceof PosternError)) throw error;
    const { sqlState, message, hint } = error;
    throw new PosternError({ sqlState, message: `node "${nodeName}": ${message}`, hint });
  }
  return { ...dsn, options };
}
