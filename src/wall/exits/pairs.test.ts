import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../load/seeded-random.ts';
import { findingOf, measurePairs, ratioOf, type Side } from './pairs.ts';

const window = (tps: number) => ({ tps, p50Ms: 1, p99Ms: 2 });

/** A machine with noise that drifts: pairs of it must not be taken for a gain. */
function driftingMachine(options: { seed: number; gain: number; drift: number; noise: number }) {
  const random = seededRandom(options.seed);
  let level = 10_000;
  return async (side: Side) => {
    level *= 1 + options.drift;
    const noise = 1 + options.noise * (random() + random() + random() - 1.5);
    return window(level * noise * (side === 'with' ? options.gain : 1));
  };
}

describe('pairs in turns', () => {
  it('runs both sides equally often, and each first as often as the other', async () => {
    const order: Side[] = [];
    await measurePairs({
      rounds: 2,
      measure: async (side) => {
        order.push(side);
        return window(1);
      },
    });
    expect(order.map((side) => (side === 'with' ? 'B' : 'A')).join('')).toBe('ABBABAAB');
  });

  it('covers the true gain about as often as it says, on a machine that drifts', async () => {
    let covered = 0;
    const runs = 400;
    for (let seed = 1; seed <= runs; seed += 1) {
      const measure = driftingMachine({ seed, gain: 1.3, drift: 0.01, noise: 0.05 });
      const { ratio } = await measurePairs({ rounds: 4, measure });
      if (ratio.low <= 1.3 && 1.3 <= ratio.high) covered += 1;
    }
    expect(covered / runs).toBeGreaterThan(0.9);
  });

  it('seldom sees a gain where there is none, and always one of half as much again', async () => {
    let seen = 0;
    for (let seed = 1; seed <= 200; seed += 1) {
      const none = await measurePairs({
        rounds: 3,
        measure: driftingMachine({ seed, gain: 1, drift: -0.01, noise: 0.05 }),
      });
      if (findingOf(none.ratio) !== 'no measurable gain') seen += 1;
      const half = await measurePairs({
        rounds: 3,
        measure: driftingMachine({ seed, gain: 1.5, drift: -0.01, noise: 0.05 }),
      });
      expect(findingOf(half.ratio)).toBe('gain');
    }
    expect(seen / 200).toBeLessThan(0.1);
  });

  it('claims nothing from one pair', () => {
    expect(findingOf(ratioOf([3]))).toBe('no measurable gain');
  });

  it('is the inverse when both sides change places', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0.01, max: 100, noNaN: true }), { minLength: 2, maxLength: 8 }),
        (ratios) => {
          const there = ratioOf(ratios);
          const back = ratioOf(ratios.map((ratio) => 1 / ratio));
          expect(there.value * back.value).toBeCloseTo(1, 9);
          expect(there.low * back.high).toBeCloseTo(1, 9);
        },
      ),
    );
  });
});
