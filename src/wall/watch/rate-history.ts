/**
 * How the rate of writes has grown, and when it arrives at the wall if it goes on so: peaks by minute, kept in memory and, where
 * wanted, in a file that later runs go on with. What counts is the coarsest grain that has enough peaks: days, hours, or
 * minutes. The date is an interval, from the slope's; without a slope above 0 there is none.
 */
import { type Trend, trendOf } from './trend.ts';

const MINUTE_MS = 60_000;
const GRAINS = [
  { name: 'day', ms: 1_440 * MINUTE_MS, peaksMin: 7 },
  { name: 'hour', ms: 60 * MINUTE_MS, peaksMin: 12 },
  { name: 'minute', ms: MINUTE_MS, peaksMin: 10 },
] as const;
/** Some six weeks; older peaks are dropped. */
const MINUTES_MAX = 65_536;
/** Beyond that a date says no more than "not soon". */
const HORIZON_MS = 5 * 365 * 1_440 * MINUTE_MS;

export interface Peak {
  /** The minute's beginning, in milliseconds since 1970. */
  readonly atMs: number;
  readonly writesPerSecond: number;
}

export interface Arrival {
  readonly grain: (typeof GRAINS)[number]['name'];
  /** Writes a second, for each day. */
  readonly perDay: Trend;
  /** Milliseconds since 1970; undefined: not within five years, if ever. */
  readonly earliestMs: number | undefined;
  readonly latestMs: number | undefined;
}

export class RateHistory {
  private readonly peaks: Peak[];

  constructor(peaks: readonly Peak[] = []) {
    this.peaks = peaks.slice(-MINUTES_MAX);
  }

  /** Gives the minute that this one ends, if it does: its peak is final. */
  add(atMs: number, writesPerSecond: number): Peak | undefined {
    const minute = atMs - (atMs % MINUTE_MS);
    const last = this.peaks.at(-1);
    if (last !== undefined && last.atMs >= minute) {
      if (writesPerSecond > last.writesPerSecond)
        this.peaks[this.peaks.length - 1] = { ...last, writesPerSecond };
      return undefined;
    }
    this.peaks.push({ atMs: minute, writesPerSecond });
    if (this.peaks.length > MINUTES_MAX) this.peaks.shift();
    return last;
  }

  /** Undefined: there are too few peaks for a trend. */
  arrival(wall: number, nowMs: number): Arrival | undefined {
    for (const { name, ms, peaksMin } of GRAINS) {
      const peaks = peaksBy(this.peaks, ms);
      if (peaks.length < peaksMin) continue;
      const trend = trendOf(
        peaks.map(({ atMs, writesPerSecond }) => ({ x: atMs / GRAINS[0].ms, y: writesPerSecond })),
      );
      if (trend === undefined) return undefined;
      const reached = (perDay: number): number | undefined => {
        if (perDay <= 0) return undefined;
        const recent = peaks.slice(-3).reduce((most, peak) => Math.max(most, peak.writesPerSecond), 0);
        const inMs = Math.max(0, ((wall - recent) / perDay) * GRAINS[0].ms);
        return inMs > HORIZON_MS ? undefined : nowMs + inMs;
      };
      return { grain: name, perDay: trend, earliestMs: reached(trend.high), latestMs: reached(trend.low) };
    }
    return undefined;
  }
}

/** The last, unfinished span counts too: a peak that has been is one. */
function peaksBy(peaks: readonly Peak[], spanMs: number): Peak[] {
  const spans: Peak[] = [];
  for (const { atMs, writesPerSecond } of peaks) {
    const begin = atMs - (atMs % spanMs);
    const last = spans.at(-1);
    if (last === undefined || last.atMs !== begin) spans.push({ atMs: begin, writesPerSecond });
    else if (writesPerSecond > last.writesPerSecond)
      spans[spans.length - 1] = { atMs: begin, writesPerSecond };
  }
  return spans;
}

/** One line of the file; lines that are no peaks (a crash cut one off) are passed over. */
export function parseHistory(text: string): Peak[] {
  const peaks: Peak[] = [];
  for (const line of text.split('\n')) {
    const [time, rate] = line.split(',');
    const atMs = Date.parse(time ?? '');
    const writesPerSecond = Number(rate);
    const isAfter = atMs > (peaks.at(-1)?.atMs ?? Number.NEGATIVE_INFINITY);
    if (isAfter && rate !== undefined && rate.trim() !== '' && writesPerSecond >= 0)
      peaks.push({ atMs, writesPerSecond });
  }
  return peaks;
}

export function historyLine({ atMs, writesPerSecond }: Peak): string {
  return `${new Date(atMs).toISOString()},${writesPerSecond.toFixed(1)}\n`;
}
