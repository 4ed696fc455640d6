/** Counting: what was recorded is taken once, whatever is forgotten, put back or set back in between. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BOUNDS } from '../base/bounds.ts';
import { StatementCounters } from './counters.ts';

function countersAt(nowMs = 0): StatementCounters {
  return new StatementCounters(() => nowMs);
}

describe('counters of statements', () => {
  it('sum up what texts have in common that differ in values alone', () => {
    const counters = countersAt();
    counters.get('app', 'SELECT 1').record(0, 2, { rows: 1, failed: false });
    counters.get('app', 'SELECT 2').record(10, 14, { rows: 3, failed: false });
    counters.get('other', 'SELECT 2').record(0, 1, { rows: 1, failed: false });
    const [own, ...rest] = counters.take().sort((a, b) => b.calls - a.calls);
    expect(own).toMatchObject({
      ...{ role: 'app', query: 'SELECT $1', calls: 2, rows: 4, totalMs: 6, minMs: 2, maxMs: 4, beganMs: 2 },
    });
    expect(rest).toMatchObject([{ role: 'other', calls: 1 }]);
    expect(counters.take()).toEqual([]);
  });

  it('lose no call, and keep within their bounds', () => {
    const steps = fc.array(fc.oneof(fc.nat(50).map(String), fc.constant('take'), fc.constant('put back')), {
      maxLength: 200,
    });
    fc.assert(
      fc.property(steps, (all) => {
        const counters = countersAt();
        let recorded = 0;
        let taken = 0;
        let held = counters.take();
        for (const step of all) {
          if (step === 'take') {
            taken += held.reduce((sum, { calls }) => sum + calls, 0);
            held = counters.take();
          } else if (step === 'put back') {
            counters.putBack(held);
            held = [];
          } else {
            counters.get('app', `SELECT c${step}`).record(0, 1, { rows: 0, failed: false });
            recorded++;
          }
        }
        for (const { calls } of [...held, ...counters.take()]) taken += calls;
        expect(taken).toBe(recorded);
      }),
    );
    const counters = countersAt();
    const first = counters.get('app', 'SELECT a FROM b');
    for (let i = 0; i < 3 * BOUNDS.statementCountersMax; i++)
      counters.get('app', `SELECT c${i}`).record(0, 1, { rows: 0, failed: false });
    expect(first.isLive).toBe(false);
    expect(counters.take().length).toBeLessThanOrEqual(BOUNDS.statementCountersMax);
  });

  it('begin anew for a role, or for all', () => {
    const counters = countersAt();
    for (const role of ['app', 'other'])
      counters.get(role, 'SELECT 1').record(0, 1, { rows: 0, failed: false });
    counters.reset('app');
    expect(counters.take()).toMatchObject([{ role: 'other' }]);
    counters.get('app', 'SELECT 1').record(0, 1, { rows: 0, failed: false });
    counters.fold();
    counters.get('other', 'SELECT 1').record(0, 1, { rows: 0, failed: false });
    counters.reset(undefined);
    expect(counters.take()).toEqual([]);
  });
});
