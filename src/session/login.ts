/**
 * A client's way in: encryption requests, the start-up packet, authentication, and what it is told before its first
 * ReadyForQuery.
 *
 *   start-up ──▶ (SASL first ──▶ SASL final ──▶) admission (settings tried on the home node) ──▶ Session
 *      └─cancel request─▶ handled, closed        any failure ──▶ FATAL, closed
 *
 * Invariant: before the login is complete, a client costs a few kB and at most `loginTimeoutMs`.
 */
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { Settings } from '../backend/settings.ts';
import { BOUNDS } from '../base/bounds.ts';
import { cannotConnect, notSupported, objectError, PosternError, protocolViolation } from '../base/errors.ts';
import { refuseSetting } from '../plan/settings.ts';
import { ServerError } from '../platform/control-connection.ts';
import {
  encodeAuthenticationOk,
  encodeAuthenticationSasl,
  encodeAuthenticationSaslContinue,
  encodeAuthenticationSaslFinal,
  encodeErrorFields,
  encodeErrorResponse,
  encodeNegotiateProtocolVersion,
} from '../wire/backend.ts';
import { FrameReader } from '../wire/frame-reader.ts';
import { FrameWriter } from '../wire/frame-writer.ts';
import { readSaslInitial, readSaslResponse } from '../wire/frontend.ts';
import { Frontend } from '../wire/message-types.ts';
import {
  finishScramServer,
  mockScramVerifier,
  SCRAM_MECHANISM,
  type ScramServerState,
  startScramServer,
} from '../wire/scram.ts';
import { MINOR_VERSION_MAX, readStartup, type StartupPacket } from '../wire/startup.ts';
import type { Users } from './users.ts';

/** A frame of the login: a SASL message is far smaller. */
const LOGIN_FRAME_BYTES_MAX = 16 * 1024;

export interface LoggedIn {
  readonly socket: Socket;
  readonly reader: FrameReader;
  readonly user: string;
  readonly defaults: Settings;
  readonly minorVersion: number;
  /** Frames that go out before what admission adds. */
  readonly greeting: Buffer;
}

export interface LoginHost {
  readonly database: string;
  readonly users: Users;
  /** For verifiers of users that don't exist. */
  readonly mockSecret: Buffer;
  readonly loginTimeoutMs: number;
  cancel(processId: number, secretKey: Buffer): Promise<void>;
  /** Takes over the socket. Rejects with PosternError or ServerError: the client is then told and closed. */
  admit(client: LoggedIn): Promise<void>;
}

export class ClientLogin {
  readonly #socket: Socket;
  readonly #host: LoginHost;
  readonly #writer = new FrameWriter();
  #early: Buffer = Buffer.alloc(0);
  #reader: FrameReader | undefined;
  #startup: Extract<StartupPacket, { kind: 'startup' }> | undefined;
  #scram: ScramServerState | undefined;
  #done = false;
  readonly #timer: NodeJS.Timeout;
  readonly #onData = (chunk: Buffer): void => this.#guarded(() => this.#receive(chunk));

