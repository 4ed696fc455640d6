/**
 * Latencies in whole microseconds, counted in log-linear buckets: exact up to 2047 µs, then 1024 buckets to each power
 * of two, so that a percentile is at most 1/1024 above the truth. Recording is a shift and an increment, and allocates nothing; the counts of several
 * workers add up to the histogram of all of them.
 *
 * Invariant: the buckets are in order and without gaps: every value has one bucket, and a greater value never a lesser.
 */
import { assert } from '../../base/assert.ts';

const EXACT_BELOW = 2048;
const SUB_BUCKET_BITS = 10;
const MICROSECONDS_MAX = 2 ** 32 - 1;
const BUCKET_COUNT = bucketOf(MICROSECONDS_MAX) + 1;

export class LatencyHistogram {
  private readonly counts: Uint32Array;
  private maxMicroseconds = 0;
  private total = 0;
  private sumMicroseconds = 0;

  /** With `counts`: what another thread's `snapshot()` gave. */
  constructor(snapshot?: LatencySnapshot) {
    this.counts = snapshot?.counts ?? new Uint32Array(BUCKET_COUNT);
    assert(this.counts.length === BUCKET_COUNT, 'a latency snapshot of another layout');
    this.maxMicroseconds = snapshot?.maxMicroseconds ?? 0;
    this.total = snapshot?.total ?? 0;
    this.sumMicroseconds = snapshot?.sumMicroseconds ?? 0;
  }

  get count(): number {
    return this.total;
  }

  record(microseconds: number): void {
    // The clamp comes first: `>>>` would take a greater value modulo 2^32.
    const value =
      microseconds < 0 ? 0 : microseconds > MICROSECONDS_MAX ? MICROSECONDS_MAX : microseconds >>> 0;
    const bucket = bucketOf(value);
    this.counts[bucket] = this.counts[bucket]! + 1;
    this.total++;
    this.sumMicroseconds += value;
    if (value > this.maxMicroseconds) this.maxMicroseconds = value;
  }

  merge(other: LatencyHistogram): void {
    for (let bucket = 0; bucket < BUCKET_COUNT; bucket++) {
      this.counts[bucket] = this.counts[bucket]! + other.counts[bucket]!;
    }
    this.total += other.total;
    this.sumMicroseconds += other.sumMicroseconds;
    this.maxMicroseconds = Math.max(this.maxMicroseconds, other.maxMicroseconds);
  }

  /**
   * The smallest value (in ms) that at least `share` (0 to 1) of all recorded values don't exceed, read as the upper end
   * of its bucket and never above the greatest value; 0 when nothing is recorded. `unserved` further values are counted as
   * greater than all: those that were never answered; Infinity means that the percentile is one of them.
   */
  percentileMs(share: number, unserved = 0): number {
    const rank = Math.max(1, Math.ceil(share * (this.total + unserved)));
    if (rank > this.total && unserved > 0) return Number.POSITIVE_INFINITY;
    let seen = 0;
    for (let bucket = 0; bucket < BUCKET_COUNT; bucket++) {
      seen += this.counts[bucket]!;
      if (seen >= rank) return Math.min(bucketEnd(bucket), this.maxMicroseconds) / 1000;
    }
    return this.maxMicroseconds / 1000;
  }

  /** The share of values that are surely not above it: a bucket counts when all of it is within. 0 of nothing. */
  shareWithin(latencyMs: number): number {
    let within = 0;
    for (let bucket = 0; bucket < BUCKET_COUNT && bucketEnd(bucket) <= latencyMs * 1000; bucket++) {
      within += this.counts[bucket]!;
    }
    return this.total === 0 ? 0 : within / this.total;
  }

  /** Of whole microseconds, the fractions cut; 0 of nothing. */
  get meanMs(): number {
    return this.total === 0 ? 0 : this.sumMicroseconds / this.total / 1000;
  }

  get maxMs(): number {
    return this.maxMicroseconds / 1000;
  }

  /** The counts themselves, not a copy: for a histogram that is recorded no further. */
  snapshot(): LatencySnapshot {
    const { counts, maxMicroseconds, total, sumMicroseconds } = this;
    return { counts, maxMicroseconds, total, sumMicroseconds };
  }
}

export interface LatencySnapshot {
  readonly counts: Uint32Array;
  readonly maxMicroseconds: number;
  readonly total: number;
  readonly sumMicroseconds: number;
}

function bucketOf(value: number): number {
  if (value < EXACT_BELOW) return value;
  const shift = 31 - SUB_BUCKET_BITS - Math.clz32(value);
  return (shift << SUB_BUCKET_BITS) + (value >>> shift);
}

/** The greatest value of a bucket. */
function bucketEnd(bucket: number): number {
  if (bucket < EXACT_BELOW) return bucket;
  const shift = (bucket >>> SUB_BUCKET_BITS) - 1;
  const top = bucket - (shift << SUB_BUCKET_BITS);
  return (top + 1) * 2 ** shift - 1;
}
