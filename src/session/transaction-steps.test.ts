import { describe, expect, it } from 'vitest';
import { TransactionSteps } from './transaction-steps.ts';

function stepsOf(...made: (string | { readonly savepoint: string })[]): TransactionSteps {
  const steps = new TransactionSteps();
  for (const step of made) {
    if (typeof step === 'string') {
      const [name, level] = step.split(' ');
      steps.add({ kind: 'set', name: name!, local: level !== 'session' });
    } else steps.add({ kind: 'savepoint', name: step.savepoint });
  }
  return steps;
}

describe('the steps of a transaction', () => {
  it('are made again with the values that the server has computed, those of the transaction itself first', () => {
    const steps = stepsOf('app.tenant', 'work_mem session', 'transaction_isolation', { savepoint: 'A b' });
    expect(steps.question()).toBe(
      "SELECT pg_catalog.current_setting('app.tenant', true), pg_catalog.current_setting('work_mem', true), " +
        "pg_catalog.current_setting('transaction_isolation', true)",
    );
    expect(steps.replay(["it's mine", '4MB', 'serializable'])).toEqual([
      "SET LOCAL transaction_isolation = 'serializable'",
      "SELECT pg_catalog.set_config('app.tenant', 'it''s mine', true)",
      "SELECT pg_catalog.set_config('work_mem', '4MB', false)",
      'SAVEPOINT "A b"',
    ]);
    expect(steps.hasSessionSet()).toBe(true);
    expect(steps.hasSessionSet('app.tenant')).toBe(false);
  });

  it('without a value are left out', () => {
    const steps = stepsOf('a.b', { savepoint: 's' }, { savepoint: 't' });
    expect(steps.replay([null])).toEqual(['SAVEPOINT "s"', 'SAVEPOINT "t"']);
    expect(stepsOf({ savepoint: 's' }).question()).toBeUndefined();
    expect(stepsOf().question()).toBeUndefined();
  });

  it('stand where a ROLLBACK TO takes back what was set after the savepoint', () => {
    const steps = stepsOf('a.b', { savepoint: 's' }, 'c.d');
    expect(steps.replay(['1', '2'])).toEqual([
      "SELECT pg_catalog.set_config('a.b', '1', true)",
      'SAVEPOINT "s"',
      "SELECT pg_catalog.set_config('c.d', '2', true)",
    ]);
  });

  it('can’t be told if one name was set before and after a savepoint', () => {
    expect(() => stepsOf('a.b', { savepoint: 's' }, 'a.b').question()).toThrow(/after a savepoint/);
    expect(stepsOf('a.b', 'c.d', 'a.b').question()).toBe(
      "SELECT pg_catalog.current_setting('c.d', true), pg_catalog.current_setting('a.b', true)",
    );
  });

  it('that a node has seen are not made there again', () => {
    const steps = stepsOf('a.b', { savepoint: 's' });
    const seen = steps.last;
    steps.add({ kind: 'set', name: 'a.b', local: true });
    steps.add({ kind: 'set', name: 'c.d', local: true });
    expect(steps.question(seen)).toBe(
      "SELECT pg_catalog.current_setting('a.b', true), pg_catalog.current_setting('c.d', true)",
    );
    expect(steps.replay(['1', '2'], seen)).toEqual([
      "SELECT pg_catalog.set_config('a.b', '1', true)",
      "SELECT pg_catalog.set_config('c.d', '2', true)",
    ]);
  });

  it('end with ROLLBACK TO and RELEASE as PostgreSQL’s savepoints do', () => {
    const steps = stepsOf({ savepoint: 's' }, 'a.b', { savepoint: 't' }, 'c.d', { savepoint: 's' }, 'e.f');
    steps.rollbackTo('t');
    expect(steps.replay(['1'])).toEqual([
      'SAVEPOINT "s"',
      "SELECT pg_catalog.set_config('a.b', '1', true)",
      'SAVEPOINT "t"',
    ]);
    steps.release('s');
    expect(steps.replay(['1'])).toEqual(["SELECT pg_catalog.set_config('a.b', '1', true)"]);
    steps.release('none');
    steps.rollbackTo('none');
    expect(steps.question()).toBe("SELECT pg_catalog.current_setting('a.b', true)");
  });
});
