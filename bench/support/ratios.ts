/** Ratios and other single figures from the points of interleaved rounds. Pure. */
import type { Point } from './point.ts';

/** One round's two points of a cell, to one number. */
export interface RatioWanted {
  readonly name: string;
  readonly cell: string;
  readonly of: string;
  readonly over: string;
  /** Default: throughput. undefined: this pair does not say it. */
  readonly figure?: (of: Point, over: Point) => number | undefined;
}

/** One ratio over another of the same round. */
export interface QuotientWanted {
  readonly name: string;
  readonly ratio: RatioWanted;
  readonly overRatio: RatioWanted;
}

export interface Ratio {
  readonly name: string;
  readonly median: number;
  /** One for each round that has all it takes. */
  readonly rounds: readonly number[];
  /** The most of any point behind it. */
  readonly steal: number;
}

/** A round's number, and the most steal of the points that it comes from. */
interface RoundFigure {
  readonly figure: number;
  readonly steal: number;
}

function throughputRatio(of: Point, over: Point): number {
  return of.tps / over.tps;
}

/** Where statements are meant to fail: an answer is an answer. */
export function answersRatio(of: Point, over: Point): number {
  return (of.tps + of.failedPerSecond) / (over.tps + over.failedPerSecond);
}

/** CPU per transaction of these processes together. */
export function cpuRatio(processes: readonly string[]): (of: Point, over: Point) => number {
  const sum = (point: Point): number =>
    processes.reduce((total, name) => total + (point.cpuUs[name] ?? Number.NaN), 0);
  return (of, over) => sum(of) / sum(over);
}

/** Wanted ratios without a single pair of points are left out. */
export function ratiosOf(
  points: readonly Point[],
  wanted: readonly (RatioWanted | QuotientWanted)[],
): Ratio[] {
  const byPlace = new Map(points.map((point) => [placeOf(point.cell, point.endpoint, point.round), point]));
  const rounds = [...new Set(points.map(({ round }) => round))].sort((a, b) => a - b);
  return wanted.flatMap((each) => {
    const figures = rounds.flatMap((round) => {
      const found = 'ratio' in each ? quotientIn(byPlace, each, round) : ratioIn(byPlace, each, round);
      return found ?? [];
    });
    if (figures.length === 0) return [];
    const values = figures.map(({ figure }) => figure);
    const steal = Math.max(...figures.map((one) => one.steal));
    return [{ name: each.name, median: median(values), rounds: values, steal }];
  });
}

type ByPlace = ReadonlyMap<string, Point>;

function ratioIn(points: ByPlace, wanted: RatioWanted, round: number): RoundFigure | undefined {
  const { cell, figure = throughputRatio } = wanted;
  const of = points.get(placeOf(cell, wanted.of, round));
  const over = points.get(placeOf(cell, wanted.over, round));
  if (of === undefined || over === undefined) return undefined;
  const value = figure(of, over);
  return value === undefined ? undefined : { figure: value, steal: Math.max(of.steal, over.steal) };
}

function quotientIn(points: ByPlace, wanted: QuotientWanted, round: number): RoundFigure | undefined {
  const of = ratioIn(points, wanted.ratio, round);
  const over = ratioIn(points, wanted.overRatio, round);
  if (of === undefined || over === undefined) return undefined;
  return { figure: of.figure / over.figure, steal: Math.max(of.steal, over.steal) };
}

function placeOf(cell: string, endpoint: string, round: number): string {
  return `${round} ${cell}\n${endpoint}`;
}

/** The median; NaN of nothing. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
