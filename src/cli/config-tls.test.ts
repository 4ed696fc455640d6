import { describe, expect, it } from 'vitest';
import { formatDsn, parseDsn } from '../pg/dsn.ts';
import { tlsOptions, tlsSchema, withTlsSpelledOut } from './config-tls.ts';

const place = { directory: '/etc/postern', environment: { KEY: 'hush', PGSSLROOTCERT: 'env.crt' } };
const files = { certificate_file: 'a.crt', key_file: '/keys/a.key' };

describe('tls', () => {
  it('names files from where the configuration is, and its secret from the environment', () => {
    expect(tlsOptions(undefined, place)).toBeUndefined();
    const config = tlsSchema.parse({
      ...files,
      ...{ key_passphrase_env: 'KEY', client_ca_file: 'ca.crt', client_crl_file: '../ca.crl' },
      ...{ minimum_version: 'TLSv1.3', ciphers: 'TLS_AES_256_GCM_SHA384' },
    });
    expect(tlsOptions(config, place)).toEqual({
      certificateFile: '/etc/postern/a.crt',
      keyFile: '/keys/a.key',
      keyPassphrase: 'hush',
      clientCaFile: '/etc/postern/ca.crt',
      clientCrlFile: '/etc/ca.crl',
      minimumVersion: 'TLSv1.3',
      ciphers: 'TLS_AES_256_GCM_SHA384',
    });
  });

  it.each([
    [{ certificate_file: 'a.crt' }],
    [{ ...files, minimum_version: 'TLSv1.1' }],
    [{ ...files, key_passphrase: 'hush' }],
  ])('refuses %j', (config) => {
    expect(tlsSchema.safeParse(config).success).toBe(false);
  });

  it('says which variable there is not', () => {
    expect(() => tlsOptions({ ...files, key_passphrase_env: 'NONE' }, place)).toThrow(
      /the environment has no NONE, the passphrase of tls.key_file/,
    );
  });
});

describe('a node’s connection string', () => {
  const spelled = (text: string, environment = {}) =>
    formatDsn(withTlsSpelledOut(parseDsn(text), 'n1', { directory: '/etc/postern', environment }));

  it('names files from where the configuration is', () => {
    expect(
      spelled('postgres://u@h/d?sslmode=verify-full&sslrootcert=ca.crt&sslcert=c.crt&sslkey=/k.key'),
    ).toBe(
      'postgres://u@h:5432/d?sslmode=verify-full&sslrootcert=%2Fetc%2Fpostern%2Fca.crt&sslcert=%2Fetc%2Fpostern%2Fc.crt&sslkey=%2Fk.key',
    );
    expect(spelled('postgres://u@h/d?sslrootcert=system')).toBe('postgres://u@h:5432/d?sslrootcert=system');
  });

  it('takes libpq’s variables for what it leaves out', () => {
    const environment = { PGSSLROOTCERT: 'env.crt', PGCHANNELBINDING: 'require' };
    expect(spelled('postgres://u@h/d?sslmode=verify-ca', environment)).toBe(
      'postgres://u@h:5432/d?sslmode=verify-ca&sslrootcert=%2Fetc%2Fpostern%2Fenv.crt&channel_binding=require',
    );
    expect(spelled('postgres://u@h/d?sslmode=verify-ca&sslrootcert=/own.crt', environment)).toContain(
      'own.crt',
    );
  });

  it('that can’t be is refused with the node’s name', () => {
    expect(() => spelled('postgres://u:hush@h/d?sslmode=verify-full')).toThrow(
      expect.objectContaining({
        sqlState: '22023',
        message: expect.stringMatching(/^node "n1": (?!.*hush).*needs to know whom to trust/),
        hint: expect.stringContaining('sslrootcert'),
      }),
    );
  });
});
