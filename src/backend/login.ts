/**
 * Opens a backend connection: TCP, TLS, start-up, authentication (trust, cleartext, md5, SCRAM-SHA-256 with channel binding
 * and without), up to the first ReadyForQuery.
 *
 * States: connecting → authenticating → starting (parameters, key) → open, or failed from any of them.
 */
import { randomBytes } from 'node:crypto';
import { BOUNDS } from '../base/bounds.ts';
import { cannotConnect, otherVerifier, PosternError } from '../base/errors.ts';
import type { Host } from '../pg/dsn.ts';
import type { Encryption } from '../pg/dsn-tls.ts';
import type { FlushQueue } from '../platform/flush-queue.ts';
import { tryHosts } from '../platform/hosts.ts';
import { connectToNode, type NodeSocket, TlsFailed, tryEncryptions } from '../platform/node-tls.ts';
import { socketReason } from '../platform/tls-reason.ts';
import {
  readAuthentication,
  readBackendKeyData,
  readErrorFields,
  readParameterStatus,
} from '../wire/backend.ts';
import { type ClientBinding, chooseScram } from '../wire/channel-binding.ts';
import { FrameReader } from '../wire/frame-reader.ts';
import { FrameWriter } from '../wire/frame-writer.ts';
import { encodePassword, encodeSaslInitial, encodeSaslResponse } from '../wire/frontend.ts';
import { md5Hash, md5Response } from '../wire/md5-password.ts';
import { Backend } from '../wire/message-types.ts';
import {
  answerServerFirst,
  checkServerFinal,
  OtherDerivation,
  type ScramClientProof,
  type ScramClientStart,
  startScramClient,
} from '../wire/scram.ts';
import { encodeStartup } from '../wire/startup.ts';
import { type BackendAddress, BackendConnection } from './connection.ts';
import type { Credential } from './credential.ts';

export interface BackendLogin {
  readonly address: BackendAddress;
  /** Of which one is the primary; default: the address's alone. */
  readonly hosts?: readonly Host[] | undefined;
  /** Told when a statement fails since the server's disk is full. */
  readonly onDiskFull?: (() => void) | undefined;
  readonly database: string;
  readonly user: string;
  readonly credential: Credential;
  readonly flushQueue: FlushQueue;
  /** Have the server notice soon when this router is gone. Servers behind a pooler that refuses such settings can't. */
  readonly keepalives?: boolean | undefined;
}

/** Every failure is a PosternError: 08001 when the node can't be reached, the server's own SQLSTATE when it refuses. */
export function openBackend(login: BackendLogin): Promise<BackendConnection> {
  const { address } = login;
  return tryHosts({
    nodeName: address.nodeName,
    hosts: login.hosts ?? [address],
    open: ({ host, port }) => openOn({ ...login, address: { ...address, host, port } }),
    // Told at the login, since PostgreSQL 14.
    isPrimary: (connection) => connection.parameters.get('in_hot_standby') !== 'on',
    close: (connection) => connection.destroy(),
  });
}

/** The server does not let in whoever comes like this (no line of its pg_hba.conf): it may without TLS, or with it. */
const REFUSED_BY_RULE = '28000';

function openOn(login: BackendLogin): Promise<BackendConnection> {
  return tryEncryptions(
    login.address,
    (encryption) => openWith(login, encryption),
    (error) =>
      error instanceof PosternError &&
      (error.sqlState === REFUSED_BY_RULE || error.cause instanceof TlsFailed),
  );
}

