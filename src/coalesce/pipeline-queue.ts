/**
 * The decisions of pipelined writes (SPEC.md), without any I/O: which members go out together on which lane, and what
 * becomes of each. Unlike in a batch, each member is a transaction of its own, and the answers come one by one. The shell
 * (group.ts, pipeline-lane.ts) sends, listens, and reports what happened to the head of a lane's run.
 *
 *   lane: opening → idle → running (its head: pending → committed | failed | stopped, then the next one) → idle
 *   member: queued → sent → head → answered | alone | canceled | unknown
 *
 * Invariant: each member ends once; by answer only if the server has said that its own transaction is over.
 * Invariant: members leave the queue in order of arrival, but for those whose row is being written on another lane.
 * Invariant: only a head is canceled at the server: whoever is behind it has not begun.
 *
 * Effects are called in the order in which they have to happen. An effect may submit further members.
 */
import { assert } from '../base/assert.ts';
import type { CoalescingEffects } from './queue.ts';

/**
 * What is known of a head before its ReadyForQuery. `failed`: by itself; `commitFailed`: in its commit; `stopped`: since
 * others wait for the lane, or by a cancel: its client is not told.
 */
type HeadState = 'pending' | 'failed' | 'commitFailed' | 'stopped';

interface Entry<M> {
  readonly member: M;
  /** Its place in the order of arrival. */
  readonly arrival: number;
  /** Members with the same one write the same row; −1: unknown or none. */
  readonly row: number;
  canceled: boolean;
}

interface Lane<M> {
  /** `opening`: no connection yet. */
  state: 'opening' | 'idle' | 'running';
  run: readonly Entry<M>[];
  /** The head's place in the run. */
  at: number;
  head: HeadState;
  /** The server cut the head's wait for standbys short because of a cancel: only who asked for that may be told OK. */
  unconfirmed: boolean;
  /** Members that wait for this lane, since it was writing their rows when another came to them. */
  bound: Entry<M>[];
}

export class PipelineQueue<M extends object> {
  readonly #effects: CoalescingEffects<M>;
  readonly #runMax: number;
  readonly #lanes: Lane<M>[];
  readonly #entries = new Map<M, Entry<M>>();
  /** Members that any lane may take. */
  #shared: Entry<M>[] = [];
  #arrivals = 0;
  /** Rows that are being written: the lane, and by how many of its run. */
  readonly #rows = new Map<number, { readonly lane: number; writers: number }>();

