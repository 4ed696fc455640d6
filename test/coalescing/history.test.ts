/** The checkers of histories accept what may happen, and reject what must not. */
import { describe, expect, it } from 'vitest';
import { checkIncrements, checkKey, type KeyOperation } from './history.ts';

describe('checkIncrements', () => {
  const good = [
    { start: 0, end: 3, value: 2 },
    { start: 1, end: 2, value: 1 },
    { start: 4, end: 5, value: 3 },
  ];

  it('accepts each value once, in an order that the times allow', () => {
    expect(checkIncrements(good, 3)).toBeUndefined();
    expect(checkIncrements([], 0)).toBeUndefined();
  });

  it('rejects a value twice, a gap, a lost and an unexplained update, and time reversed', () => {
    expect(checkIncrements([...good, { start: 6, end: 7, value: 3 }], 4)).toContain('3 where 4');
    expect(checkIncrements([good[0]!, good[1]!, { start: 4, end: 5, value: 4 }], 3)).toContain('4 where 3');
    expect(checkIncrements(good, 2)).toContain('2 at the end after 3');
    expect(checkIncrements(good, 4)).toContain('4 at the end after 3');
    const reversed = [
      { start: 0, end: 1, value: 2 },
      { start: 2, end: 3, value: 1 },
    ];
    expect(checkIncrements(reversed, 2)).toContain('before a lower value');
  });
});

describe('checkKey', () => {
  const inserted = (start: number, end: number, owner: string): KeyOperation => ({
    kind: 'inserted',
    start,
    end,
    owner,
  });
  const deleted = (start: number, end: number, owner: string): KeyOperation => ({
    kind: 'deleted',
    start,
    end,
    owner,
  });
  const exists = (start: number, end: number): KeyOperation => ({ kind: 'exists', start, end });
  const missing = (start: number, end: number): KeyOperation => ({ kind: 'missing', start, end });

  it('accepts what some order explains', () => {
    expect(checkKey([], undefined)).toBeUndefined();
    expect(checkKey([inserted(0, 1, 'a'), exists(2, 3)], 'a')).toBeUndefined();
    expect(checkKey([exists(0, 5), inserted(1, 4, 'a'), missing(2, 3)], 'a')).toBeUndefined();
    const handedOn = [inserted(0, 9, 'b'), inserted(1, 5, 'a'), deleted(2, 8, 'a'), missing(3, 7)];
    expect(checkKey(handedOn, 'b')).toBeUndefined();
    expect(checkKey([inserted(0, 1, 'a'), deleted(2, 3, 'a'), missing(4, 5)], undefined)).toBeUndefined();
  });

  it('rejects two winners, a loser without a winner, a row deleted twice, and what comes and goes by itself', () => {
    expect(checkKey([inserted(0, 3, 'a'), inserted(1, 2, 'b')], 'a')).toBeDefined();
    expect(checkKey([exists(0, 1)], undefined)).toBeDefined();
    expect(checkKey([exists(0, 1), inserted(2, 3, 'a')], 'a')).toBeDefined();
    expect(checkKey([inserted(0, 1, 'a'), deleted(2, 5, 'a'), deleted(3, 4, 'a')], undefined)).toBeDefined();
    expect(checkKey([inserted(0, 1, 'a'), missing(2, 3)], 'a')).toBeDefined();
    expect(checkKey([inserted(0, 1, 'a')], undefined)).toBeDefined();
    expect(checkKey([inserted(0, 1, 'a')], 'b')).toBeDefined();
    expect(checkKey([], 'a')).toBeDefined();
    expect(checkKey([deleted(0, 1, 'a'), inserted(2, 3, 'a')], 'a')).toBeDefined();
  });
});
