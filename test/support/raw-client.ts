/**
 * A client of the wire protocol that does nothing by itself: it sends the messages that a test names and gives what comes
 * back, one line a message, in a form that compares a router with a server (no OIDs of tables, no source lines).
 */
import { connect, type Socket } from 'node:net';
import {
  readAuthentication,
  readBackendKeyData,
  readCommandTag,
  readDataRowText,
  readErrorFields,
  readParameterDescription,
  readParameterStatus,
  readReadyStatus,
  readRowDescription,
} from '../../src/wire/backend.ts';
import { FrameReader } from '../../src/wire/frame-reader.ts';
import { FrameWriter } from '../../src/wire/frame-writer.ts';
import {
  encodeBind,
  encodeClose,
  encodeDescribe,
  encodeExecute,
  encodeFlush,
  encodeParse,
  encodeQuery,
  encodeSync,
  encodeTerminate,
} from '../../src/wire/frontend.ts';
import { Backend, Frontend } from '../../src/wire/message-types.ts';
import { encodeCancelRequest, encodeStartup } from '../../src/wire/startup.ts';

export type Message =
  | readonly ['query', text: string]
  | readonly ['parse', name: string, text: string, oids?: readonly number[]]
  | readonly ['bind', portal: string, statement: string, parameters?: readonly (string | null)[]]
  | readonly ['describe', target: 'S' | 'P', name: string]
  | readonly ['execute', portal: string, maxRows?: number]
  | readonly ['close', target: 'S' | 'P', name: string]
  | readonly ['flush']
  | readonly ['sync']
  | readonly ['copyData', data: string]
  | readonly ['copyDone']
  | readonly ['copyFail', reason: string]
  | readonly ['terminate'];

const SYNC: Message = ['sync'];

/** Parse, Bind, Describe and Execute of the unnamed statement and portal, without Sync. */
export function run(text: string, parameters: readonly (string | null)[] = []): Message[] {
  return [
    ['parse', '', text],
    ['bind', '', '', parameters],
    ['describe', 'P', ''],
    ['execute', ''],
  ];
}

export class RawClient {
  readonly socket: Socket;
  readonly parameters = new Map<string, string>();
  processId = 0;
  secretKey: Buffer = Buffer.alloc(0);
  closed = false;
  readonly #reader = new FrameReader({ frameBytesMax: 2 ** 30 });
  readonly #lines: string[] = [];
  /** Bytes of DataRow and CopyData that have come. */
  dataBytes = 0;
  #wake: (() => void) | undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#reader.push(chunk);
      while (this.#reader.next()) this.#onFrame();
      this.#wake?.();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.closed = true;
      this.#wake?.();
    });
  }

  static async connect(options: {
    port: number;
    user?: string;
    database?: string;
    parameters?: Record<string, string>;
    minorVersion?: number;
  }): Promise<RawClient> {
    const client = new RawClient(connect({ host: '127.0.0.1', port: options.port, noDelay: true }));
    const writer = new FrameWriter();
    const { user = 'app', database = 'app', parameters = {} } = options;
    encodeStartup(writer, Object.entries({ user, database, ...parameters }), options.minorVersion);
    client.socket.write(writer.take());
    const last = (await client.readUntil(/^Ready|^Error|^Authentication (?!ok)/)).at(-1)!;
    if (!last.startsWith('Ready')) throw new Error(last);
    return client;
  }

  /** All in one write, so that they reach the other side together. */
  send(...messages: readonly Message[]): void {
    this.socket.write(encodedMessages(messages));
  }

  /** Lines up to and with the first that matches. Rejects when the connection ends or nothing comes for 10 s. */
  async readUntil(end: RegExp): Promise<string[]> {
    for (let seen = 0; ; ) {
      for (; seen < this.#lines.length; seen++)
        if (end.test(this.#lines[seen]!)) return this.#lines.splice(0, seen + 1);
      if (this.closed) throw new Error(`the connection ended; before that came: ${this.#lines.join(' · ')}`);
      await this.#arrival();
    }
  }

  /** What there is up to the end of the connection. */
  async readToEnd(): Promise<string[]> {
    while (!this.closed) await this.#arrival();
    return this.#lines.splice(0);
  }

  /** Sends, and gives the lines up to the `count`th ReadyForQuery. */
  async exchange(messages: readonly Message[], count = 1): Promise<string[]> {
    this.send(...messages);
    const lines: string[] = [];
    for (let i = 0; i < count; i++) for (const line of await this.readUntil(/^Ready/)) lines.push(line);
    return lines;
  }

  query(text: string): Promise<string[]> {
    return this.exchange([['query', text]]);
  }

  /** Any script, whatever it leaves open: what it answers up to a marker behind it. The session is clean after it. */
  async play(messages: readonly Message[]): Promise<string[]> {
    const marker = '~~end~~';
    this.send(
      ...messages,
      ['copyFail', 'script ends'],
      SYNC,
      ['query', 'ROLLBACK'],
      ['query', `SELECT '${marker}'`],
    );
    const lines = await this.readUntil(new RegExp(`^Row ${marker}$`));
    await this.readUntil(/^Ready/);
    return lines.slice(0, -2);
  }

  end(): void {
    if (this.closed) return;
    this.send(['terminate']);
    this.socket.end();
  }

  #arrival(): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`nothing more came; before: ${this.#lines.join(' · ')}`)),
        10_000,
      );
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve();
      };
    });
  }

  #onFrame(): void {
    const reader = this.#reader;
    switch (reader.type) {
      case Backend.ParameterStatus: {
        const { name, value } = readParameterStatus(reader);
        this.parameters.set(name, value);
        this.#lines.push(`Parameter ${name}=${value}`);
        return;
      }
      case Backend.BackendKeyData: {
        const { pid, secretKey } = readBackendKeyData(reader);
        this.processId = pid;
        this.secretKey = Buffer.from(secretKey);
        return;
      }
      case Backend.DataRow:
      case Backend.CopyData:
        this.dataBytes += reader.end - reader.bodyStart;
    }
    this.#lines.push(describe(reader));
  }
}

