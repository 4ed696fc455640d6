/**
 * One clock for all threads of the process: milliseconds, monotonic, with fractions. `performance.now()` counts from each
 * thread's own beginning, so times that threads tell each other are converted with this thread's offset.
 */
import { performance } from 'node:perf_hooks';

const offsetMs = Number(process.hrtime.bigint()) / 1e6 - performance.now();

export function sharedNow(): number {
  return performance.now() + offsetMs;
}

/** A time that another thread told, as this thread's `performance.now()` counts. */
export function toThreadTime(sharedMs: number): number {
  return sharedMs - offsetMs;
}
