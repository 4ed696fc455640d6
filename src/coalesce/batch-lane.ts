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
import { readCommandTag, readErrorFields, readParameterDescription } from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { Backend } from '../wire/message-types.ts';
import { Lane, type LaneEvents } from './lane.ts';
import type { Member } from './member.ts';
import { type MultiRow, multiRowOf, needsTypes, noteTypes, rowsFor } from './multi-row.ts';
import { MultiRowUpdate } from './multi-row-update.ts';
import { COMMIT_FAILED, type CoalescingQueue, SOMEBODY_FAILED } from './queue.ts';

/** Behind NoData for those who have asked for a description: CommandComplete of a one-row INSERT, and of an UPDATE. */
const NO_DATA_BYTES = 5;
const ONE_ROW_INSERTED = Buffer.from('n\0\0\0\x04C\0\0\0\x0fINSERT 0 1\0', 'latin1');
const ONE_ROW_UPDATED = Buffer.from('n\0\0\0\x04C\0\0\0\x0dUPDATE 1\0', 'latin1');

export class BatchLane extends Lane {
  readonly #queue: CoalescingQueue<Member>;
  /** What the server says of the commit itself is for every member. */
  #commitNotices: Buffer | undefined;
  /** By the index of its first member: what was sent, and for how many members. */
  readonly #statements: SharedStatement[] = [];
  readonly #rows: number[] = [];
  /** By the index of its first member: the form for several that was sent. */
  readonly #forms: MultiRow[] = [];
  /** By member: how many rows its part of an UPDATE for several has touched. */
  readonly #touched: number[] = [];
  readonly #affinities = new Set<number>();

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
    this.#touched.length = batch.length;
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
    const { statement } = member;
    this.#begin(at, statement, 1);
    const name = connection.prepared.nameOf(statement) ?? connection.parse(statement, this, at);
    if (member.row && needsTypes(statement, member.tail.parameterCount))
      connection.describe('S', name, this, at);
    connection.bindTail(name, member.tail.bytes, this, at);
    if (member.describe) connection.describe('P', '', this, at);
    connection.execute('', 0, this, at);
  }

  /** Members `at` to `at + rows − 1` as one statement. */
  #sendRows(connection: BackendConnection, member: Member, at: number, rows: number): void {
    const form = multiRowOf(member.statement, member.tail.parameterCount) as MultiRow;
    const statement = form.statement(rows);
    this.#forms[at] = form;
    if (form instanceof MultiRowUpdate) this.#touched.fill(0, at, at + rows);
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

  /** How many members from `at` on make one statement; 1: this one goes by itself. */
  #rowsFrom(at: number): number {
    const batch = this.run;
    const first = batch[at]!;
    const { format, parameterCount } = first.tail;
    if (format < 0) return 1;
    const form = multiRowOf(first.statement, parameterCount);
    if (!form || form.parameterCount !== parameterCount) return 1;
    const isUpdate = form instanceof MultiRowUpdate;
    if (isUpdate && !form.pays) return 1;
    this.#affinities.clear();
    let end = at;
    for (; end < batch.length; end++) {
      const { statement, tail, row, single, affinity } = batch[end]!;
      if (statement !== first.statement || !row || single) break;
      if (tail.format !== format || tail.parameterCount !== parameterCount) break;
      if (!isUpdate) continue;
      // Of two with one key, PostgreSQL would carry out one.
      if (affinity < 0 || this.#affinities.has(affinity)) break;
      this.#affinities.add(affinity);
    }
    return rowsFor(end - at, parameterCount);
  }

  onMessage(type: number, reader: FrameReader, kind: PendingKind, tag: unknown): void {
    const at = tag as number;
    if (kind === Pending.describeStatement && type !== Backend.ErrorResponse) {
      if (type === Backend.ParameterDescription)
        noteTypes(this.#statements[at]!, readParameterDescription(reader));
      return;
    }
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
    const at = tag as number;
    if (this.#rows[at]! > 1) this.#countRows(at, buffer, start, end);
    else this.#keep(at, buffer, start, end);
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
    if (kind === Pending.parse) {
      prepared?.remove(statement);
      const form = rows > 1 ? this.#forms[at] : undefined;
      if (form instanceof MultiRowUpdate) form.turnOff();
    }
    // "cached plan must not change result type": it is prepared afresh.
    else if (sqlState === '0A000') prepared?.drop(statement);
    // statement_timeout; or a cancel request, which now and then strikes one that is not slow.
    else if (sqlState === '57014' && rows === 1) this.events.onSlow(statement);
    for (let i = at; rows > 1 && i < at + rows; i++) this.run[i]!.single = true;
    this.#queue.memberFailed(this.index, rows > 1 ? SOMEBODY_FAILED : at);
  }

  /** What is said of n members, for each. */
  #completeRows(reader: FrameReader, at: number): void {
    const rows = this.#rows[at]!;
    const form = this.#forms[at]!;
    if (form instanceof MultiRowUpdate) {
      this.#completeUpdates(form, at, rows);
      return;
    }
    assert(
      readCommandTag(reader) === `INSERT 0 ${rows}`,
      'a multi-row INSERT of plain values inserts each row',
    );
    const start = this.#append(ONE_ROW_INSERTED);
    for (let i = at; i < at + rows; i++) this.#answerFrom(i, start);
  }

  /** Who has touched no row goes again by itself: another may have written its key in another way, and been before it. */
  #completeUpdates(form: MultiRowUpdate, at: number, rows: number): void {
    const start = this.#append(ONE_ROW_UPDATED);
    const end = this.capture.length;
    let missed = 0;
    for (let i = at; i < at + rows; i++) {
      const touched = this.#touched[i]!;
      if (touched === 1) {
        const member = this.run[i]!;
        member.captureStart = member.describe ? start : start + NO_DATA_BYTES;
        member.captureEnd = end;
      } else if (touched === 0) {
        missed++;
        this.run[i]!.single = true;
        this.#queue.memberMissed(this.index, i);
      } else {
        const tag = Buffer.from(`UPDATE ${touched}\0`, 'latin1');
        const frame = Buffer.concat([ONE_ROW_UPDATED.subarray(0, NO_DATA_BYTES + 5), tag]);
        frame.writeInt32BE(4 + tag.length, NO_DATA_BYTES + 1);
        this.#answerFrom(i, this.#append(frame));
      }
    }
    form.noteOutcome(rows, missed);
  }

  #append(frames: Buffer): number {
    const start = this.capture.length;
    this.capture.append(frames, 0, frames.length);
    return start;
  }

  /** The member's answer is from there to the end of what is captured; with NoData only if it was asked for. */
  #answerFrom(i: number, start: number): void {
    const member = this.run[i]!;
    member.captureStart = member.describe ? start : start + NO_DATA_BYTES;
    member.captureEnd = this.capture.length;
  }

  /** DataRows of an UPDATE for several: one column, in text, which says whose row it is. */
  #countRows(at: number, buffer: Buffer, start: number, end: number): void {
    for (let frame = start; frame < end; frame += 1 + buffer.readInt32BE(frame + 1)) {
      // Type, length, number of columns, length of the first, its digits.
      const digits = buffer.readInt32BE(frame + 7);
      let ordinal = 0;
      for (let i = 0; i < digits; i++) ordinal = ordinal * 10 + buffer[frame + 11 + i]! - 0x30;
      this.#touched[at + ordinal]!++;
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
