/**
 * One pipelined connection to a PostgreSQL server: writes requests, matches answers to whoever asked (pending.ts), and
 * keeps what the server side of the session holds: settings, prepared statements, transaction status, parameters.
 *
 * States: open → closed. (Connecting and logging in happen in login.ts, which hands over an open socket.)
 * Boundary: it knows nothing of clients; backend/pool.ts owns its life, session/ and the coalescer its use.
 */
import type { Socket } from 'node:net';
import { assert } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';
import { connectionLost, PosternError } from '../base/errors.ts';
import type { NodeTls } from '../pg/dsn-tls.ts';
import type { Flushable, FlushQueue } from '../platform/flush-queue.ts';
import { connectToNode, tryEncryptions } from '../platform/node-tls.ts';
import { readErrorFields, readParameterStatus, readReadyStatus } from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { FrameWriter } from '../wire/frame-writer.ts';
import {
  type BindTail,
  type BindView,
  encodeBind,
  encodeBindFrom,
  encodeBindOfRows,
  encodeBindTail,
  encodeBindWithExtraParameters,
  encodeClose,
  encodeDescribe,
  encodeExecute,
  encodeFlush,
  encodeParse,
  encodeQuery,
  encodeSync,
  encodeTerminate,
} from '../wire/frontend.ts';
import { Backend } from '../wire/message-types.ts';
import { encodeCancelRequest } from '../wire/startup.ts';
import { Pending, type PendingKind, PendingQueue, type ResponseSink } from './pending.ts';
import { PreparedOnBackend, type SharedStatement } from './prepared.ts';
import { Settings } from './settings.ts';
import type { Tenant } from './waiting-line.ts';

export interface BackendAddress {
  readonly nodeId: number;
  readonly nodeName: string;
  readonly host: string;
  readonly port: number;
  /** How connections to it are encrypted: those of clients' work, and requests to cancel. */
  readonly tls: NodeTls;
}

export const TransactionStatus = { idle: 0x49, inBlock: 0x54, failed: 0x45 } as const;

export class BackendConnection implements Flushable {
  readonly address: BackendAddress;
  readonly user: string;
  readonly processId: number;
  readonly prepared = new PreparedOnBackend();
  /** Values of ParameterStatus, and how often one changed. */
  readonly parameters: Map<string, string>;
  parametersVersion = 0;
  settings = Settings.none;
  transactionStatus: number = TransactionStatus.idle;
  /** Who holds it exclusively, if anyone: told of notifications and of a loss even when nothing is pending. */
  lessee: ResponseSink | undefined;
  /** For the pool: when it became idle, in ms of the monotonic clock. */
  idleSinceMs = 0;
  /** For the pool: the tenant that it was lent for last. */
  lentTo: Tenant;
  /** Cancel requests on their way. While there are some, nobody else may use this connection. */
  cancelsInFlight = 0;
  /** A cancel request was sent and the server has never said that it took it: it may strike whoever comes later. */
  #cancelUncertain = false;
  onClosed: ((connection: BackendConnection) => void) | undefined;

  readonly #secretKey: Buffer;
  readonly #onDiskFull: (() => void) | undefined;
  readonly #socket: Socket;
  readonly #reader: FrameReader;
  readonly #writer = new FrameWriter(16 * 1024);
  readonly #pending = new PendingQueue();
  readonly #flushQueue: FlushQueue;
  #discarding = false;
  #closed = false;
  #lastFatal: PosternError | undefined;
  #paused = false;
  /** What is written waits for what follows. */
  #ahead = false;

  constructor(options: {
    address: BackendAddress;
    user: string;
    socket: Socket;
    reader: FrameReader;
    parameters: Map<string, string>;
    processId: number;
    secretKey: Buffer;
    onDiskFull?: (() => void) | undefined;
    flushQueue: FlushQueue;
  }) {
    this.address = options.address;
    this.user = options.user;
    this.#socket = options.socket;
    this.#reader = options.reader;
    this.parameters = options.parameters;
    this.processId = options.processId;
    this.#secretKey = options.secretKey;
    this.#onDiskFull = options.onDiskFull;
    this.#flushQueue = options.flushQueue;
    this.#socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    this.#socket.on('error', (error) => this.#onEnd(error.message));
    this.#socket.on('close', () => this.#onEnd('the server closed the connection'));
    this.#socket.on('drain', () => this.onDrain?.());
  }

  /** The holder's wish to hear when the socket takes more. */
  onDrain: (() => void) | undefined;
  /** The holder's wish to hear when all that was sent has been answered. */
  onAnswered: (() => void) | undefined;

  get closed(): boolean {
    return this.#closed;
  }

  get pendingCount(): number {
    return this.#pending.length;
  }

