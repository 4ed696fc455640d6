/** Rows in binary, cut at every byte, and each way in which they can be broken. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BINARY_HEADER, BINARY_TRAILER, BinaryRows } from './binary-rows.ts';
import { CopyDataError, type RowView } from './line-rows.ts';

type Row = readonly (Buffer | null)[];

function encodeRow(row: Row): Buffer {
  const parts: Buffer[] = [Buffer.alloc(2)];
  parts[0]!.writeInt16BE(row.length);
  for (const value of row) {
    const length = Buffer.alloc(4);
    length.writeInt32BE(value?.length ?? -1);
    parts.push(length, value ?? Buffer.alloc(0));
  }
  return Buffer.concat(parts);
}

function read(pieces: readonly Buffer[], columnCount: number, fieldIndex: number) {
  const rows: string[] = [];
  const fields: (string | null)[] = [];
  const reader: BinaryRows = new BinaryRows(
    {
      onRow: (row: RowView) => {
        rows.push(row.buffer.toString('hex', row.start, row.end));
        const { fieldStart, fieldEnd } = reader;
        fields.push(fieldStart < 0 ? null : reader.buffer.toString('hex', fieldStart, fieldEnd));
      },
    },
    { columnCount, fieldIndex, rowBytesMax: 100_000 },
  );
  try {
    for (const piece of pieces) {
      const memory = Buffer.concat([Buffer.from('zz'), piece, Buffer.from('zz')]);
      reader.push(memory, 2, 2 + piece.length);
      memory.fill(0);
    }
    reader.finish();
  } catch (error) {
    if (!(error instanceof CopyDataError)) throw error;
    return { rows, fields, error: `${error.line}: ${error.message}` };
  }
  return { rows, fields, error: undefined };
}

test('rows and the field are the same wherever the data are cut', () => {
  const value = fc.oneof(
    fc.constant(null),
    fc.uint8Array({ maxLength: 9 }).map((bytes) => Buffer.from(bytes)),
  );
  fc.assert(
    fc.property(
      fc.array(fc.tuple(value, value, value), { maxLength: 5 }),
      fc.nat({ max: 2 }),
      fc.boolean(),
      (rows, index, hasTrailer) => {
        const bytes = Buffer.concat([
          BINARY_HEADER,
          ...rows.map(encodeRow),
          ...(hasTrailer ? [BINARY_TRAILER] : []),
        ]);
        const expected = {
          rows: rows.map((row) => encodeRow(row).toString('hex')),
          fields: rows.map((row) => row[index]?.toString('hex') ?? null),
          error: undefined,
        };
        for (let cut = 0; cut <= bytes.length; cut++)
          expect(read([bytes.subarray(0, cut), bytes.subarray(cut)], 3, index)).toEqual(expected);
        const single = [...bytes].map((byte) => Buffer.from([byte]));
        expect(read(single, 3, index)).toEqual(expected);
      },
    ),
    { numRuns: 200 },
  );
});

const row = encodeRow([Buffer.from('a'), null]);
const header = (change: (bytes: Buffer) => void) => {
  const bytes = Buffer.from(BINARY_HEADER);
  change(bytes);
  return bytes;
};

describe('broken data', () => {
  test.each<[string, Buffer[], string]>([
    ['nothing', [], '0: COPY file signature not recognized'],
    ['text', [Buffer.from('1\ta\n')], '0: COPY file signature not recognized'],
    ['no flags', [BINARY_HEADER.subarray(0, 13)], '0: invalid COPY file header (missing flags)'],
    ['no length', [BINARY_HEADER.subarray(0, 16)], '0: invalid COPY file header (missing length)'],
    ['OIDs', [header((bytes) => bytes.writeInt32BE(1 << 16, 11))], '0: invalid COPY file header (WITH OIDS)'],
    [
      'flags',
      [header((bytes) => bytes.writeInt32BE(1 << 20, 11))],
      '0: unrecognized critical flags in COPY file header',
    ],
    [
      'a negative length',
      [header((bytes) => bytes.writeInt32BE(-1, 15))],
      '0: invalid COPY file header (missing length)',
    ],
    [
      'half an extension',
      [header((bytes) => bytes.writeInt32BE(4, 15)), Buffer.from('ab')],
      '0: invalid COPY file header (wrong length)',
    ],
    ['fewer fields', [BINARY_HEADER, row, encodeRow([null])], '2: row field count is 1, expected 2'],
    ['half a row', [BINARY_HEADER, row, row.subarray(0, 7)], '2: unexpected EOF in COPY data'],
    ['a negative size', [BINARY_HEADER, Buffer.from('0002fffffffe', 'hex')], '1: invalid field size'],
    [
      'data behind the end',
      [BINARY_HEADER, row, BINARY_TRAILER, row],
      '2: received copy data after EOF marker',
    ],
    [
      'a row that is too long',
      [BINARY_HEADER, Buffer.from('00020fffffff', 'hex')],
      '1: a row of COPY data is longer than 100000 bytes',
    ],
  ])('%s', (_, pieces, error) => {
    expect(read(pieces, 2, 0).error).toBe(error);
  });

  test('an extension of the header is passed over', () => {
    const pieces = [header((bytes) => bytes.writeInt32BE(3, 15)), Buffer.from('abc'), row];
    expect(read(pieces, 2, 0)).toEqual({ rows: [row.toString('hex')], fields: ['61'], error: undefined });
  });
});
