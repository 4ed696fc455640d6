/**
 * Clients, a router's queue of pipelined writes and a server, driven by a list of choices. The server knows what it has
 * committed; whatever the queue tells a member is compared with that.
 */
import { PipelineQueue } from '../../src/coalesce/pipeline-queue.ts';

const LANES = 3;
const RUN_MAX = 4;
const ROWS = 3;
const MEMBERS_MAX = 60;

type End = 'answered' | 'alone' | 'canceled' | 'unknown';

interface SimulatedMember {
  readonly id: number;
  readonly row: number;
  commits: number;
  cancelAsked: boolean;
  end: End | undefined;
}

interface SimulatedLane {
  connected: boolean;
  run: readonly SimulatedMember[];
  at: number;
  /** What the server has said of the head: 'told' was said of its error, and ReadyForQuery is to come. */
  failed: 'no' | 'itself' | 'commit' | 'stopped';
  /** Cancel requests on their way. */
  cancels: number;
}

export class PipelineSimulation {
  readonly #choices: readonly number[];
  #at = 0;
  readonly #members: SimulatedMember[] = [];
  readonly #lanes: SimulatedLane[] = Array.from({ length: LANES }, () => disconnected());
  #lostLane = -1;
  readonly #queue: PipelineQueue<SimulatedMember>;

