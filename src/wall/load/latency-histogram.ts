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

  /** With `counts`: what another thread's `snapshot()` gave. */
  constructor(snapshot?: LatencySnapshot) {
    this.counts = snapshot?.counts ?? new Uint32Array(BUCKET_COUNT);
    assert(this.counts.length === BUCKET_COUNT, 'a latency snapshot of another layout');
    this.maxMicroseconds = snapshot?.maxMicroseconds ?? 0;
    this.total = snapshot?.total ?? 0;
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
    if (value > this.maxMicroseconds) this.maxMicroseconds = value;
  }

  merge(other: LatencyHistogram): void {
    for (let bucket = 0; bucket < BUCKET_COUNT; bucket++) {
      this.counts[bucket] = this.counts[bucket]! + other.counts[bucket]!;
    }
    this.total += other.total;
    this.maxMicroseconds = Math.max(this.maxMicroseconds, other.maxMicroseconds);
  }

  /**
   * The smallest value (in ms) that at least `share` (0 to 1) of all recorded values don't exceed, read as the upper end
   * of its bucket and never above the greatest value; 0 when nothing is recorded.
   */
  percentileMs(share: number): number {
    const rank = Math.max(1, Math.ceil(share * this.total));
    let seen = 0;
    for (let bucket = 0; bucket < BUCKET_COUNT; bucket++) {
      seen += this.counts[bucket]!;
      if (seen >= rank) return Math.min(bucketEnd(bucket), this.maxMicroseconds) / 1000;
    }
    return this.maxMicroseconds / 1000;
  }

  get maxMs(): number {
    return this.maxMicroseconds / 1000;
  }

  /** The counts themselves, not a copy: for a histogram that is recorded no further. */
  snapshot(): LatencySnapshot {
    return { counts: this.counts, maxMicroseconds: this.maxMicroseconds, total: this.total };
  }
}

export interface LatencySnapshot {
  readonly counts: Uint32Array;
  readonly maxMicroseconds: number;
  readonly total: number;
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
