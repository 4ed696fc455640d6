/**
 * TLS with clients: the handshake behind an SSLRequest or from the first byte on, what it found out, and certificates that are
 * exchanged while clients are served.
 *
 *   accept ──▶ handshake ──▶ security of the connection (and perhaps a refusal, to be told over it)
 *                 └─ failed, or the client is gone: rejected, and the socket destroyed
 *
 * Invariant: behind an S nothing is read in the clear: what a client sends there that is no TLS ends the connection.
 * Invariant: new files take effect whole or not at all; with ones that can't be used the old go on, and the log says why.
 *
 * On the way: whoever accepts (session/login.ts) goes on with the socket that it gets here.
 */
import { constants, createPrivateKey, randomBytes, X509Certificate } from 'node:crypto';
import type { Socket } from 'node:net';
import { createSecureContext, type SecureContext, TLSSocket } from 'node:tls';
import { invalidParameter, PosternError } from '../base/errors.ts';
import type { TlsVersion } from '../pg/dsn-tls.ts';
import { peerCertificate, subjectOf, tlsServerEndPoint } from './certificate.ts';
import { fileStamp, readKeyFile, readTlsFile } from './tls-files.ts';
import { tlsReason } from './tls-reason.ts';

export interface ClientTlsOptions {
  /** PEM files; of a chain, the server's own certificate comes first. */
  readonly certificateFile: string;
  readonly keyFile: string;
  readonly keyPassphrase?: string | undefined;
  /** Who signs the certificates of clients. Default: none is asked for. */
  readonly clientCaFile?: string | undefined;
  readonly clientCrlFile?: string | undefined;
  /** Default: TLSv1.2. */
  readonly minimumVersion?: TlsVersion | undefined;
  /** OpenSSL's list, for TLS 1.2 and 1.3 together. Default: Node's. */
  readonly ciphers?: string | undefined;
}

export interface ClientSecurity {
  readonly encrypted: boolean;
  /** `TLSv1.3`. */
  readonly protocol?: string | undefined;
  /** What channel binding of the type tls-server-end-point is about; undefined: SCRAM-SHA-256-PLUS can't be offered. */
  readonly serverEndPoint?: Buffer | undefined;
  /** The client's, if it has given one; it is signed by an authority that is named for that, and valid. */
  readonly certificate?: ClientCertificate | undefined;
}

export interface ClientCertificate {
  /** The first CN; '' if there is none that can be trusted, which is nobody's name. */
  readonly commonName: string;
  /** As RFC 2253 writes it, like PostgreSQL's clientdn: `CN=ann,OU=Till,O=Shop`. */
  readonly distinguishedName: string;
}

/** Of a connection without TLS. */
export const PLAIN: ClientSecurity = { encrypted: false };

export interface AcceptedTls {
  readonly socket: TLSSocket;
  readonly security: ClientSecurity;
  /** The client's certificate is not valid: it is to be told this over `socket`, and closed. */
  readonly refusal: PosternError | undefined;
}

export type TlsStart = 'negotiated' | 'direct';

/** The first byte of a TLS record that begins a handshake; no start-up packet begins with it. */
const HANDSHAKE_RECORD = 0x16;

/** Do the first bytes of a connection start TLS directly, as PostgreSQL 17's clients may? */
export function startsTls(firstBytes: Buffer): boolean {
  return firstBytes[0] === HANDSHAKE_RECORD;
}

interface TlsLog {
  info(message: string): void;
  warn(message: string): void;
}

/** How often the files are looked at. */
const LOOK_INTERVAL_MS = 10_000;
/** A certificate that runs out within this is warned of when it is loaded. */
const EXPIRY_WARNING_MS = 14 * 86_400_000;
/** The name of the protocol for ALPN, which a direct start has to give. */
const ALPN = 'postgresql';
/** Resumed sessions would skip a certificate that was revoked meanwhile, so with certificates of clients there are none. */
const SESSION_CONTEXT = randomBytes(16).toString('hex');

/** All that one set of files gives. */
interface Material {
  readonly context: SecureContext;
  readonly asksForCertificate: boolean;
  readonly serverEndPoint: Buffer | undefined;
  readonly expiresAtMs: number;
  readonly description: string;
}

export class ClientTls {
  /** Since the start; for metrics. */
  readonly counters = {
    handshakes: 0,
    failedHandshakes: 0,
    refusedCertificates: 0,
    reloads: 0,
    failedReloads: 0,
  };
  readonly #log: TlsLog;
  #options: ClientTlsOptions | undefined;
  #material: Material | undefined;
  /** Of the files as they were looked at last, whether they could be used or not. */
  #stamp: string;
  readonly #lookout: NodeJS.Timeout;

