/** The text of INSERTs for several members, and how many rows one takes. */
import { expect, it } from 'vitest';
import { multiRowOf, rowsFor } from './multi-row.ts';

const insert = (text: string) => ({ text, parameterOids: [], validated: true });

it('counts the parameters of its text, not those of the first Bind', () => {
  for (const bound of [1, 2, 3]) {
    const form = multiRowOf(insert('INSERT INTO t VALUES ($1, $2);'), bound);
    if (!form) throw new Error('no form');
    expect(form.parameterCount).toBe(2);
    expect(form.statement(2).text).toBe('INSERT INTO t VALUES ($1, $2), ($3, $4);');
  }
});

it('is made of no more parameters than one Bind takes, and of no long rows', () => {
  expect(rowsFor(64, 4)).toBe(64);
  expect(rowsFor(63, 4)).toBe(48);
  expect(rowsFor(64, 1_100)).toBe(48);
  expect(rowsFor(64, 40_000)).toBe(1);
  expect(multiRowOf(insert(`INSERT INTO t VALUES ('${'x'.repeat(5_000)}', $1)`), 1)).toBe(false);
});
