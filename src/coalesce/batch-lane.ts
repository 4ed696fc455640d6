/**
 * A lane of merged commits: the messages of a batch, and the answers kept back until the commit.
 *
 * Next hop of a write: backend/connection.ts; its answer comes back here, and goes to the member's session at the commit.
 */

import { type BackendConnection, TransactionStatus } from '../backend/connection.ts';
import { Pending, type PendingKind } from '../backend/pending.ts';
import type { SharedStatement } from '../backend/prepared.ts';
import { assert } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';
import { readCommandTag, readErrorFields } from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { Backend } from '../wire/message-types.ts';
import { Lane, type LaneEvents } from './lane.ts';
import type { Member } from './member.ts';
import { MultiRowInsert, multiRowOf } from './multi-row.ts';
import { COMMIT_FAILED, type CoalescingQueue, SOMEBODY_FAILED } from './queue.ts';

/** CommandComplete of a one-row INSERT. */
const ONE_ROW_INSERTED = Buffer.from('C\0\0\0\x0fINSERT 0 1\0', 'latin1');

export class BatchLane extends Lane {
  readonly #queue: CoalescingQueue<Member>;
  /** What the server says of the commit itself is for every member. */
  #commitNotices: Buffer | undefined;
  /** By the index of its first member: what was sent, and for how many members. */
  readonly #statements: SharedStatement[] = [];
  readonly #rows: number[] = [];

  constructor(index: number, queue: CoalescingQueue<Member>, events: LaneEvents) {
    super(index, queue, events);
    this.#queue = queue;
  }

  answer(member: Member): void {
    const { buffer } = this.capture;
    const { captureStart, captureEnd } = member;
    if (!this.#commitNotices) {
      member.owner.onCommitted(buffer, captureStart, captureEnd);
      return;
    }
    const own = captureStart < 0 ? [] : [buffer.subarray(captureStart, captureEnd)];
    const whole = Buffer.concat([...own, this.#commitNotices]);
    member.owner.onCommitted(whole, 0, whole.length);
  }

  send(batch: readonly Member[]): void {
    const connection = this.connection!;
    this.run = batch;
    this.usedSinceRest = true;
    this.capture.clear();
    this.#commitNotices = undefined;
    this.#rows.length = 0;
    this.#rows.length = batch.length;
    const merging = this.#queue.isSmooth;
    for (let at = 0; at < batch.length; ) {
      const member = batch[at]!;
      const rows = merging && member.row && !member.single ? this.#rowsFrom(at) : 1;
      if (rows === 1) this.#sendOne(connection, member, at);
      else this.#sendRows(connection, member, at, rows);
      at += rows;
    }
    connection.sync(this, -1);
  }

  #sendOne(connection: BackendConnection, member: Member, at: number): void {
    this.#begin(at, member.statement, 1);
    const name = connection.prepared.nameOf(member.statement) ?? connection.parse(member.statement, this, at);
    connection.bindTail(name, member.tail.bytes, this, at);
    if (member.describe) connection.describe('P', '', this, at);
    connection.execute('', 0, this, at);
  }

  /** Members `at` to `at + rows − 1` as one multi-row INSERT. */
  #sendRows(connection: BackendConnection, member: Member, at: number, rows: number): void {
    const merged = multiRowOf(member.statement, member.tail.parameterCount) as MultiRowInsert;
    const statement = merged.statement(rows);
    this.#begin(at, statement, rows);
    const name = connection.prepared.nameOf(statement) ?? connection.parse(statement, this, at);
    connection.bindRows(name, { tails: this.run, start: at, count: rows }, this, at);
    connection.execute('', 0, this, at);
  }

