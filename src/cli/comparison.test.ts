import { describe, expect, it } from 'vitest';
import type { SweepPoint } from '../wall/measure/sweep.ts';
import { renderComparison, verdict } from './comparison.ts';

function point(clients: number, tps: number, more: Partial<SweepPoint> = {}): SweepPoint {
  return {
    ...{ clients, tps, p50Ms: 1, p95Ms: 2, p99Ms: 3, maxMs: 4, errors: {}, transactions: tps, seconds: 1 },
    ...{
      generatorCpuShare: 0.1,
      clientBound: false,
      cpuMsPerTransaction: {},
      errorMessages: {},
      acknowledged: tps,
    },
    ...more,
  };
}

const machine = { cores: 2, primaries: 4 };

describe('the table', () => {
  it('has a line for each count of clients and one for the best, with ratios', () => {
    const text = renderComparison([point(1, 7900), point(16, 15_700)], [point(1, 3950), point(16, 23_550)]);
    expect(text.split('\n')).toEqual([
      '                 one primary         Postern   ratio',
      'clients=   1  tps=      7900  tps=      3950    0.50',
      'clients=  16  tps=     15700  tps=     23550    1.50',
      'best          tps=     15700  tps=     23550    1.50',
    ]);
  });

  it('leaves room for a point that only one sweep has', () => {
    const lines = renderComparison([point(1, 100)], [point(1, 100), point(512, 50)]).split('\n');
    expect(lines[2]).toBe('clients= 512                  tps=        50        ');
  });
});

describe('what bound them', () => {
  it('is the cores, and then it says that all share them', () => {
    const text = verdict(
      [point(16, 15_000, { machineBusyShare: 0.97 })],
      [point(64, 30_000, { machineBusyShare: 0.99 })],
      machine,
    );
    expect(text).toContain('One primary is best at 16 clients with 15000');
    expect(text).toContain('30000 at 64 clients, 2.00 times');
    expect(text).toContain('the 2 cores of this machine were 97% busy, which is the limit');
    expect(text).toContain('The nodes of a real cluster have cores of their own.');
  });

  it('is a wait, and then nothing is said of shared cores', () => {
    const idle = { machineBusyShare: 0.4, stealShare: 0.1 };
    const text = verdict([point(16, 5000, idle)], [point(64, 20_000, idle)], machine);
    expect(text).toContain(
      'only 40% busy (and 10% taken by other machines of its host), so the limit is a wait',
    );
    expect(text).not.toContain('real cluster');
  });

  it('is the generator, and then the servers are not blamed', () => {
    const text = verdict(
      [point(1, 5000, { clientBound: true, machineBusyShare: 0.5 })],
      [point(1, 5000)],
      machine,
    );
    expect(text).toContain('the load generator was the limit');
    expect(text).toContain('not known on this system');
  });

  it('is doubtful when other programs were busy too', () => {
    // 10,000 a second at 0.1 ms are one core of two.
    const own = { cpuMsPerTransaction: { all: 0.1 } };
    const busy = verdict(
      [point(1, 10_000, { ...own, machineBusyShare: 0.6 })],
      [point(1, 10_000, { ...own, machineBusyShare: 0.9 })],
      machine,
    );
    expect(busy).toContain('Other programs took 40% of this machine');
    const quiet = verdict([point(1, 10_000, { ...own, machineBusyShare: 0.6 })], [point(1, 10_000)], machine);
    expect(quiet).not.toContain('Other programs');
  });

  it('is not told of nothing', () => {
    expect(verdict([], [point(1, 1)], machine)).toContain('Too few points');
  });
});
