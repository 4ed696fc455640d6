import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { meanInterval, overInterval, ratioInterval } from './interval.ts';

const windows = fc.array(fc.double({ min: 1, max: 1e6, noNaN: true }), { minLength: 2, maxLength: 8 });

describe('intervals', () => {
  it('hold the value, and turn over with the ratio', () => {
    fc.assert(
      fc.property(windows, windows, (over, under) => {
        const ratio = ratioInterval(over, under);
        const inverse = ratioInterval(under, over);
        expect(ratio.low).toBeLessThanOrEqual(ratio.value * (1 + 1e-9));
        expect(ratio.high).toBeGreaterThanOrEqual(ratio.value * (1 - 1e-9));
        expect(inverse.low * ratio.high).toBeCloseTo(1, 6);
      }),
    );
  });

  it('are those of Student and Welch', () => {
    const even = ratioInterval([2, 2, 2], [1, 1, 1]);
    expect(even).toEqual({ value: 2, low: 2, high: 2 });
    // By hand: logarithms 0 and 0.2, variance 0.02, two windows, one degree of freedom.
    const { value, low, high } = meanInterval([1, Math.exp(0.2)]);
    expect(Math.log(value)).toBeCloseTo(0.1, 9);
    expect(Math.log(high) - Math.log(value)).toBeCloseTo(12.7062 * Math.sqrt(0.02 / 2), 9);
    expect(Math.log(value) - Math.log(low)).toBeCloseTo(12.7062 * Math.sqrt(0.02 / 2), 9);
  });

  it('are wide for one window alone', () => {
    const { low, high } = meanInterval([100]);
    expect([low, high].map(Math.round)).toEqual([50, 200]);
  });

  it('widen when two are compared', () => {
    const { value, low, high } = overInterval(
      { value: 6, low: 5, high: 7.2 },
      { value: 2, low: 1.8, high: 2.3 },
    );
    expect(value).toBeCloseTo(3);
    expect(low).toBeLessThan(6 / 2 / 1.2);
    expect(high).toBeGreaterThan((6 / 2) * 1.2);
  });
});