async function openWith(login: BackendLogin, encryption: Encryption): Promise<BackendConnection> {
  const { address } = login;
  const deadlineMs = performance.now() + BOUNDS.backendConnectTimeoutMs;
  let opened: NodeSocket;
  try {
    opened = await connectToNode({ ...address, timeoutMs: BOUNDS.backendConnectTimeoutMs }, encryption);
  } catch (error) {
    const failure = cannotConnect(address.nodeName, error instanceof Error ? error.message : String(error));
    failure.cause = error;
    throw failure;
  }
  const { socket } = opened;
  return new Promise((resolve, reject) => {
    const reader = new FrameReader({ frameBytesMax: BOUNDS.serverFrameBytesMax });
    const handshake = new Handshake(login, opened.serverEndPoint);
    const finish = (outcome: BackendConnection | PosternError): void => {
      clearTimeout(timer);
      if (outcome instanceof BackendConnection) {
        resolve(outcome);
        return;
      }
      socket.removeAllListeners();
      socket.on('error', () => {});
      socket.destroy();
      reject(outcome);
    };
    const timer = setTimeout(
      () => finish(cannotConnect(address.nodeName, `no login within ${BOUNDS.backendConnectTimeoutMs} ms`)),
      Math.max(deadlineMs - performance.now(), 1),
    );
    socket.on('error', (error) => finish(cannotConnect(address.nodeName, socketReason(error))));
    socket.on('close', () =>
      finish(cannotConnect(address.nodeName, 'the server closed the connection during the login')),
    );
    const onData = async (chunk: Buffer): Promise<void> => {
      try {
        reader.push(chunk);
        while (reader.next()) {
          // The server says nothing more while it waits for an answer, so none of its frames is passed over here.
          const answer = await handshake.onFrame(reader);
          if (answer) socket.write(answer);
          if (!handshake.done) continue;
          // Nothing comes unasked here but a notice, which is nobody's.
          while (reader.next());
          socket.removeAllListeners();
          finish(
            new BackendConnection({
              address,
              user: login.user,
              socket,
              reader,
              parameters: handshake.parameters,
              processId: handshake.processId,
              secretKey: handshake.secretKey,
              onDiskFull: login.onDiskFull,
              flushQueue: login.flushQueue,
            }),
          );
          return;
        }
      } catch (error) {
        finish(
          error instanceof PosternError
            ? error
            : cannotConnect(address.nodeName, error instanceof Error ? error.message : String(error)),
        );
      }
    };
    socket.on('data', (chunk: Buffer) => void onData(chunk));
    socket.write(handshake.start());
  });
}

/**
 * Towards a router that is gone without a word (its machine, its network): the server ends the session within half a minute, and
 * with it a transaction that holds locks. Over TCP alone: a Unix socket has none of these.
 */
const KEEPALIVES: readonly (readonly [string, string])[] = [
  ['tcp_keepalives_idle', '10'],
  ['tcp_keepalives_interval', '5'],
  ['tcp_keepalives_count', '3'],
  ['tcp_user_timeout', '25000'],
];

class Handshake {
  done = false;
  processId = 0;
  secretKey: Buffer = Buffer.alloc(4);
  readonly parameters = new Map<string, string>();
  readonly #login: BackendLogin;
  readonly #writer = new FrameWriter(1024);
  #scramStart: ScramClientStart | undefined;
  #scramProof: ScramClientProof | undefined;
  #isServerProved = false;
  readonly #binding: ClientBinding;
  #isBound = false;

  constructor(login: BackendLogin, serverEndPoint: Buffer | undefined) {
    this.#login = login;
    this.#binding = { serverEndPoint, channelBinding: login.address.tls.channelBinding };
  }