  /** Nothing pending, no transaction, and no Sync that the server waits for: may be given to somebody else. */
  get quiet(): boolean {
    return (
      this.#pending.length === 0 &&
      !this.#discarding &&
      this.transactionStatus === TransactionStatus.idle &&
      !this.cancelMayStrike &&
      this.#writer.length === 0
    );
  }

  /** Could a cancel request that was made before strike what is sent now? */
  get cancelMayStrike(): boolean {
    return this.cancelsInFlight > 0 || this.#cancelUncertain;
  }

  get unsentBytes(): number {
    return this.#socket.writableLength + this.#writer.length;
  }

  // Requests. Each writes its message and notes who wants the answer; one write goes out at the end of the turn.

  query(text: string, sink: ResponseSink, tag: unknown): void {
    encodeQuery(this.#writer, text);
    this.prepared.nextBatch();
    this.#expect(Pending.query, sink, tag);
  }

  /**
   * Prepares `statement` here and gives its server-side name, to be used in the same pipeline already. On an error or when
   * discarded, `prepared` forgets it again.
   */
  parse(statement: SharedStatement, sink: ResponseSink, tag: unknown): string {
    const surplus = this.prepared.takeSurplus();
    if (surplus !== undefined) this.close('S', surplus, ignoreAnswers, undefined);
    const name = this.prepared.add(statement);
    encodeParse(this.#writer, name, statement.text, statement.parameterOids);
    this.#expect(Pending.parse, sink, tag);
    return name;
  }

  /** A Parse of the unnamed statement, not remembered. */
  parseUnnamed(text: string, sink: ResponseSink, tag: unknown, parameterOids: readonly number[] = []): void {
    this.prepared.addUnnamed();
    encodeParse(this.#writer, '', text, parameterOids);
    this.#expect(Pending.parse, sink, tag);
  }

  bindFrom(
    options: { portal: string; statement: string; view: BindView; buffer: Buffer; extra?: readonly string[] },
    sink: ResponseSink,
    tag: unknown,
  ): void {
    const { portal, statement, view, buffer, extra } = options;
    if (extra && extra.length > 0)
      encodeBindWithExtraParameters(this.#writer, portal, statement, view, buffer, extra);
    else encodeBindFrom(this.#writer, portal, statement, view, buffer);
    this.#expect(Pending.bind, sink, tag);
  }

  bindText(
    statement: string,
    parameters: readonly (string | null)[],
    sink: ResponseSink,
    tag: unknown,
    portal = '',
  ): void {
    encodeBind(this.#writer, { portal, statement, parameters });
    this.#expect(Pending.bind, sink, tag);
  }

  /** `tail` is a Bind message behind its two names. */
  bindTail(statement: string, tail: Buffer, sink: ResponseSink, tag: unknown, portal = ''): void {
    encodeBindTail(this.#writer, statement, tail, portal);
    this.#expect(Pending.bind, sink, tag);
  }

  /** Binds the unnamed portal to the values of several kept Binds. */
  bindRows(
    statement: string,
    rows: {
      readonly tails: readonly { readonly tail: BindTail }[];
      readonly start: number;
      readonly count: number;
    },
    sink: ResponseSink,
    tag: unknown,
  ): void {
    encodeBindOfRows(this.#writer, statement, rows);
    this.#expect(Pending.bind, sink, tag);
  }

  /**
   * Executes a text ahead of what is sent next and in the same write: by itself it does not go out. `statement`: it is kept
   * prepared as this.
   */
  executeAhead(
    text: string,
    statement: SharedStatement | undefined,
    sink: ResponseSink,
    values: readonly string[] = [],
  ): void {
    this.#ahead = true;
    let name: string;
    if (statement) name = this.prepared.nameOf(statement) ?? this.parse(statement, sink, undefined);
    else {
      name = '';
      this.parseUnnamed(text, sink, undefined);
    }
    this.bindText(name, values, sink, statement);
    this.execute('', 0, sink, undefined);
    this.#ahead = false;
  }

  describe(target: 'S' | 'P', name: string, sink: ResponseSink, tag: unknown): void {
    encodeDescribe(this.#writer, target, name);
    this.#expect(target === 'S' ? Pending.describeStatement : Pending.describePortal, sink, tag);
  }

  execute(portal: string, maxRows: number, sink: ResponseSink, tag: unknown): void {
    encodeExecute(this.#writer, portal, maxRows);
    this.#expect(Pending.execute, sink, tag);
  }

  close(target: 'S' | 'P', name: string, sink: ResponseSink, tag: unknown): void {
    encodeClose(this.#writer, target, name);
    this.#expect(Pending.close, sink, tag);
  }

  sync(sink: ResponseSink, tag: unknown): void {
    encodeSync(this.#writer);
    this.#discarding = false;
    this.prepared.nextBatch();
    this.#expect(Pending.sync, sink, tag);
  }

  flushMessage(): void {
    encodeFlush(this.#writer);
    this.#flushQueue.addToServer(this);
  }

  /** CopyData, CopyDone and CopyFail, whole frames: they have no answer of their own. */
  copyFrames(buffer: Buffer, start: number, end: number): void {
    this.#writer.raw(buffer, start, end);
    this.#flushQueue.addToServer(this);
  }

  /** Whole frames, behind what was written before, that are not copied: they stay as they are until the server has answered. */
  sendBlock(block: Buffer): void {
    if (this.#closed) return;
    this.flush();
    this.#socket.write(block);
  }

  /** An answer of the router's own, in its turn. */
  local(sink: ResponseSink, tag: unknown): void {
    if (this.#discarding) sink.onDiscarded(Pending.local, tag);
    else if (this.#pending.length === 0) sink.onLocal(tag);
    else this.#pending.push(Pending.local, sink, tag);
  }

  pauseReading(): void {
    if (this.#paused || this.#closed) return;
    this.#paused = true;
    this.#socket.pause();
  }

  resumeReading(): void {
    if (!this.#paused || this.#closed) return;
    this.#paused = false;
    this.#socket.resume();
  }

  flush(): void {
    if (this.#closed || this.#writer.length === 0) return;
    // What the system takes at once is followed by no 'drain'.
    if (this.#socket.write(this.#writer.take())) this.onDrain?.();
  }

  /**
   * Asks the server to cancel what runs here, over a connection of its own, as PostgreSQL wants it. Resolves when the
   * server has closed that one: only then is the signal sent, and only then may the connection be given to another.
   */
  async cancel(): Promise<void> {
    if (this.#closed) return;
    this.cancelsInFlight++;
    try {
      const reach = { ...this.address, timeoutMs: BOUNDS.backendConnectTimeoutMs };
      const { socket } = await tryEncryptions(reach, (encryption) => connectToNode(reach, encryption));
      await new Promise<void>((resolve) => {
        let isTaken = false;
        socket.on('end', () => {
          isTaken = true;
        });
        socket.on('close', () => {
          if (!isTaken) this.#cancelUncertain = true;
          resolve();
        });
        socket.on('error', () => socket.destroy());
        socket.setTimeout(BOUNDS.backendConnectTimeoutMs, () => socket.destroy());
        const writer = new FrameWriter(64);
        encodeCancelRequest(writer, this.processId, this.#secretKey);
        socket.resume();
        socket.write(writer.take());
      });
    } catch {
      // A node that takes no connection now can't be asked; the statement goes on to its end or to its own loss.
    } finally {
      this.cancelsInFlight--;
    }
  }

  /** Ends it: with Terminate when nothing is pending, at once otherwise. `cause`: what those hear who wait for answers. */
  destroy(cause?: PosternError): void {
    if (this.#closed) return;
    if (cause) this.#lastFatal = cause;
    if (this.#pending.length === 0) {
      encodeTerminate(this.#writer);
      this.#socket.end(this.#writer.take());
      this.#socket.setTimeout(1_000, () => this.#socket.destroy());
    } else this.#socket.destroy();
    this.#onEnd('closed by the router');
  }

  #expect(kind: PendingKind, sink: ResponseSink, tag: unknown): void {
    if (!this.#ahead) this.#flushQueue.addToServer(this);
    if (this.#discarding) {
      this.#skip(sink, kind, tag);
      return;
    }
    this.#pending.push(kind, sink, tag);
  }

  #onData(chunk: Buffer): void {
    if (this.#closed) return;
    try {
      this.#reader.push(chunk);
      this.#readFrames(chunk);
      if (this.#pending.length === 0) this.onAnswered?.();
    } catch (error) {
      // A server that breaks the protocol, or a bug here: this connection ends, and no other.
      if (!(error instanceof PosternError)) console.error(error);
      const reason = error instanceof Error ? error.message : String(error);
      this.#lastFatal = new PosternError({
        sqlState: '08006',
        message: `node "${this.address.nodeName}": ${reason}`,
      });
      this.#socket.destroy();
      this.#onEnd(reason);
    }
  }

  #readFrames(chunk: Buffer): void {
    const reader = this.#reader;
    let more = reader.next();
    while (more && !this.#closed) {
      const { type } = reader;
      if (type !== Backend.DataRow && type !== Backend.CopyData) {
        this.#onFrame(type);
        more = reader.next();
        continue;
      }
      const head = this.#pending.head();
      assert(head !== undefined, 'rows that nobody asked for');
      const buffer = reader.buffer;
      const start = reader.start;
      let end = reader.end;
      if (buffer !== chunk) {
        // A row put together from several reads lies in the reader's own memory, which next() may use again.
        head.sink.onRows(buffer, start, end, head.tag);
        more = reader.next();
        continue;
      }
      // Rows are handed on in runs: one call and one copy for all that arrived together.
      for (more = reader.next(); more; more = reader.next()) {
        if (reader.type !== type || reader.buffer !== buffer || reader.start !== end) break;
        end = reader.end;
      }
      head.sink.onRows(buffer, start, end, head.tag);
    }
  }

  #onFrame(type: number): void {
    const reader = this.#reader;
    switch (type) {
      case Backend.ParameterStatus: {
        const { name, value } = readParameterStatus(reader);
        this.parameters.set(name, value);
        this.parametersVersion++;
        return;
      }
      case Backend.NoticeResponse: {
        const head = this.#pending.head();
        if (head) head.sink.onNotice(reader, head.tag);
        else this.lessee?.onNotice(reader, undefined);
        return;
      }
      case Backend.NotificationResponse:
        this.lessee?.onNotice(reader, undefined);
        return;
      case Backend.ErrorResponse:
        this.#onError();
        return;
      case Backend.ReadyForQuery:
        this.transactionStatus = readReadyStatus(reader);
        break;
    }
    const head = this.#pending.head();
    assert(head !== undefined, `message ${String.fromCharCode(type)} that nobody asked for`);
    const { sink, kind, tag } = head;
    if (completes(kind, type)) {
      if (kind === Pending.parse) this.prepared.onAnswer(true);
      this.#pending.shift();
      sink.onMessage(type, reader, kind, tag);
      this.#runLocals();
    } else sink.onMessage(type, reader, kind, tag);
  }

  #onError(): void {
    const head = this.#pending.head();
    const fields = readErrorFields(this.#reader);
    const severity = fields.get('V');
    if (fields.get('C') === '53100') this.#onDiskFull?.();
    if (!head || severity === 'FATAL' || severity === 'PANIC') {
      // The server is about to close (57P01 …). What it said is the reason that all will read when it has: an answer to the
      // request now, and the loss after it, would be two errors for one.
      this.#lastFatal = new PosternError({
        sqlState: '08006',
        message: `node "${this.address.nodeName}" closed the connection: ${fields.get('M') ?? ''}`,
      });
      return;
    }
    const { sink, kind, tag } = head;
    if (kind === Pending.query || kind === Pending.sync) {
      sink.onMessage(Backend.ErrorResponse, this.#reader, kind, tag);
      return;
    }
    if (kind === Pending.parse) this.prepared.onAnswer(false);
    this.#pending.shift();
    sink.onMessage(Backend.ErrorResponse, this.#reader, kind, tag);
    for (let next = this.#pending.head(); next; next = this.#pending.head()) {
      if (next.kind === Pending.sync) return;
      const skipped = { sink: next.sink, kind: next.kind, tag: next.tag };
      this.#pending.shift();
      this.#skip(skipped.sink, skipped.kind, skipped.tag);
    }
    this.#discarding = true;
  }

  /** The server passes over the request after an error. */
  #skip(sink: ResponseSink, kind: PendingKind, tag: unknown): void {
    if (kind === Pending.parse) this.prepared.onAnswer(false);
    sink.onDiscarded(kind, tag);
  }

  #runLocals(): void {
    for (let head = this.#pending.head(); head?.kind === Pending.local; head = this.#pending.head()) {
      const { sink, tag } = head;
      this.#pending.shift();
      sink.onLocal(tag);
    }
  }

  #onEnd(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    const cause = this.#lastFatal ?? connectionLost(this.address.nodeName);
    if (!this.#lastFatal && reason === 'closed by the router') this.#socket.unref();
    const sinks = new Set<ResponseSink>();
    for (const entry of this.#pending.entries()) sinks.add(entry.sink);
    if (this.lessee) sinks.add(this.lessee);
    this.#pending.clear();
    this.onClosed?.(this);
    for (const sink of sinks) sink.onLost(this, cause);
  }
}

/** Does a message of this type end the request? */
function completes(kind: PendingKind, type: number): boolean {
  switch (kind) {
    case Pending.query:
    case Pending.sync:
      return type === Backend.ReadyForQuery;
    case Pending.execute:
      return (
        type === Backend.CommandComplete ||
        type === Backend.EmptyQueryResponse ||
        type === Backend.PortalSuspended
      );
    case Pending.describeStatement:
    case Pending.describePortal:
      return type === Backend.RowDescription || type === Backend.NoData;
    case Pending.parse:
    case Pending.bind:
    case Pending.close:
      return true;
    case Pending.local:
      return false;
  }
}

/** For what nobody waits for. */
const ignoreAnswers: ResponseSink = {
  onMessage() {},
  onRows() {},
  onNotice() {},
  onLocal() {},
  onDiscarded() {},
  onLost() {},
};
