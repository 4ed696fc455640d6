import { describe, expect, it } from 'vitest';
import { seededRandom } from '../load/seeded-random.ts';
import { trendOf } from './trend.ts';

function noisy(options: { seed: number; slope: number; points: number }) {
  const random = seededRandom(options.seed);
  return Array.from({ length: options.points }, (_, x) => ({
    x,
    y: options.slope * x + 20 * (random() + random() + random() - 1.5),
  }));
}

describe('a trend', () => {
  it('is exact on a line, and no outlier moves it', () => {
    const line = Array.from({ length: 20 }, (_, x) => ({ x, y: 3 * x + 1 }));
    expect(trendOf(line)).toEqual({ slope: 3, low: 3, high: 3 });
    line[10] = { x: 10, y: 1e9 };
    expect(trendOf(line)!.slope).toBe(3);
  });

  it('covers the true slope about as often as it says', () => {
    let covered = 0;
    for (let seed = 1; seed <= 300; seed++) {
      const { low, high } = trendOf(noisy({ seed, slope: 0.7, points: 40 }))!;
      if (low <= 0.7 && 0.7 <= high) covered++;
    }
    expect(covered / 300).toBeGreaterThan(0.91);
    expect(covered / 300).toBeLessThan(0.995);
  });

  it('says nothing of too few points, or of points at one moment', () => {
    expect(trendOf(noisy({ seed: 1, slope: 1, points: 4 }))).toBeUndefined();
    expect(trendOf([1, 2, 3, 4, 5, 6].map((y) => ({ x: 1, y })))).toBeUndefined();
  });
});