  #begin(at: number, statement: SharedStatement, rows: number): void {
    this.#statements[at] = statement;
    this.#rows[at] = rows;
    for (let i = at; i < at + rows; i++) {
      const member = this.run[i]!;
      member.lane = this.index;
      member.captureStart = -1;
    }
  }

  /** How many members from `at` on make one multi-row INSERT; 1: this one goes by itself. */
  #rowsFrom(at: number): number {
    const batch = this.run;
    const first = batch[at]!;
    const { format, parameterCount } = first.tail;
    if (format < 0) return 1;
    let end = at + 1;
    while (end < batch.length) {
      const { statement, tail, row, single } = batch[end]!;
      if (statement !== first.statement || !row || single) break;
      if (tail.format !== format || tail.parameterCount !== parameterCount) break;
      end++;
    }
    const rows = MultiRowInsert.rowsFor(end - at);
    return rows > 1 && multiRowOf(first.statement, parameterCount) ? rows : 1;
  }

  onMessage(type: number, reader: FrameReader, kind: PendingKind, tag: unknown): void {
    const at = tag as number;
    switch (type) {
      case Backend.BindComplete:
        return;
      case Backend.ParseComplete:
        this.#statements[at]!.validated = true;
        return;
      case Backend.ReadyForQuery:
        this.#onReady();
        return;
      case Backend.ErrorResponse:
        this.#onError(reader, kind, at);
        return;
      case Backend.CommandComplete:
        if (this.#rows[at]! > 1) {
          this.#completeRows(reader, at);
          return;
        }
        this.#keep(at, reader.buffer, reader.start, reader.end);
        return;
      default:
        this.#keep(at, reader.buffer, reader.start, reader.end);
    }
  }

  onRows(buffer: Buffer, start: number, end: number, tag: unknown): void {
    this.#keep(tag as number, buffer, start, end);
  }

  onNotice(reader: FrameReader, tag: unknown): void {
    if (typeof tag !== 'number') return;
    if (tag >= 0) this.#keep(tag, reader.buffer, reader.start, reader.end);
    else this.#onCommitNotice(reader);
  }

  onDiscarded(kind: PendingKind, tag: unknown): void {
    if (kind === Pending.parse) this.connection?.prepared.remove(this.#statements[tag as number]!);
  }

  /**
   * "canceling wait for synchronous replication due to user request" is a WARNING of this code; the commit then is local. So may
   * be what a deferred trigger has to say, but not from there.
   */
  #onCommitNotice(reader: FrameReader): void {
    const notice = reader.buffer.subarray(reader.start, reader.end);
    this.#commitNotices = Buffer.concat(this.#commitNotices ? [this.#commitNotices, notice] : [notice]);
    const fields = readErrorFields(reader);
    if (fields.get('C') === '01000' && fields.get('R') === 'SyncRepWaitForLSN')
      this.#queue.commitUnconfirmed(this.index);
  }

  #onError(reader: FrameReader, kind: PendingKind, at: number): void {
    if (at < 0) {
      this.#queue.memberFailed(this.index, COMMIT_FAILED);
      return;
    }
    const prepared = this.connection?.prepared;
    const statement = this.#statements[at]!;
    const rows = this.#rows[at]!;
    const sqlState = readErrorFields(reader).get('C');
    if (kind === Pending.parse) prepared?.remove(statement);
    // "cached plan must not change result type": it is prepared afresh.
    else if (sqlState === '0A000') prepared?.drop(statement);
    // statement_timeout; or a cancel request, which now and then strikes one that is not slow.
    else if (sqlState === '57014' && rows === 1) this.events.onSlow(statement);
    for (let i = at; rows > 1 && i < at + rows; i++) this.run[i]!.single = true;
    this.#queue.memberFailed(this.index, rows > 1 ? SOMEBODY_FAILED : at);
  }

  /** `INSERT 0 n` for n members is `INSERT 0 1` for each. */
  #completeRows(reader: FrameReader, at: number): void {
    const rows = this.#rows[at]!;
    assert(
      readCommandTag(reader) === `INSERT 0 ${rows}`,
      'a multi-row INSERT of plain values inserts each row',
    );
    const start = this.capture.length;
    this.capture.append(ONE_ROW_INSERTED, 0, ONE_ROW_INSERTED.length);
    for (let i = at; i < at + rows; i++) {
      this.run[i]!.captureStart = start;
      this.run[i]!.captureEnd = this.capture.length;
    }
  }

  #onReady(): void {
    const connection = this.connection!;
    if (connection.transactionStatus !== TransactionStatus.idle) {
      // Only a statement that opened a transaction block could do this, and none of those is a member.
      connection.destroy();
      return;
    }
    this.events.onReady(this);
  }

  /** Answers come in the order of the members, so each one's frames lie together. */
  #keep(at: number, buffer: Buffer, start: number, end: number): void {
    const member = this.run[at]!;
    if (member.captureStart < 0) member.captureStart = this.capture.length;
    this.capture.append(buffer, start, end);
    member.captureEnd = this.capture.length;
    if (this.capture.length > BOUNDS.coalescingCaptureBytesMax) this.#queue.memberTooLarge(this.index, at);
  }
}
