import { describe, expect, it } from 'vitest';
import { isClientBound } from './generator.ts';

describe('isClientBound', () => {
  it.each([
    ['a thread that computes all the time', { loopUtilization: 0.97, cpuSeconds: 4.6 }, true],
    ['a thread that rests', { loopUtilization: 0.8, cpuSeconds: 4 }, false],
    ['a thread that never rests for want of a CPU', { loopUtilization: 0.97, cpuSeconds: 2 }, false],
    [
      'a thread that never rests, where CPU time is not told',
      { loopUtilization: 0.97, cpuSeconds: undefined },
      true,
    ],
  ])('judges %s', (_, result, bound) => {
    expect(isClientBound({ ...result, windowSeconds: 5 })).toBe(bound);
  });
});
