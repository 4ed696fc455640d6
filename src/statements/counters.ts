/**
 * How often statements are carried out and what they take, by role and text, for `postern.statements`: counted in the memory
 * of a router's process, where it costs a look-up and a few additions, and taken away every few seconds (flush.ts).
 *
 *   counter of a text as it was sent ──fold()──▶ pending, by normalized text ──take()──▶ the table on home
 *                                                     ▲───────putBack()── it could not be written
 *
 * Invariant: at most `statementCountersMax` counters and as many pending; beyond it, what is new is not counted until the next
 * flush, and nothing that a client waits for is ever held up.
 */
import { BOUNDS } from '../base/bounds.ts';
import { normalizeText } from './normalize.ts';

/** What was counted of a statement since it was taken last. */
export interface StatementDelta {
  readonly role: string;
  /** Normalized. */
  readonly query: string;
  calls: number;
  errors: number;
  rows: number;
  totalMs: number;
  minMs: number;
  maxMs: number;
  /** When the first of them ended, on the clock of the process. */
  beganMs: number;
  readonly nodeIds: Set<number>;
  /** Kinds of plan/plan.ts Placement. */
  readonly placements: Set<string>;
}

/** Of one text as it was sent, and one role. */
export class StatementCounter {
  readonly role: string;
  readonly text: string;
  /** false: it is counted by another one from now on. */
  isLive = true;
  calls = 0;
  errors = 0;
  rows = 0;
  totalMs = 0;
  minMs = Number.POSITIVE_INFINITY;
  maxMs = 0;
  beganMs = 0;
  readonly nodeIds = new Set<number>();
  readonly placements = new Set<string>();
  #query: string | undefined;

  constructor(role: string, text: string) {
    this.role = role;
    this.text = text;
  }

  get query(): string {
    this.#query ??= normalizeText(this.text);
    return this.#query;
  }

  /** One execution has ended. */
  record(startedMs: number, endedMs: number, { rows, failed }: { rows: number; failed: boolean }): void {
    const tookMs = endedMs - startedMs;
    if (this.calls === 0) this.beganMs = endedMs;
    this.calls++;
    if (failed) this.errors++;
    this.rows += rows;
    this.totalMs += tookMs;
    if (tookMs < this.minMs) this.minMs = tookMs;
    if (tookMs > this.maxMs) this.maxMs = tookMs;
  }

  clear(): void {
    this.calls = 0;
    this.errors = 0;
    this.rows = 0;
    this.totalMs = 0;
    this.minMs = Number.POSITIVE_INFINITY;
    this.maxMs = 0;
    this.nodeIds.clear();
  }
}

export class StatementCounters {
  readonly #now: () => number;
  readonly #byKey = new Map<string, StatementCounter>();
  #bytes = 0;
  /** Of all that was counted, by placements; read it after fold(). */
  readonly totals = new Map<string, { calls: number; errors: number; totalMs: number }>();
  #pending = new Map<string, StatementDelta>();

  constructor(now: () => number) {
    this.#now = now;
  }

  now(): number {
    return this.#now();
  }

  /** The one of this text and role; it is good until `isLive` is false. */
  get(role: string, text: string): StatementCounter {
    const key = `${role}\0${text}`;
    const known = this.#byKey.get(key);
    if (known) return known;
    this.#bytes += key.length * 2;
    if (this.#byKey.size >= BOUNDS.statementCountersMax || this.#bytes > BOUNDS.statementTextBytesMax) {
      this.fold();
      this.#forgetAll();
      this.#bytes = key.length * 2;
    }
    const counter = new StatementCounter(role, text);
    this.#byKey.set(key, counter);
    return counter;
  }

  /** What was counted since the last call. */
  take(): StatementDelta[] {
    this.fold();
    const taken = [...this.#pending.values()];
    this.#pending = new Map();
    return taken;
  }

  /** It could not be written. */
  putBack(deltas: readonly StatementDelta[]): void {
    for (const delta of deltas) this.#add(delta);
  }

  /** Nothing was counted of this role, or (undefined) of any. */
  reset(role: string | undefined): void {
    for (const counter of this.#byKey.values())
      if (role === undefined || counter.role === role) counter.clear();
    for (const [key, delta] of this.#pending)
      if (role === undefined || delta.role === role) this.#pending.delete(key);
  }

  fold(): void {
    for (const [key, counter] of this.#byKey) {
      if (counter.calls === 0) {
        // Not used since the last time: if it comes again, it gets another one.
        counter.isLive = false;
        this.#byKey.delete(key);
        this.#bytes -= key.length * 2;
        continue;
      }
      const { role, query, calls, errors, rows, totalMs, minMs, maxMs, beganMs } = counter;
      const sums = { calls, errors, rows, totalMs, minMs, maxMs, beganMs };
      this.#addTotals(counter);
      const nodeIds = new Set(counter.nodeIds);
      this.#add({ role, query, ...sums, nodeIds, placements: new Set(counter.placements) });
      counter.clear();
    }
  }

  #addTotals({ placements, calls, errors, totalMs }: StatementCounter): void {
    const key = [...placements].sort().join(' ');
    const known = this.totals.get(key) ?? { calls: 0, errors: 0, totalMs: 0 };
    known.calls += calls;
    known.errors += errors;
    known.totalMs += totalMs;
    this.totals.set(key, known);
  }

  #forgetAll(): void {
    for (const counter of this.#byKey.values()) counter.isLive = false;
    this.#byKey.clear();
  }

  #add(delta: StatementDelta): void {
    const key = `${delta.role}\0${delta.query}`;
    const known = this.#pending.get(key);
    if (!known) {
      if (this.#pending.size < BOUNDS.statementCountersMax) this.#pending.set(key, delta);
      return;
    }
    known.calls += delta.calls;
    known.errors += delta.errors;
    known.rows += delta.rows;
    known.totalMs += delta.totalMs;
    known.minMs = Math.min(known.minMs, delta.minMs);
    known.maxMs = Math.max(known.maxMs, delta.maxMs);
    known.beganMs = Math.min(known.beganMs, delta.beganMs);
    for (const id of delta.nodeIds) known.nodeIds.add(id);
    for (const kind of delta.placements) known.placements.add(kind);
  }
}
