/**
 * What a window's counts say of the rate behind them: an estimate with an error that allows for autocorrelation, whether
 * the window was steady, and how repeats of a window are put together. Pure; nothing here is drawn at random.
 *
 * A window is a row of bins: completions in each 100 ms. Neighbouring bins resemble each other (group commit, checkpoints,
 * a scheduler's slices), so the plain error of the mean would be far too small. The error here is the circular block
 * bootstrap's (Politis and Romano 1992), in its limit of infinitely many resamples, which has a closed form: the variance
 * of the means of all circular blocks. The block's length is chosen from the bins (Politis and White 2004, corrected by
 * Patton, Politis and White 2009). Intervals are two-sided at 95%, by Student's t.
 */
import { assert } from '../../base/assert.ts';

/** A mean with its standard error and the degrees of freedom that this error was estimated with. */
export interface Estimate {
  readonly mean: number;
  readonly standardError: number;
  readonly degrees: number;
}

export interface BlockEstimate extends Estimate {
  /** In bins. */
  readonly blockLength: number;
}

/** Fewer bins than this tell nothing of their own error. */
const BINS_MIN = 4;
/** Blocks of fewer bins are as good as none at lengths like these; more blocks than this many are wanted. */
const BLOCKS_MIN = 4;
/** The formula minimizes the squared error of the variance; intervals cover better with longer blocks (simulated). */
const LENGTH_FACTOR = 1.5;
/** Overlapping blocks hold about half as much again as blocks side by side (Meketon and Schmeiser 1984). */
const OVERLAP_GAIN = 1.5;

/** Half of the interval's width at 95%; infinite when nothing is known of the error. */
export function halfWidth(estimate: Estimate): number {
  if (estimate.degrees <= 0) return Number.POSITIVE_INFINITY;
  return studentQuantile(estimate.degrees) * estimate.standardError;
}

/** The mean of a window's bins. With fewer than four bins the error is not known (degrees: 0). */
export function blockBootstrap(bins: readonly number[]): BlockEstimate {
  const mean = meanOf(bins);
  if (bins.length < BINS_MIN) return { mean, standardError: 0, degrees: 0, blockLength: 1 };
  const blockLength = chooseBlockLength(bins);
  const blocks = bins.length / blockLength;
  let sum = 0;
  for (const block of circularBlockMeans(bins, blockLength)) sum += (block - mean) ** 2;
  // The mean of each resample is that of `blocks` independent draws from the circular blocks; the second factor makes
  // good what is lost because the blocks deviate from their own mean, as n − 1 does for single values.
  const variance = (sum / bins.length / blocks) * (blocks / (blocks - 1));
  return { mean, standardError: Math.sqrt(variance), degrees: OVERLAP_GAIN * (blocks - 1), blockLength };
}

/** The means of the n blocks that begin at each bin, going round at the end. */
function circularBlockMeans(bins: readonly number[], length: number): number[] {
  let sum = 0;
  for (let index = 0; index < length; index++) sum += bins[index]!;
  return bins.map((bin, start) => {
    const blockMean = sum / length;
    sum += bins[(start + length) % bins.length]! - bin;
    return blockMean;
  });
}

/**
 * Politis and White's choice for the circular bootstrap: (2 G² / D)^⅓ n^⅓ from autocovariances under a flat-top window that
 * ends where the autocorrelations have become insignificant. At least n^⅓, which guards against a short row that happens
 * to look uncorrelated; at most a quarter of the bins.
 */
export function chooseBlockLength(bins: readonly number[]): number {
  const n = bins.length;
  const longest = Math.max(1, Math.floor(n / BLOCKS_MIN));
  const shortest = Math.min(longest, Math.ceil(Math.cbrt(n)));
  const covariance = autocovariances(bins, Math.min(n - 1, Math.ceil(Math.sqrt(n)) + 5));
  const variance = covariance[0]!;
  if (variance === 0) return shortest;
  const insignificant = 2 * Math.sqrt(Math.log10(n) / n);
  const run = Math.max(5, Math.ceil(Math.sqrt(Math.log10(n))));
  let lastSignificant = 0;
  for (let lag = 1; lag < covariance.length && lag - lastSignificant <= run; lag++) {
    if (Math.abs(covariance[lag]! / variance) > insignificant) lastSignificant = lag;
  }
  const bandwidth = 2 * Math.max(1, lastSignificant);
  let weighted = 0;
  let spectrum = variance;
  for (let lag = 1; lag <= bandwidth && lag < covariance.length; lag++) {
    const weight = Math.min(1, 2 * (1 - lag / bandwidth));
    weighted += 2 * weight * lag * covariance[lag]!;
    spectrum += 2 * weight * covariance[lag]!;
  }
  const d = (4 / 3) * spectrum ** 2;
  const wanted = d > 0 ? LENGTH_FACTOR * Math.cbrt((2 * weighted ** 2) / d) * Math.cbrt(n) : longest;
  return Math.max(shortest, Math.min(longest, Math.ceil(wanted)));
}

function autocovariances(values: readonly number[], lagMax: number): number[] {
  const mean = meanOf(values);
  return Array.from({ length: lagMax + 1 }, (_, lag) => {
    let sum = 0;
    for (let index = lag; index < values.length; index++) {
      sum += (values[index]! - mean) * (values[index - lag]! - mean);
    }
    return sum / values.length;
  });
}

const BINS_PER_BATCH = 5;
/** More than this share of a window is never taken for warm-up. */
const WARMUP_SHARE_MAX = 1 / 3;

