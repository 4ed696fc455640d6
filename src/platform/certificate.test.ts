/** The oracle is openssl's command line. */
import { execFileSync } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Certificates, type IssueOptions, makeCertificates } from '../../test/support/certificates.ts';
import { subjectOf, tlsServerEndPoint } from './certificate.ts';

let certificates: Certificates;
let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'postern-certificate-'));
  certificates = makeCertificates(directory);
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function der(file: string): Buffer {
  return new X509Certificate(readFileSync(file)).raw;
}

const hash = (name: string, certificate: Buffer) => createHash(name).update(certificate).digest();

describe('tlsServerEndPoint', () => {
  it.each(['sha256', 'sha384', 'sha512'] as const)('takes the hash of an ECDSA signature: %s', (digest) => {
    const certificate = der(certificates.issue({ name: `ecdsa-${digest}`, digest }).certificate);
    expect(tlsServerEndPoint(certificate)).toEqual(hash(digest, certificate));
  });

  it('takes SHA-256 in the place of SHA-1', () => {
    const certificate = der(certificates.issue({ name: 'old', digest: 'sha1' }).certificate);
    expect(tlsServerEndPoint(certificate)).toEqual(hash('sha256', certificate));
  });

  const selfSigned = (name: string, ...parameters: readonly string[]): Buffer => {
    const file = join(directory, `${name}.crt`);
    execFileSync(
      'openssl',
      [
        ...['req', '-x509', '-nodes', '-subj', `/CN=${name}`, '-keyout', join(directory, `${name}.key`)],
        ...['-out', file, ...parameters],
      ],
      { stdio: 'ignore' },
    );
    return der(file);
  };

  it('reads the hash of RSA, with PSS out of its parameters', () => {
    const rsa = selfSigned('rsa', '-newkey', 'rsa:2048', '-sha384');
    expect(tlsServerEndPoint(rsa)).toEqual(hash('sha384', rsa));
    const pss = selfSigned(
      ...(['pss', '-newkey', 'rsa:2048', '-sha512'] as const),
      ...['-sigopt', 'rsa_padding_mode:pss', '-sigopt', 'rsa_pss_saltlen:-1'],
    );
    expect(tlsServerEndPoint(pss)).toEqual(hash('sha512', pss));
  });

  it('has none for Ed25519, as PostgreSQL has none', () => {
    expect(tlsServerEndPoint(selfSigned('ed', '-newkey', 'ed25519'))).toBeUndefined();
  });
});

describe('subjectOf', () => {
  const inOpenssl = (file: string): string =>
    execFileSync('openssl', ['x509', '-in', file, '-noout', '-subject', '-nameopt', 'RFC2253'], {
      encoding: 'utf8',
    })
      .replace(/^subject=/, '')
      .replace(/\n$/, '');

  it.each<[string, string | undefined]>([
    ['/CN=ann', 'ann'],
    ['/O=Shop/OU=Till/CN=ann b', 'ann b'],
    ['/CN=first/CN=second', 'first'],
    ['/O=Shop', undefined],
    ['/O=a,b\\+c"d\\\\e<f>g;h#/CN=#x ', '#x '],
    ['/O= leading/CN=.', '.'],
    ['/O=Ünïcode/CN=アン', 'アン'],
    ['/O=Shop/CN=ann/emailAddress=ann@shop.example', 'ann'],
    ['/O=Shop+OU=Till/CN=multi', 'multi'],
  ])('%s', (subject, commonName) => {
    const options: IssueOptions = {
      name: `subject-${hash('sha256', Buffer.from(subject)).toString('hex').slice(0, 9)}`,
      subject,
    };
    const { certificate } = certificates.issue(options);
    const read = subjectOf(der(certificate));
    expect(read?.commonName).toBe(commonName);
    expect(read?.distinguishedName).toBe(inOpenssl(certificate));
  });

  it.each([
    // BMPString: with zero bytes in it, it is nobody's.
    ['MASK:2048', 'ann', undefined],
    ['nombstr', 'ann', 'ann'],
    ['nombstr', '\u00e9va', undefined],
    ['utf8only', '\u00e9va', '\u00e9va'],
  ])('takes the bytes of a name in %s as they are: %s', (mask, name, commonName) => {
    const file = join(certificates.directory, 'encoded');
    writeFileSync(
      `${file}.cnf`,
      `[req]\nprompt=no\nutf8=yes\nstring_mask=${mask}\ndistinguished_name=dn\n[dn]\nCN=${name}\n`,
    );
    const key = certificates.server.key;
    execFileSync('openssl', ['req', '-x509', '-key', key, '-config', `${file}.cnf`, '-out', file]);
    expect(subjectOf(der(file))?.commonName).toBe(commonName);
  });

  it('never reads beyond what is there, and never fails on rubbish', () => {
    const whole = der(certificates.server.certificate);
    for (let length = 0; length < whole.length; length++) {
      const cut = whole.subarray(0, length);
      expect(subjectOf(cut)).toBeUndefined();
      expect(tlsServerEndPoint(cut)).toBeUndefined();
    }
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 8 }), (changes) => {
        const changed = Buffer.from(whole);
        for (const [at, byte] of changes) changed[at] = byte;
        subjectOf(changed);
        tlsServerEndPoint(changed);
      }),
      { seed: 1 },
    );
  });
});
