/** A connection that sends whatever bytes it likes, for tests and benchmarks of what a router makes of them. */
import { connect, type Socket } from 'node:net';
import {
  readAuthentication,
  readBackendKeyData,
  readErrorFields,
  readReadyStatus,
} from '../../src/wire/backend.ts';
import { type Gs2, SCRAM_MECHANISM } from '../../src/wire/channel-binding.ts';
import { FrameReader } from '../../src/wire/frame-reader.ts';
import { FrameWriter } from '../../src/wire/frame-writer.ts';
import { encodeSaslInitial, encodeSaslResponse } from '../../src/wire/frontend.ts';
import { Backend } from '../../src/wire/message-types.ts';
import { answerServerFirst, startScramClient } from '../../src/wire/scram.ts';
import { encodeStartup } from '../../src/wire/startup.ts';

const ANSWER_TIMEOUT_MS = 10_000;
const GS2_PLAIN: Gs2 = { header: 'n,,', channelBinding: 'biws', isBound: false };

/** A message with the length that it has. */
export function typed(type: string, body: Buffer | string = ''): Buffer {
  const bytes = Buffer.from(body);
  return Buffer.concat([header(type, bytes.length + 4), bytes]);
}

/** What comes before a body: a type and a length, true or not. */
export function header(type: string, length: number): Buffer {
  const bytes = Buffer.alloc(5);
  bytes.write(type, 0, 'latin1');
  bytes.writeUInt32BE(length >>> 0, 1);
  return bytes;
}

export function startUp(parameters: Readonly<Record<string, string>>): Buffer {
  const writer = new FrameWriter();
  encodeStartup(writer, Object.entries(parameters));
  return Buffer.from(writer.take());
}

/** A start-up packet with this body, whatever that is worth. */
export function startUpOf(body: Buffer): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt32BE(body.length + 8, 0);
  bytes.writeUInt32BE(196_608, 4);
  return Buffer.concat([bytes, body]);
}

export class Attacker {
  readonly socket: Socket;
  /** One line a message: `E 08P01 words`, `R sasl`, `Z I`, or its type. */
  readonly lines: string[] = [];
  closed = false;
  processId = 0;
  secretKey: Buffer = Buffer.alloc(0);
  #serverData = '';
  readonly #reader = new FrameReader({ frameBytesMax: 2 ** 20 });
  #wake: (() => void) | undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#reader.push(chunk);
      while (this.#reader.next()) this.lines.push(this.#lineOf());
      this.#wake?.();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.closed = true;
      this.#wake?.();
    });
  }

  static async open(port: number, ...bytes: readonly Buffer[]): Promise<Attacker> {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true });
    const attacker = new Attacker(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    attacker.send(...bytes);
    return attacker;
  }

  send(...bytes: readonly Buffer[]): void {
    const all = Buffer.concat(bytes);
    if (all.length > 0) this.socket.write(all);
  }

  /** Resolves with all lines when one begins so, or when the connection is closed. */
  async until(start: string): Promise<readonly string[]> {
    while (!this.closed && !this.lines.some((line) => line.startsWith(start))) await this.#arrival(start);
    return this.lines;
  }

  /** All lines, when the router has closed the connection. */
  async end(): Promise<readonly string[]> {
    while (!this.closed) await this.#arrival('the end');
    return this.lines;
  }

  /** As an honest client does. Gives the messages that prove who it is, for whoever wants to send them again. */
  async logIn(user: string, password: string): Promise<{ first: Buffer; final: Buffer }> {
    this.send(startUp({ user, database: 'app' }));
    await this.until('R sasl');
    const { state, clientFirst } = startScramClient('bm9uY2Ugb2YgYSB0ZXN0IQ==', GS2_PLAIN);
    const first = written((writer) => encodeSaslInitial(writer, SCRAM_MECHANISM, clientFirst));
    this.send(first);
    await this.until('R continue');
    const answer = await answerServerFirst(state, password, this.#serverData);
    const final = written((writer) => encodeSaslResponse(writer, answer.clientFinal));
    this.send(final);
    const lines = await this.until('Z');
    if (!lines.some((line) => line.startsWith('Z'))) throw new Error(lines.join(' · '));
    return { first, final };
  }

  #lineOf(): string {
    const reader = this.#reader;
    switch (reader.type) {
      case Backend.ErrorResponse: {
        const fields = readErrorFields(reader);
        return `E ${fields.get('C')} ${fields.get('M')}`;
      }
      case Backend.Authentication: {
        const message = readAuthentication(reader);
        if (message.kind === 'saslContinue') {
          this.#serverData = message.data;
          return 'R continue';
        }
        return `R ${message.kind}`;
      }
      case Backend.ReadyForQuery:
        return `Z ${String.fromCharCode(readReadyStatus(reader))}`;
      case Backend.BackendKeyData: {
        const { pid, secretKey } = readBackendKeyData(reader);
        this.processId = pid;
        this.secretKey = Buffer.from(secretKey);
        return 'K';
      }
      default:
        return String.fromCharCode(reader.type);
    }
  }

  #arrival(what: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`not in time: ${what}; before it: ${this.lines.join(' · ')}`)),
        ANSWER_TIMEOUT_MS,
      );
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve();
      };
    });
  }
}

function written(write: (writer: FrameWriter) => void): Buffer {
  const writer = new FrameWriter();
  write(writer);
  return Buffer.from(writer.take());
}
