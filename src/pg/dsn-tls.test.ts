import { describe, expect, it } from 'vitest';
import { parseDsn } from './dsn.ts';
import { encryptionsOf, NO_TLS, nodeTlsOf } from './dsn-tls.ts';

const of = (query: string) => nodeTlsOf(parseDsn(`postgres://h/d?${query}`));

describe('nodeTlsOf', () => {
  it('takes libpq’s defaults', () => {
    expect(of('')).toEqual({
      mode: 'prefer',
      direct: false,
      verify: 'nothing',
      roots: undefined,
      certificateFile: undefined,
      keyFile: undefined,
      keyPassphrase: undefined,
      revocationFile: undefined,
      namesServer: true,
      minimumVersion: 'TLSv1.2',
      maximumVersion: undefined,
      channelBinding: 'prefer',
    });
    expect(NO_TLS.mode).toBe('disable');
  });

  it('reads all of it', () => {
    expect(
      of(
        'sslmode=verify-full&sslrootcert=/ca&sslcert=/c&sslkey=/k&sslpassword=p&sslcrl=/r&sslnegotiation=direct' +
          '&sslsni=0&ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.3&channel_binding=require',
      ),
    ).toEqual({
      mode: 'verify-full',
      direct: true,
      verify: 'host',
      roots: '/ca',
      certificateFile: '/c',
      keyFile: '/k',
      keyPassphrase: 'p',
      revocationFile: '/r',
      namesServer: false,
      minimumVersion: 'TLSv1.3',
      maximumVersion: 'TLSv1.3',
      channelBinding: 'require',
    });
  });

  it.each([
    ['sslmode=require', 'nothing'],
    // As libpq does.
    ['sslmode=require&sslrootcert=/ca', 'authority'],
    ['sslmode=prefer&sslrootcert=/ca', 'nothing'],
    ['sslmode=verify-ca&sslrootcert=/ca', 'authority'],
    ['sslmode=verify-full&sslrootcert=/ca', 'host'],
    ['sslrootcert=system', 'host'],
  ])('%s checks: %s', (query, verify) => {
    expect(of(query).verify).toBe(verify);
  });

  it.each([
    ['sslmode=verify-full', '22023', /needs to know whom to trust/],
    ['sslmode=verify-ca', '22023', /needs to know whom to trust/],
    ['sslmode=require&sslrootcert=system', '22023', /too weak for sslrootcert=system/],
    ['sslnegotiation=direct', '22023', /too weak for sslnegotiation=direct/],
    ['sslnegotiation=later', '22023', /sslnegotiation is none of postgres, direct/],
    ['sslcert=/c', '22023', /go together/],
    ['sslkey=/k', '22023', /go together/],
    ['sslcert=/c&sslkey=/k&sslcertmode=disable', '22023', /contradicts/],
    ['ssl_min_protocol_version=TLSv1', '22023', /none of TLSv1.2, TLSv1.3/],
    ['ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2', '22023', /above/],
    ['channel_binding=always', '22023', /channel_binding is none of/],
    ['channel_binding=require&sslmode=disable', '22023', /needs encryption/],
    ['require_auth=scram-sha-256', '0A000', /require_auth is not supported/],
    ['gssencmode=require', '0A000', /gssencmode is not supported/],
    ['sslcertmode=require', '0A000', /sslcertmode is not supported/],
  ])('refuses %s', (query, sqlState, message) => {
    expect(() => of(query)).toThrow(
      expect.objectContaining({ sqlState, message: expect.stringMatching(message) }),
    );
  });

  it('tells no secret', () => {
    for (const query of ['sslpassword=hush&sslcert=/c', 'sslpassword=hush&sslsni=hush'])
      expect(() => of(query)).toThrow(expect.not.stringContaining('hush'));
  });
});

describe('encryptionsOf', () => {
  it.each([
    ['disable', ['plain']],
    ['allow', ['plain', 'tls']],
    ['prefer', ['tls', 'plain']],
    ['require', ['tls']],
    ['verify-ca&sslrootcert=/ca', ['tls']],
    ['verify-full&sslrootcert=/ca', ['tls']],
  ])('%s: %j', (mode, expected) => {
    expect(encryptionsOf(of(`sslmode=${mode}`), 'h')).toEqual(expected);
    expect(encryptionsOf(of(`sslmode=${mode}`), '/run/postgresql')).toEqual(['plain']);
  });
});
