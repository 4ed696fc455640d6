import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../load/seeded-random.ts';
import {
  blockBootstrap,
  chooseBlockLength,
  combineRepeats,
  type Estimate,
  halfWidth,
  meanOf,
  medianOf,
  steadiness,
  studentQuantile,
  theilSenSlope,
  warmupBins,
} from './statistics.ts';

function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** Mean 1000, deviation 100, each value resembling the last by `resemblance`. */
function autoregressive(random: () => number, length: number, resemblance: number): number[] {
  let value = normal(random);
  return Array.from({ length }, () => {
    value = resemblance * value + Math.sqrt(1 - resemblance ** 2) * normal(random);
    return 1000 + 100 * value;
  });
}

function coverage(runs: number, estimateOf: (run: number) => Estimate, truth = 1000): number {
  let covered = 0;
  for (let run = 0; run < runs; run++) {
    const estimate = estimateOf(run);
    if (Math.abs(estimate.mean - truth) <= halfWidth(estimate)) covered++;
  }
  return covered / runs;
}

describe('blockBootstrap', () => {
  it.each([
    [50, 0, 0.93],
    [50, 0.3, 0.91],
    [100, 0.6, 0.9],
    [300, 0.6, 0.92],
    [300, 0.85, 0.88],
  ])(
    'covers the truth nearly as often as it says: %i bins that resemble each other by %d',
    (bins, resemblance, least) => {
      const random = seededRandom(17);
      const share = coverage(1500, () => blockBootstrap(autoregressive(random, bins, resemblance)));
      expect(share).toBeGreaterThan(least);
      expect(share).toBeLessThan(0.985);
    },
  );

  it('is wide where the plain error of the mean would be too small', () => {
    const random = seededRandom(3);
    const plain = (bins: number[]): Estimate => {
      const mean = meanOf(bins);
      const variance = bins.reduce((sum, bin) => sum + (bin - mean) ** 2, 0) / (bins.length - 1);
      return { mean, standardError: Math.sqrt(variance / bins.length), degrees: bins.length - 1 };
    };
    expect(coverage(800, () => plain(autoregressive(random, 300, 0.85)))).toBeLessThan(0.6);
  });

  it('is what drawing blocks would give', () => {
    const random = seededRandom(5);
    const bins = autoregressive(random, 60, 0.5);
    const { standardError, blockLength } = blockBootstrap(bins);
    const blocks = bins.length / blockLength;
    const whole = Math.floor(blocks);
    const means = Array.from({ length: 20_000 }, () => {
      let sum = 0;
      for (let block = 0; block < whole; block++) {
        const start = Math.floor(random() * bins.length);
        for (let index = 0; index < blockLength; index++) sum += bins[(start + index) % bins.length]!;
      }
      return sum / (whole * blockLength);
    });
    const mean = meanOf(means);
    const drawn = Math.sqrt(meanOf(means.map((value) => (value - mean) ** 2)) * (whole / blocks));
    expect(standardError / drawn).toBeCloseTo(Math.sqrt(blocks / (blocks - 1)), 1);
  });

  it('takes longer blocks for bins that resemble each other more', () => {
    const lengthAt = (resemblance: number) => {
      const random = seededRandom(9);
      return meanOf(
        Array.from({ length: 50 }, () => chooseBlockLength(autoregressive(random, 400, resemblance))),
      );
    };
    expect(lengthAt(0.9)).toBeGreaterThan(2 * lengthAt(0.1));
  });

  it('follows the bins’ scale, whatever they are', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 100_000 }), { minLength: 4, maxLength: 80 }),
        fc.integer({ min: 1, max: 50 }),
        (bins, factor) => {
          const one = blockBootstrap(bins);
          const many = blockBootstrap(bins.map((bin) => bin * factor));
          expect(many.mean).toBeCloseTo(one.mean * factor, 3);
          expect(one.standardError).toBeGreaterThanOrEqual(0);
          expect(many.standardError).toBeCloseTo(one.standardError * factor, 2);
          expect(one.degrees).toBeGreaterThan(0);
        },
      ),
    );
  });

  it('knows no error of three bins', () => {
    expect(halfWidth(blockBootstrap([1, 2, 3]))).toBe(Number.POSITIVE_INFINITY);
    expect(halfWidth(blockBootstrap([7, 7, 7, 7, 7]))).toBe(0);
  });
});

