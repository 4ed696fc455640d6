/**
 * The open loop of one thread: arrivals begin when they are due, whatever the server does. A free client takes an arrival
 * at once; else it waits, and its latency still counts from its intended start, so a server that stops for a while shows in
 * the latencies of all that should have begun meanwhile (no coordinated omission).
 *
 *     due ──client free──────────────────────────────> begun ──> host: succeeded or failed
 *      │                                                 ^
 *      └──none free──> waiting ──a client gets free──────┘
 *            │            └──longer than waitMsMax, or never until the end──> missed
 *            └──queue full──> missed
 *
 * Every arrival whose intended start lies in the window is counted: offered = begun + missed. Pure: time comes in as
 * arguments, clients are whatever can `begin`.
 *
 * Invariant: while a client is idle, nothing waits.
 */
import { ArrivalQueue } from './arrival-queue.ts';
import { type ArrivalOptions, ArrivalSchedule } from './arrival-schedule.ts';
import { LatencyHistogram, type LatencySnapshot } from './latency-histogram.ts';
import type { MeasuredWindow } from './window-recorder.ts';

export interface OpenLoopClient {
  begin(intendedStartAt: number, now: number): void;
}

export interface OpenLoopCounts {
  /** Arrivals whose intended start lies in the window. */
  readonly offered: number;
  /** Of these, those that began more than lateMs after their intended start. */
  readonly late: number;
  /** Of these, those that never began. */
  readonly missed: number;
  /** From the intended start to the real one, of all that began. */
  readonly lateness: LatencySnapshot;
  /** The same of those for which a client was free when they were due: the precision of the generator itself. */
  readonly timing: LatencySnapshot;
}

/** The queue has room for what arrives in its longest wait, and half as many more for the unevenness of arrivals. */
const QUEUE_ROOM = 1.5;
const QUEUE_ARRIVALS_MIN = 64;
const QUEUE_ARRIVALS_MAX = 1 << 20;

export class OpenLoop<Client extends OpenLoopClient> {
  private readonly schedule: ArrivalSchedule;
  private readonly queue: ArrivalQueue;
  private readonly idle: Client[];
  private readonly waitMsMax: number;
  private readonly lateMs: number;
  private readonly window: MeasuredWindow;
  private readonly lateness = new LatencyHistogram();
  private readonly timing = new LatencyHistogram();
  private offered = 0;
  private late = 0;
  private missed = 0;

  constructor(options: {
    arrivals: ArrivalOptions;
    clients: readonly Client[];
    waitMsMax: number;
    lateMs: number;
    /** Its bounds may be set later; no arrival begins that is due at or after its end. */
    window: MeasuredWindow;
  }) {
    const { arrivals, waitMsMax } = options;
    this.schedule = new ArrivalSchedule(arrivals);
    const room = Math.ceil((arrivals.ratePerSecond * waitMsMax * QUEUE_ROOM) / 1000);
    this.queue = new ArrivalQueue(Math.min(QUEUE_ARRIVALS_MAX, Math.max(QUEUE_ARRIVALS_MIN, room)));
    this.idle = [...options.clients];
    this.waitMsMax = waitMsMax;
    this.lateMs = options.lateMs;
    this.window = options.window;
  }

  /** Nothing is under way or waits. */
  isQuiet(clients: number): boolean {
    return this.queue.size === 0 && this.idle.length === clients;
  }

  /** Begins all that is due, as far as clients are free. */
  admit(now: number): void {
    const { schedule, window } = this;
    while (schedule.nextAtMs <= now && schedule.nextAtMs < window.closesAtMs) {
      const dueAtMs = schedule.nextAtMs;
      schedule.advance();
      if (window.contains(dueAtMs)) this.offered++;
      const client = this.idle.pop();
      if (client !== undefined) {
        if (window.contains(dueAtMs)) this.timing.record((now - dueAtMs) * 1000);
        this.begin(client, dueAtMs, now);
      } else if (this.queue.isFull) {
        this.miss(dueAtMs);
      } else {
        this.queue.push(dueAtMs);
      }
    }
    this.dropExpired(now);
  }

  /** A client is free: it takes what has waited longest. */
  release(client: Client, now: number): void {
    // What became due before this moment found it busy, and comes behind what waits already.
    this.admit(now);
    if (this.queue.size === 0) {
      this.idle.push(client);
      return;
    }
    const { head } = this.queue;
    this.queue.shift();
    this.begin(client, head, now);
  }

  /** What waits until now has waited in vain. */
  abandon(): void {
    for (; this.queue.size > 0; this.queue.shift()) this.miss(this.queue.head);
  }

  counts(): OpenLoopCounts {
    return {
      offered: this.offered,
      late: this.late,
      missed: this.missed,
      lateness: this.lateness.snapshot(),
      timing: this.timing.snapshot(),
    };
  }

  private begin(client: Client, dueAtMs: number, now: number): void {
    if (this.window.contains(dueAtMs)) {
      this.lateness.record((now - dueAtMs) * 1000);
      if (now - dueAtMs > this.lateMs) this.late++;
    }
    client.begin(dueAtMs, now);
  }

  private dropExpired(now: number): void {
    for (; this.queue.size > 0 && this.queue.head < now - this.waitMsMax; this.queue.shift()) {
      this.miss(this.queue.head);
    }
  }

  private miss(dueAtMs: number): void {
    if (this.window.contains(dueAtMs)) this.missed++;
  }
}
