/**
 * What comes back from a backend to one client: passed on as it came, but for errors that name a leaf (told in the
 * client's own names), ParameterStatus (told as differences of what this client knows), and the router's own answers in
 * their turn.
 *
 * Previous hop: backend/connection.ts. Next: the client's socket (output.ts).
 */

import { type BackendConnection, TransactionStatus } from '../backend/connection.ts';
import { Pending, type PendingKind, type ResponseSink } from '../backend/pending.ts';
import type { SharedStatement } from '../backend/prepared.ts';
import { connectionLost, inFailedTransaction, outcomeUnknown, PosternError } from '../base/errors.ts';
import { ServerError } from '../platform/control-connection.ts';
import {
  encodeErrorFields,
  encodeErrorResponse,
  encodeParameterStatus,
  encodeReadyForQuery,
  readErrorFields,
  readNotificationChannel,
} from '../wire/backend.ts';
import type { Frame, FrameReader } from '../wire/frame-reader.ts';
import type { FrameWriter } from '../wire/frame-writer.ts';
import { Backend } from '../wire/message-types.ts';
import { inUsersNames, isMissingLeaf, type LeafTarget } from './leaf-errors.ts';
import type { Lease } from './lease.ts';
import type { Measurement } from './measurement.ts';
import type { ClientState } from './state.ts';

/** Parameters that a client is told of when they change; the others are fixed at login. */
const REPORTED = new Set([
  'application_name',
  'client_encoding',
  'DateStyle',
  'default_transaction_read_only',
  'IntervalStyle',
  'is_superuser',
  'search_path',
  'session_authorization',
  'standard_conforming_strings',
  'TimeZone',
]);

/**
 * What PostgreSQL looks for before it looks whether the transaction has failed: syntax, statements and portals by name. And what the
 * transaction has failed by: a connection that is lost, a deadlock over nodes.
 */
const TOLD_IN_FAILED = new Set([
  '08P01',
  '55000',
  '42601',
  '42P03',
  '42P05',
  '26000',
  '34000',
  '25P02',
  '08006',
  '08007',
  '40P01',
]);

/** What the router has to know of a request when its answer comes. */
export interface RequestTag {
  /** The statement goes to a leaf: its errors are told in the user's names. */
  readonly leaf?: LeafTarget | undefined;
  /** From a character position in the text that was sent to one in the client's, if they differ. */
  readonly mapPosition?: ((position: number) => number) | undefined;
  /** The request prepares or binds this. */
  readonly statement?: SharedStatement | undefined;
  /** The client's name for it. */
  readonly name?: string | undefined;
  /** Of an execution, for postern.statements. */
  readonly measurement?: Measurement | undefined;
  /** Hears of its rows, whole frames. */
  readonly onRows?: ((buffer: Buffer, start: number, end: number) => void) | undefined;
  readonly onDone?: (() => void) | undefined;
  /** `skipped`: not by its own fault, but because an earlier message of the pipeline failed. */
  readonly onFailed?: ((skipped: boolean) => void) | undefined;
}

/** An answer of the router's own that has to wait for its turn. */
export interface LocalAnswer {
  readonly write: (writer: FrameWriter) => void;
  readonly onDone?: (() => void) | undefined;
  readonly onFailed?: ((skipped: boolean) => void) | undefined;
}

