/**
 * A connection to a node's server, encrypted as its connection string asks (pg/dsn-tls.ts): the request for TLS or a direct
 * start, the handshake, what is checked of the certificate.
 *
 *   TCP ──▶ (request ─S─▶) handshake ──▶ checked ──▶ open          one bound on all of it
 *              └─N─▶ open and plain, for `prefer` alone           anything else: rejected, and the socket is gone
 *
 * Invariant: with verify-ca and verify-full nothing that is secret has been sent before the certificate was found right.
 * Invariant: no byte that came in the clear is taken for one that came encrypted (CVE-2021-23222).
 */
import { constants } from 'node:crypto';
import { isIP, type Socket } from 'node:net';
import { createSecureContext, type SecureContext, type TLSSocket, connect as tlsConnect } from 'node:tls';
import { type Encryption, encryptionsOf, type NodeTls } from '../pg/dsn-tls.ts';
import { peerCertificate, tlsServerEndPoint } from './certificate.ts';
import { connect } from './sockets.ts';
import { fileStamp, readKeyFile, readTlsFile } from './tls-files.ts';
import { socketReason, tlsReason } from './tls-reason.ts';

export interface NodeSocket {
  readonly socket: Socket;
  readonly encrypted: boolean;
  /** For channel binding; undefined without TLS, or where its certificate has none. */
  readonly serverEndPoint: Buffer | undefined;
}

export interface NodeReach {
  readonly host: string;
  readonly port: number;
  readonly tls: NodeTls;
  readonly timeoutMs: number;
}

/** There was a server, and no encryption with it. */
export class TlsFailed extends Error {}

/** An SSLRequest (PostgreSQL documentation, "Message Formats"). */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
/** The protocol's name for ALPN. A server that is older than PostgreSQL 17 passes over it. */
const ALPN = 'postgresql';
const CONTEXTS_MAX = 1_000;

/**
 * Gives the first of the ways to connect that works: where sslmode leaves open whether to encrypt, `attempt` is called again
 * with the other way when `isRefusal` says of its error that it may help, or no handshake came about.
 */
export async function tryEncryptions<T>(
  to: { readonly tls: NodeTls; readonly host: string },
  attempt: (encryption: Encryption) => Promise<T>,
  isRefusal: (error: unknown) => boolean = () => false,
): Promise<T> {
  const [first, second] = encryptionsOf(to.tls, to.host);
  try {
    return await attempt(first);
  } catch (error) {
    if (second === undefined || !(error instanceof TlsFailed || isRefusal(error))) throw error;
    // Of two refusals the first is the better one: that of the way that was wanted.
    return attempt(second).catch(() => Promise.reject(error));
  }
}

/** Rejects with a plain Error that says why, or with TlsFailed. */
export async function connectToNode(reach: NodeReach, encryption: Encryption): Promise<NodeSocket> {
  const startedMs = performance.now();
  const { host, port, tls } = reach;
  // What the files hold is looked at first: no server need be bothered when one of them is missing.
  const context = encryption === 'tls' ? contextOf(tls) : undefined;
  const socket = await connect({ host, port, timeoutMs: reach.timeoutMs });
  if (!context) return { socket, encrypted: false, serverEndPoint: undefined };
  const remainingMs = Math.max(reach.timeoutMs - (performance.now() - startedMs), 1);
  try {
    return await within(remainingMs, socket, () => encrypt(socket, reach, context));
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

async function encrypt(socket: Socket, reach: NodeReach, context: SecureContext): Promise<NodeSocket> {
  const { host, tls } = reach;
  if (!tls.direct) {
    const answer = await askForTls(socket);
    if (answer === 'N') {
      if (tls.mode === 'prefer') {
        // The server says nothing before it is spoken to, so nothing can get lost before somebody listens.
        socket.resume();
        return { socket, encrypted: false, serverEndPoint: undefined };
      }
      throw new TlsFailed(`the server does not do TLS, and sslmode=${tls.mode} asks for it`);
    }
  }
  const secure = await handshake(
    tlsConnect({
      socket,
      host,
      secureContext: context,
      // A server name is for names: TLS allows no address there.
      ...(tls.namesServer && isIP(host) === 0 ? { servername: host } : {}),
      rejectUnauthorized: tls.verify !== 'nothing',
      ...(tls.verify === 'host' ? {} : { checkServerIdentity: () => undefined }),
      ALPNProtocols: [ALPN],
    }),
  );
  if (tls.direct && secure.alpnProtocol !== ALPN)
    throw new TlsFailed(
      'the server took TLS without a word of the PostgreSQL protocol (ALPN): it is another kind of server',
    );
  const certificate = peerCertificate(secure);
  return {
    socket: secure,
    encrypted: true,
    serverEndPoint:
      certificate && tls.channelBinding !== 'disable' ? tlsServerEndPoint(certificate) : undefined,
  };
}

/** Resolves with S or N. */
function askForTls(socket: Socket): Promise<'S' | 'N'> {
  return new Promise((resolve, reject) => {
    const done = (): void => {
      socket.off('error', onError).off('close', onClose).off('data', onData);
      socket.pause();
    };
    const onError = (error: Error): void => {
      done();
      reject(new TlsFailed(socketReason(error)));
    };
    const onClose = (): void =>
      onError(new Error('the server closed the connection when it was asked for TLS'));
    const onData = (answer: Buffer): void => {
      done();
      const said = String.fromCharCode(answer[0]!);
      if (answer.length > 1)
        reject(new TlsFailed('received unencrypted data after the answer to the TLS request'));
      else if (said === 'S' || said === 'N') resolve(said);
      // What it says is not shown: nobody knows who says it (CVE-2024-10977).
      else reject(new TlsFailed('the server sent an error, or no answer, to the TLS request'));
    };
    socket.on('error', onError).on('close', onClose).on('data', onData);
    socket.write(SSL_REQUEST);
  });
}

function handshake(secure: TLSSocket): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const done = (): void => {
      secure.off('secureConnect', onSecure).off('error', onError).off('close', onClose);
    };
    const onSecure = (): void => {
      // Not before OpenSSL's own stack is left: a socket that is destroyed on it takes the process with it.
      setImmediate(() => {
        if (hasFailed) return;
        done();
        resolve(secure);
      });
    };
    let hasFailed = false;
    const onError = (error: Error): void => {
      hasFailed = true;
      done();
      // One that is destroyed may have more to say.
      secure.on('error', () => {});
      secure.destroy();
      reject(new TlsFailed(handshakeReason(error)));
    };
    const onClose = (): void => onError(new Error('the server closed the connection'));
    secure.on('secureConnect', onSecure).on('error', onError).on('close', onClose);
  });
}

