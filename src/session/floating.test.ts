import { describe, expect, it } from 'vitest';
import { type FloatingStep, replayOf, settingsOf } from './floating.ts';

const set = (name: string, local = true): FloatingStep => ({ kind: 'set', name, local });
const savepoint = (name: string): FloatingStep => ({ kind: 'savepoint', name });

describe('the steps of a floating transaction', () => {
  it('are made again with the values that the server has computed, those of the transaction itself first', () => {
    const steps = [set('app.tenant'), set('work_mem', false), set('transaction_isolation'), savepoint('A b')];
    expect(settingsOf(steps)).toBe(
      "SELECT pg_catalog.current_setting('app.tenant', true), pg_catalog.current_setting('work_mem', true), " +
        "pg_catalog.current_setting('transaction_isolation', true)",
    );
    expect(replayOf(steps, ["it's mine", '4MB', 'serializable'])).toEqual([
      "SET LOCAL transaction_isolation = 'serializable'",
      "SELECT pg_catalog.set_config('app.tenant', 'it''s mine', true)",
      "SELECT pg_catalog.set_config('work_mem', '4MB', false)",
      'SAVEPOINT "A b"',
    ]);
  });

  it('without a value are left out', () => {
    expect(replayOf([set('a.b'), savepoint('s'), savepoint('t')], [null])).toEqual([
      'SAVEPOINT "s"',
      'SAVEPOINT "t"',
    ]);
    expect(settingsOf([savepoint('s')])).toBeUndefined();
    expect(settingsOf([])).toBeUndefined();
  });

  it('cannot be told in their order if a setting came after a savepoint', () => {
    expect(() => settingsOf([set('a.b'), savepoint('s'), set('c.d')])).toThrow(/after a savepoint/);
  });
});