export class Responses implements ResponseSink {
  /** The COPY FROM STDIN that the client is in has failed. */
  onCopyFailed!: () => void;
  /** After a loss: portals are gone, and (with an error) what came since the last Sync is void. */
  onVoid!: (error: PosternError | undefined) => void;
  /** Notifications of this channel come by another way as well. */
  isToldElsewhere!: (channel: string) => boolean;
  /** The session can't go on. */
  onFatal!: (error: PosternError) => void;
  /** Output is not read by the client, or is again. */
  onOutput!: () => void;
  readonly #state: ClientState;
  readonly #lease: Lease;
  /** Parameters were last compared with this connection at this version. */
  #toldBy: BackendConnection | undefined;
  #toldVersion = -1;
  /** Since the client's last Sync, a message of the extended protocol has failed. */
  pipelineFailed = false;
  /** ReadyForQuery is not passed on: the client's query string is carried out in parts. */
  holdsReady = false;
  /** How many errors its client has heard. */
  errorsTold = 0;
  /**
   * The statement answered last changed rows of a leaf here, so that the transaction it was in has a transaction id of the
   * server's. undefined: not known.
   */
  changedRowsOn: BackendConnection | undefined;
  /** Counts what has been answered whole: statements, and what the client waits for with a Sync or Query. */
  answered = 0;
  #canceledFor: PosternError | undefined;
  #owedReady = 0;
  #settling: (() => void)[] = [];
  #copying: (() => void)[] = [];

  constructor(state: ClientState, lease: Lease) {
    this.#state = state;
    this.#lease = lease;
  }

  /** ReadyForQuery messages that the client is still owed. */
  get owedReady(): number {
    return this.#owedReady;
  }

  /** `count` more, or fewer, are owed. */
  owe(count: number): void {
    if (count < 0) this.#noteAnswered();
    this.#owedReady += count;
    if (this.#owedReady > 0 || this.#settling.length === 0) return;
    const waiting = this.#settling;
    this.#settling = [];
    for (const wake of waiting) wake();
  }

  /** What the client has waited for is answered: a cancel that comes now is none of it. */
  #noteAnswered(): void {
    this.answered++;
    this.#canceledFor = undefined;
  }

