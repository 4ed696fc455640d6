/**
 * The decisions of write coalescing (SPEC.md), without any I/O: which members go into a batch on which lane, and what
 * becomes of them. The shell (group.ts) sends, listens, and reports what happened; a simulation can do the same.
 *
 *   lane: idle → running → (failing →) idle;   member: queued → running → answered | alone | canceled | unknown | queued
 *
 * Effects are called in the order in which they have to happen.
 */
import { assert } from '../base/assert.ts';

export interface CoalescingEffects<M> {
  /** Send these as one transaction on this lane. */
  send(lane: number, batch: readonly M[]): void;
  /** Committed: the member's result may go to its client. */
  answer(member: M): void;
  /** The member leaves and runs in a transaction of its own. */
  alone(member: M): void;
  /** Its client's cancel took it. */
  canceled(member: M): void;
  /** The connection was lost with the commit under way. */
  unknown(member: M): void;
  /** Cancel what runs on this lane. */
  cancelLane(lane: number): void;
}

interface Lane<M> {
  /** `opening`: no connection yet; members wait for it like for a busy one. */
  state: 'opening' | 'idle' | 'running' | 'failing';
  batch: M[];
  /** The member whose error ended the batch; −1: none, or the commit itself. */
  failedAt: number;
  /** Members bound to this lane because they touch the same rows. */
  readonly queue: M[];
}

interface Entry {
  canceled: boolean;
  /** How often its batch was undone through no fault of its own. */
  undone: number;
}

/** A member whose batches were undone this often runs alone: it ends somehow, whatever the others do. */
const UNDONE_MAX = 8;
/** Weight of one batch in the moving share of failing members. */
const FAILURE_WEIGHT = 1 / 16;

export class CoalescingQueue<M extends object> {
  readonly #effects: CoalescingEffects<M>;
  readonly #batchMax: number;
  readonly #lanes: Lane<M>[] = [];
  /** Members that any lane may take. */
  readonly #shared: M[] = [];
  readonly #entries = new Map<M, Entry>();
  #failureShare = 0;

  constructor(effects: CoalescingEffects<M>, options: { lanes: number; batchMax: number }) {
    this.#effects = effects;
    this.#batchMax = options.batchMax;
    for (let i = 0; i < options.lanes; i++)
      this.#lanes.push({ state: 'opening', batch: [], failedAt: -1, queue: [] });
  }

  get laneCount(): number {
    return this.#lanes.length;
  }

  get memberCount(): number {
    return this.#entries.size;
  }

