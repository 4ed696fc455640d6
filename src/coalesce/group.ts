/**
 * The shell around queue.ts for one group, i.e. one node, role and settings: its lanes' backend connections, the messages
 * of a batch, and the answers kept back until the commit.
 *
 * Next hop of a write: backend/connection.ts; its answer comes back here, and goes to the member's session at the commit.
 */

import { type BackendConnection, TransactionStatus } from '../backend/connection.ts';
import { switchSettings } from '../backend/internal-query.ts';
import { Pending, type PendingKind, type ResponseSink } from '../backend/pending.ts';
import type { NodePool } from '../backend/pool.ts';
import type { SharedStatement } from '../backend/prepared.ts';
import type { Settings } from '../backend/settings.ts';
import { assert } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';
import { outcomeUnknown, type PosternError } from '../base/errors.ts';
import { readCommandTag, readErrorFields } from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { Backend } from '../wire/message-types.ts';
import { Capture } from './capture.ts';
import type { Member } from './member.ts';
import { MultiRowInsert, multiRowOf } from './multi-row.ts';
import { COMMIT_FAILED, type CoalescingEffects, CoalescingQueue, SOMEBODY_FAILED } from './queue.ts';

export class CoalescingGroup {
  readonly #pool: NodePool;
  readonly #user: string;
  readonly #settings: Settings;
  readonly #queue: CoalescingQueue<Member>;
  readonly #lanes: LaneConnection[] = [];
  #cutScheduled = false;
  readonly #cut = (): void => {
    this.#cutScheduled = false;
    this.#queue.cut();
    if (this.#queue.queuedCount > 0) this.#openAnother();
  };

