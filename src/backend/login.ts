/**
 * Opens a backend connection: TCP, start-up, authentication (trust, cleartext, md5, SCRAM-SHA-256), up to the first
 * ReadyForQuery.
 *
 * States: connecting → authenticating → starting (parameters, key) → open, or failed from any of them.
 */
import { randomBytes } from 'node:crypto';
import { BOUNDS } from '../base/bounds.ts';
import { cannotConnect, PosternError } from '../base/errors.ts';
import type { FlushQueue } from '../platform/flush-queue.ts';
import { connect } from '../platform/sockets.ts';
import {
  readAuthentication,
  readBackendKeyData,
  readErrorFields,
  readParameterStatus,
} from '../wire/backend.ts';
import { FrameReader } from '../wire/frame-reader.ts';
import { FrameWriter } from '../wire/frame-writer.ts';
import { encodePassword, encodeSaslInitial, encodeSaslResponse } from '../wire/frontend.ts';
import { Backend } from '../wire/message-types.ts';
import {
  answerServerFirst,
  checkServerFinal,
  md5PasswordResponse,
  SCRAM_MECHANISM,
  type ScramClientProof,
  type ScramClientStart,
  startScramClient,
} from '../wire/scram.ts';
import { encodeStartup } from '../wire/startup.ts';
import { type BackendAddress, BackendConnection } from './connection.ts';

export interface BackendLogin {
  readonly address: BackendAddress;
  readonly database: string;
  readonly user: string;
  readonly password: string | undefined;
  readonly flushQueue: FlushQueue;
  /** Have the server notice soon when this router is gone. Servers behind a pooler that refuses such settings can't. */
  readonly keepalives?: boolean | undefined;
}

/** Every failure is a PosternError: 08001 when the node can't be reached, the server's own SQLSTATE when it refuses. */
export async function openBackend(login: BackendLogin): Promise<BackendConnection> {
  const { address } = login;
  let socket: Awaited<ReturnType<typeof connect>>;
  try {
    socket = await connect({
      host: address.host,
      port: address.port,
      timeoutMs: BOUNDS.backendConnectTimeoutMs,
    });
  } catch (error) {
    throw cannotConnect(address.nodeName, error instanceof Error ? error.message : String(error));
  }
  return new Promise((resolve, reject) => {
    const reader = new FrameReader({ frameBytesMax: BOUNDS.serverFrameBytesMax });
    const handshake = new Handshake(login);
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
      BOUNDS.backendConnectTimeoutMs,
    );
    socket.on('error', (error) => finish(cannotConnect(address.nodeName, error.message)));
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

  constructor(login: BackendLogin) {
    this.#login = login;
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
        return undefined;
      case 'cleartext':
        encodePassword(writer, this.#password());
        return writer.take();
      case 'md5':
        encodePassword(
          writer,
          md5PasswordResponse({ user: this.#login.user, password: this.#password(), salt: request.salt }),
        );
        return writer.take();
      case 'sasl': {
        if (!request.mechanisms.includes(SCRAM_MECHANISM)) break;
        const { state, clientFirst } = startScramClient(randomBytes(18).toString('base64'));
        this.#scramStart = state;
        encodeSaslInitial(writer, SCRAM_MECHANISM, clientFirst);
        return writer.take();
      }
      case 'saslContinue':
        if (!this.#scramStart) break;
        return this.#prove(this.#scramStart, request.data);
      case 'saslFinal':
        if (!this.#scramProof) break;
        checkServerFinal(this.#scramProof, request.data);
        return undefined;
      case 'other':
        break;
    }
    throw cannotConnect(
      this.#login.address.nodeName,
      'it asks for a method of authentication that Postern does not speak',
    );
  }

  async #prove(start: ScramClientStart, serverFirst: string): Promise<Buffer> {
    const { state, clientFinal } = await answerServerFirst(start, this.#password(), serverFirst);
    this.#scramProof = state;
    encodeSaslResponse(this.#writer, clientFinal);
    return this.#writer.take();
  }

  #password(): string {
    if (this.#login.password !== undefined) return this.#login.password;
    throw cannotConnect(
      this.#login.address.nodeName,
      `it asks for the password of role "${this.#login.user}", and Postern knows none`,
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