describe('combineRepeats', () => {
  it.each([
    ['when nothing is slower than a window', 0],
    ['when the windows differ among themselves', 60],
  ])('covers the truth %s', (_, drift) => {
    const random = seededRandom(23);
    const share = coverage(1500, () =>
      combineRepeats(
        Array.from({ length: 4 }, () => {
          const shift = drift * normal(random);
          return blockBootstrap(autoregressive(random, 50, 0.3).map((bin) => bin + shift));
        }),
      ),
    );
    expect(share).toBeGreaterThan(0.92);
  });

  it('trusts the spread of windows too short for an error of their own', () => {
    const bare = [100, 110, 120].map((mean) => ({ mean, standardError: 0, degrees: 0 }));
    const combined = combineRepeats(bare);
    expect(combined.mean).toBe(110);
    expect(halfWidth(combined)).toBeCloseTo((4.303 * 10) / Math.sqrt(3), 1);
    expect(halfWidth(combineRepeats(bare.slice(0, 1)))).toBe(Number.POSITIVE_INFINITY);
  });
});

describe('warmupBins', () => {
  it('cuts off a slow start, and little else', () => {
    const random = seededRandom(1);
    const steady = autoregressive(random, 60, 0.2);
    const slow = steady.map((bin, index) => (index < 10 ? bin * 0.4 : bin));
    expect(warmupBins(slow)).toBe(10);
    const cuts = Array.from({ length: 200 }, () => warmupBins(autoregressive(random, 60, 0.2)));
    expect(meanOf(cuts)).toBeLessThan(8);
    expect(Math.max(...cuts)).toBeLessThanOrEqual(20);
    expect(warmupBins([1, 2, 3])).toBe(0);
  });
});

describe('steadiness', () => {
  it('finds a trend, and none in noise', () => {
    const random = seededRandom(2);
    const noise = () => autoregressive(random, 50, 0.5);
    const alarms = Array.from({ length: 500 }, () => steadiness(noise())).filter(({ steady }) => !steady);
    expect(alarms.length).toBeLessThan(25);
    const falling = steadiness(noise().map((bin, index) => bin - 10 * index));
    expect(falling.steady).toBe(false);
    expect(falling.driftShare).toBeLessThan(-0.3);
  });

  it('lets a small trend pass, and judges nothing by a few bins', () => {
    const slight = Array.from({ length: 100 }, (_, index) => 1000 + 0.5 * index);
    expect(steadiness(slight)).toEqual({ steady: true, driftShare: expect.closeTo(0.048, 3) });
    expect(steadiness([1, 100]).steady).toBe(true);
    expect(steadiness(new Array(50).fill(0)).steady).toBe(true);
  });
});

describe('the small ones', () => {
  it('theilSenSlope finds a line through outliers', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: -50, max: 50 }),
        fc.integer({ min: -50, max: 50 }),
        fc.integer({ min: 0, max: 19 }),
        (slope, base, outlier) => {
          const xs = Array.from({ length: 20 }, (_, index) => index);
          const ys = xs.map((x) => (x === outlier ? 1e6 : base + slope * x));
          expect(theilSenSlope(xs, ys)).toBeCloseTo(slope, 9);
        },
      ),
    );
    expect(theilSenSlope([1], [1])).toBe(0);
  });

  it('medianOf is the middle of the sorted values', () => {
    expect([medianOf([3, 1, 2]), medianOf([4, 1, 3, 2]), medianOf([])]).toEqual([2, 2.5, Number.NaN]);
  });

  it.each([
    [1, 12.706],
    [2, 4.303],
    [3, 3.182],
    [5, 2.571],
    [10, 2.228],
    [30, 2.042],
    [1e6, 1.96],
  ])('studentQuantile of %d degrees is %d', (degrees, quantile) => {
    expect(studentQuantile(degrees) / quantile).toBeCloseTo(1, 2);
  });
});
