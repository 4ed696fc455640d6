/**
 * When the transactions of an open loop are to begin: a Poisson process, as of many users who don't know of each other. It
 * depends on nothing but the rate, the seed and the start, so whoever has these has the same arrivals. Pure.
 */
import { seededRandom } from './seeded-random.ts';

export interface ArrivalOptions {
  readonly ratePerSecond: number;
  readonly seed: number;
  readonly startAtMs: number;
}

export class ArrivalSchedule {
  /** When the next arrival is due. */
  nextAtMs: number;
  private readonly random: () => number;
  private readonly meanGapMs: number;

  constructor(options: ArrivalOptions) {
    this.random = seededRandom(options.seed);
    this.meanGapMs = 1000 / options.ratePerSecond;
    this.nextAtMs = options.startAtMs;
    this.advance();
  }

  /** To the arrival after the next. */
  advance(): void {
    this.nextAtMs -= this.meanGapMs * Math.log(1 - this.random());
  }
}
