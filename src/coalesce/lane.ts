/** A lane of a group: one backend connection, and what is sent on it. What a lane sends together is one run. */

import type { BackendConnection } from '../backend/connection.ts';
import type { PendingKind, ResponseSink } from '../backend/pending.ts';
import type { SharedStatement } from '../backend/prepared.ts';
import type { PosternError } from '../base/errors.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { Capture } from './capture.ts';
import type { Member } from './member.ts';

/** What a group asks of its decisions: queue.ts or pipeline-queue.ts. */
export interface GroupQueue {
  readonly memberCount: number;
  /** Members that wait for a lane. */
  readonly queuedCount: number;
  isIdle(lane: number): boolean;
  submit(member: Member, affinity: number): void;
  /** Gives idle lanes what waits for them. To be called when all that has arrived together is submitted. */
  cut(): void;
  cancel(member: Member): void;
  laneOpened(lane: number): void;
  /** An idle lane has given its connection back. */
  laneClosed(lane: number): void;
  /** The run is over. `release`: the lane then is without a connection, which others wait for. */
  laneReady(lane: number, release?: boolean): void;
  laneLost(lane: number): void;
  /** The lane can't have a connection. */
  laneRefused(lane: number): void;
  /** The node answers nothing: all who wait for a lane are handed back, to hear why. */
  refuseAll(): void;
}

export interface LaneEvents {
  /** The run is over, and the queue is to be told. */
  onReady(lane: Lane): void;
  /** The connection is gone, and the queue has been told. */
  onLost(): void;
  /** The statement was stopped since others waited for it. */
  onSlow(statement: SharedStatement): void;
}

export abstract class Lane implements ResponseSink {
  readonly index: number;
  connection: BackendConnection | undefined;
  opening = false;
  usedSinceRest = false;
  protected readonly capture = new Capture();
  protected readonly events: LaneEvents;
  protected run: readonly Member[] = [];
  readonly #queue: GroupQueue;

  constructor(index: number, queue: GroupQueue, events: LaneEvents) {
    this.index = index;
    this.events = events;
    this.#queue = queue;
  }

  abstract send(run: readonly Member[]): void;

  /** The member's result, or its own error, goes to its session. */
  abstract answer(member: Member): void;

  abstract onMessage(type: number, reader: FrameReader, kind: PendingKind, tag: unknown): void;
  abstract onRows(buffer: Buffer, start: number, end: number, tag: unknown): void;
  abstract onNotice(reader: FrameReader, tag: unknown): void;
  abstract onDiscarded(kind: PendingKind, tag: unknown): void;

  adopt(connection: BackendConnection): void {
    this.connection = connection;
    connection.lessee = this;
  }

  /** The lane is without its connection; the caller gives it back. */
  release(): BackendConnection {
    const connection = this.connection!;
    this.connection = undefined;
    this.run = [];
    return connection;
  }

  /** Cancels what runs here now. */
  cancel(): void {
    void this.connection?.cancel();
  }

  onLocal(): void {}

  onLost(connection: BackendConnection, _cause: PosternError): void {
    if (connection !== this.connection) return;
    this.connection = undefined;
    const wasIdle = this.#queue.isIdle(this.index);
    if (wasIdle) this.#queue.laneClosed(this.index);
    else this.#queue.laneLost(this.index);
    this.run = [];
    this.events.onLost();
  }
}
