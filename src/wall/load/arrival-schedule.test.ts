import { describe, expect, it } from 'vitest';
import { ArrivalSchedule } from './arrival-schedule.ts';

function gaps(options: { seed: number; ratePerSecond: number; count: number }): number[] {
  const schedule = new ArrivalSchedule({ ...options, startAtMs: 1e9 });
  let last = 1e9;
  return Array.from({ length: options.count }, () => {
    const gap = schedule.nextAtMs - last;
    last = schedule.nextAtMs;
    schedule.advance();
    return gap;
  });
}

describe('ArrivalSchedule', () => {
  it('is the same for the same seed, and another for another', () => {
    const of = (seed: number) => gaps({ seed, ratePerSecond: 100, count: 50 });
    expect(of(7)).toEqual(of(7));
    expect(of(7)).not.toEqual(of(8));
  });

  it('has the gaps of a Poisson process of its rate', () => {
    const count = 100_000;
    const drawn = gaps({ seed: 3, ratePerSecond: 2_000, count });
    const meanMs = drawn.reduce((sum, gap) => sum + gap, 0) / count;
    const varianceMs = drawn.reduce((sum, gap) => sum + (gap - meanMs) ** 2, 0) / count;
    // The mean's standard error is 0.3%, the variance's 0.9%.
    expect(Math.abs(meanMs / 0.5 - 1)).toBeLessThan(0.02);
    expect(Math.abs(varianceMs / 0.25 - 1)).toBeLessThan(0.05);
    // An exponential distribution has no memory: of those above the mean, the share e^-1 is above twice of it.
    const above = (ms: number): number => drawn.filter((gap) => gap > ms).length;
    expect(above(1) / above(0.5)).toBeCloseTo(Math.exp(-1), 1);
    expect(Math.min(...drawn)).toBeGreaterThanOrEqual(0);
  });
});
