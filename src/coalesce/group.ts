/**
 * The writes of one node, role and settings that wait for the same few backend connections: those connections, who gets one
 * when, and when they are given back. Of two kinds, which differ in their decisions and in what a lane sends: merged
 * commits (queue.ts, batch-lane.ts) and pipelines (pipeline-queue.ts, pipeline-lane.ts).
 *
 * Next hop of a write: its lane.
 */

import type { BackendConnection } from '../backend/connection.ts';
import { switchSettings } from '../backend/internal-query.ts';
import type { NodePool } from '../backend/pool.ts';
import type { SharedStatement } from '../backend/prepared.ts';
import type { Settings } from '../backend/settings.ts';
import { BOUNDS } from '../base/bounds.ts';
import { outcomeUnknown } from '../base/errors.ts';
import { BatchLane } from './batch-lane.ts';
import type { GroupQueue, Lane, LaneEvents } from './lane.ts';
import type { Member } from './member.ts';
import { PipelineLane } from './pipeline-lane.ts';
import { PipelineQueue } from './pipeline-queue.ts';
import { type CoalescingEffects, CoalescingQueue } from './queue.ts';

/** `batch`: one transaction for many members. `pipeline`: one for each, many on one connection. */
export type GroupKind = 'batch' | 'pipeline';

/** Of all groups of a kind: what was sent, and how often a member was sent away to run alone. */
export interface GroupCounters {
  runs: number;
  members: number;
  alone: number;
}

interface GroupOptions {
  readonly kind: GroupKind;
  readonly pool: NodePool;
  readonly user: string;
  /** The clients' own, with the time-outs of a lane. */
  readonly settings: Settings;
  readonly onSlow: (statement: SharedStatement) => void;
  readonly counters: GroupCounters;
}

export class WriteGroup {
  readonly #pool: NodePool;
  readonly #user: string;
  readonly #settings: Settings;
  readonly #counters: GroupCounters;
  readonly #queue: GroupQueue;
  readonly #lanes: readonly Lane[];
  /** So many lanes wait for a connection as everybody does; those beyond are opened and kept only while there are spare ones. */
  readonly #lanesOwed: () => number;
  #cutScheduled = false;
  readonly #cut = (): void => {
    this.#cutScheduled = false;
    if (this.#pool.isShut) {
      this.#queue.refuseAll();
      return;
    }
    this.#queue.cut();
    if (this.#queue.queuedCount > 0) this.#openAnother();
  };

  constructor(options: GroupOptions) {
    this.#pool = options.pool;
    this.#user = options.user;
    this.#settings = options.settings;
    this.#counters = options.counters;
    const events: LaneEvents = {
      onReady: (lane) => this.#onReady(lane),
      onLost: () => this.#onLaneLost(),
      onSlow: options.onSlow,
    };
    if (options.kind === 'batch') {
      const lanes = BOUNDS.coalescingLanes;
      const queue = new CoalescingQueue<Member>(this.#effects(), {
        lanes,
        batchMax: BOUNDS.coalescingBatchMax,
        tenantOf: ({ tenant }) => tenant,
      });
      this.#queue = queue;
      this.#lanes = Array.from({ length: lanes }, (_, i) => new BatchLane(i, queue, events));
      this.#lanesOwed = () => lanes;
    } else {
      const lanes = Math.min(BOUNDS.pipelineLanes, options.pool.connectionsMax);
      const queue = new PipelineQueue<Member>(this.#effects(), { lanes, runMax: BOUNDS.pipelineRunMax });
      this.#queue = queue;
      this.#lanes = Array.from({ length: lanes }, (_, i) => new PipelineLane(i, queue, events));
      this.#lanesOwed = () => Math.max(1, Math.floor(options.pool.share / 4));
    }
  }

  get nodeId(): number {
    return this.#pool.address.nodeId;
  }

  get memberCount(): number {
    return this.#queue.memberCount;
  }

  get connectionCount(): number {
    let count = 0;
    for (const lane of this.#lanes) if (lane.connection || lane.opening) count++;
    return count;
  }

  /** Queues a member; runs are cut when the event loop has handed over everything that arrived together. */
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

  /** The node of `pool` answers nothing: who waits hears so. */
  onShut(pool: NodePool): void {
    if (pool === this.#pool) this.#cut();
  }

  #closeIdle(lane: Lane): void {
    const connection = lane.release();
    this.#queue.laneClosed(lane.index);
    this.#giveBack(connection);
  }

  #giveBack(connection: BackendConnection): void {
    if (connection.quiet) this.#pool.release(connection);
    else this.#pool.discard(connection);
  }

  /** A run has ended. Nobody who waits for a connection does so for ever because writes keep coming. */
  #onReady(lane: Lane): void {
    const { waiting, longestWaitMs } = this.#pool;
    const yields =
      this.#queue.queuedCount === 0 ||
      longestWaitMs > BOUNDS.coalescingYieldMs ||
      this.connectionCount > this.#lanesOwed();
    const hasTooMany = this.#pool.size > this.#pool.share;
    if (hasTooMany || (waiting > 0 && yields)) {
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
    if (this.#pool.spare <= 0 && this.connectionCount >= this.#lanesOwed()) return;
    for (const lane of this.#lanes) {
      if (lane.opening) return;
      if (lane.connection) continue;
      lane.opening = true;
      void this.#open(lane);
      return;
    }
  }

  async #open(lane: Lane): Promise<void> {
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
      send: (lane, run) => {
        this.#counters.runs++;
        this.#counters.members += run.length;
        this.#lanes[lane]!.send(run);
      },
      answer: (member) => this.#lanes[member.lane]!.answer(member),
      alone: (member) => {
        this.#counters.alone++;
        member.owner.onAlone();
      },
      canceled: (member) => member.owner.onCanceled(),
      unknown: (member) => member.owner.onUnknown(outcomeUnknown(this.#pool.address.nodeName)),
      cancelLane: (lane) => this.#lanes[lane]!.cancel(),
    };
  }
}
