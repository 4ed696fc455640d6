/**
 * Means and ratios of windows with their 95% intervals. Throughputs are compared by their logarithms, so that a ratio and
 * its inverse have the same interval; the two sides may vary differently (Welch's interval).
 */
import { studentQuantile } from '../measure/statistics.ts';
import type { Interval } from './explanation.ts';

/** Of positive values; one value alone has no interval, and gets a wide one: half to double. */
export function meanInterval(values: readonly number[]): Interval {
  const { mean, variance } = moments(values.map(Math.log));
  return around(mean, halfWidth([{ variance, count: values.length }]));
}

/** Of the mean of `over` to the mean of `under`. */
export function ratioInterval(over: readonly number[], under: readonly number[]): Interval {
  const [a, b] = [moments(over.map(Math.log)), moments(under.map(Math.log))];
  const sides = [
    { variance: a.variance, count: over.length },
    { variance: b.variance, count: under.length },
  ];
  return around(a.mean - b.mean, halfWidth(sides));
}

function halfWidth(sides: readonly { variance: number; count: number }[]): number {
  const shares = sides.map(({ variance, count }) => ({ part: variance / count, freedom: count - 1 }));
  if (shares.some(({ freedom }) => freedom < 1)) return Math.log(2);
  const total = shares.reduce((sum, { part }) => sum + part, 0);
  if (total === 0) return 0;
  // Welch and Satterthwaite: the degrees of freedom of a sum of two variances.
  const freedom = total ** 2 / shares.reduce((sum, each) => sum + each.part ** 2 / each.freedom, 0);
  return studentQuantile(freedom) * Math.sqrt(total);
}

function around(logarithm: number, half: number): Interval {
  return { value: Math.exp(logarithm), low: Math.exp(logarithm - half), high: Math.exp(logarithm + half) };
}

function moments(values: readonly number[]): { mean: number; variance: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, variance: values.length > 1 ? squares / (values.length - 1) : 0 };
}

/** One ratio over another, of the same run: conservative, as if the two had nothing in common. */
export function overInterval(over: Interval, under: Interval): Interval {
  const width = (side: Interval): number => Math.log(side.high / side.low) / 2;
  return around(Math.log(over.value / under.value), Math.hypot(width(over), width(under)));
}
