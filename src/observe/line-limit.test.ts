import { expect, it } from 'vitest';
import { LineLimit } from './line-limit.ts';

it('lets a burst through, then so many a second, and counts the rest', () => {
  let nowMs = 0;
  const limit = new LineLimit({ rate: { burst: 3, perSecond: 2 }, now: () => nowMs });
  const admitted = Array.from({ length: 10 }, () => limit.admit('a'));
  expect(admitted).toEqual([0, 0, 0, ...Array(7).fill(undefined)]);
  expect(limit.admit('b')).toBe(0);
  nowMs = 500;
  expect(limit.admit('a')).toBe(7);
  expect(limit.admit('a')).toBeUndefined();
  expect(limit.take()).toEqual([{ kind: 'a', leftOut: 1 }]);
  expect(limit.take()).toEqual([]);
  nowMs = 60_000;
  expect([1, 2, 3, 4].map(() => limit.admit('a'))).toEqual([0, 0, 0, undefined]);
});