  /** @param options.settings the clients' own, with the batch's time-outs */
  constructor(options: {
    pool: NodePool;
    user: string;
    settings: Settings;
    onSlow: (statement: SharedStatement) => void;
  }) {
    this.#pool = options.pool;
    this.#user = options.user;
    this.#settings = options.settings;
    this.#queue = new CoalescingQueue<Member>(this.#effects(), {
      lanes: BOUNDS.coalescingLanes,
      batchMax: BOUNDS.coalescingBatchMax,
    });
    for (let i = 0; i < BOUNDS.coalescingLanes; i++)
      this.#lanes.push(
        new LaneConnection(i, this.#queue, {
          onReady: (lane) => this.#onReady(lane),
          onLost: () => this.#onLaneLost(),
          onSlow: options.onSlow,
        }),
      );
  }

  get nodeId(): number {
    return this.#pool.address.nodeId;
  }

  get memberCount(): number {
    return this.#queue.memberCount;
  }

  get connectionCount(): number {
    return this.#lanes.filter((lane) => lane.connection || lane.opening).length;
  }

  /** Queues a member; batches are cut when the event loop has handed over everything that arrived together. */
  submit(member: Member): void {
    this.#queue.submit(member, member.affinity);
    if (this.#cutScheduled) return;
    this.#cutScheduled = true;
    setImmediate(this.#cut);
  }

  cancel(member: Member): void {
    this.#queue.cancel(member);
  }

  /** Gives back connections that had nothing to do since the last call. */
  rest(): void {
    for (const lane of this.#lanes) {
      const { connection } = lane;
      if (!connection || !this.#queue.isIdle(lane.index)) continue;
      if (lane.usedSinceRest) {
        lane.usedSinceRest = false;
        continue;
      }
      this.#closeIdle(lane);
    }
  }

  /** Others are in want of connections of `pool`: what is idle here is given back. */
  giveWay(pool: NodePool): void {
    if (pool !== this.#pool) return;
    for (const lane of this.#lanes)
      if (lane.connection && this.#queue.isIdle(lane.index)) this.#closeIdle(lane);
  }

  #closeIdle(lane: LaneConnection): void {
    const connection = lane.release();
    this.#queue.laneClosed(lane.index);
    this.#giveBack(connection);
  }

  #giveBack(connection: BackendConnection): void {
    if (connection.quiet) this.#pool.release(connection);
    else this.#pool.discard(connection);
  }

  /** A batch has ended. Nobody who waits for a connection does so for ever because writes keep coming. */
  #onReady(lane: LaneConnection): void {
    const { waiting, longestWaitMs } = this.#pool;
    if (waiting > 0 && (this.#queue.queuedCount === 0 || longestWaitMs > BOUNDS.coalescingYieldMs)) {
      this.#queue.laneReady(lane.index, true);
      this.#giveBack(lane.release());
      if (this.#queue.queuedCount > 0) this.#openAnother();
    } else this.#queue.laneReady(lane.index);
  }

  #onLaneLost(): void {
    if (this.#queue.queuedCount > 0) this.#openAnother();
  }

  /** One more lane, when members wait although every open one is busy. */
  #openAnother(): void {
    for (const lane of this.#lanes) {
      if (lane.opening) return;
      if (lane.connection) continue;
      lane.opening = true;
      void this.#open(lane);
      return;
    }
  }

  async #open(lane: LaneConnection): Promise<void> {
    let connection: BackendConnection | undefined;
    try {
      connection = await this.#pool.acquire(this.#user, this.#settings);
      if (connection.settings.key !== this.#settings.key) await switchSettings(connection, this.#settings);
    } catch {
      // The members run alone, and their sessions hear why on their own connections.
      if (connection) this.#pool.discard(connection);
      lane.opening = false;
      this.#queue.laneRefused(lane.index);
      return;
    }
    lane.opening = false;
    lane.adopt(connection);
    this.#queue.laneOpened(lane.index);
    if (this.#queue.queuedCount > 0) this.#openAnother();
    else if (this.#pool.waiting > 0 && this.#queue.isIdle(lane.index)) this.#closeIdle(lane);
  }

  #effects(): CoalescingEffects<Member> {
    return {
      send: (lane, batch) => this.#lanes[lane]!.send(batch),
      answer: (member) => this.#lanes[member.lane]!.answer(member),
      alone: (member) => member.owner.onAlone(),
      canceled: (member) => member.owner.onCanceled(),
      unknown: (member) => member.owner.onUnknown(outcomeUnknown(this.#pool.address.nodeName)),
      cancelLane: (lane) => void this.#lanes[lane]!.connection?.cancel(),
    };
  }
}

/** CommandComplete of a one-row INSERT. */
const ONE_ROW_INSERTED = Buffer.from('C\0\0\0\x0fINSERT 0 1\0', 'latin1');

interface LaneEvents {
  /** The batch is over, and the queue is to be told. */
  onReady(lane: LaneConnection): void;
  /** The connection is gone, and the queue has been told. */
  onLost(): void;
  /** The statement was stopped since others waited for it. */
  onSlow(statement: SharedStatement): void;
}

/** One lane's connection and the batch on it. */
class LaneConnection implements ResponseSink {
  readonly index: number;
  readonly capture = new Capture();
  connection: BackendConnection | undefined;
  opening = false;
  usedSinceRest = false;
  readonly #queue: CoalescingQueue<Member>;
  readonly #events: LaneEvents;
  #batch: readonly Member[] = [];
  /** What the server says of the commit itself is for every member. */
  #commitNotices: Buffer | undefined;
  /** By the index of its first member: what was sent, and for how many members. */
  readonly #statements: SharedStatement[] = [];
  readonly #rows: number[] = [];

  constructor(index: number, queue: CoalescingQueue<Member>, events: LaneEvents) {
    this.index = index;
    this.#queue = queue;
    this.#events = events;
  }

  adopt(connection: BackendConnection): void {
    this.connection = connection;
    connection.lessee = this;
  }

  /** The lane is without its connection; the caller gives it back. */
  release(): BackendConnection {
    const connection = this.connection!;
    this.connection = undefined;
    this.#batch = [];
    return connection;
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
    this.#batch = batch;
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
    connection.bindRows(name, { tails: this.#batch, start: at, count: rows }, this, at);
    connection.execute('', 0, this, at);
  }

  #begin(at: number, statement: SharedStatement, rows: number): void {
    this.#statements[at] = statement;
    this.#rows[at] = rows;
    for (let i = at; i < at + rows; i++) {
      const member = this.#batch[i]!;
      member.lane = this.index;
      member.captureStart = -1;
    }
  }

  /** How many members from `at` on make one multi-row INSERT; 1: this one goes by itself. */
  #rowsFrom(at: number): number {
    const batch = this.#batch;
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

  onLocal(): void {}

  onDiscarded(kind: PendingKind, tag: unknown): void {
    if (kind === Pending.parse) this.connection?.prepared.remove(this.#statements[tag as number]!);
  }

  onLost(connection: BackendConnection, _cause: PosternError): void {
    if (connection !== this.connection) return;
    this.connection = undefined;
    this.#batch = [];
    const wasOpen = !this.#queue.isIdle(this.index);
    if (wasOpen) this.#queue.laneLost(this.index);
    else this.#queue.laneClosed(this.index);
    this.#events.onLost();
  }

  /** "canceling wait for synchronous replication due to user request" is a WARNING of this code; the commit then is local. */
  #onCommitNotice(reader: FrameReader): void {
    const notice = reader.buffer.subarray(reader.start, reader.end);
    this.#commitNotices = Buffer.concat(this.#commitNotices ? [this.#commitNotices, notice] : [notice]);
    if (readErrorFields(reader).get('C') === '01000') this.#queue.commitUnconfirmed(this.index);
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
    else if (sqlState === '57014' && rows === 1) this.#events.onSlow(statement);
    for (let i = at; rows > 1 && i < at + rows; i++) this.#batch[i]!.single = true;
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
      this.#batch[i]!.captureStart = start;
      this.#batch[i]!.captureEnd = this.capture.length;
    }
  }

  #onReady(): void {
    const connection = this.connection!;
    if (connection.transactionStatus !== TransactionStatus.idle) {
      // Only a statement that opened a transaction block could do this, and none of those is a member.
      connection.destroy();
      return;
    }
    this.#events.onReady(this);
  }

  /** Answers come in the order of the members, so each one's frames lie together. */
  #keep(at: number, buffer: Buffer, start: number, end: number): void {
    const member = this.#batch[at]!;
    if (member.captureStart < 0) member.captureStart = this.capture.length;
    this.capture.append(buffer, start, end);
    member.captureEnd = this.capture.length;
    if (this.capture.length > BOUNDS.coalescingCaptureBytesMax) this.#queue.memberTooLarge(this.index, at);
  }
}
