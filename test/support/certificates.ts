/**
 * Certificates for tests, made by the openssl command line: two authorities that know nothing of each other, and what they sign.
 * Keys are of the curve P-256, quick to make, and readable by their owner alone. Each certificate is made when it is first asked for.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Files in PEM. */
export interface CertificateFiles {
  readonly certificate: string;
  readonly key: string;
}

export interface IssueOptions {
  /** Of the files, too. */
  readonly name: string;
  /** As in `-subj`: `/O=Shop/CN=ann`. Default: the name as CN. */
  readonly subject?: string;
  /** As in subjectAltName: `DNS:localhost,IP:127.0.0.1`. Default: none. */
  readonly names?: string;
  /** Default: both. */
  readonly usage?: 'serverAuth' | 'clientAuth';
  /** Default: the first authority. */
  readonly by?: 'ca' | 'otherCa';
  /** It ran out yesterday. */
  readonly expired?: boolean;
  /** As `-newkey` and `-pkeyopt` take it. Default: a key of the curve P-256. */
  readonly keyType?: readonly string[];
  /** As `-sigopt` takes it, for the signature of the authority. */
  readonly signatureOption?: string;
  /** Default: sha256. */
  readonly digest?: 'sha256' | 'sha384' | 'sha512' | 'sha1';
  /** The key file is encrypted with this. */
  readonly passphrase?: string;
}

export interface Certificates {
  readonly directory: string;
  /** The certificate of the authority that signs by default, and of one that nobody trusts. */
  readonly ca: string;
  readonly otherCa: string;
  /** For localhost, 127.0.0.1 and ::1. */
  readonly server: CertificateFiles;
  /** For a host of another name: `elsewhere.example`. */
  readonly misnamedServer: CertificateFiles;
  readonly expiredServer: CertificateFiles;
  /** Of a server, signed by the other authority. */
  readonly untrustedServer: CertificateFiles;
  /** Of a client, with this CN alone. */
  client(name: string): CertificateFiles;
  issue(options: IssueOptions): CertificateFiles;
  /** A revocation list of the first authority with the certificates in it. */
  revocationList(revoked: readonly CertificateFiles[]): string;
}

const P256 = ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];

/** @param directory is made if it is not there; whoever made it removes it */
export function makeCertificates(directory: string): Certificates {
  mkdirSync(directory, { recursive: true });
  const file = (name: string): string => join(directory, name);
  const openssl = (...parameters: readonly string[]): string =>
    execFileSync('openssl', parameters, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const made = new Map<string, CertificateFiles>();

  const authority = (name: string, subject: string): string => {
    const certificate = file(`${name}.crt`);
    openssl(
      ...['req', '-x509', '-newkey', ...P256, '-nodes', '-days', '3650', '-subj', subject],
      ...['-keyout', file(`${name}.key`), '-out', certificate],
      ...['-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign'],
    );
    // `openssl ca` signs what has run out, and lists what is revoked.
    writeFileSync(file(`${name}.index`), '');
    writeFileSync(
      file(`${name}.cnf`),
      [
        '[ca]\ndefault_ca = own\n[own]',
        `database = ${file(`${name}.index`)}`,
        `new_certs_dir = ${directory}`,
        `certificate = ${certificate}`,
        `private_key = ${file(`${name}.key`)}`,
        'rand_serial = yes\ndefault_md = sha256\nunique_subject = no\npolicy = any\ncopy_extensions = copy\ndefault_days = 3650',
        'default_crl_days = 3650',
        '[any]\norganizationName = optional\norganizationalUnitName = optional\ncommonName = optional\nemailAddress = optional',
        'countryName = optional\n',
      ].join('\n'),
    );
    return certificate;
  };

  const ca = authority('ca', '/O=Postern tests/CN=Test authority');
  const otherCa = authority('otherCa', '/O=Postern tests/CN=Other authority');

  const issue = (options: IssueOptions): CertificateFiles => {
    const { name, subject = `/CN=${name}`, by = 'ca', keyType = P256, passphrase } = options;
    const known = made.get(name);
    if (known) return known;
    const files = { certificate: file(`${name}.crt`), key: file(`${name}.key`) };
    const usage = options.usage ?? 'serverAuth,clientAuth';
    openssl(
      ...['req', '-new', '-utf8', '-newkey', ...keyType, '-subj', subject, '-keyout', files.key],
      ...(passphrase === undefined ? ['-nodes'] : ['-passout', `pass:${passphrase}`]),
      ...['-out', file(`${name}.csr`), '-addext', `extendedKeyUsage=${usage}`],
      ...(options.names === undefined ? [] : ['-addext', `subjectAltName=${options.names}`]),
    );
    openssl(
      ...[
        'ca',
        '-batch',
        '-notext',
        '-config',
        file(`${by}.cnf`),
        '-preserveDN',
        '-md',
        options.digest ?? 'sha256',
      ],
      ...(options.expired ? ['-startdate', '20200101000000Z', '-enddate', '20200201000000Z'] : []),
      ...(options.signatureOption === undefined ? [] : ['-sigopt', options.signatureOption]),
      ...['-in', file(`${name}.csr`), '-out', files.certificate],
    );
    made.set(name, files);
    return files;
  };

  const LOCAL_NAMES = 'DNS:localhost,IP:127.0.0.1,IP:::1';
  const server = (name: string, more: Partial<IssueOptions> = {}): CertificateFiles =>
    issue({ name, subject: '/CN=localhost', names: LOCAL_NAMES, usage: 'serverAuth', ...more });

  return {
    directory,
    ca,
    otherCa,
    get server() {
      return server('server');
    },
    get misnamedServer() {
      const name = 'elsewhere.example';
      return server('misnamed', { subject: `/CN=${name}`, names: `DNS:${name}` });
    },
    get expiredServer() {
      return server('expired', { expired: true });
    },
    get untrustedServer() {
      return server('untrusted', { by: 'otherCa' });
    },
    client: (name) => issue({ name: `client-${name}`, subject: `/CN=${name}`, usage: 'clientAuth' }),
    issue,
    revocationList(revoked) {
      for (const { certificate } of revoked) openssl('ca', '-config', file('ca.cnf'), '-revoke', certificate);
      const list = file(`revoked-${revoked.length}.crl`);
      openssl('ca', '-config', file('ca.cnf'), '-gencrl', '-out', list);
      return list;
    },
  };
}
