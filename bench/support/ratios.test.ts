import { describe, expect, it } from 'vitest';
import type { Point } from './point.ts';
import { answersRatio, median, ratiosOf } from './ratios.ts';

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
    expect(ratiosOf(points, [wanted])).toEqual([{ name: 'A_64', median: 3, rounds: [2, 3, 5] }]);
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
