import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { exponentialMs, ServiceQueue } from '../../../test/support/service-queue.ts';
import { ArrivalSchedule } from '../load/arrival-schedule.ts';
import { LatencyHistogram } from '../load/latency-histogram.ts';
import { seededRandom } from '../load/seeded-random.ts';
import { keepsSlo, type Slo } from './slo.ts';
import { nextSloStep, type SloProbe, type SloSearchOptions, type SloSearchResult } from './slo-search.ts';

function search(
  options: SloSearchOptions,
  keeps: (rate: number, point: number) => boolean,
): { result: SloSearchResult; probes: SloProbe[] } {
  const probes: SloProbe[] = [];
  for (;;) {
    const step = nextSloStep(options, probes);
    if (step.kind === 'done') return { result: step.result, probes };
    probes.push({ rate: step.rate, keeps: keeps(step.rate, probes.length) });
  }
}

const range = { startRate: 500, lowestRate: 1, highestRate: 100_000 };

describe('nextSloStep', () => {
  it('encloses a sharp edge, wherever it is', () => {
    fc.assert(
      fc.property(
        fc.double({ min: 2, max: 90_000, noNaN: true }),
        fc.double({ min: 1, max: 100_000, noNaN: true }),
        (edge, startRate) => {
          const { result } = search({ ...range, startRate, pointsMax: 60 }, (rate) => rate <= edge);
          expect(result).toMatchObject({ kind: 'found', exhausted: false });
          expect(result.low).toBeLessThanOrEqual(edge);
          expect(result.high).toBeGreaterThan(edge);
          expect(result.rate).toBe(result.low);
          expect(result.high! / result.low!).toBeLessThanOrEqual(1.0501);
        },
      ),
    );
  });

  it('takes few points when it begins near the edge', () => {
    const { result } = search(range, (rate) => rate <= 1_700);
    expect(result).toMatchObject({ kind: 'found', exhausted: false });
    expect(result.points).toBeLessThanOrEqual(11);
  });

  it('says when there is no edge within the range', () => {
    expect(search({ ...range, highestRate: 3_000 }, () => true).result).toEqual({
      ...{ kind: 'always', rate: 3_000, low: 3_000, high: undefined, exhausted: false, points: 5 },
    });
    expect(search({ ...range, lowestRate: 100 }, () => false).result).toEqual({
      ...{ kind: 'never', rate: undefined, low: undefined, high: 100, exhausted: false, points: 5 },
    });
  });

  it('says when the points were too few', () => {
    const { result } = search({ ...range, pointsMax: 4 }, (rate) => rate <= 40_000);
    expect(result).toMatchObject({ kind: 'always', points: 4, exhausted: true, low: 4_000 });
  });

  it('comes back from a point that was wrong, and says so by its interval', () => {
    // The second point, at 1000, should have kept it.
    const { result } = search({ ...range, pointsMax: 30 }, (rate, point) => rate <= 2_000 && point !== 1);
    expect(result.low).toBeLessThan(1_000);
    expect(result.high).toBeGreaterThanOrEqual(1_000);
  });

  it('is bounded and encloses the edge by its interval, however the points near it fall', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2 ** 30 }),
        fc.integer({ min: 20, max: 50_000 }),
        (seed, edge) => {
          const random = seededRandom(seed);
          // Within 10% of the edge a point falls either way, the more likely the right one.
          const { result, probes } = search({ ...range, pointsMax: 40 }, (rate) => {
            const chance = Math.min(1, Math.max(0, 0.5 + (edge - rate) / (0.2 * edge)));
            return random() < chance;
          });
          expect(probes.length).toBeLessThanOrEqual(40);
          const perRate = new Map<number, number>();
          for (const { rate } of probes) perRate.set(rate, (perRate.get(rate) ?? 0) + 1);
          expect(Math.max(...perRate.values())).toBeLessThanOrEqual(5);
          expect(result.kind).toBe('found');
          expect(Math.abs(result.rate! / edge - 1)).toBeLessThan(0.16);
          expect(result.low!).toBeLessThan(edge * 1.1);
          expect(result.high!).toBeGreaterThan(edge * 0.9);
        },
      ),
    );
  });

  it('goes on from the points that are there', () => {
    const keeps = (rate: number): boolean => rate <= 7_777;
    const { result, probes } = search(range, keeps);
    for (let taken = 0; taken < probes.length; taken++) {
      const step = nextSloStep(range, probes.slice(0, taken));
      expect(step).toEqual({ kind: 'measure', rate: probes[taken]!.rate });
    }
    expect(nextSloStep(range, probes)).toEqual({ kind: 'done', result });
  });

  it("finds M/M/1's rate, which is known in closed form", () => {
    // Time in the system is exponential of rate µ - λ: its 95th percentile is ln(20) / (µ - λ).
    const serviceMs = 1;
    const slo: Slo = { share: 0.95, latencyMs: 10 };
    const trueRate = 1000 * (1 / serviceMs - Math.log(20) / slo.latencyMs);
    const { result } = search({ ...range, width: 0.03, pointsMax: 30 }, (rate, point) => {
      const random = seededRandom(1_000 + point);
      const queue = new ServiceQueue({ servers: 1, drawServiceMs: () => exponentialMs(serviceMs, random) });
      const arrivals = new ArrivalSchedule({ ratePerSecond: rate, seed: point + 1, startAtMs: 0 });
      const latencies = new LatencyHistogram();
      for (let count = 0; count < 40_000; count++, arrivals.advance()) {
        latencies.record((queue.arrive(arrivals.nextAtMs) - arrivals.nextAtMs) * 1000);
      }
      return keepsSlo(slo, { latencies, unserved: 0 });
    });
    expect(result.kind).toBe('found');
    expect(Math.abs(result.rate! / trueRate - 1)).toBeLessThan(0.05);
    expect(result.low).toBeLessThan(trueRate * 1.03);
    expect(result.high).toBeGreaterThan(trueRate * 0.97);
  });
});
