import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FrameWriter } from '../wire/frame-writer.ts';
import { Backend } from '../wire/message-types.ts';
import { GatheredColumns, mergeColumnOf } from './merge-columns.ts';

const TEXT = mergeColumnOf({ typeOid: 25, typeName: 'text', kind: 'b' })!;

function frames(rows: readonly (readonly (string | null)[])[]): Buffer {
  const writer = new FrameWriter();
  for (const row of rows) {
    writer.begin(Backend.DataRow);
    writer.int16(row.length);
    for (const value of row) {
      if (value === null) writer.int32(-1);
      else writer.countedString(value);
    }
    writer.end();
  }
  return writer.take();
}

/** As array_recv reads it. */
function elements(array: Buffer): (string | null)[] {
  const dimensions = array.readInt32BE(0);
  expect(array.readInt32BE(8)).toBe(25);
  if (dimensions === 0) {
    expect(array.length).toBe(12);
    return [];
  }
  const values: (string | null)[] = [];
  let at = 20;
  for (let i = 0; i < array.readInt32BE(12); i++) {
    const length = array.readInt32BE(at);
    values.push(length < 0 ? null : array.toString('utf8', at + 4, at + 4 + length));
    at += 4 + Math.max(0, length);
  }
  expect(at).toBe(array.length);
  expect(array.readInt32BE(4)).toBe(values.includes(null) ? 1 : 0);
  expect(array.readInt32BE(16)).toBe(1);
  return values;
}

describe('rows that are gathered', () => {
  it('become one array a column, however they were cut into runs', () => {
    const value = fc.option(fc.string({ unit: 'grapheme', maxLength: 40 }), { nil: null });
    fc.assert(
      fc.property(fc.array(fc.array(fc.tuple(value, value), { maxLength: 30 }), { maxLength: 5 }), (runs) => {
        const gathered = new GatheredColumns([TEXT, TEXT]);
        let bytes = 0;
        for (const run of runs) {
          const buffer = Buffer.concat([Buffer.from('before'), frames(run), Buffer.from('behind')]);
          gathered.append(buffer, 6, buffer.length - 6);
          bytes += buffer.length - 12;
        }
        expect(gathered.bytes).toBe(bytes);
        const rows = runs.flat();
        expect(gathered.arrays().map((parts) => elements(Buffer.concat(parts)))).toEqual([
          rows.map(([a]) => a),
          rows.map(([, b]) => b),
        ]);
      }),
    );
  });

  it('of another shape are refused', () => {
    const gathered = new GatheredColumns([TEXT]);
    const buffer = frames([['a', 'b']]);
    expect(() => gathered.append(buffer, 0, buffer.length)).toThrow(/number of columns/);
    const short = frames([['abc']]);
    short.writeInt32BE(100, 7);
    expect(() => gathered.append(short, 0, short.length)).toThrow(/beyond its end/);
  });
});

describe('the way of a type', () => {
  it.each([
    [701, 'double precision', 'b', 1],
    [1184, 'timestamp with time zone', 'b', 1],
    [1007, 'integer[]', 'b', 0],
    [16500, 'mood', 'e', 0],
    [1022, 'double precision[]', 'b', undefined],
    [1185, 'timestamp with time zone[]', 'b', undefined],
    [16501, 'pair', 'c', undefined],
    [3904, 'int4range', 'r', undefined],
    [2249, 'record', 'p', undefined],
  ])('%i %s', (typeOid, typeName, kind, format) => {
    expect(mergeColumnOf({ typeOid, typeName, kind })?.format).toBe(format);
  });
});
