import { describe, expect, it } from 'vitest';
import { PosternError } from '../../base/errors.ts';
import { encodeDataRow, encodeRowDescription } from '../../wire/backend.ts';
import { FrameWriter } from '../../wire/frame-writer.ts';
import { AnswerScanner, type KeptFrame } from './answer-scanner.ts';
import { readResults, valuesOfResults } from './script-result.ts';

const TEXT_OID = 25;

/** Results as a server sends them: their columns, and their rows. */
function frames(results: readonly { columns: string[]; rows: (string | null)[][] }[]): KeptFrame[] {
  const writer = new FrameWriter();
  for (const { columns, rows } of results) {
    encodeRowDescription(
      writer,
      columns.map((name) => ({ name, typeOid: TEXT_OID })),
    );
    for (const row of rows) encodeDataRow(writer, row);
  }
  const bytes = Buffer.from(writer.take());
  const scanner = new AnswerScanner();
  scanner.keepsResults = true;
  scanner.scan(bytes, bytes.length);
  return scanner.results;
}

const none = { columns: ['a'], rows: [] };
const one = { columns: ['a', 'ü'], rows: [['1', null]] };
const two = { columns: ['b'], rows: [['2'], ['3']] };

describe('valuesOfResults', () => {
  it('takes one row of the last result for \\gset, by its columns’ names', () => {
    const values = valuesOfResults(readResults(frames([two, one])), { kind: 'gset', prefix: 'p_' });
    expect(values).toEqual(
      new Map([
        ['p_a', '1'],
        ['p_ü', null],
      ]),
    );
  });

  it.each([
    [[one, none], 'P0002'],
    [[two], 'P0003'],
    [[], 'P0002'],
  ])('fails the transaction if \\gset has no row or several (case %#)', (results, sqlState) => {
    expect(valuesOfResults(readResults(frames(results)), { kind: 'gset', prefix: '' })).toMatchObject({
      sqlState,
    });
  });

  it('takes the last row of each result that has one for \\aset', () => {
    const values = valuesOfResults(readResults(frames([one, none, two])), { kind: 'aset', prefix: '' });
    expect(values).toEqual(
      new Map([
        ['a', '1'],
        ['ü', null],
        ['b', '3'],
      ]),
    );
  });

  it('refuses frames that are cut short', () => {
    const [description, row] = frames([one]);
    const cut = (frame: KeptFrame) => ({ ...frame, body: frame.body.subarray(0, 5) });
    expect(() => readResults([cut(description!)])).toThrow(PosternError);
    expect(() => readResults([description!, cut(row!)])).toThrow(PosternError);
    expect(() => readResults([row!])).toThrow(PosternError);
  });
});