/**
 * How many bins at the window's start still belong to warming up: White's marginal standard error rule over batches of
 * five bins (MSER-5), the cut after which the mean of the rest is known best.
 */
export function warmupBins(bins: readonly number[]): number {
  const batches = Math.floor(bins.length / BINS_PER_BATCH);
  const means = Array.from({ length: batches }, (_, index) =>
    meanOf(bins.slice(index * BINS_PER_BATCH, (index + 1) * BINS_PER_BATCH)),
  );
  let best = { cut: 0, error: Number.POSITIVE_INFINITY };
  for (let cut = 0; cut <= Math.floor(batches * WARMUP_SHARE_MAX); cut++) {
    const rest = means.slice(cut);
    const mean = meanOf(rest);
    const error = rest.reduce((sum, value) => sum + (value - mean) ** 2, 0) / rest.length ** 2;
    if (error < best.error) best = { cut, error };
  }
  return best.cut * BINS_PER_BATCH;
}

/** Drift below this share of the mean, over the whole window, harms no figure that is told with its interval. */
const DRIFT_MAX = 0.1;
const BINS_FOR_STEADINESS = 20;
/** Of the 95% width: a point that is measured again for nothing costs more than a small drift that is let pass. */
const APART_FACTOR = 1.5;

export interface Steadiness {
  readonly steady: boolean;
  /** The trend from the window's start to its end (Theil–Sen), as a share of its mean; 0 with too few bins to tell. */
  readonly driftShare: number;
}

/**
 * Unsteady: the halves differ by more than their errors allow (Geweke's comparison), and the trend over the window is
 * large. Both: a long window finds a difference of no importance significant, and a short one a large trend in noise.
 */
export function steadiness(bins: readonly number[]): Steadiness {
  const mean = meanOf(bins);
  if (bins.length < BINS_FOR_STEADINESS || mean === 0) return { steady: true, driftShare: 0 };
  const slope = theilSenSlope(
    bins.map((_, index) => index),
    bins,
  );
  const driftShare = (slope * (bins.length - 1)) / mean;
  const middle = bins.length >> 1;
  const first = blockBootstrap(bins.slice(0, middle));
  const second = blockBootstrap(bins.slice(middle));
  const noise = Math.hypot(halfWidth(first), halfWidth(second));
  const apart = Math.abs(first.mean - second.mean) > APART_FACTOR * noise;
  return { steady: !(apart && Math.abs(driftShare) > DRIFT_MAX), driftShare };
}

/** The median of the slopes between all pairs of points: a few outliers don't move it. 0 with fewer than two points. */
export function theilSenSlope(xs: readonly number[], ys: readonly number[]): number {
  const slopes = pairwiseSlopes(xs, ys);
  return slopes.length === 0 ? 0 : medianOf(slopes);
}

/** Of all pairs of points that differ in x, in no order. */
export function pairwiseSlopes(xs: readonly number[], ys: readonly number[]): number[] {
  const slopes: number[] = [];
  for (let later = 1; later < xs.length; later++) {
    for (let earlier = 0; earlier < later; earlier++) {
      const run = xs[later]! - xs[earlier]!;
      if (run !== 0) slopes.push((ys[later]! - ys[earlier]!) / run);
    }
  }
  return slopes;
}

/**
 * Repeats of one point as one estimate: their mean, with the larger of two errors: what the errors within the windows lead
 * one to expect, and what the repeats' own spread shows. The second is larger when something slower than a window is at
 * work, and then only the number of repeats counts for its certainty.
 */
export function combineRepeats(repeats: readonly Estimate[]): Estimate {
  assert(repeats.length > 0, 'repeats to combine');
  const count = repeats.length;
  const mean = meanOf(repeats.map((repeat) => repeat.mean));
  const within = meanOf(repeats.map((repeat) => repeat.standardError ** 2)) / count;
  const withinDegrees = repeats.reduce((sum, repeat) => sum + repeat.degrees, 0);
  if (count === 1) return { mean, standardError: Math.sqrt(within), degrees: withinDegrees };
  const between = repeats.reduce((sum, repeat) => sum + (repeat.mean - mean) ** 2, 0) / (count - 1) / count;
  const spreadCounts = between >= within || repeats.some((repeat) => repeat.degrees <= 0);
  return {
    mean,
    standardError: Math.sqrt(spreadCounts ? between : within),
    degrees: spreadCounts ? count - 1 : withinDegrees,
  };
}

export function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export function meanOf(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}

const NORMAL_975 = 1.959963984540054;

/**
 * The 97.5% point of Student's t: exact for one and two degrees of freedom, else Hill's expansion about the normal one
 * (Abramowitz and Stegun 26.7.5), off by less than 1% from three on. Fractions of degrees are allowed.
 */
export function studentQuantile(degrees: number): number {
  if (degrees < 2) return degrees <= 1 ? 12.7062 : 12.7062 + (4.30265 - 12.7062) * (degrees - 1);
  if (degrees < 3) return 4.30265 + (3.18245 - 4.30265) * (degrees - 2);
  const z = NORMAL_975;
  const terms = [
    (z ** 3 + z) / 4,
    (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96,
    (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384,
    (79 * z ** 9 + 776 * z ** 7 + 1482 * z ** 5 - 1920 * z ** 3 - 945 * z) / 92_160,
  ];
  return terms.reduce((sum, term, index) => sum + term / degrees ** (index + 1), z);
}
