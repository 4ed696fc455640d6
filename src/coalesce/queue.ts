/**
 * The decisions of write coalescing (SPEC.md), without any I/O: which members go into a batch on which lane, and what
 * becomes of them. The shell (group.ts) sends, listens, and reports what happened; a simulation can do the same.
 *
 *   lane: idle → running → (failing →) idle;   member: queued → running → answered | alone | canceled | unknown | queued
 *
 * Invariant: each member ends once, by answer, alone, canceled or unknown, and by answer only if its batch was committed.
 * Invariant: queues and batches are in order of arrival, so that nobody is overtaken for ever. Where more wait than a batch takes, tenants
 * have their turns (admission/fair-share.ts), and of one tenant's members those that came first go first.
 * Invariant: a lane without a connection has no queue: what would wait for it waits for any.
 *
 * Effects are called in the order in which they have to happen. An effect may submit further members.
 */
import { fairShare, goByArrival, type Sharer } from '../admission/fair-share.ts';
import { assert } from '../base/assert.ts';

/** For memberFailed: the error is that of the commit. */
export const COMMIT_FAILED = -1;
/** For memberFailed: one of several that were sent as one statement. All go again, those one by one. */
export const SOMEBODY_FAILED = -2;

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
  batch: Entry<M>[];
  /** The member whose error ended the batch, COMMIT_FAILED or SOMEBODY_FAILED. */
  failedAt: number;
  /** The server cut its wait for standbys short because of a cancel: only who asked for that may be told OK. */
  unconfirmed: boolean;
  /** Members bound to this lane because they touch the same rows. */
  queue: Entry<M>[];
}

interface Entry<M> {
  readonly member: M;
  readonly tenant: Sharer['tenant'];
  /** Its place in the order of arrival. */
  readonly arrival: number;
  canceled: boolean;
  /** It leaves if its batch is undone, whoever's fault that is. */
  leaving: boolean;
  /** How often its batch was undone, or it was left out of one, through no fault of its own. */
  undone: number;
  /** Its batch has not carried it out, though nothing failed. */
  missed: boolean;
}

/** A member whose batches were undone this often runs alone: it ends somehow, whatever the others do. */
const UNDONE_MAX = 8;
/** Up to this share of failing members, multi-row statements pay. */
const SMOOTH_SHARE_MAX = 0.002;
/** So many of the last batches decide what a usual one is. */
const BATCHES_OF_MEAN = 8;
/** So many of the last batches decide what share of the members fails. */
const BATCHES_OF_SHARE = 32;
/** A moving mean of failures a batch that is as good as none. */
const NO_FAILURES = 0.002;

export class CoalescingQueue<M extends object> {
  readonly #effects: CoalescingEffects<M>;
  readonly #batchMax: number;
  readonly #tenantOf: ((member: M) => Sharer['tenant']) | undefined;
  readonly #lanes: Lane<M>[] = [];
  /** Members that any lane may take. */
  #shared: Entry<M>[] = [];
  readonly #entries = new Map<M, Entry<M>>();
  #arrivals = 0;
  /** Moving means of a batch's failures and of its members that were carried out, and their ratio. */
  #failures = 0;
  #carriedOut = 1;
  #failureShare = 0;
  /** Moving mean of the members of a batch. */
  #batchMean = 1;

