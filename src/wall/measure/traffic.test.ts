import { describe, expect, it } from 'vitest';
import { type BusySession, judgeTraffic } from './traffic.ts';

const session = (pid: number): BusySession => ({
  ...{ pid, user: 'app', database: 'shop', application: pid === 7 ? 'worker' : '' },
});
const sample = (transactions: number | undefined, ...pids: number[]) => ({
  transactions,
  busySessions: pids.map(session),
});

describe('judgeTraffic', () => {
  it('takes a few transactions for monitoring, and many for traffic', () => {
    expect(judgeTraffic([sample(1000), sample(1009)], 1)).toEqual({
      isQuiet: true,
      seen: '9 transactions a second by others, no session at work',
    });
    expect(judgeTraffic([sample(1000), sample(1400)], 2)).toMatchObject({
      isQuiet: false,
      seen: expect.stringContaining('200 transactions a second'),
    });
  });

  it('names a session that is at work all the time, and lets a short one pass', () => {
    const { isQuiet, seen } = judgeTraffic([sample(0, 7), sample(0, 7, 8), sample(0, 7), sample(0)], 1);
    expect(isQuiet).toBe(false);
    expect(seen).toContain('at work: app@shop (worker), pid 7');
    expect(seen).not.toContain('pid 8');
  });

  it('names three, and counts the others', () => {
    const { seen } = judgeTraffic([sample(0, 1, 2, 3, 4, 5)], 1);
    expect(seen).toContain('pid 3 and 2 more');
  });

  it('says so when counts are not told, and takes a reset of them for nothing', () => {
    expect(judgeTraffic([sample(undefined), sample(undefined)], 1).seen).toContain('not told');
    expect(judgeTraffic([sample(500), sample(3)], 1).isQuiet).toBe(true);
  });
});
