/**
 * A client's way in: encryption, the start-up packet, authentication, and what it is told before its first ReadyForQuery.
 *
 *   (TLS ──▶) start-up ──▶ rules and challenge ──▶ login-exchange.ts ──▶ admission (settings tried on the home node) ──▶ Session
 *                └─cancel request─▶ handled, closed          any failure ──▶ FATAL, closed
 *
 * Invariant: before the login is complete, a client costs a few kB and at most `loginTimeoutMs`; the socket is read only while it is
 * the client's turn.
 * Invariant: nothing that came before the handshake of TLS is read as if it had come after (CVE-2021-23214).
 */
import type { Socket } from 'node:net';
import type { Attempt } from '../auth/attempt.ts';
import type { Authenticator } from '../auth/authenticator.ts';
import type { Settings } from '../backend/settings.ts';
import { BOUNDS } from '../base/bounds.ts';
import {
  cannotConnect,
  notSupported,
  objectError,
  PosternError,
  protocolNotSupported,
  protocolViolation,
} from '../base/errors.ts';
import type { ClientLog } from '../observe/client-log.ts';
import { type ClientSecurity, type ClientTls, PLAIN, startsTls } from '../platform/client-tls.ts';
import { ServerError } from '../platform/control-connection.ts';
import {
  encodeAuthenticationOk,
  encodeErrorFields,
  encodeErrorResponse,
  encodeNegotiateProtocolVersion,
} from '../wire/backend.ts';
import { FrameReader } from '../wire/frame-reader.ts';
import { FrameWriter } from '../wire/frame-writer.ts';
import { Frontend } from '../wire/message-types.ts';
import { MINOR_VERSION_MAX, readStartup, type StartupPacket } from '../wire/startup.ts';
import { authenticate } from './login-exchange.ts';
import { takeTenant } from './start-up-tenant.ts';
import { startupSettings } from './startup-settings.ts';

/** A frame of the login: a SASL message is far smaller. */
const LOGIN_FRAME_BYTES_MAX = 16 * 1024;
const REFUSED_LINGER_MS = 5_000;

export interface LoggedIn {
  readonly login: ClientLogin;
  readonly socket: Socket;
  readonly reader: FrameReader;
  readonly user: string;
  readonly defaults: Settings;
  readonly minorVersion: number;
  /** Frames that go out before what admission adds. */
  readonly greeting: Buffer;
  readonly log: ClientLog;
  /** As its start-up packet names it. */
  readonly tenant: string | undefined;
}

export interface LoginHost {
  readonly database: string;
  readonly authenticator: Authenticator;
  readonly tls: ClientTls | undefined;
  readonly loginTimeoutMs: number;
  cancel(processId: number, secretKey: Buffer, address: string | undefined): Promise<void>;
  /** Takes over the socket. Rejects with PosternError or ServerError: the client is then told and closed. */
  admit(client: LoggedIn): Promise<void>;
}

type Startup = Extract<StartupPacket, { kind: 'startup' }>;

/** The client has gone, or was told all that it is told: whoever waits for it has nothing left to do. */
class Over extends Error {}

export class ClientLogin {
  /** A whole start-up packet was read. */
  hasStarted = false;
  /** It is the client's turn: nothing is under way for it here. */
  awaitsClient = false;
  /** The one that speaks with the client by now: within TLS, or as it came. */
  #socket: Socket;
  readonly #address: string | undefined;
  #security: ClientSecurity = PLAIN;
  readonly #host: LoginHost;
  readonly #log: ClientLog;
  readonly #writer = new FrameWriter(1024);
  /** Read and not used, before there is a reader. */
  #early: Buffer = Buffer.alloc(0);
  #reader: FrameReader | undefined;
  /** Of what the reader was given when it had nothing. */
  #firstByte = 0;
  #attempt: Attempt | undefined;
  #wake: (() => void) | undefined;
  #isDone = false;
  #isShakingHands = false;
  readonly #timer: NodeJS.Timeout;
  readonly #onData = (chunk: Buffer): void => this.#receive(chunk);