/** For whoever sends them in pieces. */
export function encodedMessages(messages: readonly Message[]): Buffer {
  const writer = new FrameWriter();
  for (const message of messages) encode(writer, message);
  return writer.take();
}

function encode(writer: FrameWriter, message: Message): void {
  switch (message[0]) {
    case 'query':
      encodeQuery(writer, message[1]);
      break;
    case 'parse':
      encodeParse(writer, message[1], message[2], message[3] ?? []);
      break;
    case 'bind':
      encodeBind(writer, { portal: message[1], statement: message[2], parameters: message[3] ?? [] });
      break;
    case 'describe':
      encodeDescribe(writer, message[1], message[2]);
      break;
    case 'execute':
      encodeExecute(writer, message[1], message[2] ?? 0);
      break;
    case 'close':
      encodeClose(writer, message[1], message[2]);
      break;
    case 'flush':
      encodeFlush(writer);
      break;
    case 'sync':
      encodeSync(writer);
      break;
    case 'terminate':
      encodeTerminate(writer);
      break;
    case 'copyData':
      writer.begin(Frontend.CopyData);
      writer.string(message[1]);
      writer.end();
      break;
    case 'copyDone':
      writer.begin(Frontend.CopyDone);
      writer.end();
      break;
    case 'copyFail':
      writer.begin(Frontend.CopyFail);
      writer.cstring(message[1]);
      writer.end();
      break;
  }
}

const PLAIN: Readonly<Record<number, string>> = {
  [Backend.ParseComplete]: 'ParseComplete',
  [Backend.BindComplete]: 'BindComplete',
  [Backend.CloseComplete]: 'CloseComplete',
  [Backend.NoData]: 'NoData',
  [Backend.PortalSuspended]: 'PortalSuspended',
  [Backend.EmptyQueryResponse]: 'EmptyQuery',
  [Backend.CopyDone]: 'CopyDone',
};

/** Code, message, position, and names; not the file and line of the source. */
const FIELDS_SHOWN = ['C', 'M', 'D', 'H', 'P', 'W', 's', 't', 'c', 'n'];

function describe(frame: FrameReader): string {
  const plain = PLAIN[frame.type];
  if (plain !== undefined) return plain;
  switch (frame.type) {
    case Backend.CommandComplete:
      return `Complete ${readCommandTag(frame)}`;
    case Backend.ReadyForQuery:
      return `Ready ${String.fromCharCode(readReadyStatus(frame))}`;
    case Backend.DataRow:
      return `Row ${frame.end - frame.start > 1000 ? `of ${frame.end - frame.start} bytes` : readDataRowText(frame).join('|')}`;
    case Backend.CopyData:
      return `CopyData ${frame.buffer.toString('utf8', frame.bodyStart, Math.min(frame.end, frame.bodyStart + 100))}`;
    case Backend.RowDescription: {
      const columns = readRowDescription(frame).map(
        (column) => `${column.name}:${column.typeOid}/${column.columnNumber}/${column.format}`,
      );
      return `Columns ${columns.join(',')}`;
    }
    case Backend.ParameterDescription:
      return `Parameters ${readParameterDescription(frame).join(',')}`;
    case Backend.CopyInResponse:
    case Backend.CopyOutResponse:
      return `${frame.type === Backend.CopyInResponse ? 'CopyIn' : 'CopyOut'} ${frame.buffer.toString('hex', frame.bodyStart, frame.end)}`;
    case Backend.ErrorResponse:
    case Backend.NoticeResponse: {
      const fields = readErrorFields(frame);
      const shown = FIELDS_SHOWN.filter((code) => fields.has(code)).map(
        (code) => `${code}=${fields.get(code)}`,
      );
      return `${frame.type === Backend.ErrorResponse ? 'Error' : 'Notice'} ${fields.get('V')} ${shown.join(' ')}`;
    }
    case Backend.Authentication:
      return `Authentication ${readAuthentication(frame).kind}`;
    case Backend.NotificationResponse:
      return `Notification ${frame.buffer.toString('utf8', frame.bodyStart + 4, frame.end).replaceAll('\0', '|')}`;
    default:
      return `Message ${String.fromCharCode(frame.type)}`;
  }
}

/** Resolves when the other side has closed. */
export function sendCancel(port: number, processId: number, secretKey: Buffer | number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port });
    const writer = new FrameWriter();
    encodeCancelRequest(writer, processId, secretKey);
    socket.on('close', () => resolve());
    socket.on('error', reject);
    socket.resume();
    socket.write(writer.take());
  });
}
