/**
 * One client after its login: reads its frames one by one, hands each to its protocol, and stops reading while something
 * has to be waited for.
 *
 *   reading ──a handler waits──▶ waiting ──done──▶ reading
 *      │                                             │ Terminate: what is in flight is answered first
 *      └──────────── socket closed, FATAL, shutdown ─┴──▶ closed (lease.end())
 *
 * Invariant: no frame is read while the one before it is still being handled, so its view stays valid meanwhile.
 * Next hop: simple-protocol.ts or extended-protocol.ts.
 */
import type { Socket } from 'node:net';
import { BOUNDS } from '../base/bounds.ts';
import { notSupported, PosternError, protocolViolation, shuttingDown } from '../base/errors.ts';
import { encodeErrorResponse } from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { Frontend } from '../wire/message-types.ts';
import { Conversation } from './conversation.ts';
import { ExtendedProtocol } from './extended-protocol.ts';
import { Lease } from './lease.ts';
import { Responses } from './responses.ts';
import { SimpleProtocol } from './simple-protocol.ts';
import type { ClientState } from './state.ts';

export class Session {
  readonly #socket: Socket;
  readonly #reader: FrameReader;
  readonly #state: ClientState;
  readonly #lease: Lease;
  readonly #responses: Responses;
  readonly #simple: SimpleProtocol;
  readonly #extended: ExtendedProtocol;
  readonly #onClosed: () => void;
  #waiting = false;
  #closed = false;
  #outputStalled = false;

  constructor(options: { socket: Socket; reader: FrameReader; state: ClientState; onClosed: () => void }) {
    this.#socket = options.socket;
    this.#reader = options.reader;
    this.#state = options.state;
    this.#onClosed = options.onClosed;
    this.#lease = new Lease(this.#state);
    this.#responses = new Responses(this.#state, this.#lease);
    this.#lease.responses = this.#responses;
    const conversation = new Conversation(this.#state, this.#lease, this.#responses);
    this.#simple = new SimpleProtocol(conversation);
    this.#extended = new ExtendedProtocol(conversation);
    this.#lease.onFatal = (error) => this.#fatal(error);
    this.#responses.onFatal = (error) => this.#fatal(error);
    this.#responses.onVoid = (error) => this.#extended.onVoid(error);
    this.#responses.onOutput = () => this.#checkOutput();
    this.#socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    this.#socket.on('drain', () => this.#onDrain());
    this.#socket.on('close', () => this.#close());
    this.#socket.on('error', () => this.#socket.destroy());
  }

  /** Frames that came together with the last one of the login. */
  start(): void {
    this.#pump();
  }

  cancel(): Promise<void> {
    return this.#lease.cancel();
  }

  /** The router is stopping. */
  shutDown(): void {
    this.#fatal(shuttingDown());
  }

  #onData(chunk: Buffer): void {
    if (this.#closed) return;
    try {
      this.#reader.push(chunk);
    } catch (error) {
      this.#onError(error);
      return;
    }
    this.#pump();
  }

  #pump(): void {
    try {
      while (!this.#waiting && !this.#closed) {
        if (this.#mustPause()) return;
        if (!this.#reader.next()) {
          this.#socket.resume();
          return;
        }
        const waiting = this.#onFrame();
        if (waiting) this.#wait(waiting);
      }
    } catch (error) {
      this.#onError(error);
    }
  }

  #wait(until: Promise<void>): void {
    this.#waiting = true;
    this.#socket.pause();
    until.then(
      () => {
        this.#waiting = false;
        this.#pump();
      },
      (error) => this.#onError(error),
    );
  }

  #onFrame(): void | Promise<void> {
    const reader = this.#reader;
    switch (reader.type) {
      case Frontend.Query:
        return this.#simple.onQuery(reader);
      case Frontend.Parse:
        return this.#extended.onParse(reader);
      case Frontend.Bind:
        return this.#extended.onBind(reader);
      case Frontend.Describe:
        return this.#extended.onDescribe(reader);
      case Frontend.Execute:
        return this.#extended.onExecute(reader);
      case Frontend.Close:
        return this.#extended.onClose(reader);
      case Frontend.Flush:
        return this.#extended.onFlush();
      case Frontend.Sync:
        return this.#extended.onSync();
      case Frontend.CopyData:
      case Frontend.CopyDone:
      case Frontend.CopyFail:
        return this.#onCopyFrame();
      case Frontend.Terminate:
        return this.#lease.drained().then(() => this.#close());
      case Frontend.FunctionCall:
        throw new PosternError({
          ...fatal(notSupported('the fastpath function call is not supported', 'Use SELECT f(…).')),
        });
      default:
        throw protocolViolation(`invalid frontend message type ${reader.type}`);
    }
  }

  /** Outside of a COPY they are ignored, as PostgreSQL does after one has failed. */
  #onCopyFrame(): void {
    const { connection } = this.#lease;
    if (!this.#state.copyIn || !connection) return;
    connection.copyFrames(this.#reader.buffer, this.#reader.start, this.#reader.end);
  }

  /** Back-pressure: neither a client that doesn't read nor a backend that doesn't may fill the router's memory. */
  #mustPause(): boolean {
    const { connection } = this.#lease;
    if (connection && connection.unsentBytes > BOUNDS.backendUnsentBytesMax) {
      this.#socket.pause();
      connection.onDrain = () => {
        connection.onDrain = undefined;
        this.#pump();
      };
      return true;
    }
    if (this.#state.output.unsentBytes <= BOUNDS.clientUnsentBytesMax) return false;
    this.#outputStalled = true;
    this.#socket.pause();
    return true;
  }

  /** Rows are on their way to a client that doesn't read them: its backend waits. */
  #checkOutput(): void {
    if (this.#state.output.unsentBytes <= BOUNDS.clientUnsentBytesMax) return;
    this.#outputStalled = true;
    this.#lease.connection?.pauseReading();
  }

  #onDrain(): void {
    if (!this.#outputStalled) return;
    this.#outputStalled = false;
    this.#lease.connection?.resumeReading();
    this.#pump();
  }

  #onError(error: unknown): void {
    if (error instanceof PosternError) {
      this.#fatal(error);
      return;
    }
    this.#state.context.log.error(error instanceof Error ? (error.stack ?? error.message) : String(error));
    this.#fatal(
      new PosternError({
        sqlState: 'XX000',
        message: `internal error: ${error instanceof Error ? error.message : String(error)}`,
        hint: 'This is a bug in Postern. The log has more.',
      }),
    );
  }

  #fatal(error: PosternError): void {
    if (this.#closed) return;
    encodeErrorResponse(this.#state.output.writer, new PosternError(fatal(error)));
    this.#close();
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#lease.end();
    this.#state.output.end();
    // A client that neither reads nor closes is not waited for.
    const socket = this.#socket;
    socket.setTimeout(5_000, () => socket.destroy());
    socket.resume();
    this.#onClosed();
  }
}

function fatal(error: PosternError) {
  return {
    sqlState: error.sqlState,
    message: error.message,
    detail: error.detail,
    hint: error.hint,
    severity: 'FATAL' as const,
  };
}