  /** Throws 22023, saying which file can't be used and why. Without options, TLS is off. */
  constructor(options: ClientTlsOptions | undefined, log: TlsLog = { info() {}, warn() {} }) {
    this.#log = log;
    this.#options = options;
    this.#stamp = stampOf(options);
    this.#material = options && load(options);
    this.#warnOfExpiry();
    this.#lookout = setInterval(() => this.look(), LOOK_INTERVAL_MS);
    this.#lookout.unref();
  }

  /** Is TLS spoken at all? Otherwise an SSLRequest is answered with N, and a direct start is closed without a word. */
  get enabled(): boolean {
    return this.#material !== undefined;
  }

  /** When the certificate runs out, in ms since 1970; undefined: TLS is off. */
  get certificateExpiresAtMs(): number | undefined {
    return this.#material?.expiresAtMs;
  }

  /** Throws as the constructor does, and then goes on as before. Connections that are open stay as they are. */
  reload(options: ClientTlsOptions | undefined): void {
    const stamp = stampOf(options);
    const material = options && load(options);
    this.#options = options;
    this.#stamp = stamp;
    this.#use(material);
  }

  /** Loads the files if they have changed. Comes by itself every ten seconds. */
  look(): void {
    const stamp = stampOf(this.#options);
    if (stamp === this.#stamp || !this.#options) return;
    this.#stamp = stamp;
    try {
      this.#use(load(this.#options));
    } catch (error) {
      this.counters.failedReloads++;
      this.#log.warn(
        `the changed TLS files are not used: ${error instanceof Error ? error.message : String(error)}`,
      );
    }
  }

  close(): void {
    clearInterval(this.#lookout);
  }

  /**
   * Takes over `socket`, from which the caller reads no more (its 'data' listener is gone). `early`: what was read of it
   * already, for a direct start; nothing otherwise (the caller has refused bytes behind an SSLRequest before it says S).
   * Rejects when there is no handshake; `socket` is destroyed then, and the error is for the log. The bound is the caller's,
   * who destroys `socket`.
   */
  accept(socket: Socket, early: Buffer, start: TlsStart): Promise<AcceptedTls> {
    const material = this.#material;
    if (!material || socket.destroyed) {
      socket.destroy();
      return Promise.reject(new Error(material ? 'the client has gone' : 'TLS is off'));
    }
    socket.pause();
    if (early.length > 0) socket.unshift(early);
    const secure = new TLSSocket(socket, {
      isServer: true,
      secureContext: material.context,
      requestCert: material.asksForCertificate,
      // Whether a certificate is needed is for the rules of authentication; one that is wrong is refused below.
      rejectUnauthorized: false,
      ALPNProtocols: [ALPN],
    });
    return new Promise((resolve, reject) => {
      const fail = (error: Error): void => {
        if (isOpen || hasFailed) return;
        hasFailed = true;
        this.counters.failedHandshakes++;
        secure.destroy();
        socket.destroy();
        reject(new Error(`no TLS with the client: ${tlsReason(error)}`));
      };
      let isOpen = false;
      let hasFailed = false;
      // Node tells a server's socket of errors by this event, before the handshake and after it.
      secure.on('_tlsError', (error: Error) => {
        fail(error);
        secure.destroy();
      });
      secure.on('error', fail);
      secure.on('close', () => fail(new Error('the client closed the connection')));
      secure.once('secure', () => setImmediate(onSecure));
      // Not before OpenSSL's own stack is left: a socket that is destroyed on it takes the process with it.
      const onSecure = (): void => {
        if (hasFailed) return;
        if (start === 'direct' && secure.alpnProtocol !== ALPN) {
          // Whoever speaks another protocol is told nothing in this one.
          fail(new Error('a direct start without ALPN'));
          return;
        }
        isOpen = true;
        this.counters.handshakes++;
        const refusal = refusalOf(secure);
        if (refusal) this.counters.refusedCertificates++;
        const security = securityOf(secure, material, refusal === undefined);
        resolve({ socket: secure, security, refusal });
      };
    });
  }

  #use(material: Material | undefined): void {
    const before = this.#material;
    this.#material = material;
    this.counters.reloads++;
    if (material && material.description !== before?.description)
      this.#log.info(`TLS with clients: ${material.description}`);
    this.#warnOfExpiry();
  }

  #warnOfExpiry(): void {
    const material = this.#material;
    if (!material || material.expiresAtMs - Date.now() > EXPIRY_WARNING_MS) return;
    const isOver = material.expiresAtMs <= Date.now();
    this.#log.warn(
      `the certificate of tls.certificate_file ${isOver ? 'has run out' : 'runs out soon'}: ${material.description}`,
    );
  }
}

/** What is wrong with the certificate that the client has given. */
function refusalOf(secure: TLSSocket): PosternError | undefined {
  if (!peerCertificate(secure)) return undefined;
  // Node looks at the result itself for sockets of its own servers alone.
  const { ssl } = secure as unknown as { ssl: { verifyError(): (Error & { code?: string }) | null } };
  const error = ssl.verifyError();
  if (!error) return undefined;
  return new PosternError({
    sqlState: '28000',
    message: 'connection requires a valid client certificate',
    detail: error.message,
  });
}

