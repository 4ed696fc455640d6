/**
 * A world for queue.test.ts to drive the coalescing queue in: a model of a server with row locks, unique keys and
 * transactions, connections that are refused and lost at any moment, clients that cancel, and locks held outside. What
 * happens next is chosen by a list of numbers, so that a failing run can be shrunk and replayed.
 *
 * Every effect of the queue is checked when it is called, against what the server has really done.
 */
import {
  COMMIT_FAILED,
  type CoalescingEffects,
  type CoalescingQueue,
  SOMEBODY_FAILED,
} from '../../src/coalesce/queue.ts';

export interface SimulatedMember {
  readonly id: number;
  /** Inserted into a unique index; −1: none. */
  readonly key: number;
  /** Updated; −1: none. */
  readonly row: number;
  readonly isLarge: boolean;
  single: boolean;
  end: 'answered' | 'alone' | 'canceled' | 'unknown' | undefined;
  cancelAsked: boolean;
  /** How often a transaction with it was committed. */
  commits: number;
  lane: number;
}

interface Batch {
  readonly members: readonly SimulatedMember[];
  /** The one that runs; its length when all have run and the commit is next. */
  at: number;
  state: 'running' | 'failed' | 'committed' | 'refused';
  failedAt: number;
  errorTold: boolean;
  unconfirmed: boolean;
  /** Of one statement with others, which has done nothing for them. */
  readonly missed: Set<SimulatedMember>;
}

interface ServerLane {
  connected: boolean;
  batch: Batch | undefined;
  /** Cancel requests that are on their way. */
  cancels: number;
}

export interface SimulationOptions {
  readonly lanes: number;
  readonly batchMax: number;
  readonly choices: readonly number[];
  readonly makeQueue: (
    effects: CoalescingEffects<SimulatedMember>,
    options: { lanes: number; batchMax: number },
  ) => CoalescingQueue<SimulatedMember>;
}

const ROWS = 4;
const KEYS = 6;
const MEMBERS_MAX = 400;
const OUTSIDE = -1;
const SETTLING_STEPS_MAX = 50_000;

export class Simulation {
  readonly members: SimulatedMember[] = [];
  readonly #queue: CoalescingQueue<SimulatedMember>;
  readonly #batchMax: number;
  readonly #lanes: ServerLane[];
  readonly #choices: readonly number[];
  #chosen = 0;
  /** Row or key → the lane (or OUTSIDE) whose open transaction has it. */
  readonly #rowLocks = new Map<number, number>();
  readonly #keyLocks = new Map<number, number>();
  readonly #keys = new Set<number>();
  /** A batch's lane is lost and the queue has not been told; or its ReadyForQuery is being told. */
  #told: { lane: number; batch: Batch | undefined; lost: boolean } | undefined;

