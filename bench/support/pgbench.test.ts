import { describe, expect, it } from 'vitest';
import { parseLatenciesMs, parseProgress } from './pgbench.ts';

describe('what pgbench writes', () => {
  it('has its rate in a progress line', () => {
    expect(parseProgress('progress: 2.0 s, 19123.4 tps, lat 0.418 ms stddev 0.1, 0 failed')).toBe(19_123.4);
    expect(parseProgress('pgbench (15.16, server 18.4)')).toBeUndefined();
  });

  it('has a line of its log for each transaction, of which those of the window count', () => {
    const log = '0 1 900 0 99 999999\n1 1 1500 0 100 500000\n2 1 failed 0 100 600000\n0 2 250 0 101 1\n';
    expect(parseLatenciesMs(log, { openedAtMs: 100_000, closedAtMs: 101_000 })).toEqual([1.5]);
    expect(parseLatenciesMs(log, { openedAtMs: 99_000, closedAtMs: 102_000 })).toEqual([0.9, 1.5, 0.25]);
  });
});