async function within<T>(timeoutMs: number, socket: Socket, work: () => Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`no TLS within ${Math.round(timeoutMs)} ms`));
      socket.destroy();
    }, timeoutMs);
  });
  const result = work();
  result.catch(() => {});
  try {
    return await Promise.race([result, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Contexts by all that they were made of; a file that changes makes another. */
const contexts = new Map<string, SecureContext>();

function contextOf(tls: NodeTls): SecureContext {
  const files = [tls.roots, tls.certificateFile, tls.keyFile, tls.revocationFile];
  const stamps = files.map((file) => (file === undefined || file === 'system' ? file : fileStamp(file)));
  const key = JSON.stringify([files, stamps, tls.keyPassphrase, tls.minimumVersion, tls.maximumVersion]);
  const known = contexts.get(key);
  if (known) return known;
  const context = makeContext(tls);
  if (contexts.size >= CONTEXTS_MAX) contexts.clear();
  contexts.set(key, context);
  return context;
}

function makeContext(tls: NodeTls): SecureContext {
  const { roots, certificateFile, keyFile, revocationFile } = tls;
  const parts = {
    ...(roots === undefined || roots === 'system'
      ? {}
      : { ca: readTlsFile(roots, 'the root certificates of sslrootcert') }),
    ...(certificateFile === undefined
      ? {}
      : { cert: readTlsFile(certificateFile, 'the certificate of sslcert') }),
    ...(keyFile === undefined ? {} : { key: readKeyFile(keyFile, 'the private key of sslkey') }),
    ...(revocationFile === undefined
      ? {}
      : { crl: readTlsFile(revocationFile, 'the revocation list of sslcrl') }),
  };
  try {
    return createSecureContext({
      ...parts,
      ...(tls.keyPassphrase === undefined ? {} : { passphrase: tls.keyPassphrase }),
      minVersion: tls.minimumVersion,
      ...(tls.maximumVersion === undefined ? {} : { maxVersion: tls.maximumVersion }),
      secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
    });
  } catch (error) {
    throw new Error(`the files of sslrootcert, sslcert, sslkey or sslcrl can't be used: ${tlsReason(error)}`);
  }
}

/** Codes of what is wrong with a certificate come from OpenSSL's verification, in capitals and without a prefix. */
function handshakeReason(error: Error): string {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return `the server's certificate is for another host: ${error.message}`;
  if (code !== undefined && /^(?:UNABLE|CERT|CRL|SELF|DEPTH|INVALID|PATH|HOSTNAME|ERROR_IN)_/.test(code))
    return `the server's certificate is not to be trusted: ${error.message}`;
  return `no TLS with the server: ${tlsReason(error)}`;
}