  constructor(options: SimulationOptions) {
    this.#choices = options.choices;
    this.#batchMax = options.batchMax;
    this.#lanes = Array.from({ length: options.lanes }, () => ({
      connected: false,
      batch: undefined,
      cancels: 0,
    }));
    this.#queue = options.makeQueue(
      {
        send: (lane, batch) => this.#onSend(lane, batch),
        answer: (member) => this.#onAnswer(member),
        alone: (member) => this.#onAlone(member),
        canceled: (member) => this.#onCanceled(member),
        unknown: (member) => this.#onUnknown(member),
        cancelLane: (lane) => {
          this.#lanes[lane]!.cancels++;
        },
      },
      { lanes: options.lanes, batchMax: options.batchMax },
    );
  }

  /** Throws where the queue breaks a rule. */
  run(): void {
    while (this.#chosen < this.#choices.length) {
      const actions = this.#actions();
      actions[this.#choose(actions.length)]!();
    }
    this.#settle();
    for (const member of this.members) {
      check(member.end !== undefined, `member ${member.id} never ended`);
      check(member.commits <= 1, `member ${member.id} was committed ${member.commits} times`);
    }
    check(this.#queue.memberCount === 0, 'the queue holds members that have ended');
  }

  #choose(count: number): number {
    const choice = this.#choices[this.#chosen++] ?? 0;
    return choice % count;
  }

  /** What may happen next. What is more usual stands there more than once. */
  #actions(): (() => void)[] {
    const actions: (() => void)[] = [];
    const usual = (action: () => void) => actions.push(action, action, action);
    if (this.members.length < MEMBERS_MAX) usual(() => this.#submit());
    usual(() => this.#queue.cut());
    const alive = this.members.filter((member) => !member.end);
    if (alive.length > 0)
      actions.push(() => {
        const member = alive[this.#choose(alive.length)]!;
        member.cancelAsked = true;
        this.#queue.cancel(member);
      });
    const row = this.#chosen % ROWS;
    if (!this.#rowLocks.has(row)) actions.push(() => this.#rowLocks.set(row, OUTSIDE));
    else if (this.#rowLocks.get(row) === OUTSIDE) usual(() => this.#rowLocks.delete(row));
    this.#lanes.forEach((lane, index) => {
      if (!lane.connected) {
        usual(() => this.#open(index));
        actions.push(() => this.#queue.laneRefused(index));
        return;
      }
      const { batch } = lane;
      actions.push(() => this.#lose(index));
      if (lane.cancels > 0) actions.push(() => this.#strike(index));
      if (!batch) {
        if (this.#queue.isIdle(index)) actions.push(() => this.#close(index));
      } else if (batch.state === 'running') usual(() => this.#step(index, batch));
      else usual(() => this.#tell(index, batch));
    });
    return actions;
  }

  /** From now on nothing goes wrong: everything that was begun comes to its end. */
  #settle(): void {
    for (const [row, holder] of this.#rowLocks) if (holder === OUTSIDE) this.#rowLocks.delete(row);
    for (let steps = 0; this.#queue.memberCount > 0; steps++) {
      check(steps < SETTLING_STEPS_MAX, 'members wait although the server answers');
      this.#queue.cut();
      this.#lanes.forEach((lane, index) => {
        if (!lane.connected) this.#open(index);
        const { batch } = lane;
        if (batch?.state === 'running') this.#step(index, batch);
        else if (batch) this.#tell(index, batch);
      });
    }
  }

  #submit(): void {
    const kind = this.#choose(8);
    const member: SimulatedMember = {
      id: this.members.length,
      key: kind === 0 || kind === 1 ? this.#choose(KEYS) : -1,
      row: kind === 1 || kind === 2 || kind === 3 ? this.#choose(ROWS) : -1,
      isLarge: kind === 4,
      single: false,
      end: undefined,
      cancelAsked: false,
      commits: 0,
      lane: -1,
    };
    this.members.push(member);
    this.#queue.submit(member, kind === 2 ? member.row : kind === 5 ? this.#choose(5) : -1);
  }

  #open(index: number): void {
    this.#lanes[index]!.connected = true;
    this.#queue.laneOpened(index);
  }

  #close(index: number): void {
    this.#lanes[index]!.connected = false;
    this.#lanes[index]!.cancels = 0;
    this.#queue.laneClosed(index);
  }

  #lose(index: number): void {
    const lane = this.#lanes[index]!;
    const { batch } = lane;
    // The server may have got as far as the commit, or not, before it noticed.
    while (batch?.state === 'running' && this.#choose(3) > 0) if (!this.#step(index, batch)) break;
    if (batch?.state === 'running') this.#release(index);
    lane.connected = false;
    lane.batch = undefined;
    lane.cancels = 0;
    if (!batch && this.#queue.isIdle(index)) this.#queue.laneClosed(index);
    else {
      this.#told = { lane: index, batch, lost: true };
      this.#queue.laneLost(index);
      this.#told = undefined;
    }
  }

  /** One member, or the commit. False: it waits for somebody. */
  #step(index: number, batch: Batch): boolean {
    const member = batch.members[batch.at];
    if (!member) {
      this.#commit(index, batch);
      return true;
    }
    if (
      this.#isTaken(this.#rowLocks, member.row, index) ||
      this.#isTaken(this.#keyLocks, member.key, index)
    ) {
      // It waits; now and then for too long.
      if (this.#choose(2) === 0) this.#fail(index, batch);
      return false;
    }
    if (member.key >= 0 && (this.#keys.has(member.key) || this.#keyLocks.get(member.key) === index)) {
      this.#fail(index, batch);
      return true;
    }
    const isTogether = [batch.members[batch.at - 1], batch.members[batch.at + 1]].some(
      (each) => each && !each.single,
    );
    if (member.key < 0 && !member.single && isTogether && this.#choose(8) === 7) {
      member.single = true;
      batch.missed.add(member);
      this.#queue.memberMissed(index, batch.at++);
      return true;
    }
    if (member.row >= 0) this.#rowLocks.set(member.row, index);
    if (member.key >= 0) this.#keyLocks.set(member.key, index);
    if (member.isLarge && !member.end) this.#queue.memberTooLarge(index, batch.at);
    batch.at++;
    return true;
  }

  #isTaken(locks: ReadonlyMap<number, number>, what: number, by: number): boolean {
    const holder = locks.get(what);
    return holder !== undefined && holder !== by;
  }

  /** Gives whether it is committed. */
  #commit(index: number, batch: Batch): boolean {
    this.#release(index);
    if (this.#choose(20) === 19) {
      batch.state = 'refused';
      batch.failedAt = COMMIT_FAILED;
      return false;
    }
    batch.state = 'committed';
    for (const member of batch.members) {
      if (batch.missed.has(member)) continue;
      member.commits++;
      if (member.key >= 0) this.#keys.add(member.key);
    }
    return true;
  }

  #fail(index: number, batch: Batch): void {
    batch.state = 'failed';
    batch.failedAt = batch.at;
    const failed = batch.members[batch.at]!;
    const another = batch.members[batch.at + 1];
    if (!failed.single && another && !another.single && this.#choose(2) === 0) {
      failed.single = true;
      another.single = true;
      batch.failedAt = SOMEBODY_FAILED;
    }
    this.#release(index);
  }

  #release(index: number): void {
    for (const locks of [this.#rowLocks, this.#keyLocks])
      for (const [what, holder] of locks) if (holder === index) locks.delete(what);
  }

  /** A cancel request arrives: whatever runs now is undone, or the wait of its commit for standbys ends. */
  #strike(index: number): void {
    const lane = this.#lanes[index]!;
    lane.cancels--;
    const { batch } = lane;
    if (batch?.state !== 'running') return;
    if (batch.at < batch.members.length) this.#fail(index, batch);
    else {
      batch.unconfirmed = this.#commit(index, batch);
    }
  }

  /** The answers of a batch that is over reach the router. */
  #tell(index: number, batch: Batch): void {
    if (batch.state !== 'committed' && !batch.errorTold) {
      batch.errorTold = true;
      this.#queue.memberFailed(index, batch.failedAt);
      return;
    }
    if (batch.unconfirmed) this.#queue.commitUnconfirmed(index);
    const lane = this.#lanes[index]!;
    const release = this.#choose(10) === 9;
    lane.batch = undefined;
    if (release) lane.connected = false;
    this.#told = { lane: index, batch, lost: false };
    this.#queue.laneReady(index, release);
    this.#told = undefined;
  }

  #onSend(index: number, members: readonly SimulatedMember[]): void {
    const lane = this.#lanes[index]!;
    check(lane.connected, 'sent on a lane without a connection');
    check(!lane.batch, 'sent on a lane that is busy');
    check(members.length > 0 && members.length <= this.#batchMax, `a batch of ${members.length}`);
    check(members.length <= this.#queue.batchSize, 'a batch larger than its size of now');
    members.forEach((member, i) => {
      check(!member.end, `member ${member.id} was sent after its end`);
      check(member.commits === 0, `member ${member.id} was sent again although it is committed`);
      check(i === 0 || members[i - 1]!.id < member.id, 'a batch out of order');
      const elsewhere = this.#lanes.some(({ batch }) => batch?.members.includes(member));
      check(!elsewhere, `member ${member.id} is on two lanes`);
      member.lane = index;
    });
    lane.batch = {
      members: [...members],
      at: 0,
      state: 'running',
      failedAt: COMMIT_FAILED,
      errorTold: false,
      unconfirmed: false,
      missed: new Set(),
    };
  }

  #onAnswer(member: SimulatedMember): void {
    this.#end(member, 'answered');
    check(member.commits === 1, `member ${member.id} was answered and is not committed`);
    const batch = this.#told?.batch;
    check(batch?.members.includes(member) && !this.#told?.lost, 'answered out of its turn');
    check(!batch?.unconfirmed || member.cancelAsked, `member ${member.id} was told OK on another's cancel`);
  }

  #onAlone(member: SimulatedMember): void {
    this.#end(member, 'alone');
    check(member.commits === 0, `member ${member.id} runs alone although it is committed`);
    // It then takes place by itself, unless its key is taken.
    if (member.key < 0 || !this.#keys.has(member.key)) member.commits++;
    if (member.key >= 0 && !this.#keyLocks.has(member.key)) this.#keys.add(member.key);
    // Its session goes on at once, and so may hand over the next write.
    if (this.#choose(3) === 1 && this.members.length < MEMBERS_MAX) this.#submit();
  }

  #onCanceled(member: SimulatedMember): void {
    this.#end(member, 'canceled');
    check(member.cancelAsked, `member ${member.id} was canceled unasked`);
    check(member.commits === 0, `member ${member.id} was canceled although it is committed`);
  }

  #onUnknown(member: SimulatedMember): void {
    this.#end(member, 'unknown');
    const batch = this.#told?.batch;
    check(batch?.members.includes(member), 'unknown out of its turn');
    if (!this.#told?.lost) {
      check(batch!.unconfirmed, `member ${member.id} is unknown although the server has answered`);
      return;
    }
    const undone = batch!.errorTold && batch!.failedAt !== COMMIT_FAILED;
    check(!undone, `member ${member.id} is unknown although its batch was undone`);
  }

  #end(member: SimulatedMember, end: NonNullable<SimulatedMember['end']>): void {
    check(!member.end, `member ${member.id} ended as ${member.end}, and then as ${end}`);
    member.end = end;
  }
}

function check(condition: boolean | undefined, message: string): asserts condition {
  if (!condition) throw new Error(message);
}