  constructor(
    effects: CoalescingEffects<M>,
    options: { lanes: number; batchMax: number; tenantOf?: (member: M) => Sharer['tenant'] },
  ) {
    this.#effects = effects;
    this.#batchMax = options.batchMax;
    this.#tenantOf = options.tenantOf;
    for (let i = 0; i < options.lanes; i++)
      this.#lanes.push({
        state: 'opening',
        batch: [],
        failedAt: COMMIT_FAILED,
        unconfirmed: false,
        queue: [],
      });
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

  /** How many members a batch may have now. */
  get batchSize(): number {
    if (this.#failureShare < 1 / (this.#batchMax * this.#batchMax)) return this.#batchMax;
    const size = Math.floor(3 / Math.sqrt(this.#failureShare)) - 2;
    return Math.max(1, Math.min(this.#batchMax, size));
  }

  /** Has nothing failed lately? Then members may be sent in forms that don't tell whose error it was. */
  get isSmooth(): boolean {
    return this.#failureShare <= SMOOTH_SHARE_MAX;
  }

  /** `affinity`: members with the same one go to the same lane; −1: any lane. */
  submit(member: M, affinity: number): void {
    assert(!this.#entries.has(member), 'a member is submitted once');
    const entry = {
      member,
      tenant: this.#tenantOf?.(member),
      arrival: this.#arrivals++,
      canceled: false,
      leaving: false,
      undone: 0,
      missed: false,
    };
    this.#entries.set(member, entry);
    const lane = affinity < 0 ? undefined : this.#lanes[affinity % this.#lanes.length]!;
    if (lane && lane.state !== 'opening') lane.queue.push(entry);
    else this.#shared.push(entry);
  }

  /**
   * Gives idle lanes what waits for them. To be called when all that has arrived together is submitted. While another lane
   * runs, few wait for it to end, when more will have come: small batches cost the server more than the wait costs them.
   */
  cut(): void {
    let running = this.#lanes.some(({ state }) => state === 'running' || state === 'failing');
    for (let i = 0; i < this.#lanes.length; i++) {
      const lane = this.#lanes[i]!;
      if (lane.state !== 'idle') continue;
      const waiting = lane.queue.length + this.#shared.length;
      if (waiting === 0 || (running && waiting < this.#batchMean)) continue;
      this.#fill(i, lane);
      running = true;
    }
  }

  /** A lane has ended: whoever waits for an idle one has waited for that. */
  #cutAll(): void {
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
    this.#disconnect(lane);
    this.#cutAll();
  }

  /** The server refused member `at` of the running batch, or its commit, or somebody; ReadyForQuery is still to come. */
  memberFailed(index: number, at: number): void {
    const lane = this.#lanes[index]!;
    // Undone already: that the server goes down as well changes nothing.
    if (lane.state === 'failing') return;
    assert(lane.state === 'running' && at < lane.batch.length, 'a member of a running batch failed');
    lane.state = 'failing';
    lane.failedAt = at;
  }

  /** The answer of member `at` is more than a batch may keep back: the batch is to be undone, and it leaves. */
  memberTooLarge(index: number, at: number): void {
    const lane = this.#lanes[index]!;
    const entry = lane.batch[at]!;
    if (lane.state !== 'running' || entry.leaving) return;
    entry.leaving = true;
    this.#effects.cancelLane(index);
  }

  /** Member `at` was sent together with others as one statement, which found nothing to do for it: it goes again. */
  memberMissed(index: number, at: number): void {
    this.#lanes[index]!.batch[at]!.missed = true;
  }

  /** The commit was cut short by a cancel: the transaction is committed here, and may be lost in a failover. */
  commitUnconfirmed(index: number): void {
    this.#lanes[index]!.unconfirmed = true;
  }

  /**
   * ReadyForQuery: committed, or undone if a member has failed. `release`: the lane then is without a connection, which
   * others wait for.
   */
  laneReady(index: number, release = false): void {
    const lane = this.#lanes[index]!;
    const { batch, failedAt, unconfirmed } = lane;
    const failed = lane.state === 'failing';
    assert(failed || lane.state === 'running', 'a lane that runs nothing is not asked');
    lane.state = 'idle';
    lane.batch = [];
    this.#noteOutcome(batch.length, failed, failedAt);
    if (failed) this.#takeApart(lane, batch, failedAt);
    else {
      for (let i = batch.length - 1; i >= 0; i--) if (batch[i]!.missed) this.#again(lane, batch[i]!);
      for (const entry of batch) {
        if (entry.missed) continue;
        this.#entries.delete(entry.member);
        if (unconfirmed && !entry.canceled) this.#effects.unknown(entry.member);
        else this.#effects.answer(entry.member);
      }
    }
    if (release) this.#disconnect(lane);
    this.#cutAll();
  }

  /**
   * The connection is gone. What was running may be committed or not, unless one of its members had failed before. Who waits
   * stays queued.
   */
  laneLost(index: number): void {
    const lane = this.#lanes[index]!;
    const { batch, failedAt } = lane;
    // After an error of the commit itself, too: if that was the server's last word, it may have been said after the fact.
    const unsure = lane.state === 'running' || (lane.state === 'failing' && failedAt === COMMIT_FAILED);
    lane.batch = [];
    for (let i = batch.length - 1; i >= 0; i--) {
      const entry = batch[i]!;
      if (unsure) {
        this.#entries.delete(entry.member);
        this.#effects.unknown(entry.member);
      } else this.#again(lane, entry);
    }
    this.#disconnect(lane);
    this.#cutAll();
  }

  /** The lane can't have a connection. If none has one, all who wait are handed back, to hear why. */
  laneRefused(index: number): void {
    assert(this.#lanes[index]!.state === 'opening', 'only a lane without a connection is refused one');
    if (this.#lanes.some((lane) => lane.state !== 'opening')) return;
    for (const entry of this.#shared.splice(0)) this.#leave(entry);
  }

  /** The node answers nothing: all who wait for a lane are handed back, to hear why. */
  refuseAll(): void {
    const waiting = [this.#shared, ...this.#lanes.map((lane) => lane.queue)].flatMap((queue) =>
      queue.splice(0),
    );
    for (const entry of waiting) this.#leave(entry);
  }

  /** The member's client wants it canceled. */
  cancel(member: M): void {
    const entry = this.#entries.get(member);
    if (!entry) return;
    for (const queue of [this.#shared, ...this.#lanes.map((lane) => lane.queue)]) {
      const at = queue.indexOf(entry);
      if (at < 0) continue;
      queue.splice(at, 1);
      this.#entries.delete(member);
      this.#effects.canceled(member);
      return;
    }
    entry.canceled = true;
    const index = this.#lanes.findIndex((lane) => lane.state === 'running' && lane.batch.includes(entry));
    if (index >= 0) this.#effects.cancelLane(index);
  }

  /** The oldest first, whether they are bound to this lane or to none. */
  #fill(index: number, lane: Lane<M>): void {
    const size = this.batchSize;
    const own = lane.queue;
    const shared = this.#shared;
    if (own.length + shared.length === 0) return;
    let batch = inOrder(own, shared);
    if (batch.length <= size) {
      lane.queue = [];
      this.#shared = [];
    } else if (goByArrival(batch, size)) {
      batch = batch.slice(0, size);
      const last = batch[size - 1]!.arrival;
      lane.queue = own.filter(({ arrival }) => arrival > last);
      this.#shared = shared.filter(({ arrival }) => arrival > last);
    } else {
      const chosen = fairShare(batch, size);
      batch = batch.filter((entry) => chosen.has(entry));
      lane.queue = own.filter((entry) => !chosen.has(entry));
      this.#shared = shared.filter((entry) => !chosen.has(entry));
    }
    lane.state = 'running';
    lane.batch = batch;
    lane.unconfirmed = false;
    for (const entry of batch) entry.missed = false;
    this.#effects.send(
      index,
      batch.map((entry) => entry.member),
    );
  }

  /** The failed one runs alone, the canceled ones end, the others go again, before those that came later. */
  #takeApart(lane: Lane<M>, batch: readonly Entry<M>[], failedAt: number): void {
    // Where one was to be canceled or too large, the error is that of the cancel, whomever it has struck.
    const struck = batch.some((entry) => entry.canceled || entry.leaving);
    for (let i = batch.length - 1; i >= 0; i--) {
      const entry = batch[i]!;
      if (!entry.canceled && (failedAt === COMMIT_FAILED || (i === failedAt && !struck))) this.#leave(entry);
      else this.#again(lane, entry);
    }
  }

  #again(lane: Lane<M>, entry: Entry<M>): void {
    if (entry.canceled) {
      this.#entries.delete(entry.member);
      this.#effects.canceled(entry.member);
    } else if (entry.leaving || ++entry.undone >= UNDONE_MAX) this.#leave(entry);
    else {
      // Before those that came later. Those that came before it and were left out of its batch, for others' turns, stay before it.
      const at = lane.queue.findIndex(({ arrival }) => arrival > entry.arrival);
      lane.queue.splice(at < 0 ? lane.queue.length : at, 0, entry);
    }
  }

  #leave(entry: Entry<M>): void {
    this.#entries.delete(entry.member);
    this.#effects.alone(entry.member);
  }

  #disconnect(lane: Lane<M>): void {
    lane.state = 'opening';
    if (lane.queue.length === 0) return;
    this.#shared = [...lane.queue, ...this.#shared].sort((a, b) => a.arrival - b.arrival);
    lane.queue = [];
  }

  #noteOutcome(size: number, failed: boolean, failedAt: number): void {
    this.#batchMean += (size - this.#batchMean) / BATCHES_OF_MEAN;
    // Behind the one that failed nobody was carried out; where it can't be told who it was, say that half were.
    const carriedOut = !failed ? size : failedAt >= 0 ? failedAt + 1 : (size + 1) / 2;
    this.#failures += ((failed ? 1 : 0) - this.#failures) / BATCHES_OF_SHARE;
    this.#carriedOut += (carriedOut - this.#carriedOut) / BATCHES_OF_SHARE;
    this.#failureShare = this.#failures < NO_FAILURES ? 0 : this.#failures / this.#carriedOut;
  }
}

/** Both are in order of arrival. */
function inOrder<M>(own: Entry<M>[], shared: Entry<M>[]): Entry<M>[] {
  if (shared.length === 0) return own;
  if (own.length === 0) return shared;
  const all: Entry<M>[] = [];
  let at = 0;
  for (const entry of own) {
    while (at < shared.length && shared[at]!.arrival < entry.arrival) all.push(shared[at++]!);
    all.push(entry);
  }
  while (at < shared.length) all.push(shared[at++]!);
  return all;
}
