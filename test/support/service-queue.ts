/**
 * A first-come-first-served queue before equal servers, in virtual time: when a job will be done is known the moment it
 * arrives. Whoever tells the answers may be late; the next job starts on time all the same, so the capacity is exact as
 * long as jobs wait. Pure.
 */
export class ServiceQueue {
  /** When each server has finished all it was given. */
  private readonly freeAtMs: number[];
  private readonly drawServiceMs: () => number;

  constructor(options: { servers: number; drawServiceMs: () => number }) {
    this.freeAtMs = new Array(options.servers).fill(Number.NEGATIVE_INFINITY);
    this.drawServiceMs = options.drawServiceMs;
  }

  /** Arrivals come in the order of their times. Gives when the job is done. */
  arrive(nowMs: number): number {
    let first = 0;
    for (let server = 1; server < this.freeAtMs.length; server++) {
      if (this.freeAtMs[server]! < this.freeAtMs[first]!) first = server;
    }
    const doneAtMs = Math.max(nowMs, this.freeAtMs[first]!) + this.drawServiceMs();
    this.freeAtMs[first] = doneAtMs;
    return doneAtMs;
  }
}

/** Mean `meanMs`; `random` gives doubles in [0, 1). */
export function exponentialMs(meanMs: number, random: () => number): number {
  return -meanMs * Math.log(1 - random());
}