  /** Members that wait for a lane. */
  get queuedCount(): number {
    let count = this.#shared.length;
    for (const lane of this.#lanes) count += lane.queue.length;
    return count;
  }

  isIdle(lane: number): boolean {
    return this.#lanes[lane]!.state === 'idle';
  }

  isFailing(lane: number): boolean {
    return this.#lanes[lane]!.state === 'failing';
  }

  /** How many members a batch may have now. */
  get batchSize(): number {
    if (this.#failureShare < 1 / (this.#batchMax * this.#batchMax)) return this.#batchMax;
    return Math.max(1, Math.min(this.#batchMax, Math.floor(1 / Math.sqrt(this.#failureShare))));
  }

  /** `affinity`: members with the same one go to the same lane; −1: any lane. */
  submit(member: M, affinity: number): void {
    assert(!this.#entries.has(member), 'a member is submitted once');
    this.#entries.set(member, { canceled: false, undone: 0 });
    if (affinity < 0) this.#shared.push(member);
    else this.#lanes[affinity % this.#lanes.length]!.queue.push(member);
  }

  /** Gives every idle lane what waits for it. To be called when all that has arrived together is submitted. */
  cut(): void {
    for (let i = 0; i < this.#lanes.length; i++) {
      const lane = this.#lanes[i]!;
      if (lane.state === 'idle') this.#fill(i, lane);
    }
  }

  /** The lane has a connection. */
  laneOpened(index: number): void {
    const lane = this.#lanes[index]!;
    assert(lane.state === 'opening', 'only a lane without a connection opens');
    lane.state = 'idle';
    this.#fill(index, lane);
  }

  /** An idle lane has given its connection back. */
  laneClosed(index: number): void {
    const lane = this.#lanes[index]!;
    assert(lane.state === 'idle', 'only an idle lane gives its connection back');
    lane.state = 'opening';
  }

  /** The server refused member `at` of the running batch (−1: the commit); ReadyForQuery is still to come. */
  memberFailed(index: number, at: number): void {
    const lane = this.#lanes[index]!;
    assert(lane.state === 'running' && at < lane.batch.length, 'a member of a running batch failed');
    lane.state = 'failing';
    lane.failedAt = at;
  }

  /** ReadyForQuery: committed, or undone if a member has failed. */
  laneReady(index: number): void {
    const lane = this.#lanes[index]!;
    const { batch, failedAt } = lane;
    const failed = lane.state === 'failing';
    assert(failed || lane.state === 'running', 'a lane that runs nothing is not asked');
    lane.state = 'idle';
    lane.batch = [];
    lane.failedAt = -1;
    this.#noteOutcome(batch.length, failed);
    if (failed) this.#takeApart(lane, batch, failedAt);
    else {
      for (const member of batch) {
        this.#entries.delete(member);
        this.#effects.answer(member);
      }
    }
    this.#fill(index, lane);
  }

  /**
   * The connection is gone. `committing`: the batch had been sent whole, so that it may be committed or not. Who waits stays
   * queued, for the lane's next connection.
   */
  laneLost(index: number, committing: boolean): void {
    const lane = this.#lanes[index]!;
    const { batch } = lane;
    const unsure = committing && lane.state === 'running';
    lane.state = 'opening';
    lane.batch = [];
    lane.failedAt = -1;
    for (const member of batch) {
      if (unsure) {
        this.#entries.delete(member);
        this.#effects.unknown(member);
      } else this.#again(lane, member);
    }
  }

  /** The lane can't have a connection: who waits for it alone is handed back, to hear why. */
  laneRefused(index: number): void {
    const lane = this.#lanes[index]!;
    assert(lane.state === 'opening', 'only a lane without a connection is refused one');
    const others = this.#lanes.some((other) => other !== lane && other.state !== 'opening');
    const waiting = lane.queue.splice(0);
    if (!others) waiting.push(...this.#shared.splice(0));
    for (const member of waiting) this.#leave(member);
  }

  /** The member's client wants it canceled, or is gone. */
  cancel(member: M): void {
    const entry = this.#entries.get(member);
    if (!entry) return;
    for (const queue of [this.#shared, ...this.#lanes.map((lane) => lane.queue)]) {
      const at = queue.indexOf(member);
      if (at < 0) continue;
      queue.splice(at, 1);
      this.#entries.delete(member);
      this.#effects.canceled(member);
      return;
    }
    entry.canceled = true;
    const index = this.#lanes.findIndex((lane) => lane.batch.includes(member));
    assert(index >= 0, 'a member that is not queued is on a lane');
    this.#effects.cancelLane(index);
  }

  #fill(index: number, lane: Lane<M>): void {
    const size = this.batchSize;
    const own = lane.queue;
    const shared = this.#shared;
    if (own.length === 0 && shared.length === 0) return;
    let batch: M[];
    if (own.length === 0 && shared.length <= size) batch = shared.splice(0);
    else if (own.length >= size) batch = own.splice(0, size);
    else {
      const room = size - own.length;
      batch = own.splice(0).concat(shared.splice(0, room));
    }
    lane.state = 'running';
    lane.batch = batch;
    lane.failedAt = -1;
    this.#effects.send(index, batch);
  }

  /** The failed one runs alone, the canceled ones end, the others go again, before those that came later. */
  #takeApart(lane: Lane<M>, batch: readonly M[], failedAt: number): void {
    for (let i = batch.length - 1; i >= 0; i--) {
      const member = batch[i]!;
      const entry = this.#entries.get(member)!;
      if (entry.canceled) {
        this.#entries.delete(member);
        this.#effects.canceled(member);
      } else if (
        (i === failedAt && !batch.some((other) => this.#entries.get(other)?.canceled)) ||
        failedAt < 0
      )
        this.#leave(member);
      else this.#again(lane, member);
    }
  }

  #again(lane: Lane<M>, member: M): void {
    const entry = this.#entries.get(member)!;
    if (entry.canceled) {
      this.#entries.delete(member);
      this.#effects.canceled(member);
      return;
    }
    if (++entry.undone >= UNDONE_MAX) {
      this.#leave(member);
      return;
    }
    lane.queue.unshift(member);
  }

  #leave(member: M): void {
    this.#entries.delete(member);
    this.#effects.alone(member);
  }

  #noteOutcome(size: number, failed: boolean): void {
    const share = failed ? 1 / size : 0;
    // A large batch says more about the share than a small one.
    const weight = Math.min(1, (FAILURE_WEIGHT * size) / this.#batchMax + FAILURE_WEIGHT);
    this.#failureShare += (share - this.#failureShare) * weight;
    if (this.#failureShare < 1e-6) this.#failureShare = 0;
  }
}
