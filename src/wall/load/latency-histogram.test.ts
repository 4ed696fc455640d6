import fc from 'fast-check';
import { build } from 'hdr-histogram-js';
import { describe, expect, it } from 'vitest';
import { LatencyHistogram } from './latency-histogram.ts';

const latency = fc.oneof(
  fc.integer({ min: 0, max: 5_000 }),
  fc.integer({ min: 0, max: 60_000_000 }),
  fc.integer({ min: 0, max: 2 ** 32 - 1 }),
);
const share = fc.constantFrom(0, 0.001, 0.5, 0.95, 0.99, 0.999, 1);

function recorded(values: readonly number[]): LatencyHistogram {
  const histogram = new LatencyHistogram();
  for (const value of values) histogram.record(value);
  return histogram;
}

describe('LatencyHistogram', () => {
  it('is within 1/1024 above what sorting gives, and exact below 2048 µs', () => {
    fc.assert(
      fc.property(fc.array(latency, { minLength: 1, maxLength: 200 }), share, (values, wanted) => {
        const sorted = [...values].sort((a, b) => a - b);
        const exact = sorted[Math.max(1, Math.ceil(wanted * sorted.length)) - 1]!;
        const told = Math.round(recorded(values).percentileMs(wanted) * 1000);
        expect(told).toBeGreaterThanOrEqual(exact);
        expect(told - exact).toBeLessThanOrEqual(exact < 2048 ? 0 : exact / 1024);
      }),
    );
  });

  it('agrees with HdrHistogram at three digits', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 10_000_000 }), { minLength: 1, maxLength: 300 }),
        share,
        (values, wanted) => {
          const oracle = build({ numberOfSignificantValueDigits: 3 });
          for (const value of values) oracle.recordValue(value);
          const theirs = oracle.getValueAtPercentile(wanted * 100);
          const ours = recorded(values).percentileMs(wanted) * 1000;
          expect(Math.abs(ours - theirs)).toBeLessThanOrEqual(Math.max(1, theirs * 0.002));
        },
      ),
    );
  });

  it('merges to the histogram of all values, also from snapshots', () => {
    fc.assert(
      fc.property(fc.array(latency), fc.array(latency), share, (first, second, wanted) => {
        const merged = recorded(first);
        merged.merge(new LatencyHistogram(structuredClone(recorded(second).snapshot())));
        const whole = recorded([...first, ...second]);
        expect(merged.percentileMs(wanted)).toBe(whole.percentileMs(wanted));
        expect([merged.count, merged.maxMs]).toEqual([whole.count, whole.maxMs]);
      }),
    );
  });

  it('takes what is out of range as the nearest value in it, fractions cut', () => {
    const histogram = recorded([-5, 2.9, 1e12]);
    expect([histogram.percentileMs(0), histogram.percentileMs(0.5)]).toEqual([0, 0.002]);
    expect(histogram.maxMs).toBeCloseTo((2 ** 32 - 1) / 1000);
    expect(new LatencyHistogram().percentileMs(0.99)).toBe(0);
  });

  it('has the mean, and the share that is surely within a bound', () => {
    fc.assert(
      fc.property(fc.array(latency, { minLength: 1, maxLength: 200 }), latency, (values, bound) => {
        const histogram = recorded(values);
        const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
        expect(histogram.meanMs * 1000).toBeCloseTo(mean, 3);
        const within = histogram.shareWithin(bound / 1000) * values.length;
        const count = (limit: number): number => values.filter((value) => value <= limit).length;
        expect(within).toBeLessThanOrEqual(count(bound) + 1e-9);
        expect(within).toBeGreaterThanOrEqual(count(bound * (1 - 1 / 1024) - 1) - 1e-9);
      }),
    );
    const nothing = new LatencyHistogram();
    expect([nothing.meanMs, nothing.shareWithin(1)]).toEqual([0, 0]);
  });

  it('counts what was never answered as slower than all else', () => {
    const histogram = recorded([1_000, 2_000, 3_000]);
    expect(histogram.percentileMs(0.5, 1)).toBe(2);
    expect(histogram.percentileMs(0.75, 1)).toBe(3);
    expect(histogram.percentileMs(0.76, 1)).toBe(Number.POSITIVE_INFINITY);
    expect(new LatencyHistogram().percentileMs(0.01, 1)).toBe(Number.POSITIVE_INFINITY);
  });
});