  constructor(choices: readonly number[]) {
    this.#choices = choices;
    this.#queue = new PipelineQueue<SimulatedMember>(
      {
        send: (lane, run) => this.#onSend(lane, run),
        answer: (member) => this.#onAnswer(member),
        alone: (member) => this.#onAlone(member),
        canceled: (member) => this.#onCanceled(member),
        unknown: (member) => this.#onUnknown(member),
        cancelLane: (lane) => {
          this.#lanes[lane]!.cancels++;
        },
      },
      { lanes: LANES, runMax: RUN_MAX },
    );
  }

  run(): void {
    while (this.#at < this.#choices.length) this.#step();
    this.#drain();
    for (const member of this.#members) check(member.end, `member ${member.id} never ended`);
    check(this.#queue.memberCount === 0, 'members are left');
    check(this.#queue.queuedCount === 0, 'a queue is left');
  }

  /** With all lanes connected, everybody ends. */
  #drain(): void {
    this.#queue.cut();
    for (const [index, lane] of this.#lanes.entries()) {
      if (lane.connected) continue;
      lane.connected = true;
      this.#queue.laneOpened(index);
    }
    for (let round = 0; this.#queue.memberCount > 0; round++) {
      check(round < 1_000, 'members wait for ever');
      for (const [index, lane] of this.#lanes.entries())
        if (lane.run.length > 0) this.#ready(index, lane, false);
    }
  }

  #choose(count: number): number {
    return (this.#choices[this.#at++] ?? 0) % count;
  }

  #step(): void {
    const index = this.#choose(LANES);
    const lane = this.#lanes[index]!;
    switch (this.#choose(9)) {
      case 0:
      case 1:
        this.#submit();
        return;
      case 2:
        this.#queue.cut();
        return;
      case 3:
        this.#cancelSomebody();
        return;
      case 4:
        this.#connectOrClose(index, lane);
        return;
      case 5:
        if (lane.run.length > 0 && lane.failed === 'no') this.#fail(index, lane);
        return;
      case 6:
        if (lane.connected && this.#choose(6) === 0) this.#lose(index, lane);
        return;
      default:
        if (lane.run.length > 0) this.#ready(index, lane, this.#choose(5) === 4);
    }
  }

  #submit(): void {
    if (this.#members.length >= MEMBERS_MAX) return;
    const row = this.#choose(ROWS + 2);
    const member = {
      id: this.#members.length,
      row: row < ROWS ? row : -1,
      commits: 0,
      cancelAsked: false,
      end: undefined,
    };
    this.#members.push(member);
    this.#queue.submit(member, member.row);
  }

  #cancelSomebody(): void {
    const open = this.#members.filter(({ end }) => !end);
    const member = open[this.#choose(Math.max(1, open.length))];
    if (!member) return;
    member.cancelAsked = true;
    this.#queue.cancel(member);
  }

  #connectOrClose(index: number, lane: SimulatedLane): void {
    if (!lane.connected) {
      if (this.#choose(4) === 3) this.#queue.laneRefused(index);
      else {
        lane.connected = true;
        this.#queue.laneOpened(index);
      }
    } else if (this.#queue.isIdle(index)) {
      check(lane.run.length === 0, 'an idle lane runs something');
      lane.connected = false;
      this.#queue.laneClosed(index);
    }
  }

  #fail(index: number, lane: SimulatedLane): void {
    const kind = this.#choose(3);
    lane.failed = (['itself', 'commit', 'stopped'] as const)[kind]!;
    if (lane.failed === 'stopped') {
      if (lane.cancels > 0) lane.cancels--;
      this.#queue.headStopped(index);
    } else this.#queue.headFailed(index, lane.failed === 'commit');
  }

  #ready(index: number, lane: SimulatedLane, release: boolean): void {
    const member = lane.run[lane.at]!;
    if (lane.failed === 'no') member.commits++;
    const last = this.#queue.headReady(index);
    check(member.end, `member ${member.id} was ready and has not ended`);
    lane.at++;
    lane.failed = 'no';
    check(last === (lane.at === lane.run.length), 'the end of a run is told wrongly');
    if (!last) return;
    lane.run = [];
    if (release) lane.connected = false;
    this.#queue.laneReady(index, release);
  }

  /** Whatever was sent may be committed. */
  #lose(index: number, lane: SimulatedLane): void {
    if (lane.run.length === 0) {
      lane.connected = false;
      this.#queue.laneClosed(index);
      return;
    }
    this.#lostLane = index;
    this.#queue.laneLost(index);
    this.#lostLane = -1;
    this.#lanes[index] = disconnected();
  }

  #onSend(index: number, run: readonly SimulatedMember[]): void {
    const lane = this.#lanes[index]!;
    check(lane.connected && index !== this.#lostLane, 'sent on a lane without a connection');
    check(lane.run.length === 0, 'sent on a lane that is busy');
    check(run.length > 0 && run.length <= RUN_MAX, `a run of ${run.length}`);
    for (const member of run) {
      check(!member.end && member.commits === 0, `member ${member.id} was sent after its end`);
      const rowElsewhere = this.#lanes.some(
        (other, i) =>
          i !== index &&
          i !== this.#lostLane &&
          other.run.slice(other.at).some((one) => one === member || (one.row >= 0 && one.row === member.row)),
      );
      check(!rowElsewhere, `member ${member.id} or its row is on two lanes`);
    }
    lane.run = run;
    lane.at = 0;
    lane.failed = 'no';
  }

  #laneOf(member: SimulatedMember): SimulatedLane | undefined {
    return this.#lanes.find(({ run, at }) => run.indexOf(member) >= at);
  }

  #onAnswer(member: SimulatedMember): void {
    const lane = this.#laneOf(member);
    check(lane && lane.run[lane.at] === member, 'answered out of turn');
    check(lane!.failed !== 'stopped', 'answered though stopped');
    check(member.commits === (lane!.failed === 'no' ? 1 : 0), 'answered in the wrong');
    this.#end(member, 'answered');
  }

  #onAlone(member: SimulatedMember): void {
    check(member.commits === 0, `member ${member.id} runs alone although it is committed`);
    const lane = this.#laneOf(member);
    check(!lane || lane.failed === 'stopped', `member ${member.id} runs alone although it may be committed`);
    this.#end(member, 'alone');
    if (this.#choose(3) === 1) this.#submit();
  }

  #onCanceled(member: SimulatedMember): void {
    check(member.cancelAsked, `member ${member.id} was canceled unasked`);
    const lane = this.#laneOf(member);
    check(!lane || (lane.run[lane.at] === member && lane.failed === 'stopped'), 'canceled while it runs');
    this.#end(member, 'canceled');
  }

  #onUnknown(member: SimulatedMember): void {
    check(this.#lostLane >= 0, `member ${member.id} is unknown although the server has answered`);
    const lane = this.#lanes[this.#lostLane]!;
    check(lane.run.indexOf(member) >= lane.at, `member ${member.id} is unknown and was not sent`);
    const told = lane.run[lane.at] === member && (lane.failed === 'itself' || lane.failed === 'stopped');
    check(!told, `member ${member.id} is unknown although its error was heard`);
    this.#end(member, 'unknown');
  }

  #end(member: SimulatedMember, end: End): void {
    check(!member.end, `member ${member.id} ended as ${member.end}, and then as ${end}`);
    member.end = end;
  }
}

function disconnected(): SimulatedLane {
  return { connected: false, run: [], at: 0, failed: 'no', cancels: 0 };
}

function check(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(message);
}
