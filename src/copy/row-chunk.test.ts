import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatOf } from './format.ts';
import { LineRows, type RowView } from './line-rows.ts';
import { RowChunk } from './row-chunk.ts';

function rowOf(bytes: Buffer, line: number, breaks = 0, returns = 0): RowView {
  return { buffer: bytes, start: 0, contentEnd: bytes.length, end: bytes.length, line, breaks, returns };
}

/** What a server makes of CopyData messages. */
function contentOf(frames: readonly Buffer[]): Buffer {
  const bodies: Buffer[] = [];
  for (const frame of frames) {
    expect(frame[0]).toBe(0x64);
    expect(frame.readInt32BE(1)).toBe(frame.length - 1);
    bodies.push(frame.subarray(5));
  }
  return Buffer.concat(bodies);
}

test('its frames hold its rows, whatever their size', () => {
  const sizes = fc.oneof(fc.nat({ max: 100 }), fc.nat({ max: 20_000 }), fc.constant(200_000));
  fc.assert(
    fc.property(fc.array(fc.tuple(sizes, fc.nat({ max: 3 })), { maxLength: 30 }), (rows) => {
      const chunk = new RowChunk();
      const expected: Buffer[] = [];
      for (const [index, [size, prefixBytes]] of rows.entries()) {
        const bytes = Buffer.alloc(size, index + 1);
        const prefix = prefixBytes > 0 ? Buffer.alloc(prefixBytes, 0xee) : undefined;
        const skipped = Math.min(prefixBytes, size);
        chunk.add(rowOf(bytes, index + 1), prefix, skipped);
        expected.push(prefix ?? Buffer.alloc(0), bytes.subarray(skipped));
      }
      const all = Buffer.concat(expected);
      expect(chunk.bytes).toBe(all.length);
      expect(chunk.reservedBytes).toBeLessThan(2 * all.length + 70_000);
      expect(contentOf(chunk.takeFrames()).equals(all)).toBe(true);
    }),
    { numRuns: 100 },
  );
});

test('lines of its own are told as those of the data that its rows came from', () => {
  // Rows of CSV go to two chunks. The server counts lines in each as it reads them by itself.
  const field = fc.constantFrom('a', '"x\ny"', '"x\n\ny"', '"x\ry"', '""');
  const rows = fc.array(fc.tuple(fc.boolean(), fc.array(field, { minLength: 1, maxLength: 3 })), {
    minLength: 1,
    maxLength: 40,
  });
  fc.assert(
    fc.property(rows, fc.constantFrom('\n', '\r\n', '\r'), (given, style) => {
      const chunks = [new RowChunk(), new RowChunk()];
      const lines: number[][] = [[], []];
      let next = 0;
      const reader: LineRows = readerOf((row) => {
        const which = given[next++]![0] ? 1 : 0;
        chunks[which]!.add(row, undefined);
        lines[which]!.push(row.line);
      });
      const data = Buffer.from(given.map(([, fields]) => fields.join(',') + style).join(''));
      reader.push(data, 0, data.length);
      reader.finish();
      for (const [which, chunk] of chunks.entries()) {
        const own = contentOf(chunk.takeFrames());
        const told: number[] = [];
        const ownReader = readerOf((row) => void told.push(chunk.lineOf(row.line)));
        ownReader.push(own, 0, own.length);
        ownReader.finish();
        expect(told).toEqual(lines[which]);
      }
    }),
    { numRuns: 500 },
  );
});

function readerOf(onRow: (row: RowView) => void): LineRows {
  const format = formatOf([{ name: 'format', value: 'csv' }]);
  return new LineRows(format, { onRow, onHeader() {} }, { markerEnds: false, rowBytesMax: 1_000_000 });
}

test('memory of its blocks is used again, and not while it is in use', () => {
  const first = new RowChunk();
  first.add(rowOf(Buffer.alloc(300_000, 1), 1), undefined);
  const frames = first.takeFrames();
  const before = new RowChunk();
  before.add(rowOf(Buffer.alloc(300_000, 3), 1), undefined);
  before.giveBack(before.takeFrames());
  const second = new RowChunk();
  second.add(rowOf(Buffer.alloc(300_000, 2), 1), undefined);
  expect(contentOf(frames).every((byte) => byte === 1)).toBe(true);
  expect(contentOf(second.takeFrames()).every((byte) => byte === 2)).toBe(true);
});
