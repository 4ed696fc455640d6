import { describe, expect, test } from 'vitest';
import { type Books, judge, type Transfer } from './bank-history.ts';

/** The judge is shown histories that it must reject, and those next to them that it must not. */

const LEGS = [
  { account: 1, amount: -5 },
  { account: 2, amount: 5 },
];

function books(ledger: Books['ledger'], changes: Record<number, number> = {}): Books {
  const nodeOf = new Map([1, 2, 3].map((account) => [account, account % 3]));
  const balances = new Map([1, 2, 3].map((account) => [account, 100 + (changes[account] ?? 0)]));
  return { balances, ledger, nodeOf, initialBalance: 100 };
}

function transfer(options: Partial<Transfer>): Transfer {
  return { id: 7, legs: LEGS, lazy: false, view: 'ok', told: '', ...options };
}

const NOTHING = books([]);
const WHOLE = books(
  LEGS.map((leg) => ({ ...leg, transfer: 7 })),
  { 1: -5, 2: 5 },
);
const HALF = books([{ account: 1, amount: -5, transfer: 7 }], { 1: -5 });

describe('the judge', () => {
  test.each<[string, Partial<Transfer>, Books, boolean]>([
    ['an OK that is there', {}, WHOLE, true],
    ['an OK that is not there', {}, NOTHING, false],
    ['half of an OK', {}, HALF, false],
    ['an OK that is not there of a client that does not wait', { lazy: true }, NOTHING, false],
    ['the same on one node', { lazy: true, legs: [LEGS[0]!, { account: 1, amount: 5 }] }, NOTHING, true],
    ['an error that is not there', { view: 'refused' }, NOTHING, true],
    ['an error that is there', { view: 'refused' }, WHOLE, false],
    ['half of an error', { view: 'refused' }, HALF, false],
    ['a lost router, and all of it', { view: 'unknown' }, WHOLE, true],
    ['a lost router, and nothing', { view: 'unknown' }, NOTHING, true],
    ['a lost router, and half', { view: 'unknown' }, HALF, false],
    ['a token that is right', { view: 'unknown', token: 't', outcome: 'committed' }, WHOLE, true],
    ['a token that is wrong', { view: 'unknown', token: 't', outcome: 'committed' }, NOTHING, false],
    ['another that is wrong', { view: 'unknown', token: 't', outcome: 'rolled back' }, WHOLE, false],
    ['a token that nobody answers', { view: 'unknown', token: 't', outcome: 'in doubt' }, NOTHING, false],
    ['a loss that was told', { view: 'lost' }, HALF, true],
    ['rows of nobody', { id: 8, view: 'refused' }, WHOLE, false],
    ['a balance without its row', { view: 'refused' }, books([], { 1: -5, 2: 5 }), false],
  ])('%s', (_name, options, found, isTrue) => {
    expect(judge([transfer(options)], found).length === 0).toBe(isTrue);
  });
});
