import { describe, expect, it } from 'vitest';
import { seededRandom } from '../load/seeded-random.ts';
import {
  drawShaped,
  drawUniform,
  exponential,
  gaussian,
  type RandomSource,
  stringPool,
  zipfian,
} from './random-distributions.ts';

const COUNT = 12;
const DRAWS = 60_000;

/** Passed once in a thousand seeds with 11 degrees of freedom, and the seed is fixed. */
const CHI_SQUARED_MAX = 31.3;

function chiSquared(draw: (random: RandomSource) => number, probability: (k: number) => number): number {
  const counts = new Array<number>(COUNT).fill(0);
  const random = seededRandom(3);
  for (let round = 0; round < DRAWS; round++) counts[draw(random)]!++;
  const weights = counts.map((_, k) => probability(k));
  const total = weights.reduce((sum, weight) => sum + weight);
  return counts.reduce((sum, count, k) => {
    const expected = (DRAWS * weights[k]!) / total;
    return sum + (count - expected) ** 2 / expected;
  }, 0);
}

/** The integral of the standard normal's density, by Simpson's rule. */
function normalArea(from: number, to: number): number {
  const steps = 200;
  const width = (to - from) / steps;
  let sum = 0;
  for (let step = 0; step <= steps; step++) {
    const x = from + step * width;
    const weight = step === 0 || step === steps ? 1 : step % 2 === 1 ? 4 : 2;
    sum += weight * Math.exp((-x * x) / 2);
  }
  return (sum * width) / 3;
}

describe('the distributions', () => {
  it('uniform', () => {
    expect(
      chiSquared(
        (random) => Number(drawUniform(random, 0, COUNT - 1)),
        () => 1,
      ),
    ).toBeLessThan(CHI_SQUARED_MAX);
  });

  it.each([0.5, 0.99, 1, 1.000001, 1.3, 2.5, 8])('zipfian by parameter %d', (parameter) => {
    const draw = zipfian(parameter);
    const probability = (k: number): number => (k + 1) ** -parameter;
    expect(chiSquared((random) => draw(random, COUNT), probability)).toBeLessThan(
      // Of a steep one hardly anything is at the end, where chi-squared needs some.
      parameter > 4 ? 60 : CHI_SQUARED_MAX,
    );
  });

  it('zipfian over 10^12 numbers and over changing ranges', () => {
    const draw = zipfian(0.99);
    const random = seededRandom(5);
    for (let round = 0; round < 2000; round++) {
      for (const count of [1, 2, 1000, 1e12]) {
        const drawn = draw(random, count);
        expect(Number.isInteger(drawn) && drawn >= 0 && drawn < count).toBe(true);
      }
    }
  });

  it.each([2, 2.5, 5])('gaussian by parameter %d', (parameter) => {
    const draw = gaussian(parameter);
    const edge = (k: number): number => (2 * parameter * k) / COUNT - parameter;
    expect(
      chiSquared(
        (random) => draw(random, COUNT),
        (k) => normalArea(edge(k), edge(k + 1)),
      ),
    ).toBeLessThan(CHI_SQUARED_MAX);
  });

  it.each([0.1, 1, 5])('exponential by parameter %d', (parameter) => {
    const draw = exponential(parameter);
    const probability = (k: number): number =>
      Math.exp((-parameter * k) / COUNT) - Math.exp((-parameter * (k + 1)) / COUNT);
    expect(chiSquared((random) => draw(random, COUNT), probability)).toBeLessThan(CHI_SQUARED_MAX);
  });

  it('uniform over ranges that no double counts', () => {
    const random = seededRandom(9);
    const [min, max] = [-(2n ** 61n), 2n ** 62n];
    let above = 0;
    for (let round = 0; round < 3000; round++) {
      const drawn = BigInt(drawUniform(random, min, max));
      expect(drawn >= min && drawn <= max).toBe(true);
      if (drawn > 0n) above++;
    }
    expect(Math.abs(above / 3000 - 2 / 3)).toBeLessThan(0.05);
    expect(drawUniform(random, 2n ** 60n, 2n ** 60n)).toBe(2n ** 60n);
    const shaped = drawShaped(random, 2n ** 60n, 2n ** 60n + 5n, zipfian(1));
    expect(BigInt(shaped) - 2n ** 60n).toBeLessThan(6n);
  });

  it('cuts texts of the wanted length, and others each time', () => {
    const cut = stringPool();
    const random = seededRandom(1);
    const texts = Array.from({ length: 100 }, () => cut(random, 100));
    expect(new Set(texts).size).toBe(100);
    for (const text of texts) expect(text).toMatch(/^[A-Za-z0-9]{100}$/);
    expect(cut(random, 0)).toBe('');
    expect(cut(random, 200_000)).toHaveLength(200_000);
  });
});
