import { expect, it } from 'vitest';
import { BOUNDS } from '../base/bounds.ts';
import { encodeDataRow } from '../wire/backend.ts';
import { FrameWriter } from '../wire/frame-writer.ts';
import { RowsInOrder } from './rows-in-order.ts';

function frames(...values: string[]): Buffer {
  const writer = new FrameWriter();
  for (const value of values) encodeDataRow(writer, [value]);
  return Buffer.from(writer.take());
}

function collect(rows: number[][], arrivals: [piece: number, bytes: Buffer][]): Buffer[] {
  const out: Buffer[] = [];
  const inOrder = new RowsInOrder(rows, {
    onRows: (_, buffer, start, end) => out.push(Buffer.from(buffer.subarray(start, end))),
  });
  for (const [piece, bytes] of arrivals) inOrder.onRows(piece, bytes, 0, bytes.length);
  inOrder.end();
  return out;
}

it('rows come as they stood in VALUES, however they arrive', () => {
  const out = collect(
    [
      [1, 3],
      [0, 2],
    ],
    [
      [1, frames('a')],
      [0, frames('b', 'd')],
      [1, frames('c')],
    ],
  );
  expect(Buffer.concat(out)).toEqual(frames('a', 'b', 'c', 'd'));
});

it('piece by piece, where one has not returned a row for each of its own', () => {
  const out = collect(
    [
      [1, 3],
      [0, 2],
    ],
    [
      [1, frames('a', 'c')],
      [0, frames('d')],
    ],
  );
  expect(Buffer.concat(out)).toEqual(frames('d', 'a', 'c'));
});

it('as they come, when too much would have to be kept back', () => {
  const big = frames('x'.repeat(BOUNDS.returnedRowsBytesMax));
  const out = collect(
    [[1], [0]],
    [
      [0, big],
      [1, frames('a')],
    ],
  );
  expect(Buffer.concat(out).equals(Buffer.concat([big, frames('a')]))).toBe(true);
});