  constructor(socket: Socket, host: LoginHost, log: ClientLog) {
    this.#socket = socket;
    this.#address = socket.remoteAddress;
    this.#host = host;
    this.#log = log;
    this.#timer = setTimeout(
      () =>
        this.refuse(
          new PosternError({ sqlState: '57014', message: 'canceling authentication due to timeout' }),
        ),
      host.loginTimeoutMs,
    );
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#end());
    this.#listen();
    this.#run().catch((error: unknown) => this.refuse(error));
  }

  /** Ends it, whatever it is at. */
  refuse(error: unknown): void {
    if (this.#isDone || error instanceof Over) return;
    this.#end();
    const fatal = asFatal(error);
    this.#log.refused(fatal, this.#attempt?.reason);
    const writer = new FrameWriter(1024);
    if (error instanceof ServerError)
      encodeErrorFields(writer, 'E', new Map([...error.fields, ['S', 'FATAL'], ['V', 'FATAL']]));
    else encodeErrorResponse(writer, fatal);
    const socket = this.#socket;
    // In the middle of a handshake nothing can be told.
    if (this.#isShakingHands) {
      socket.destroy();
      return;
    }
    socket.end(writer.take());
    socket.setTimeout(REFUSED_LINGER_MS, () => socket.destroy());
    // What it has sent is read, or the system would throw away what it is told.
    socket.off('data', this.#onData);
    socket.resume();
  }

  /** The same, without waiting for it to be read. */
  dismiss(error: PosternError): void {
    this.refuse(error);
    this.#socket.destroySoon();
  }

  async #run(): Promise<void> {
    const startup = await this.#negotiate();
    if (!startup) return;
    this.hasStarted = true;
    const { parameters } = startup;
    const user = parameters.get('user') ?? '';
    const database = parameters.get('database') || user;
    const applicationName = parameters.get('application_name');
    this.#log.identify({ role: user, database, applicationName });
    this.#check(startup);
    const { authenticator } = this.#host;
    const attempt = await authenticator.begin({
      ...{ user, database, address: this.#address, security: this.#security },
    });
    this.#attempt = attempt;
    const release = await this.#authenticate(attempt);
    this.#socket.once('close', release);
    if (this.#socket.destroyed) release();
    if (this.#isDone) return;
    await this.#admit({ startup, user, database });
  }

  /** Up to the start-up packet; undefined: the client wanted something else, and has it. */
  async #negotiate(): Promise<Startup | undefined> {
    const asked = { ssl: false, gssenc: false };
    for (;;) {
      // The very first bytes of a connection may be those of TLS.
      if (!asked.ssl && !asked.gssenc && startsTls(this.#early)) {
        asked.ssl = asked.gssenc = true;
        await this.#startTls('direct');
      }
      const packet = readStartup(this.#early);
      if (!packet) {
        await this.#more();
        continue;
      }
      this.#early = this.#early.subarray(packet.bytes);
      switch (packet.kind) {
        case 'ssl':
        case 'gssenc':
          if (asked[packet.kind]) throw askedTwice(packet.kind);
          asked[packet.kind] = true;
          // Bytes behind the request would be a man in the middle's.
          if (this.#early.length > 0)
            throw protocolViolation(
              `received unencrypted data after ${packet.kind === 'ssl' ? 'SSL' : 'GSSAPI encryption'} request`,
            );
          if (packet.kind === 'ssl' && this.#host.tls?.enabled) {
            await this.#startTls('negotiated');
            asked.gssenc = true;
          } else this.#socket.write('N');
          break;
        case 'terminate':
          this.#end();
          this.#socket.end();
          return undefined;
        case 'cancel':
          this.#end();
          await this.#host
            .cancel(packet.pid, packet.secretKey, this.#address)
            .finally(() => this.#socket.end());
          return undefined;
        case 'startup':
          return packet;
      }
    }
  }

  /** From here on `#socket` is the encrypted one. A handshake that fails has been told all it is told by TLS itself. */
  async #startTls(start: 'negotiated' | 'direct'): Promise<void> {
    const { tls } = this.#host;
    const plain = this.#socket;
    const early = this.#early;
    this.#early = Buffer.alloc(0);
    if (!tls?.enabled) {
      this.#end();
      plain.destroy();
      throw new Over();
    }
    plain.off('data', this.#onData);
    this.#isShakingHands = true;
    if (start === 'negotiated') plain.write('S');
    const accepted = await tls.accept(plain, early, start).catch((error: unknown) => {
      if (!this.#isDone)
        this.#log.refused(
          { sqlState: '08P01', message: 'the handshake of TLS has failed' },
          error instanceof Error ? error.message : String(error),
        );
      this.#end();
      plain.destroy();
      throw new Over();
    });
    const { socket } = accepted;
    this.#isShakingHands = false;
    this.#socket = socket;
    this.#security = accepted.security;
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#end());
    if (this.#isDone || socket.destroyed) {
      socket.destroy();
      throw new Over();
    }
    this.#listen();
    if (accepted.refusal) throw accepted.refusal;
  }

  #check(startup: Startup): void {
    const { parameters, minorVersion, unsupportedOptions } = startup;
    if (!parameters.get('user'))
      throw objectError('28000', 'no PostgreSQL user name specified in startup packet');
    const replication = parameters.get('replication');
    if (replication !== undefined && !['0', 'off', 'false', 'no'].includes(replication))
      throw notSupported(
        'replication connections do not go through the router',
        'Connect to the node itself.',
      );
    if (minorVersion > MINOR_VERSION_MAX || unsupportedOptions.length > 0)
      encodeNegotiateProtocolVersion(
        this.#writer,
        Math.min(minorVersion, MINOR_VERSION_MAX),
        unsupportedOptions,
      );
  }

  /** Gives what has to be called when the client has gone. */
  async #authenticate(attempt: Attempt): Promise<() => void> {
    const reader = new FrameReader({ frameBytesMax: LOGIN_FRAME_BYTES_MAX });
    this.#reader = reader;
    if (this.#early.length > 0) this.#push(this.#early);
    this.#early = Buffer.alloc(0);
    const { authenticator } = this.#host;
    try {
      await authenticate(attempt, {
        writer: this.#writer,
        serverEndPoint: this.#security.serverEndPoint,
        answer: async () => {
          this.#socket.write(this.#writer.take());
          const wanted = attempt.challenge.kind === 'scram' ? 'SASL' : 'password';
          const check = (type: number): void => {
            if (type !== Frontend.Password)
              throw protocolViolation(`expected ${wanted} response, got message type ${type}`);
          };
          while (!reader.next()) {
            // Nobody waits for the rest of what is no answer anyway.
            if (reader.bufferedBytes > 0) check(this.#firstByte);
            await this.#more();
          }
          check(reader.type);
          return reader;
        },
      });
      return authenticator.enter(attempt, attempt.finish());
    } catch (error) {
      if (error instanceof PosternError && error.sqlState.startsWith('28'))
        authenticator.failed(attempt.user);
      throw error;
    }
  }

  async #admit(client: { startup: Startup; user: string; database: string }): Promise<void> {
    const { startup, user, database } = client;
    if (database !== this.#host.database)
      throw objectError(
        '3D000',
        `database "${database}" does not exist`,
        `This router serves database "${this.#host.database}".`,
      );
    encodeAuthenticationOk(this.#writer);
    const { settings: defaults, tenant } = takeTenant(startupSettings(startup.parameters));
    const reader = this.#reader!;
    this.#socket.off('data', this.#onData);
    reader.frameBytesMax = BOUNDS.clientFrameBytesMax;
    const { minorVersion } = startup;
    const greeting = this.#writer.take();
    this.#end();
    try {
      const [socket, log] = [this.#socket, this.#log];
      await this.#host.admit({
        login: this,
        socket,
        reader,
        user,
        defaults,
        tenant,
        minorVersion,
        greeting,
        log,
      });
      log.loggedIn({ method: this.#attempt!.methodUsed, encryption: this.#security.protocol });
    } catch (error) {
      this.#isDone = false;
      throw error;
    }
  }

  #listen(): void {
    this.#socket.on('data', this.#onData);
    this.#socket.pause();
  }

  /** Waits for the next bytes of the client, who is read only now. */
  #more(): Promise<void> {
    if (this.#isDone) throw new Over();
    return new Promise((resolve, reject) => {
      this.awaitsClient = true;
      this.#wake = () => {
        this.#wake = undefined;
        this.awaitsClient = false;
        if (this.#isDone) reject(new Over());
        else resolve();
      };
      this.#socket.resume();
    });
  }

  #receive(chunk: Buffer): void {
    this.#socket.pause();
    if (this.#reader) this.#push(chunk);
    else this.#early = this.#early.length === 0 ? chunk : Buffer.concat([this.#early, chunk]);
    this.#wake?.();
  }

  #push(chunk: Buffer): void {
    const reader = this.#reader!;
    if (reader.bufferedBytes === 0) this.#firstByte = chunk[0]!;
    reader.push(chunk);
  }

  #end(): void {
    this.#isDone = true;
    clearTimeout(this.#timer);
    this.#wake?.();
  }
}

/** Of an encryption that was asked for already, PostgreSQL says what it says of a version that it doesn't know. */
function askedTwice(kind: 'ssl' | 'gssenc'): PosternError {
  const code = kind === 'ssl' ? '1234.5679' : '1234.5680';
  return protocolNotSupported(
    `unsupported frontend protocol ${code}: server supports 3.0 to 3.${MINOR_VERSION_MAX}`,
  );
}

function asFatal(error: unknown): PosternError {
  const known =
    error instanceof PosternError
      ? error
      : error instanceof ServerError
        ? { sqlState: error.sqlState, message: error.message, detail: undefined, hint: undefined }
        : cannotConnect('router', error instanceof Error ? error.message : String(error));
  const { sqlState, message, detail, hint } = known;
  return new PosternError({ sqlState, message, detail, hint, severity: 'FATAL' });
}
