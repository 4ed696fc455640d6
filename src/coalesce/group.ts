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
import type { Settings } from '../backend/settings.ts';
import { BOUNDS } from '../base/bounds.ts';
import { outcomeUnknown, type PosternError } from '../base/errors.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { Backend } from '../wire/message-types.ts';
import { Capture } from './capture.ts';
import type { Member } from './member.ts';
import { type CoalescingEffects, CoalescingQueue } from './queue.ts';

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

  /** @param options.settings the clients' own, with the batch's lock_timeout */
  constructor(options: { pool: NodePool; user: string; settings: Settings }) {
    this.#pool = options.pool;
    this.#user = options.user;
    this.#settings = options.settings;
    this.#queue = new CoalescingQueue<Member>(this.#effects(), {
      lanes: BOUNDS.coalescingLanes,
      batchMax: BOUNDS.coalescingBatchMax,
    });
    for (let i = 0; i < BOUNDS.coalescingLanes; i++)
      this.#lanes.push(new LaneConnection(i, this.#queue, () => this.#onLaneFree()));
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
      this.#queue.laneClosed(lane.index);
      lane.connection = undefined;
      if (connection.quiet) this.#pool.release(connection);
      else this.#pool.discard(connection);
    }
  }

  #onLaneFree(): void {
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
  }

  #effects(): CoalescingEffects<Member> {
    return {
      send: (lane, batch) => this.#lanes[lane]!.send(batch),
      answer: (member) => {
        const { capture } = this.#lanes[member.lane]!;
        member.owner.onCommitted(capture.buffer, member.captureStart, member.captureEnd);
      },
      alone: (member) => member.owner.onAlone(),
      canceled: (member) => member.owner.onCanceled(),
      unknown: (member) => member.owner.onUnknown(outcomeUnknown(this.#pool.address.nodeName)),
      cancelLane: (lane) => void this.#lanes[lane]!.connection?.cancel(),
    };
  }
}

/** One lane's connection and the batch on it. */
class LaneConnection implements ResponseSink {
  readonly index: number;
  readonly capture = new Capture();
  connection: BackendConnection | undefined;
  opening = false;
  usedSinceRest = false;
  readonly #queue: CoalescingQueue<Member>;
  readonly #onFree: () => void;
  #batch: readonly Member[] = [];

  constructor(index: number, queue: CoalescingQueue<Member>, onFree: () => void) {
    this.index = index;
    this.#queue = queue;
    this.#onFree = onFree;
  }

  adopt(connection: BackendConnection): void {
    this.connection = connection;
    connection.lessee = this;
  }

  send(batch: readonly Member[]): void {
    const connection = this.connection!;
    this.#batch = batch;
    this.usedSinceRest = true;
    this.capture.clear();
    for (let i = 0; i < batch.length; i++) {
      const member = batch[i]!;
      member.lane = this.index;
      member.captureStart = -1;
      const name =
        connection.prepared.nameOf(member.statement) ?? connection.parse(member.statement, this, i);
      connection.bindTail(name, member.tail, this, i);
      if (member.describe) connection.describe('P', '', this, i);
      connection.execute('', 0, this, i);
    }
    connection.sync(this, -1);
  }

  onMessage(type: number, reader: FrameReader, kind: PendingKind, tag: unknown): void {
    const at = tag as number;
    switch (type) {
      case Backend.BindComplete:
        return;
      case Backend.ParseComplete:
        this.#batch[at]!.statement.validated = true;
        return;
      case Backend.ReadyForQuery:
        this.#onReady();
        return;
      case Backend.ErrorResponse:
        if (kind === Pending.parse) this.connection?.prepared.remove(this.#batch[at]!.statement);
        this.#queue.memberFailed(this.index, at);
        return;
      default:
        this.#keep(at, reader.buffer, reader.start, reader.end);
    }
  }

  onRows(buffer: Buffer, start: number, end: number, tag: unknown): void {
    this.#keep(tag as number, buffer, start, end);
  }

  onNotice(reader: FrameReader, tag: unknown): void {
    if (typeof tag === 'number' && tag >= 0) this.#keep(tag, reader.buffer, reader.start, reader.end);
  }

  onLocal(): void {}

  onDiscarded(kind: PendingKind, tag: unknown): void {
    if (kind === Pending.parse) this.connection?.prepared.remove(this.#batch[tag as number]!.statement);
  }

  onLost(connection: BackendConnection, _cause: PosternError): void {
    if (connection !== this.connection) return;
    this.connection = undefined;
    this.#batch = [];
    const wasOpen = !this.#queue.isIdle(this.index);
    if (wasOpen) this.#queue.laneLost(this.index, true);
    else this.#queue.laneClosed(this.index);
    this.#onFree();
  }

  #onReady(): void {
    const connection = this.connection!;
    if (connection.transactionStatus !== TransactionStatus.idle) {
      // Only a statement that opened a transaction block could do this, and none of those is a member.
      connection.destroy();
      return;
    }
    this.#queue.laneReady(this.index);
  }

  /** Answers come in the order of the members, so each one's frames lie together. */
  #keep(at: number, buffer: Buffer, start: number, end: number): void {
    const member = this.#batch[at]!;
    if (member.captureStart < 0) member.captureStart = this.capture.length;
    this.capture.append(buffer, start, end);
    member.captureEnd = this.capture.length;
    if (this.capture.length > BOUNDS.coalescingCaptureBytesMax && !this.#queue.isFailing(this.index))
      void this.connection?.cancel();
  }
}