  start(): Buffer {
    encodeStartup(
      this.#writer,
      new Map([
        ['user', this.#login.user],
        ['database', this.#login.database],
        ['client_encoding', 'UTF8'],
        ...(this.#login.keepalives && !this.#login.address.host.startsWith('/') ? KEEPALIVES : []),
      ]),
    );
    return this.#writer.take();
  }

  /** What to send back, if anything. */
  onFrame(reader: FrameReader): Buffer | undefined | Promise<Buffer> {
    switch (reader.type) {
      case Backend.Authentication:
        return this.#onAuthentication(reader);
      case Backend.ParameterStatus: {
        const { name, value } = readParameterStatus(reader);
        this.parameters.set(name, value);
        return undefined;
      }
      case Backend.BackendKeyData: {
        const key = readBackendKeyData(reader);
        this.processId = key.pid;
        this.secretKey = Buffer.from(key.secretKey);
        return undefined;
      }
      case Backend.ReadyForQuery:
        this.done = true;
        return undefined;
      case Backend.ErrorResponse:
        throw this.#refused(readErrorFields(reader));
      default:
        return undefined; // NoticeResponse, NegotiateProtocolVersion: nothing to do.
    }
  }

  #onAuthentication(reader: FrameReader): Buffer | undefined | Promise<Buffer> {
    const request = readAuthentication(reader);
    const writer = this.#writer;
    switch (request.kind) {
      case 'ok':
        if (this.#scramStart && !this.#isServerProved) break;
        if (this.#needsBinding && !this.#isBound) break;
        return undefined;
      case 'cleartext':
        if (this.#needsBinding) break;
        encodePassword(writer, this.#password('the password itself'));
        return writer.take();
      case 'md5':
        if (this.#needsBinding) break;
        encodePassword(writer, md5Response(this.#md5Hash(), request.salt));
        return writer.take();
      case 'sasl': {
        const scram = chooseScram(request.mechanisms, this.#binding);
        if (!scram) break;
        const { state, clientFirst } = startScramClient(randomBytes(18).toString('base64'), scram.gs2);
        this.#scramStart = state;
        this.#isBound = scram.gs2.isBound;
        encodeSaslInitial(writer, scram.mechanism, clientFirst);
        return writer.take();
      }
      case 'saslContinue':
        if (!this.#scramStart) break;
        return this.#prove(this.#scramStart, request.data);
      case 'saslFinal':
        if (!this.#scramProof) break;
        checkServerFinal(this.#scramProof, request.data);
        this.#isServerProved = true;
        return undefined;
      case 'other':
        break;
    }
    throw cannotConnect(
      this.#login.address.nodeName,
      this.#needsBinding && !this.#isBound
        ? 'channel_binding=require, and it did not offer an authentication method that supports channel binding'
        : 'it asks for a method of authentication that Postern does not speak',
    );
  }

  get #needsBinding(): boolean {
    return this.#binding.channelBinding === 'require';
  }

  async #prove(start: ScramClientStart, serverFirst: string): Promise<Buffer> {
    const { credential } = this.#login;
    const secret = credential.kind === 'scramKeys' ? credential : this.#password('the password or its keys');
    try {
      const { state, clientFinal } = await answerServerFirst(start, secret, serverFirst);
      this.#scramProof = state;
      encodeSaslResponse(this.#writer, clientFinal);
      return this.#writer.take();
    } catch (error) {
      if (!(error instanceof OtherDerivation)) throw error;
      throw otherVerifier(this.#login.address.nodeName, this.#login.user);
    }
  }

  #md5Hash(): string {
    const { credential, user } = this.#login;
    return credential.kind === 'md5Hash' ? credential.hash : md5Hash(user, this.#password('the password'));
  }

  #password(wanted: string): string {
    const { credential, user, address } = this.#login;
    if (credential.kind === 'password') return credential.password;
    throw credential.kind === 'none'
      ? cannotConnect(address.nodeName, `it asks for the password of role "${user}", and Postern knows none`)
      : cannotConnect(
          address.nodeName,
          `it asks for ${wanted} of role "${user}", and Postern has ${credential.kind === 'md5Hash' ? 'an md5 hash of it alone' : 'the keys of its SCRAM verifier alone'}`,
        );
  }

  /** The server's own refusal, with the node's name before it. */
  #refused(fields: Map<string, string>): PosternError {
    return new PosternError({
      sqlState: fields.get('C') ?? '08001',
      message: `node "${this.#login.address.nodeName}": ${fields.get('M') ?? 'login refused'}`,
      detail: fields.get('D'),
      hint: fields.get('H'),
    });
  }
}