  constructor(socket: Socket, host: LoginHost) {
    this.#socket = socket;
    this.#host = host;
    this.#timer = setTimeout(() => {
      this.#refuse(
        new PosternError({ sqlState: '08P01', message: 'canceling authentication due to timeout' }),
      );
    }, host.loginTimeoutMs);
    socket.on('data', this.#onData);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      this.#done = true;
      clearTimeout(this.#timer);
    });
  }

  /** Ends it, whatever it is at. */
  refuse(error: PosternError): void {
    this.#refuse(error);
  }

  #guarded(work: () => void | Promise<void>): void {
    try {
      work()?.catch((error) => this.#refuse(error));
    } catch (error) {
      this.#refuse(error);
    }
  }

  #receive(chunk: Buffer): void | Promise<void> {
    if (this.#done) return;
    if (this.#reader) {
      this.#reader.push(chunk);
      return this.#readFrames();
    }
    this.#early = this.#early.length === 0 ? chunk : Buffer.concat([this.#early, chunk]);
    return this.#readStartup();
  }

  #readStartup(): void | Promise<void> {
    for (;;) {
      const packet = readStartup(this.#early);
      if (!packet) return;
      this.#early = this.#early.subarray(packet.bytes);
      switch (packet.kind) {
        case 'ssl':
        case 'gssenc':
          // Bytes behind the request would be a man in the middle's (CVE-2021-23214).
          if (this.#early.length > 0)
            throw protocolViolation('received unencrypted data after an encryption request');
          this.#socket.write('N');
          break;
        case 'terminate':
          this.#done = true;
          clearTimeout(this.#timer);
          this.#socket.end();
          return;
        case 'cancel':
          this.#done = true;
          return this.#host.cancel(packet.pid, packet.secretKey).finally(() => {
            clearTimeout(this.#timer);
            this.#socket.end();
          });
        case 'startup':
          return this.#onStartup(packet);
      }
    }
  }

  #onStartup(packet: Extract<StartupPacket, { kind: 'startup' }>): void | Promise<void> {
    this.#startup = packet;
    const user = packet.parameters.get('user');
    if (!user) throw objectError('28000', 'no PostgreSQL user name specified in startup packet');
    const replication = packet.parameters.get('replication');
    if (replication !== undefined && !['0', 'off', 'false', 'no'].includes(replication))
      throw notSupported(
        'replication connections do not go through the router',
        'Connect to the node itself.',
      );
    const database = packet.parameters.get('database') ?? user;
    this.#reader = new FrameReader({ frameBytesMax: LOGIN_FRAME_BYTES_MAX });
    if (packet.minorVersion > MINOR_VERSION_MAX || packet.unsupportedOptions.length > 0) {
      encodeNegotiateProtocolVersion(
        this.#writer,
        Math.min(packet.minorVersion, MINOR_VERSION_MAX),
        packet.unsupportedOptions,
      );
    }
    if (this.#host.users.trusts(user)) return this.#authenticated(user, database);
    encodeAuthenticationSasl(this.#writer, [SCRAM_MECHANISM]);
    this.#socket.write(this.#writer.take());
    if (this.#early.length > 0) {
      this.#reader.push(this.#early);
      this.#early = Buffer.alloc(0);
      return this.#readFrames();
    }
  }

  async #readFrames(): Promise<void> {
    const reader = this.#reader!;
    while (!this.#done && reader.next()) {
      if (reader.type !== Frontend.Password)
        throw protocolViolation(`expected SASL response, got message type ${reader.type}`);
      if (this.#scram) {
        const serverFinal = finishScramServer(this.#scram, readSaslResponse(reader));
        const user = this.#startup!.parameters.get('user')!;
        if (serverFinal === undefined)
          throw objectError('28P01', `password authentication failed for user "${user}"`);
        encodeAuthenticationSaslFinal(this.#writer, serverFinal);
        await this.#authenticated(user, this.#startup!.parameters.get('database') ?? user);
        return;
      }
      await this.#startScram(reader);
    }
  }

  async #startScram(reader: FrameReader): Promise<void> {
    const user = this.#startup!.parameters.get('user')!;
    const { mechanism, data } = readSaslInitial(reader);
    if (mechanism !== SCRAM_MECHANISM)
      throw protocolViolation('client selected an invalid SASL authentication mechanism');
    const verifier =
      (await this.#host.users.verifier(user)) ??
      mockScramVerifier({ userName: user, secret: this.#host.mockSecret });
    const { state, serverFirst } = startScramServer({
      verifier,
      clientFirst: data ?? '',
      nonce: randomBytes(18).toString('base64'),
    });
    this.#scram = state;
    encodeAuthenticationSaslContinue(this.#writer, serverFirst);
    this.#socket.write(this.#writer.take());
  }

  async #authenticated(user: string, database: string): Promise<void> {
    if (database !== this.#host.database)
      throw objectError(
        '3D000',
        `database "${database}" does not exist`,
        `This router serves database "${this.#host.database}".`,
      );
    encodeAuthenticationOk(this.#writer);
    this.#done = true;
    clearTimeout(this.#timer);
    this.#socket.off('data', this.#onData);
    this.#socket.pause();
    const reader = this.#reader!;
    if (this.#early.length > 0) reader.push(this.#early);
    reader.frameBytesMax = BOUNDS.clientFrameBytesMax;
    try {
      await this.#host.admit({
        socket: this.#socket,
        reader,
        user,
        defaults: startupSettings(this.#startup!.parameters),
        minorVersion: this.#startup!.minorVersion,
        greeting: this.#writer.take(),
      });
    } catch (error) {
      this.#done = false;
      throw error;
    }
  }

  #refuse(error: unknown): void {
    if (this.#done) return;
    this.#done = true;
    clearTimeout(this.#timer);
    const writer = new FrameWriter();
    if (error instanceof ServerError)
      encodeErrorFields(writer, 'E', new Map([...error.fields, ['S', 'FATAL'], ['V', 'FATAL']]));
    else {
      const known =
        error instanceof PosternError
          ? error
          : cannotConnect('router', error instanceof Error ? error.message : String(error));
      encodeErrorResponse(
        writer,
        new PosternError({
          sqlState: known.sqlState,
          message: known.message,
          detail: known.detail,
          hint: known.hint,
          severity: 'FATAL',
        }),
      );
    }
    this.#socket.end(writer.take());
    this.#socket.setTimeout(5_000, () => this.#socket.destroy());
    this.#socket.resume();
  }
}

const NOT_SETTINGS = new Set(['user', 'database', 'replication', 'options', 'client_encoding']);
const ENCODINGS_TAKEN = new Set(['utf8', 'unicode', 'sqlascii']);

/** The settings that a start-up packet asks for. */
function startupSettings(parameters: ReadonlyMap<string, string>): Settings {
  const encoding = parameters.get('client_encoding');
  if (encoding !== undefined && !ENCODINGS_TAKEN.has(encoding.toLowerCase().replaceAll(/[^a-z0-9]/g, '')))
    throw notSupported(`client_encoding ${encoding} is not supported`, 'Use UTF8.');
  const values = new Map<string, string>();
  for (const [name, value] of optionSettings(parameters.get('options') ?? '')) values.set(name, value);
  for (const [name, value] of parameters) if (!NOT_SETTINGS.has(name)) values.set(name.toLowerCase(), value);
  for (const [name, value] of values) refuseSetting(name, [value]);
  return new Settings(values);
}

/** `-c name=value` and `--name=value`, blanks in values escaped with a backslash (documentation: libpq "options"). */
function optionSettings(options: string): [string, string][] {
  const words = (options.match(/(?:\\.|[^\s\\])+/g) ?? []).map((word) => word.replaceAll(/\\(.)/g, '$1'));
  const settings: [string, string][] = [];
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    let text: string | undefined;
    if (word === '-c') text = words[++i];
    else if (word.startsWith('-c')) text = word.slice(2);
    else if (word.startsWith('--')) text = word.slice(2);
    const at = text?.indexOf('=') ?? -1;
    if (text === undefined || at <= 0)
      throw notSupported(`the start-up option "${word}" is not supported`, 'Use -c name=value.');
    settings.push([text.slice(0, at).replaceAll('-', '_').toLowerCase(), text.slice(at + 1)]);
  }
  return settings;
}
