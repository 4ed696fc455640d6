/**
 * What one thread records of a window: completions by bins of time, latencies by transaction, failures by SQLSTATE. The
 * hot path (`succeeded`) is some comparisons and increments, and allocates nothing. Pure: time comes in as arguments.
 *
 * Throughput counts what completes within the window. Latencies are those of the same transactions in a closed loop; in an
 * open loop, those of the arrivals whose intended start lies in it, also when they complete later: else a server that
 * falls behind would be judged by those that it answered in time.
 */
import { assert } from '../../base/assert.ts';
import type { ServerError } from './answer-scanner.ts';
import { LatencyHistogram, type LatencySnapshot } from './latency-histogram.ts';

/** From `opensAtMs` on, until before `closesAtMs`, by the thread's own clock; nothing is in it before it is set. */
export class MeasuredWindow {
  opensAtMs = Number.POSITIVE_INFINITY;
  closesAtMs = Number.POSITIVE_INFINITY;

  contains(atMs: number): boolean {
    return atMs >= this.opensAtMs && atMs < this.closesAtMs;
  }
}

export interface WindowRecord {
  /** Completions in each bin, in order. */
  readonly bins: Uint32Array;
  /** By the transaction's place in the workload. */
  readonly latencies: readonly LatencySnapshot[];
  /** By SQLSTATE, by the same rule as latencies. */
  readonly errors: ReadonlyMap<string, number>;
  /** One server message to each SQLSTATE. */
  readonly errorMessages: ReadonlyMap<string, string>;
  /** Time that transactions took, failed ones too, summed over those that ended within the window. */
  readonly busyMs: number;
}

export class WindowRecorder {
  readonly window: MeasuredWindow;
  private readonly isOpenLoop: boolean;
  private readonly latencies: readonly LatencyHistogram[];
  private bins = new Uint32Array(0);
  private binWidthMs = 1;
  private readonly errors = new Map<string, number>();
  private readonly errorMessages = new Map<string, string>();
  private busyMs = 0;

  constructor(options: { window: MeasuredWindow; transactions: number; isOpenLoop: boolean }) {
    this.window = options.window;
    this.isOpenLoop = options.isOpenLoop;
    this.latencies = Array.from({ length: options.transactions }, () => new LatencyHistogram());
  }

  open(options: { opensAtMs: number; closesAtMs: number; bins: number }): void {
    assert(options.bins >= 1 && options.closesAtMs > options.opensAtMs, 'a window without length');
    this.window.opensAtMs = options.opensAtMs;
    this.window.closesAtMs = options.closesAtMs;
    this.bins = new Uint32Array(options.bins);
    this.binWidthMs = (options.closesAtMs - options.opensAtMs) / options.bins;
  }

  succeeded(transaction: number, startAtMs: number, now: number): void {
    const { window } = this;
    const completesWithin = window.contains(now);
    if (completesWithin) {
      this.busyMs += now - startAtMs;
      // The quotient may be rounded up to the number of bins.
      const bin = Math.min(this.bins.length - 1, Math.floor((now - window.opensAtMs) / this.binWidthMs));
      this.bins[bin] = this.bins[bin]! + 1;
    }
    if (this.isOpenLoop ? window.contains(startAtMs) : completesWithin) {
      this.latencies[transaction]!.record((now - startAtMs) * 1000);
    }
  }

  failed(error: ServerError, startAtMs: number, now: number): void {
    if (this.window.contains(now)) this.busyMs += now - startAtMs;
    if (!this.window.contains(this.isOpenLoop ? startAtMs : now)) return;
    this.errors.set(error.sqlState, (this.errors.get(error.sqlState) ?? 0) + 1);
    if (!this.errorMessages.has(error.sqlState)) this.errorMessages.set(error.sqlState, error.message);
  }

  record(): WindowRecord {
    return {
      bins: this.bins,
      latencies: this.latencies.map((histogram) => histogram.snapshot()),
      errors: this.errors,
      errorMessages: this.errorMessages,
      busyMs: this.busyMs,
    };
  }
}
