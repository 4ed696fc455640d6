/**
 * A lane of pipelined writes: each member with a Sync of its own, so in a transaction of its own, many in one write. What
 * comes back belongs to the head of the run, up to its ReadyForQuery; then its client is answered, and the next is the head.
 *
 * Next hop of a write: backend/connection.ts; its answer comes back here.
 */

import { TransactionStatus } from '../backend/connection.ts';
import { Pending, type PendingKind } from '../backend/pending.ts';
import { BOUNDS } from '../base/bounds.ts';
import { readErrorFields } from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { Backend } from '../wire/message-types.ts';
import { Lane, type LaneEvents } from './lane.ts';
import type { Member, MemberFailure } from './member.ts';
import type { PipelineQueue } from './pipeline-queue.ts';

/**
 * lock_not_available and query_canceled: by the lane's time-outs, or by a cancel. feature_not_supported: its plan on this
 * lane may be stale. Alone it is found out whether the client would have heard them.
 */
const NOT_TOLD = new Set(['55P03', '57014', '0A000']);

export class PipelineLane extends Lane {
  readonly #queue: PipelineQueue<Member>;
  #at = 0;
  #failure: MemberFailure | undefined;
  /** Something of this run was canceled: who is stopped need not be slow. */
  #canceled = false;

  constructor(index: number, queue: PipelineQueue<Member>, events: LaneEvents) {
    super(index, queue, events);
    this.#queue = queue;
  }

  send(run: readonly Member[]): void {
    const connection = this.connection!;
    this.run = run;
    this.usedSinceRest = true;
    this.#at = 0;
    this.#canceled = connection.cancelMayStrike;
    this.#clear();
    for (const member of run) {
      member.captureStart = -1;
      member.lane = this.index;
      const name =
        connection.prepared.nameOf(member.statement) ?? connection.parse(member.statement, this, undefined);
      connection.bindTail(name, member.tail.bytes, this, undefined);
      if (member.describe) connection.describe('P', '', this, undefined);
      connection.execute('', 0, this, undefined);
      connection.sync(this, undefined);
    }
  }

  answer(member: Member): void {
    const { buffer } = this.capture;
    const { captureStart, captureEnd } = member;
    if (this.#failure) member.owner.onFailed(this.#failure, buffer, captureStart, captureEnd);
    else member.owner.onCommitted(buffer, captureStart, captureEnd);
  }

  override cancel(): void {
    this.#canceled = true;
    super.cancel();
  }

  onMessage(type: number, reader: FrameReader, kind: PendingKind): void {
    switch (type) {
      case Backend.BindComplete:
        return;
      case Backend.ParseComplete:
        this.#head.statement.validated = true;
        return;
      case Backend.ReadyForQuery:
        this.#onReady();
        return;
      case Backend.ErrorResponse:
        this.#onError(reader, kind);
        return;
      default:
        this.#keep(reader.buffer, reader.start, reader.end);
    }
  }

  onRows(buffer: Buffer, start: number, end: number): void {
    this.#keep(buffer, start, end);
  }

  /** Notices of the commit, too, are the head's. */
  onNotice(reader: FrameReader, _tag: unknown): void {
    if (this.#at >= this.run.length) return;
    this.#keep(reader.buffer, reader.start, reader.end);
    if (!this.#canceled) return;
    // "canceling wait for synchronous replication due to user request" is a WARNING of this code; the commit then is local. So
    // may be what a trigger has to say, but not from there.
    const fields = readErrorFields(reader);
    if (fields.get('C') === '01000' && fields.get('R') === 'SyncRepWaitForLSN')
      this.#queue.headUnconfirmed(this.index);
  }

  onDiscarded(): void {}

  get #head(): Member {
    return this.run[this.#at]!;
  }

  #onError(reader: FrameReader, kind: PendingKind): void {
    const { statement } = this.#head;
    const sqlState = readErrorFields(reader).get('C') ?? '';
    // "cached plan must not change result type": it is prepared afresh.
    if (sqlState === '0A000') this.connection?.prepared.drop(statement);
    else if (sqlState === '57014' && !this.#canceled) this.events.onSlow(statement);
    if (NOT_TOLD.has(sqlState)) {
      this.#queue.headStopped(this.index);
      return;
    }
    const buffer = Buffer.from(reader.buffer.subarray(reader.start, reader.end));
    const bodyStart = reader.bodyStart - reader.start;
    const frame = { type: reader.type, buffer, start: 0, bodyStart, end: buffer.length };
    this.#failure = { frame, kind };
    this.#queue.headFailed(this.index, kind === Pending.sync);
  }

  #onReady(): void {
    const connection = this.connection!;
    if (connection.transactionStatus !== TransactionStatus.idle) {
      // Only a statement that opened a transaction block could do this, and none of those is a member.
      connection.destroy();
      return;
    }
    const last = this.#queue.headReady(this.index);
    this.#at++;
    this.#clear();
    if (last) this.events.onReady(this);
  }

  #clear(): void {
    this.capture.clear();
    this.#failure = undefined;
  }

  #keep(buffer: Buffer, start: number, end: number): void {
    const head = this.#head;
    if (head.captureStart < 0) head.captureStart = 0;
    const before = this.capture.length;
    this.capture.append(buffer, start, end);
    head.captureEnd = this.capture.length;
    // Once: each is a cancel request.
    const max = BOUNDS.coalescingCaptureBytesMax;
    if (before <= max && this.capture.length > max) this.#queue.headTooLarge(this.index);
  }
}
