import { describe, expect, it } from 'vitest';
import type { Point } from './point.ts';
import { answersRatio, cpuRatio, median, ratiosOf } from './ratios.ts';

function point(fields: Partial<Point>): Point {
  return {
    ...{ cell: 'A', endpoint: 'direct', round: 0, tool: 'generator', workload: 'A', protocol: 'prepared' },
    ...{ clients: 64, tps: 1, failedPerSecond: 0, p50Ms: 1, p99Ms: 1, errors: {}, cpuUs: {} },
    ...{ steal: 0, others: 0, clientBound: false },
    ...fields,
  };
}

const wanted = { name: 'A_64', cell: 'A', of: 'postern', over: 'direct' };

describe('ratiosOf', () => {
  it('takes each ratio within one round, and the median of the rounds', () => {
    const points = [
      ...[100, 1_000, 10].map((tps, round) => point({ tps, round })),
      ...[200, 3_000, 50].map((tps, round) => point({ endpoint: 'postern', tps, round })),
      point({ cell: 'B', endpoint: 'postern', tps: 9 }),
    ];
    expect(ratiosOf(points, [wanted])).toEqual([{ name: 'A_64', median: 3, rounds: [2, 3, 5], steal: 0 }]);
  });

  it('leaves out a round that lacks a side, and a ratio that has no round', () => {
    const points = [
      point({ tps: 10, round: 0 }),
      point({ endpoint: 'postern', tps: 20, round: 1 }),
      point({ tps: 10, round: 1 }),
    ];
    expect(ratiosOf(points, [wanted])[0]?.rounds).toEqual([2]);
    expect(ratiosOf(points, [{ ...wanted, of: 'pgbouncer' }])).toEqual([]);
  });

  it('leaves out a round whose points do not say the figure', () => {
    const points = [0, 1].flatMap((round) => [
      point({ round }),
      point({ round, endpoint: 'postern', ...(round === 1 && { idleClientBytes: 9 }) }),
    ]);
    const figure = (of: Point): number | undefined => of.idleClientBytes;
    expect(ratiosOf(points, [{ ...wanted, figure }])[0]?.rounds).toEqual([9]);
  });

  it('takes a quotient of two ratios within one round, in rounds that have all four points', () => {
    const pair = (cell: string, round: number, ratio: number): Point[] => [
      point({ cell, round, tps: 10 }),
      point({ cell, round, tps: 10 * ratio, endpoint: 'postern' }),
    ];
    const points = [pair('A', 0, 4), pair('B', 0, 2), pair('A', 1, 3), pair('B', 2, 2)].flat();
    const overRatio = { ...wanted, name: 'B_64', cell: 'B' };
    const [quotient] = ratiosOf(points, [{ name: 'A_vs_B', ratio: wanted, overRatio }]);
    expect(quotient).toEqual({ name: 'A_vs_B', median: 2, rounds: [2], steal: 0 });
  });

  it('tells the most steal of the points behind it', () => {
    const steals: [string, number, number][] = [
      ['direct', 0, 0.01],
      ['postern', 0, 0.02],
      ['direct', 1, 0.05],
    ];
    const points = steals.map(([endpoint, round, steal]) => point({ endpoint, round, steal }));
    expect(ratiosOf(points, [wanted])[0]?.steal).toBe(0.02);
  });

  it('adds up the CPU of processes', () => {
    const of = point({ cpuUs: { router: 10, server: 20, client: 9 } });
    const over = point({ cpuUs: { router: 5, server: 10, client: 1 } });
    expect(cpuRatio(['router', 'server'])(of, over)).toBe(2);
  });

  it('counts failed answers where they are meant to fail', () => {
    const over = point({ tps: 90, failedPerSecond: 10 });
    expect(answersRatio(point({ tps: 0, failedPerSecond: 150 }), over)).toBe(1.5);
  });
});

describe('median', () => {
  it('is the middle, or the mean of the two middle ones', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(median([])).toBeNaN();
  });
});
