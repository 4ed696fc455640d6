import { describe, expect, it } from 'vitest';
import { lastEndedAtMs, parseLatenciesMs } from './pgbench.ts';

describe('what pgbench writes', () => {
  it('has a line of its log for each transaction, of which those of the window count', () => {
    const log = '0 1 900 0 99 999999\n1 1 1500 0 100 500000\n2 1 failed 0 100 600000\n0 2 250 0 101 1\n';
    expect(parseLatenciesMs(log, { openedAtMs: 100_000, closedAtMs: 101_000 })).toEqual([1.5]);
    expect(parseLatenciesMs(log, { openedAtMs: 99_000, closedAtMs: 102_000 })).toEqual([0.9, 1.5, 0.25]);
  });

  it('tells how far it has come by its last whole line', () => {
    expect(lastEndedAtMs('0 1 900 0 99 999999\n1 1 1500 0 100 500000\n2 1 80')).toBe(100_500);
    expect(lastEndedAtMs('999999\n1 1 15')).toBe(0);
    expect(lastEndedAtMs('')).toBe(0);
  });
});
