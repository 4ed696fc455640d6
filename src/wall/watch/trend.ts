/**
 * A slope with its interval: Theil and Sen's median of the slopes between all pairs, and the interval that Kendall's
 * rank test gives it. A few outliers don't move it, and the noise need not be normal.
 * Source: Sen, "Estimates of the regression coefficient based on Kendall's tau" (1968).
 */
import { pairwiseSlopes } from '../measure/statistics.ts';

export interface Trend {
  /** Of y for each unit of x. */
  readonly slope: number;
  /** The 95% interval. */
  readonly low: number;
  readonly high: number;
}

export interface Observation {
  readonly x: number;
  readonly y: number;
}

const POINTS_MIN = 5;
const NORMAL_975 = 1.96;

/** Undefined with fewer than five points, or when all have the same x. */
export function trendOf(points: readonly Observation[]): Trend | undefined {
  const count = points.length;
  if (count < POINTS_MIN) return undefined;
  const slopes = pairwiseSlopes(
    points.map(({ x }) => x),
    points.map(({ y }) => y),
  );
  if (slopes.length === 0) return undefined;
  slopes.sort((a, b) => a - b);
  const reach = NORMAL_975 * Math.sqrt((count * (count - 1) * (2 * count + 5)) / 18);
  const at = (rank: number): number => slopes[Math.min(slopes.length - 1, Math.max(0, Math.round(rank)))]!;
  return {
    slope: at((slopes.length - 1) / 2),
    low: at((slopes.length - reach) / 2 - 1),
    high: at((slopes.length + reach) / 2),
  };
}
