/** The text of UPDATEs for several members. What they do to a table: test/coalescing/update-rows.test.ts. */
import { describe, expect, it } from 'vitest';
import { isUpdate, MultiRowUpdate } from './multi-row-update.ts';

const INT8 = 20;
const TEXT = 25;

function formOf(text: string, oids: readonly number[]): MultiRowUpdate {
  const form = MultiRowUpdate.of(text, oids);
  if (!form) throw new Error('no form');
  return form;
}

const textOf = (text: string, oids: readonly number[]): string => formOf(text, oids).statement(2).text;

describe('an UPDATE for several', () => {
  it('takes its values from VALUES, and says whose each row was', () => {
    expect(textOf('UPDATE t SET n = n + $1 WHERE id = $2', [INT8, INT8])).toBe(
      'UPDATE t SET n = n + postern_rows.postern_1 ' +
        ' FROM (VALUES ($1, $2, 0), ($3, $4, 1)) AS postern_rows(postern_1, postern_2, postern_at) ' +
        'WHERE id = postern_rows.postern_2\nRETURNING postern_rows.postern_at',
    );
  });

  it('finds its own WHERE and parameters, whatever stands in strings, comments and parentheses', () => {
    const text = `UPDATE "where" SET "é" = (CASE WHEN a THEN 'where $1' ELSE $1 END) /* where */ WHERE id = $2; -- $1`;
    const made = textOf(text, [TEXT, INT8]);
    expect(made).toContain(`'where $1' ELSE postern_rows.postern_1 END) /* where */ `);
    expect(made).toMatch(/WHERE id = postern_rows.postern_2\nRETURNING postern_rows.postern_at$/);
  });

  it('declares the types of all its parameters', () => {
    const form = formOf('UPDATE t SET a = $2 WHERE id = $1', [INT8, TEXT]);
    expect(form.statement(2).parameterOids).toEqual([INT8, TEXT, INT8, TEXT]);
    expect(form.statement(2)).toBe(form.statement(2));
  });

  it('is not made without WHERE, without types, or for very many parameters', () => {
    expect(MultiRowUpdate.of('UPDATE t SET a = $1', [INT8])).toBe(false);
    expect(MultiRowUpdate.of('UPDATE t SET a = $1 WHERE id = $2', [INT8, 0])).toBe(false);
    expect(MultiRowUpdate.of('UPDATE t SET a = $1 WHERE id = $2', [INT8, 705])).toBe(false);
    expect(MultiRowUpdate.of('UPDATE t SET a = 1 WHERE id = $1', [])).toBe(false);
    expect(MultiRowUpdate.of('UPDATE t SET a = $1 WHERE id = $2', new Array(33).fill(INT8))).toBe(false);
  });

  it('is not made of a text with our names, or where equal is not the same: areas', () => {
    expect(MultiRowUpdate.of('UPDATE t SET a = $1 WHERE postern_at = $2', [INT8, INT8])).toBe(false);
    expect(MultiRowUpdate.of('UPDATE t SET a = Postern_1 + $1 WHERE id = $2', [INT8, INT8])).toBe(false);
    expect(MultiRowUpdate.of('UPDATE t SET a = $1 WHERE U&"postern\\005fat" = $2', [INT8, INT8])).toBe(false);
    for (const oid of [600, 601, 602, 603, 604, 628, 718])
      expect(MultiRowUpdate.of('UPDATE t SET a = $1 WHERE shape = $2', [INT8, oid])).toBe(false);
  });

  it('does not pay where many touch no row, or after it was refused', () => {
    const form = formOf('UPDATE t SET a = $1 WHERE id = $2', [INT8, INT8]);
    for (let i = 0; i < 100; i++) form.noteOutcome(64, 8);
    expect(form.pays).toBe(true);
    for (let i = 0; i < 100; i++) form.noteOutcome(64, 16);
    expect(form.pays).toBe(false);
    const refused = formOf('UPDATE t SET a = $1 WHERE id = $2', [INT8, INT8]);
    refused.turnOff();
    expect(refused.pays).toBe(false);
  });
});

it('an UPDATE is told by its first word', () => {
  expect(isUpdate('/* x */ uPdAtE t SET a = 1')).toBe(true);
  expect(isUpdate('INSERT INTO update VALUES (1)')).toBe(false);
});