  /** Resolves when no ReadyForQuery is owed: what the transaction's status is, is known then. */
  settled(): Promise<void> {
    if (this.#owedReady <= 0) return Promise.resolve();
    return new Promise((resolve) => this.#settling.push(resolve));
  }

  /** Resolves when the server asks for COPY data, or when nothing that could make it ask is under way. */
  copyStarted(): Promise<void> {
    return new Promise((resolve) => {
      this.#copying.push(resolve);
      this.#checkCopying();
    });
  }

  #checkCopying(): void {
    if (this.#copying.length === 0) return;
    const { connection } = this.#lease;
    if (!this.#state.copyIn && connection && connection.pendingCount > 0) return;
    const waiting = this.#copying;
    this.#copying = [];
    for (const wake of waiting) wake();
  }

  onMessage(type: number, reader: FrameReader, kind: PendingKind, tag: unknown): void {
    const request = tag as RequestTag | undefined;
    switch (type) {
      case Backend.ErrorResponse:
        this.#onError(reader, kind, request);
        this.#checkCopying();
        return;
      case Backend.ReadyForQuery:
        this.onServerReady(request);
        this.#checkCopying();
        return;
      case Backend.CopyInResponse:
        this.#state.copyIn = true;
        if (this.#state.copiesAhead > 0) this.#state.copiesAhead--;
        break;
      case Backend.CommandComplete:
        this.#state.copyIn = false;
        this.answered++;
        if (request?.measurement) {
          request.measurement.addRows(reader.buffer, reader.end);
          if (kind !== Pending.query) request.measurement.end();
        }
        this.changedRowsOn = request?.leaf && tellsChangedRows(reader) ? this.#lease.connection : undefined;
        break;
      case Backend.ParseComplete:
        if (request?.statement) request.statement.validated = true;
        break;
    }
    this.#state.output.writer.raw(reader.buffer, reader.start, reader.end);
    if (kind !== Pending.query) request?.onDone?.();
    this.#checkCopying();
  }

  onRows(buffer: Buffer, start: number, end: number, tag?: unknown): void {
    (tag as RequestTag | undefined)?.onRows?.(buffer, start, end);
    this.#state.output.writer.raw(buffer, start, end);
    this.onOutput();
  }

  /** NoticeResponse, and NotificationResponse for a session with its own backend. */
  onNotice(reader: FrameReader): void {
    if (reader.type === Backend.NotificationResponse && this.isToldElsewhere(readNotificationChannel(reader)))
      return;
    this.#state.output.writer.raw(reader.buffer, reader.start, reader.end);
  }

  onLocal(tag: unknown): void {
    const answer = tag as LocalAnswer;
    answer.write(this.#state.output.writer);
    answer.onDone?.();
    this.#checkCopying();
    // The last answer may have been held up behind a ReadyForQuery that could not give the backend back yet.
    if (this.#lease.connection?.pendingCount === 0) this.#lease.onReady();
  }

  onDiscarded(kind: PendingKind, tag: unknown): void {
    // A Query is skipped like any other message, and nothing is owed for it.
    if (kind === Pending.query) this.owe(-1);
    (tag as RequestTag | LocalAnswer | undefined)?.onFailed?.(true);
    this.#checkCopying();
  }

  /** A backend died with answers outstanding, or while it held this session's transaction. */
  onLost(connection: BackendConnection, cause: PosternError): void {
    // One that was given up is no loss.
    if (!this.#lease.has(connection)) return;
    if (this.#lease.branches.onLost(connection, cause)) return;
    const { implicit } = this.#lease.branches;
    const inBlock =
      connection.transactionStatus !== TransactionStatus.idle ||
      (connection === this.#lease.connection && this.#lease.clientInBlock);
    const error = this.#lease.outcomeAtStake
      ? outcomeUnknown(connection.address.nodeName)
      : cause.sqlState === '08006'
        ? cause
        : connectionLost(connection.address.nodeName);
    const { unsynced } = this.#lease;
    const stays = this.#lease.onLost(connection);
    this.#state.copyIn = false;
    if (!stays) {
      this.onFatal(new PosternError({ ...fieldsOf(error), severity: 'FATAL' }));
      return;
    }
    // With the outcome of a COMMIT unknown, the transaction is over either way.
    if (inBlock && !implicit && error.sqlState !== '08007') this.#state.transaction = 'failed';
    const owed = this.owedReady;
    for (let i = 0; i < owed; i++) {
      this.writeError(error);
      if (!this.holdsReady) encodeReadyForQuery(this.#state.output.writer, this.ownStatus());
    }
    this.onVoid(unsynced || implicit ? error : undefined);
    this.owe(-owed);
    this.#checkCopying();
  }

  /** The session can't go on. Its client hears all that it is owed first. */
  endSession(error: PosternError): void {
    setImmediate(() => void this.settled().then(() => this.onFatal(error)));
  }

  /** What ReadyForQuery says when no backend is held. */
  ownStatus(): 'I' | 'T' | 'E' {
    switch (this.#state.transaction) {
      case 'none':
        return 'I';
      case 'virtual':
        return 'T';
      case 'failed':
        return 'E';
    }
  }

  /** What is under way is about to be canceled: its client hears of this instead. */
  cancelFor(error: PosternError): void {
    this.#canceledFor = error;
  }

  /** Once, if the error is that of a cancel. */
  #toldOfCancel(sqlState: string | undefined): PosternError | undefined {
    const canceledFor = this.#canceledFor;
    if (sqlState !== '57014' || !canceledFor) return undefined;
    this.#canceledFor = undefined;
    return canceledFor;
  }

  writeError(given: unknown): void {
    this.errorsTold++;
    const { writer } = this.#state.output;
    const error = this.#canceledFor ? (this.#toldOfCancel(stateOf(given)) ?? given) : given;
    if (error instanceof PosternError) encodeErrorResponse(writer, error);
    else if (error instanceof ServerError) encodeErrorFields(writer, 'E', error.fields);
    else {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      this.#state.log.error('internal error', { error: text });
      encodeErrorResponse(
        writer,
        new PosternError({
          sqlState: 'XX000',
          message: `internal error: ${error instanceof Error ? error.message : String(error)}`,
          hint: 'This is a bug in Postern. The log has more.',
        }),
      );
    }
  }

  /** An error of the router's, or of a server that it has asked for this, in the turn of a message to the backend. */
  writeErrorInPlace(error: unknown): void {
    const failedBefore = this.#lease.connection?.transactionStatus === TransactionStatus.failed;
    const told =
      error instanceof ServerError || TOLD_IN_FAILED.has(error instanceof PosternError ? error.sqlState : '');
    this.writeError(failedBefore && !told ? inFailedTransaction() : error);
  }

  /** The backend's ReadyForQuery, in the client's terms. */
  onServerReady(request?: RequestTag): void {
    const { connection } = this.#lease;
    this.#state.copyIn = false;
    this.pipelineFailed = false;
    request?.measurement?.end();
    if (connection) {
      if (connection !== this.#toldBy || connection.parametersVersion !== this.#toldVersion)
        this.#tellParameters(connection);
      request?.onDone?.();
      // In a transaction that failed here, a server may still be asked what is wrong with a text.
      const status =
        this.#state.transaction === 'none' ? statusLetter(connection.transactionStatus) : this.ownStatus();
      if (!this.holdsReady) encodeReadyForQuery(this.#state.output.writer, status);
    }
    this.#lease.onReady();
    this.owe(-1);
  }

  #onError(reader: FrameReader, kind: PendingKind, request: RequestTag | undefined): void {
    if (this.#state.copyIn) {
      this.#state.copyIn = false;
      this.onCopyFailed();
    }
    const { connection } = this.#lease;
    const statement = request?.statement;
    if (kind !== Pending.query && kind !== Pending.sync) this.pipelineFailed = true;
    if (kind !== Pending.query) request?.onFailed?.(false);
    request?.measurement?.fail();
    if (statement && connection && isStalePlan(readErrorFields(reader))) {
      // The table has changed under a statement that was prepared before: the next one prepares it afresh.
      connection.prepared.drop(statement);
      this.#state.context.statements.forget(statement);
      statement.validated = false;
    }
    this.writeServerError(reader, kind, request);
  }

  /** A server's ErrorResponse to one of a request's messages, in the client's own terms. */
  writeServerError(frame: Frame, kind: PendingKind, request: RequestTag | undefined): void {
    this.errorsTold++;
    const { writer } = this.#state.output;
    const instead =
      this.#lease.branches.waits.victimOf(frame) ??
      (this.#canceledFor && this.#toldOfCancel(readErrorFields(frame).get('C')));
    if (instead) {
      encodeErrorResponse(writer, instead);
      return;
    }
    if (request?.mapPosition && !request.leaf) {
      const fields = readErrorFields(frame);
      const position = fields.get('P');
      if (position !== undefined) fields.set('P', String(request.mapPosition(Number(position))));
      encodeErrorFields(writer, 'E', fields);
      return;
    }
    if (request?.leaf) {
      const fields = readErrorFields(frame);
      if (isMissingLeaf(fields, request.leaf)) void this.#state.context.catalog.refresh().catch(() => {});
      encodeErrorFields(writer, 'E', inUsersNames(fields, request.leaf));
      return;
    }
    if (kind === Pending.bind && request?.statement && request.name !== undefined) {
      const fields = readErrorFields(frame);
      if (fields.get('C') === '08P01') {
        encodeErrorFields(writer, 'E', withClientsName(fields, request.name));
        return;
      }
    }
    writer.raw(frame.buffer, frame.start, frame.end);
  }

  /** A transaction over several nodes has ended, and SET LOCAL with it: no answer of a server's comes by that would say so. */
  onBranchesEnded(connection: BackendConnection): void {
    if (connection !== this.#toldBy || connection.parametersVersion !== this.#toldVersion)
      this.#tellParameters(connection);
  }

  #tellParameters(connection: BackendConnection): void {
    this.#toldBy = connection;
    this.#toldVersion = connection.parametersVersion;
    for (const name of REPORTED) {
      const value = connection.parameters.get(name);
      if (value === undefined || this.#state.told.get(name) === value) continue;
      this.#state.told.set(name, value);
      encodeParameterStatus(this.#state.output.writer, name, value);
    }
  }
}

/**
 * The answers to a message that was sent only to make the server fail the transaction as PostgreSQL would have: the
 * router's own error takes the place of the server's. In a transaction that has already failed, that is the error.
 */
export class ErrorInPlace implements ResponseSink {
  readonly #responses: Responses;
  readonly #error: unknown;

  constructor(responses: Responses, error: unknown) {
    this.#responses = responses;
    this.#error = error;
  }

  onMessage(type: number, _reader: FrameReader, _kind: PendingKind, tag: unknown): void {
    if (type === Backend.ErrorResponse) {
      this.#responses.writeErrorInPlace(this.#error);
      (tag as RequestTag | undefined)?.onDone?.();
    }
    if (type === Backend.ReadyForQuery) this.#responses.onServerReady();
  }

  onRows(): void {}
  onNotice(): void {}
  onLocal(): void {}

  onDiscarded(kind: PendingKind, tag: unknown): void {
    this.#responses.onDiscarded(kind, tag);
  }

  /** The session is told as the connection's lessee. */
  onLost(): void {}
}

/** The answer to a Parse that the router has put in: nothing, unless it fails. */
export class InjectedParse implements ResponseSink {
  readonly #responses: Responses;

  constructor(responses: Responses) {
    this.#responses = responses;
  }

  onMessage(type: number, reader: FrameReader, kind: PendingKind, tag: unknown): void {
    if (type === Backend.ErrorResponse) this.#responses.onMessage(type, reader, kind, tag);
    else (tag as RequestTag).statement!.validated = true;
  }

  onRows(): void {}
  onNotice(reader: FrameReader): void {
    this.#responses.onNotice(reader);
  }
  onLocal(): void {}
  onDiscarded(kind: PendingKind, tag: unknown): void {
    this.#responses.onDiscarded(kind, tag);
  }
  onLost(): void {}
}

function stateOf(error: unknown): string | undefined {
  if (error instanceof PosternError) return error.sqlState;
  return error instanceof ServerError ? error.fields.get('C') : undefined;
}

/** Is it the tag of INSERT, UPDATE, DELETE or MERGE with a count above 0? */
function tellsChangedRows({ buffer, start, end }: Frame): boolean {
  const first = buffer[start + 5];
  const isWrite = first === 0x49 || first === 0x55 || first === 0x44 || first === 0x4d;
  const isZero = buffer[end - 2] === 0x30 && buffer[end - 3] === 0x20;
  return isWrite && !isZero;
}

/** The number of parameters is told with the name of the statement. */
function withClientsName(fields: Map<string, string>, name: string): Map<string, string> {
  const message = fields.get('M') ?? '';
  return new Map(fields).set(
    'M',
    message.replace(/"postern_\d+"/, () => `"${name}"`),
  );
}

/** "cached plan must not change result type" */
function isStalePlan(fields: Map<string, string>): boolean {
  return fields.get('C') === '0A000' && fields.get('R') === 'RevalidateCachedQuery';
}

function statusLetter(status: number): 'I' | 'T' | 'E' {
  return String.fromCharCode(status) as 'I' | 'T' | 'E';
}

function fieldsOf(error: PosternError): {
  sqlState: string;
  message: string;
  detail?: string;
  hint?: string;
} {
  return {
    sqlState: error.sqlState,
    message: error.message,
    ...(error.detail === undefined ? {} : { detail: error.detail }),
    ...(error.hint === undefined ? {} : { hint: error.hint }),
  };
}