  constructor(effects: CoalescingEffects<M>, options: { lanes: number; runMax: number }) {
    this.#effects = effects;
    this.#runMax = options.runMax;
    this.#lanes = Array.from({ length: options.lanes }, () => ({
      state: 'opening',
      run: [],
      at: 0,
      head: 'pending',
      unconfirmed: false,
      bound: [],
    }));
  }

  get memberCount(): number {
    return this.#entries.size;
  }

  get queuedCount(): number {
    let count = this.#shared.length;
    for (const { bound } of this.#lanes) count += bound.length;
    return count;
  }

  isIdle(lane: number): boolean {
    return this.#lanes[lane]!.state === 'idle';
  }

  /** `row`: members with the same one are never under way on two lanes, where they would wait for one another's locks. */
  submit(member: M, row: number): void {
    assert(!this.#entries.has(member), 'a member is submitted once');
    const entry = { member, arrival: this.#arrivals++, row, canceled: false };
    this.#entries.set(member, entry);
    this.#shared.push(entry);
  }

  cut(): void {
    for (const [i, lane] of this.#lanes.entries())
      if (lane.state === 'idle' && (this.#shared.length > 0 || lane.bound.length > 0)) this.#fill(i);
  }

  laneOpened(index: number): void {
    const lane = this.#lanes[index]!;
    assert(lane.state === 'opening', 'only a lane without a connection opens');
    lane.state = 'idle';
    this.#fill(index);
  }

  laneClosed(index: number): void {
    const lane = this.#lanes[index]!;
    assert(lane.state === 'idle', 'only an idle lane gives its connection back');
    this.#disconnect(lane);
  }

  /** If no lane has a connection, all who wait are handed back, to hear why. */
  laneRefused(index: number): void {
    assert(this.#lanes[index]!.state === 'opening', 'only a lane without a connection is refused one');
    if (this.#lanes.some((lane) => lane.state !== 'opening')) return;
    for (const { member } of this.#shared.splice(0)) {
      this.#entries.delete(member);
      this.#effects.alone(member);
    }
  }

  /** The server has refused the head, or its commit: its own error, for its client. */
  headFailed(index: number, inCommit: boolean): void {
    this.#headOf(index).head = inCommit ? 'commitFailed' : 'failed';
  }

  /** It was stopped by what its client has not asked for: the lane's time-outs, or a cancel. */
  headStopped(index: number): void {
    this.#headOf(index).head = 'stopped';
  }

  /** Its answer is more than a lane may keep back: if that stops it in time, it runs alone. */
  headTooLarge(index: number): void {
    if (this.#headOf(index).head === 'pending') this.#effects.cancelLane(index);
  }

  /** Its commit was cut short by a cancel: it is committed here, and may be lost in a failover. */
  headUnconfirmed(index: number): void {
    this.#headOf(index).unconfirmed = true;
  }

  /** ReadyForQuery of the head. Gives whether it was the last one of the run: laneReady() is to follow. */
  headReady(index: number): boolean {
    const lane = this.#headOf(index);
    const { head, unconfirmed } = lane;
    const entry = lane.run[lane.at++]!;
    lane.head = 'pending';
    lane.unconfirmed = false;
    this.#end(entry);
    if (head === 'stopped') {
      if (entry.canceled) this.#effects.canceled(entry.member);
      else this.#effects.alone(entry.member);
    } else if (unconfirmed && !entry.canceled) this.#effects.unknown(entry.member);
    else this.#effects.answer(entry.member);
    const next = lane.run[lane.at];
    if (next?.canceled) this.#effects.cancelLane(index);
    return next === undefined;
  }

  laneReady(index: number, release = false): void {
    const lane = this.#lanes[index]!;
    assert(lane.state === 'running' && lane.at === lane.run.length, 'a lane is ready when its run is over');
    lane.state = 'idle';
    lane.run = [];
    if (release) this.#disconnect(lane);
    // Others may have waited for this lane's rows.
    this.cut();
  }

  /** The connection is gone. What was sent may be committed or not, but for a head that had failed before its commit. */
  laneLost(index: number): void {
    const lane = this.#headOf(index);
    const rest = lane.run.slice(lane.at);
    const { head } = lane;
    lane.run = [];
    lane.head = 'pending';
    lane.unconfirmed = false;
    this.#disconnect(lane);
    for (const [i, entry] of rest.entries()) {
      const { member } = entry;
      this.#end(entry);
      if (i > 0 || head === 'pending' || head === 'commitFailed') this.#effects.unknown(member);
      else if (head === 'failed') this.#effects.answer(member);
      else if (entry.canceled) this.#effects.canceled(member);
      else this.#effects.alone(member);
    }
    this.cut();
  }

  /** The node answers nothing: all who wait for a lane are handed back, to hear why. */
  refuseAll(): void {
    const waiting = [this.#shared, ...this.#lanes.map(({ bound }) => bound)].flatMap((queue) =>
      queue.splice(0),
    );
    for (const { member } of waiting) {
      this.#entries.delete(member);
      this.#effects.alone(member);
    }
  }

  /** The member's client wants it canceled. */
  cancel(member: M): void {
    const entry = this.#entries.get(member);
    if (!entry) return;
    for (const queue of [this.#shared, ...this.#lanes.map(({ bound }) => bound)]) {
      const at = queue.indexOf(entry);
      if (at < 0) continue;
      queue.splice(at, 1);
      this.#entries.delete(member);
      this.#effects.canceled(member);
      return;
    }
    entry.canceled = true;
    const index = this.#lanes.findIndex(({ run, at: head }) => run[head] === entry);
    if (index >= 0 && this.#lanes[index]!.head === 'pending') this.#effects.cancelLane(index);
  }

  /** A fair share of all that is under way, the oldest first. */
  #fill(index: number): void {
    const lane = this.#lanes[index]!;
    const size = Math.min(this.#runMax, Math.ceil(this.#entries.size / this.#lanes.length));
    const run: Entry<M>[] = [];
    // Those bound to the lane have been passed over once.
    const bound = lane.bound;
    lane.bound = [];
    const left = this.#take(index, bound, run, size);
    lane.bound.push(...left);
    const shared = this.#shared;
    this.#shared = [];
    this.#shared = this.#take(index, shared, run, size);
    if (run.length === 0) return;
    lane.state = 'running';
    lane.run = run;
    lane.at = 0;
    this.#effects.send(
      index,
      run.map(({ member }) => member),
    );
  }

  /** Moves up to `size` from `queue` to `run`. Whose row another lane writes waits for that one. Gives what is left. */
  #take(index: number, queue: Entry<M>[], run: Entry<M>[], size: number): Entry<M>[] {
    let at = 0;
    for (; at < queue.length && run.length < size; at++) {
      const entry = queue[at]!;
      const writer = this.#writerOf(entry, index);
      if (writer === index) run.push(entry);
      else this.#lanes[writer]!.bound.push(entry);
    }
    return at === 0 ? queue : queue.slice(at);
  }

  /** Which lane writes the entry's row; `lane` does from now on if none did. */
  #writerOf({ row }: Entry<M>, lane: number): number {
    if (row < 0) return lane;
    const written = this.#rows.get(row);
    if (!written) this.#rows.set(row, { lane, writers: 1 });
    else if (written.lane !== lane) return written.lane;
    else written.writers++;
    return lane;
  }

  #end({ member, row }: Entry<M>): void {
    this.#entries.delete(member);
    if (row < 0) return;
    const written = this.#rows.get(row)!;
    if (--written.writers === 0) this.#rows.delete(row);
  }

  #disconnect(lane: Lane<M>): void {
    lane.state = 'opening';
    if (lane.bound.length === 0) return;
    this.#shared = [...lane.bound, ...this.#shared].sort((a, b) => a.arrival - b.arrival);
    lane.bound = [];
  }

  #headOf(index: number): Lane<M> {
    const lane = this.#lanes[index]!;
    assert(lane.state === 'running' && lane.at < lane.run.length, 'a lane that runs nothing has no head');
    return lane;
  }
}
