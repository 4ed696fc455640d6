import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../load/seeded-random.ts';
import { fitUsl, type UslFit, uslTps } from './usl.ts';

const counts = [1, 2, 4, 8, 16, 32, 64, 128];

function curve(law: { perClient: number; contention: number; coherency: number }) {
  const fit: UslFit = { ...law, peakClients: null, deviationShare: 0 };
  return counts.map((clients) => ({ clients, tps: uslTps(fit, clients) }));
}

describe('fitUsl', () => {
  it('finds the law that made the points', () => {
    fc.assert(
      fc.property(
        fc.record({
          perClient: fc.double({ min: 10, max: 10_000, noNaN: true }),
          contention: fc.double({ min: 0.001, max: 0.5, noNaN: true }),
          coherency: fc.double({ min: 1e-5, max: 0.01, noNaN: true }),
        }),
        (law) => {
          const fit = fitUsl(curve(law))!;
          expect(fit.perClient / law.perClient).toBeCloseTo(1, 3);
          expect(fit.contention / law.contention).toBeCloseTo(1, 3);
          expect(fit.coherency / law.coherency).toBeCloseTo(1, 3);
          expect(fit.deviationShare).toBeLessThan(1e-4);
          expect(fit.peakClients! / Math.sqrt((1 - law.contention) / law.coherency)).toBeCloseTo(1, 3);
        },
      ),
    );
  });

  it('has no negative coefficient, whatever the points, and none fits better on a grid', () => {
    const random = seededRandom(4);
    for (let round = 0; round < 20; round++) {
      const points = counts.map((clients) => ({ clients, tps: 100 * clients ** 0.7 * (0.5 + random()) }));
      const fit = fitUsl(points)!;
      expect(Math.min(fit.contention, fit.coherency)).toBeGreaterThanOrEqual(0);
      // What is minimized: the relative deviation of N/X.
      const badness = (
        { contention, coherency }: { contention: number; coherency: number },
        perClient: number,
      ) =>
        points.reduce((sum, { clients, tps }) => {
          const law = { perClient, contention, coherency, peakClients: null, deviationShare: 0 };
          return sum + (tps / uslTps(law, clients) - 1) ** 2;
        }, 0);
      const best = badness(fit, fit.perClient);
      for (let trial = 0; trial < 200; trial++) {
        const other = { contention: random() * 0.3, coherency: random() ** 4 * 0.02 };
        expect(badness(other, fit.perClient * (0.5 + random()))).toBeGreaterThan(best * 0.75);
      }
    }
  });

  it('has no peak where more clients never harm', () => {
    expect(fitUsl(counts.map((clients) => ({ clients, tps: 10 * clients })))).toMatchObject({
      ...{ perClient: expect.closeTo(10, 6), contention: expect.closeTo(0, 6), peakClients: null },
    });
  });

  it('needs four counts', () => {
    const points = curve({ perClient: 1, contention: 0.1, coherency: 0.01 });
    expect(fitUsl(points.slice(0, 3))).toBeUndefined();
    expect(fitUsl([...points.slice(0, 3), points[0]!])).toBeUndefined();
    expect(fitUsl(counts.map((clients) => ({ clients, tps: 0 })))).toBeUndefined();
  });
});
