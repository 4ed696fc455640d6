/**
 * The bank, for a short while: what it is, is in bank.ts. `npm run soak:bank` runs it for as long as one likes; BANK_SEED repeats
 * one of its runs here.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Bank, type RunReport } from './bank.ts';
import { atRandom, BROKEN_ORDERS, inTurn } from './bank-disturbances.ts';

const SEED = Number(process.env.BANK_SEED ?? 20_261_122);
const RANDOM_MS = 4_000;

let bank: Bank;
beforeAll(async () => {
  bank = await Bank.start();
}, 60_000);
afterAll(() => bank?.stop());

function expectTrue(report: RunReport): void {
  expect(report.violations, report.disturbances.join('\n')).toEqual([]);
  expect(report.views.ok).toBeGreaterThan(0);
}

describe('the bank', () => {
  test(`at random, seed ${SEED}`, { timeout: 120_000 }, async () => {
    const report = await bank.run({ seed: SEED, script: atRandom({ seed: SEED, forMs: RANDOM_MS }) });
    expectTrue(report);
    expect(report.disturbances.length).toBeGreaterThan(0);
    expect(report.reads).toBeGreaterThan(0);
  });

  test('through all that brings out the broken orders', { timeout: 120_000 }, async () => {
    const times = Object.assign({}, ...BROKEN_ORDERS.map((order) => order.times));
    const script = inTurn(BROKEN_ORDERS.map((order) => order.script));
    const report = await bank.run({ seed: SEED, script, times, loses: true });
    expectTrue(report);
    // The operator who rolls back what was decided; nobody else has lost anything.
    expect(report.views.lost).toBeGreaterThan(0);
  });
});

test.each(BROKEN_ORDERS)('$fault is caught', { timeout: 120_000 }, async (order) => {
  const { fault, script, times, loses } = order;
  const report = await bank.run({ seed: SEED, script, times, loses, faults: { [fault]: true } });
  expect(report.violations.length, report.disturbances.join('\n')).toBeGreaterThan(0);
});