function securityOf(secure: TLSSocket, material: Material, isVerified: boolean): ClientSecurity {
  const given = isVerified ? peerCertificate(secure) : undefined;
  const subject = given && subjectOf(given);
  return {
    encrypted: true,
    protocol: secure.getProtocol() ?? undefined,
    serverEndPoint: material.serverEndPoint,
    certificate: subject && {
      commonName: subject.commonName ?? '',
      distinguishedName: subject.distinguishedName,
    },
  };
}

function stampOf(options: ClientTlsOptions | undefined): string {
  if (!options) return '';
  const { certificateFile, keyFile, clientCaFile, clientCrlFile } = options;
  return [certificateFile, keyFile, clientCaFile, clientCrlFile]
    .map((file) => (file === undefined ? '' : (fileStamp(file) ?? 'missing')))
    .join(' ');
}

function load(options: ClientTlsOptions): Material {
  const { certificateFile, clientCaFile, clientCrlFile } = options;
  const cert = readTlsFile(certificateFile, 'tls.certificate_file');
  const key = readKeyFile(options.keyFile, 'tls.key_file');
  const certificate = readCertificate(cert, certificateFile);
  checkKey(certificate, key, options);
  const asksForCertificate = clientCaFile !== undefined;
  if (clientCrlFile !== undefined && !asksForCertificate)
    throw invalidParameter('tls.client_crl_file needs tls.client_ca_file: it is that authority that revokes');
  let context: SecureContext;
  try {
    context = createSecureContext({
      ...{ cert, key },
      ...(options.keyPassphrase === undefined ? {} : { passphrase: options.keyPassphrase }),
      ...(clientCaFile === undefined ? {} : { ca: readAuthorities(clientCaFile) }),
      ...(clientCrlFile === undefined ? {} : { crl: readTlsFile(clientCrlFile, 'tls.client_crl_file') }),
      ...(options.ciphers === undefined ? {} : { ciphers: options.ciphers }),
      minVersion: options.minimumVersion ?? 'TLSv1.2',
      honorCipherOrder: true,
      sessionIdContext: SESSION_CONTEXT,
      secureOptions:
        constants.SSL_OP_NO_RENEGOTIATION | (asksForCertificate ? constants.SSL_OP_NO_TICKET : 0),
    });
  } catch (error) {
    if (error instanceof PosternError) throw error;
    const what = clientCrlFile === undefined ? 'or tls.ciphers' : 'tls.ciphers or tls.client_crl_file';
    throw invalidParameter(
      `the certificate and key of tls.certificate_file and tls.key_file, ${what} can't be used: ${tlsReason(error)}`,
    );
  }
  return {
    ...{ context, asksForCertificate },
    serverEndPoint: tlsServerEndPoint(certificate.raw),
    expiresAtMs: Date.parse(certificate.validTo),
    description: `${certificateFile}, ${certificate.subject.replaceAll('\n', ', ')}, valid until ${new Date(certificate.validTo).toISOString()}`,
  };
}

function readCertificate(pem: Buffer, file: string): X509Certificate {
  try {
    // Of several, the first is taken.
    return new X509Certificate(pem);
  } catch {
    throw invalidParameter(`tls.certificate_file "${file}" holds no certificate in PEM`);
  }
}

/** Each with its own words: what is wrong with a key is the commonest mistake of all. */
function checkKey(certificate: X509Certificate, pem: Buffer, options: ClientTlsOptions): void {
  const file = `tls.key_file "${options.keyFile}"`;
  const { keyPassphrase } = options;
  if (keyPassphrase === undefined && pem.includes('ENCRYPTED'))
    throw invalidParameter(
      `${file} is encrypted`,
      'Name the variable of its passphrase with tls.key_passphrase_env.',
    );
  let matches: boolean;
  try {
    const passphrase = keyPassphrase === undefined ? {} : { passphrase: keyPassphrase };
    matches = certificate.checkPrivateKey(createPrivateKey({ key: pem, ...passphrase }));
  } catch {
    throw invalidParameter(
      keyPassphrase === undefined
        ? `${file} holds no private key in PEM`
        : `${file} can't be read: its passphrase is another, or it holds no private key in PEM`,
    );
  }
  if (!matches)
    throw invalidParameter(`${file} is not the key of tls.certificate_file "${options.certificateFile}"`);
}

function readAuthorities(file: string): Buffer {
  const pem = readTlsFile(file, 'tls.client_ca_file');
  // OpenSSL passes over a file without certificates, and then nobody's would be valid.
  if (!pem.includes('-----BEGIN CERTIFICATE-----') && !pem.includes('-----BEGIN TRUSTED CERTIFICATE-----'))
    throw invalidParameter(`tls.client_ca_file "${file}" holds no certificate in PEM`);
  return pem;
}
