/**
 * One client after its login: reads its frames one by one, hands each to its protocol, and stops reading while something
 * has to be waited for.
 *
 *   reading ──a handler waits──▶ waiting ──done──▶ reading
 *      │                                             │ Terminate: what is in flight is answered first
 *      └──────────── socket closed, FATAL, shutdown ─┴──▶ closed (lease.end())
 *
 * While it has a `departure`, it leaves before the first frame that finds it between two transactions (HANDOVER.md).
 *
 * Invariant: no frame is read while the one before it is still being handled, so its view stays valid meanwhile.
 * Next hop: simple-protocol.ts or extended-protocol.ts.
 */
import type { Socket } from 'node:net';
import type { Expiry, Look } from '../admission/session-clock.ts';
import { BOUNDS } from '../base/bounds.ts';
import {
  idleInTransactionTimedOut,
  idleTimedOut,
  notSupported,
  PosternError,
  protocolViolation,
  shuttingDown,
  statementTimedOut,
} from '../base/errors.ts';
import { stopAndDrain } from '../platform/socket-transfer.ts';
import { encodeErrorResponse } from '../wire/backend.ts';
import { checkUnfinished } from '../wire/client-frames.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { Frontend } from '../wire/message-types.ts';
import type { ClientStatements } from './client-statements.ts';
import { Conversation, PARKED } from './conversation.ts';
import type { Departure, Leaver, Mover } from './departures.ts';
import { ExtendedProtocol } from './extended-protocol.ts';
import { isBetweenTransactions, packState, unpackSession } from './handover.ts';
import type { PackedState } from './handover-form.ts';
import { Lease } from './lease.ts';
import { PreparedExecution } from './prepared-execution.ts';
import { Responses } from './responses.ts';
import { SimpleProtocol } from './simple-protocol.ts';
import type { ClientState } from './state.ts';
import { describeSession, type Watched } from './timeouts.ts';

export class Session implements Leaver, Watched {
  readonly id: number;
  readonly #socket: Socket;
  readonly #reader: FrameReader;
  readonly #state: ClientState;
  readonly #lease: Lease;
  readonly #responses: Responses;
  readonly #conversation: Conversation;
  readonly #simple: SimpleProtocol;
  readonly #extended: ExtendedProtocol;
  readonly #onClosed: () => void;
  #waiting = false;
  #closed = false;
  #outputStalled = false;
  /** What arrived while parked. */
  #early: Buffer | undefined;
  #backendStalled = false;
  /** Messages that were read. */
  #frames = 0;
  departure: Departure | undefined;

