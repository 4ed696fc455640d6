/**
 * The search for the highest rate that keeps an objective. It is one pure function of what has been measured so far, so
 * that a search that was interrupted goes on from its points:
 *
 *   const probes: SloProbe[] = [];
 *   for (let step = nextSloStep(options, probes); step.kind === 'measure'; step = nextSloStep(options, probes))
 *     probes.push({ rate: step.rate, keeps: await … });
 *   step.result
 *
 * Higher rates keep it less often, but near the edge a point may go either way. So:
 *  - the edge between two neighbouring rates is where a step from "keeps" to "breaks" contradicts the fewest points;
 *  - without both sides the rate doubles or halves (bracket), with both it is their geometric mean (bisection), until they
 *    are `width` apart; then each side has to be agreed on by two points more than contradict it;
 *  - the interval that is stated reaches from the highest rate at and below which every point kept it to the lowest at and
 *    above which every point broke it: contradictions widen it.
 *
 * Invariant: at most `pointsMax` points, and at most REPEATS_MAX at one rate.
 */
import { assert } from '../../base/assert.ts';

export interface SloSearchOptions {
  /** Where to begin: half of what a closed loop reached is a good guess. */
  readonly startRate: number;
  /** The search does not go below or above these. */
  readonly lowestRate: number;
  readonly highestRate: number;
  /** How far the two sides of the edge may lie apart, as a share of the lower; default 0.05. */
  readonly width?: number | undefined;
  /** Default 16; the search says so when they were too few. */
  readonly pointsMax?: number | undefined;
}

export interface SloProbe {
  /** Arrivals a second. */
  readonly rate: number;
  readonly keeps: boolean;
}

export type SloStep =
  | { readonly kind: 'measure'; readonly rate: number }
  | { readonly kind: 'done'; readonly result: SloSearchResult };

export interface SloSearchResult {
  /**
   * 'found': the highest rate that keeps it is within [low, high]. 'never': the lowest rate breaks it already. 'always':
   * the highest rate still keeps it, so this is no limit of the server.
   */
  readonly kind: 'found' | 'never' | 'always';
  /** The highest rate at which most points kept it; undefined: never. */
  readonly rate: number | undefined;
  /** Every point at or below it kept the objective; undefined: there is no such rate. */
  readonly low: number | undefined;
  /** Every point at or above it broke the objective; undefined: there is no such rate. */
  readonly high: number | undefined;
  readonly points: number;
  /** The points ran out before both sides were `width` apart and agreed on. */
  readonly exhausted: boolean;
}

const WIDTH_DEFAULT = 0.05;
const POINTS_MAX_DEFAULT = 16;
const REPEATS_MAX = 5;
/** A side of the edge stands when so many more points agree than contradict. */
const AGREEMENT = 2;

export function nextSloStep(options: SloSearchOptions, probes: readonly SloProbe[]): SloStep {
  const { startRate, lowestRate, highestRate } = options;
  const width = options.width ?? WIDTH_DEFAULT;
  assert(0 < lowestRate && lowestRate <= highestRate && width > 0, 'a search without a range');
  const tallies = tally(probes);
  const edge = edgeOf(tallies);
  /** A rate that closes the interval, where the outermost one has been contradicted. */
  const beyondDoubt = (): number | undefined => {
    const [lowest, highest] = [tallies[0]!, tallies.at(-1)!];
    const further = 1 + 2 * width;
    if (highest.kept > 0 && highest.rate < highestRate) {
      return Math.min(highestRate, rounded(highest.rate * further));
    }
    if (lowest.broken > 0 && lowest.rate > lowestRate) {
      return Math.max(lowestRate, rounded(lowest.rate / further));
    }
    return undefined;
  };
  const wanted = ((): number | undefined => {
    if (tallies.length === 0) return clamp(startRate, lowestRate, highestRate);
    const below = tallies[edge - 1];
    const above = tallies[edge];
    if (below === undefined) {
      return above!.rate > lowestRate ? Math.max(lowestRate, rounded(above!.rate / 2)) : repeated(above!);
    }
    if (above === undefined) {
      return below.rate < highestRate ? Math.min(highestRate, rounded(below.rate * 2)) : repeated(below);
    }
    const middle = rounded(Math.sqrt(below.rate * above.rate));
    const isApart = above.rate > below.rate * (1 + width) && middle > below.rate && middle < above.rate;
    return isApart ? middle : (repeated(below) ?? repeated(above) ?? beyondDoubt());
  })();
  const exhausted = wanted !== undefined && probes.length >= (options.pointsMax ?? POINTS_MAX_DEFAULT);
  if (wanted !== undefined && !exhausted) return { kind: 'measure', rate: wanted };
  return { kind: 'done', result: resultOf(tallies, edge, probes.length, exhausted) };
}

interface Tally {
  readonly rate: number;
  kept: number;
  broken: number;
}

/** One for each rate, the lowest first. */
function tally(probes: readonly SloProbe[]): Tally[] {
  const byRate = new Map<number, Tally>();
  for (const { rate, keeps } of probes) {
    const found = byRate.get(rate) ?? { rate, kept: 0, broken: 0 };
    byRate.set(rate, found);
    if (keeps) found.kept++;
    else found.broken++;
  }
  return [...byRate.values()].sort((a, b) => a.rate - b.rate);
}

/** How many of the rates lie below the step that contradicts the fewest points; of equal ones the lowest step. */
function edgeOf(tallies: readonly Tally[]): number {
  let contradictions = tallies.reduce((sum, { kept }) => sum + kept, 0);
  let fewest = contradictions;
  let edge = 0;
  tallies.forEach(({ kept, broken }, index) => {
    contradictions += broken - kept;
    if (contradictions < fewest) {
      fewest = contradictions;
      edge = index + 1;
    }
  });
  return edge;
}

/** The rate, if it needs to be measured once more. */
function repeated({ rate, kept, broken }: Tally): number | undefined {
  return Math.abs(kept - broken) < AGREEMENT && kept + broken < REPEATS_MAX ? rate : undefined;
}

function resultOf(
  tallies: readonly Tally[],
  edge: number,
  points: number,
  exhausted: boolean,
): SloSearchResult {
  const firstBroken = tallies.findIndex(({ broken }) => broken > 0);
  const lastKept = tallies.findLastIndex(({ kept }) => kept > 0);
  return {
    kind: edge === 0 ? 'never' : edge === tallies.length ? 'always' : 'found',
    rate: tallies[edge - 1]?.rate,
    low: tallies[(firstBroken < 0 ? tallies.length : firstBroken) - 1]?.rate,
    high: tallies[lastKept + 1]?.rate,
    points,
    exhausted,
  };
}

/** To four digits: nobody wants to read more, and no measurement has them. */
function rounded(rate: number): number {
  return Number(rate.toPrecision(4));
}

function clamp(value: number, min: number, max: number): number {
  return Math.min(max, Math.max(min, value));
}
