/**
 * What a change is worth: the same load without it and with it, in turns A-B-B-A, so that a machine that grows slower or
 * faster meanwhile strikes both alike. Each turn gives ratios; their mean and its interval are the result.
 *
 * Invariant: an interval comes from what the ratios say of themselves (Student's t over their logarithms); with one ratio there
 * is none, and nothing is claimed.
 */
import { studentQuantile } from '../measure/statistics.ts';

export interface Ratio {
  /** With the change over without it; geometric mean. */
  readonly value: number;
  /** The 95% interval. */
  readonly low: number;
  readonly high: number;
  readonly pairs: number;
}

/** The figure of one window, of one side. */
export interface Window {
  /** Transactions a second. */
  readonly tps: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

export interface PairsResult {
  readonly ratio: Ratio;
  /** The median window of each side. */
  readonly without: Window;
  readonly with: Window;
}

export type Side = 'without' | 'with';

/** `measure` runs one window; it is called 4 × rounds times, and its errors end the pairs. */
export async function measurePairs(options: {
  readonly rounds: number;
  readonly measure: (side: Side) => Promise<Window>;
}): Promise<PairsResult> {
  const windows: Record<Side, Window[]> = { without: [], with: [] };
  for (let round = 0; round < options.rounds; round += 1) {
    // A-B-B-A, then B-A-A-B: whatever follows whatever, it does so equally often.
    const first: Side = round % 2 === 0 ? 'without' : 'with';
    const second: Side = first === 'without' ? 'with' : 'without';
    for (const side of [first, second, second, first]) windows[side].push(await options.measure(side));
  }
  const ratios = windows.without.map((window, index) => windows.with[index]!.tps / window.tps);
  return { ratio: ratioOf(ratios), without: medianWindow(windows.without), with: medianWindow(windows.with) };
}

/** Of at least one ratio above 0. */
export function ratioOf(ratios: readonly number[]): Ratio {
  const logarithms = ratios.map(Math.log);
  const pairs = logarithms.length;
  const mean = logarithms.reduce((sum, each) => sum + each, 0) / pairs;
  if (pairs < 2) return { value: Math.exp(mean), low: 0, high: Number.POSITIVE_INFINITY, pairs };
  const variance = logarithms.reduce((sum, each) => sum + (each - mean) ** 2, 0) / (pairs - 1);
  const half = studentQuantile(pairs - 1) * Math.sqrt(variance / pairs);
  return { value: Math.exp(mean), low: Math.exp(mean - half), high: Math.exp(mean + half), pairs };
}

export type Finding = 'gain' | 'loss' | 'no measurable gain';

/** An interval on both sides of 1 claims nothing; neither does one that is above it by less than this. */
const NOTABLE_SHARE = 0.03;

export function findingOf(ratio: Ratio): Finding {
  if (ratio.low > 1 && ratio.value >= 1 + NOTABLE_SHARE) return 'gain';
  if (ratio.high < 1 && ratio.value <= 1 - NOTABLE_SHARE) return 'loss';
  return 'no measurable gain';
}

function medianWindow(windows: readonly Window[]): Window {
  const sorted = [...windows].sort((a, b) => a.tps - b.tps);
  return sorted[Math.floor((sorted.length - 1) / 2)]!;
}