  constructor(options: {
    id: number;
    socket: Socket;
    reader: FrameReader;
    state: ClientState;
    onClosed: () => void;
  }) {
    this.id = options.id;
    this.#socket = options.socket;
    this.#reader = options.reader;
    this.#reader.onUnfinished = checkUnfinished;
    this.#state = options.state;
    this.#onClosed = options.onClosed;
    this.#lease = new Lease(this.#state);
    this.#responses = new Responses(this.#state, this.#lease);
    this.#lease.responses = this.#responses;
    const conversation = new Conversation(this.#state, this.#lease, this.#responses);
    conversation.unpark = () => this.#unpark();
    conversation.onIntake = () => this.#pump();
    this.#conversation = conversation;
    conversation.notifications.isIdle = () =>
      !this.#waiting && !this.#closed && isBetweenTransactions(conversation);
    const execution = new PreparedExecution(conversation);
    this.#simple = new SimpleProtocol(conversation, execution);
    this.#extended = new ExtendedProtocol(conversation, execution);
    this.#lease.onFatal = (error) => this.#fatal(error);
    this.#responses.onFatal = (error) => this.#fatal(error);
    this.#responses.onVoid = (error) => {
      this.#extended.onVoid(error);
      this.#onFree();
    };
    this.#responses.onOutput = () => this.#checkOutput();
    this.#responses.onCopyFailed = () => {
      if (!this.#state.syncHeld) return;
      this.#state.syncHeld = false;
      void this.#extended.onSync();
    };
    this.#lease.onFree = () => {
      this.#extended.forgetPortals();
      this.#simple.onFree();
      conversation.mesh.onFree();
      conversation.sequences.onTransactionEnd();
      conversation.notifications.onFree();
    };
    this.#socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    this.#socket.on('drain', () => this.#onDrain());
    this.#state.output.onTaken = () => this.#onDrain();
    this.#socket.on('close', () => this.#close());
    this.#socket.on('error', () => this.#socket.destroy());
  }

  /** Frames that came together with the last one of the login. */
  start(): void {
    this.#pump();
  }

  /** What the session had in the process that it comes from; before start(). */
  restore(packed: PackedState): void {
    unpackSession(packed, this.#conversation, this.#extended.statementsAtRest!);
  }

  tryToLeave(): boolean {
    const { departure } = this;
    if (!departure || this.#closed || this.#waiting || this.#outputStalled || this.#backendStalled)
      return false;
    if (departure.mover && !departure.mover.mayGo) return false;
    const statements = this.#extended.statementsAtRest;
    if (!isBetweenTransactions(this.#conversation)) return false;
    if (departure.mover && this.#moveBy(departure.mover, statements)) return true;
    if (departure.ends) this.shutDown();
    return departure.ends;
  }

  #moveBy(mover: Mover, statements: ClientStatements | undefined): boolean {
    const socket = this.#socket;
    if ('encrypted' in socket || socket.destroyed || socket.readableEnded) return false;
    const unreadBytes = this.#reader.bufferedBytes + (this.#early?.length ?? 0) + socket.readableLength;
    const state = packState(this.#conversation, statements, unreadBytes);
    if (!state) return false;
    socket.removeAllListeners('data');
    const buffered = stopAndDrain(socket);
    if (!buffered) {
      this.#close();
      return true;
    }
    const unread = Buffer.concat([this.#reader.takeRest(), this.#early ?? Buffer.alloc(0), buffered]);
    this.#closed = true;
    this.#lease.end();
    this.#state.log.handedOver();
    mover.move(this, socket, { ...state, unread: unread.toString('base64') });
    this.#onClosed();
    return true;
  }

  cancel(): Promise<void> {
    if (this.#conversation.cancelWrite()) return Promise.resolve();
    this.#conversation.isCanceled = true;
    if (this.#conversation.runningPieces) {
      this.#conversation.runningPieces.cancel();
      return Promise.resolve();
    }
    return this.#lease.cancel();
  }

  describe(seen: Look): void {
    describeSession(this.#conversation, { isBusy: this.#waiting, frames: this.#frames }, seen);
  }

  expire(what: Expiry): void {
    switch (what) {
      case 'idle':
        this.#fatal(idleTimedOut());
        return;
      case 'idleInTransaction':
        this.#fatal(idleInTransactionTimedOut());
        return;
      case 'statement':
        this.#responses.cancelFor(statementTimedOut());
        void this.cancel();
        return;
      case 'stalled':
        this.#state.log.left(TAKES_NOTHING);
        this.#socket.destroy();
    }
  }

  get user(): string {
    return this.#state.user;
  }

  /** The router is stopping. */
  shutDown(): void {
    this.#fatal(shuttingDown());
  }

  #onData(chunk: Buffer): void {
    if (this.#closed) return;
    if (this.#waiting && !this.#takesRows) {
      // A parked session leaves its socket open for reading: it is seldom parked for long.
      this.#early = this.#early ? Buffer.concat([this.#early, chunk]) : chunk;
      this.#socket.pause();
      return;
    }
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
      while ((!this.#waiting || this.#conversation.copyIntake) && !this.#closed) {
        if (this.departure && this.tryToLeave()) return;
        if (this.#waiting ? this.#intakeIsFull() : this.#awaitsCopy() || this.#mustPause()) return;
        if (!this.#reader.next()) {
          if (this.#early) {
            const chunk = this.#early;
            this.#early = undefined;
            this.#reader.push(chunk);
            continue;
          }
          this.#conversation.notifications.deliver();
          this.#socket.resume();
          return;
        }
        if (this.#waiting) {
          this.#onIntakeFrame();
          continue;
        }
        const waiting = this.#onFrame();
        if (waiting === PARKED) this.#waiting = true;
        else if (waiting) this.#wait(waiting);
      }
    } catch (error) {
      this.#onError(error);
    }
  }

  /** A statement is under way that takes what the client sends. */
  get #takesRows(): boolean {
    const { copyIntake } = this.#conversation;
    return copyIntake !== undefined && !copyIntake.isFull;
  }

  #intakeIsFull(): boolean {
    const intake = this.#conversation.copyIntake;
    if (!intake?.isFull) return false;
    this.#socket.pause();
    intake.onRoom = () => {
      intake.onRoom = undefined;
      this.#pump();
    };
    return true;
  }

  /** A message of a client in a COPY FROM STDIN that the router carries out. */
  #onIntakeFrame(): void {
    const intake = this.#conversation.copyIntake!;
    const { type, buffer, bodyStart, end } = this.#reader;
    switch (type) {
      case Frontend.CopyData:
        intake.onData(buffer, bodyStart, end);
        return;
      case Frontend.CopyDone:
        intake.onEnd();
        return;
      case Frontend.CopyFail:
        intake.onFail(buffer.toString('utf8', bodyStart, Math.max(bodyStart, end - 1)));
        return;
      case Frontend.Flush:
      case Frontend.Sync:
        return;
      case Frontend.Terminate:
        this.#close();
        return;
    }
    throw duringCopy(type);
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

  #unpark(): void {
    if (!this.#waiting || this.#closed) return;
    this.#waiting = false;
    this.#responses.answered++;
    this.#pump();
  }

  #onFrame(): void | Promise<void> | typeof PARKED {
    const reader = this.#reader;
    this.#frames++;
    this.#checkCopy(reader.type);
    switch (reader.type) {
      case Frontend.Query:
        return this.#extended.beforeQuery(() => this.#simple.onQuery(reader));
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
        if (this.#state.copyIn) {
          this.#state.syncHeld = true;
          return;
        }
        return this.#extended.onSync();
      case Frontend.CopyData:
      case Frontend.CopyDone:
      case Frontend.CopyFail:
        return this.#onCopyFrame();
      case Frontend.Terminate:
        return this.#terminate();
      case Frontend.FunctionCall:
        throw new PosternError({
          ...fatal(notSupported('the fastpath function call is not supported', 'Use SELECT f(…).')),
        });
      default:
        throw protocolViolation(`invalid frontend message type ${reader.type}`);
    }
  }

  /**
   * What was sent whole is answered first, so that it takes place. What waits for more of this client's messages never ends:
   * a pipeline without its Sync, a COPY without its rows.
   */
  #terminate(): Promise<void> | void {
    if (this.#lease.unsynced || this.#state.copyIn) this.#close();
    else return this.#lease.drained().then(() => this.#close());
  }

  /** Outside of a COPY they are ignored, as PostgreSQL does after one has failed. */
  #onCopyFrame(): void {
    const { connection } = this.#lease;
    if (!connection || this.#conversation.skipping) return;
    const state = this.#state;
    if (!state.copyIn) return;
    connection.copyFrames(this.#reader.buffer, this.#reader.start, this.#reader.end);
    state.syncHeld = false;
    if (this.#reader.type !== Frontend.CopyData) state.copyIn = false;
  }

  /**
   * To a server that reads rows, what follows a COPY means something else than to one that has refused it: a Sync is nothing,
   * and a Query the end of the connection. So it is not sent before that is known.
   */
  #awaitsCopy(): boolean {
    const state = this.#state;
    if (state.copiesAhead <= 0 || state.copyIn) return false;
    this.#waiting = true;
    // To be parked is to hear of a client that goes away.
    this.#socket.resume();
    this.#lease.connection?.flushMessage();
    void this.#responses.copyStarted().then(() => {
      // Answered, and none has begun.
      if (!state.copyIn) state.copiesAhead = 0;
      this.#unpark();
    });
    return true;
  }

  /** PostgreSQL ends the connection. */
  #checkCopy(type: number): void {
    if (!this.#state.copyIn) return;
    switch (type) {
      case Frontend.CopyData:
      case Frontend.CopyDone:
      case Frontend.CopyFail:
      case Frontend.Flush:
      case Frontend.Sync:
      case Frontend.Terminate:
        return;
    }
    throw duringCopy(type);
  }

  /** Back-pressure: neither a client that doesn't read nor a backend that doesn't may fill the router's memory. */
  #mustPause(): boolean {
    const { connection } = this.#lease;
    if (connection && connection.unsentBytes > BOUNDS.backendUnsentBytesMax) {
      this.#socket.pause();
      this.#backendStalled = true;
      connection.onDrain = () => {
        connection.onDrain = undefined;
        this.#backendStalled = false;
        this.#pump();
      };
      return true;
    }
    if (connection && connection.pendingCount > BOUNDS.pendingRequestsMax && !this.#state.copyIn) {
      // Without a Sync or Flush the server would keep its answers to itself, and the router what comes behind them.
      connection.flushMessage();
      this.#socket.pause();
      this.#backendStalled = true;
      connection.onAnswered = () => {
        connection.onAnswered = undefined;
        this.#backendStalled = false;
        this.#pump();
      };
      return true;
    }
    if (this.#state.output.unsentBytes <= BOUNDS.clientUnsentBytesMax) return false;
    this.#outputStalled = true;
    this.#socket.pause();
    return true;
  }

  /** The backend that took no more is gone, or somebody else's. */
  #onFree(): void {
    if (!this.#backendStalled) return;
    this.#backendStalled = false;
    queueMicrotask(() => this.#pump());
  }

  /** Rows are on their way to a client that doesn't read them: its backend waits. */
  #checkOutput(): void {
    if (this.#state.output.unsentBytes <= BOUNDS.clientUnsentBytesMax) return;
    this.#outputStalled = true;
    this.#lease.connection?.pauseReading();
  }

  #onDrain(): void {
    this.#conversation.runningPieces?.resume();
    this.#conversation.notifications.deliver();
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
    this.#state.log.error('internal error', {
      error: error instanceof Error ? (error.stack ?? error.message) : String(error),
    });
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
    this.#state.log.left(error);
    this.#close();
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    // A write that is under way is carried out: taking it back would undo a batch, and so hold up the others in it.
    // Pieces that wait for the client to read would wait for ever.
    this.#conversation.runningPieces?.resume();
    this.#conversation.runningPieces?.cancel();
    this.#conversation.mesh.end();
    this.#conversation.notifications.end();
    this.#lease.end();
    this.#state.output.end();
    this.#state.log.left();
    // A client that neither reads nor closes is not waited for.
    const socket = this.#socket;
    socket.setTimeout(5_000, () => socket.destroy());
    socket.resume();
    this.#onClosed();
  }
}

/** For the log: nothing can be told to such a client. */
const TAKES_NOTHING = { sqlState: '08006', message: 'the client takes none of its output' };

function duringCopy(type: number): PosternError {
  return protocolViolation(
    `unexpected message type 0x${type.toString(16).toUpperCase()} during COPY from stdin`,
  );
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
