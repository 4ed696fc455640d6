/** Ratios and other single figures from the points of interleaved rounds. Pure. */
import type { Point } from './point.ts';

/** One round's two points of a cell, to one number. */
export interface RatioWanted {
  readonly name: string;
  readonly cell: string;
  readonly of: string;
  readonly over: string;
  readonly figure?: (of: Point, over: Point) => number;
}

export interface Ratio {
  readonly name: string;
  readonly median: number;
  /** One for each round that has both points. */
  readonly rounds: readonly number[];
}

function throughputRatio(of: Point, over: Point): number {
  return of.tps / over.tps;
}

/** Where statements are meant to fail: an answer is an answer. */
export function answersRatio(of: Point, over: Point): number {
  return (of.tps + of.failedPerSecond) / (over.tps + over.failedPerSecond);
}

/** Wanted ratios without a single pair of points are left out. */
export function ratiosOf(points: readonly Point[], wanted: readonly RatioWanted[]): Ratio[] {
  return wanted.flatMap(({ name, cell, of, over, figure = throughputRatio }) => {
    const rounds = points
      .filter((point) => point.cell === cell && point.endpoint === of)
      .flatMap((point) => {
        const other = points.find(
          (candidate) =>
            candidate.cell === cell && candidate.endpoint === over && candidate.round === point.round,
        );
        return other === undefined ? [] : [figure(point, other)];
      });
    return rounds.length === 0 ? [] : [{ name, median: median(rounds), rounds }];
  });
}

/** The median; NaN of nothing. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
