import { expect, it } from 'vitest';
import { Backend } from '../wire/message-types.ts';
import { checkColumns } from './stale-columns.ts';

/** A RowDescription of columns, each with its name, type and the place in its table. */
function described(...columns: readonly (readonly [name: string, oid: number, place: number])[]): Buffer {
  const parts = columns.map(([name, oid, place]) => {
    const tail = Buffer.alloc(18);
    tail.writeUInt32BE(16_400 + place, 0);
    tail.writeInt16BE(place, 4);
    tail.writeUInt32BE(oid, 6);
    tail.writeInt16BE(4, 10);
    tail.writeInt32BE(-1, 12);
    return Buffer.concat([Buffer.from(`${name}\0`), tail]);
  });
  const body = Buffer.concat([Buffer.from([0, columns.length]), ...parts]);
  const head = Buffer.alloc(5);
  head[0] = Backend.RowDescription;
  head.writeUInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}
const NOTHING = Buffer.from([Backend.NoData, 0, 0, 0, 4]);

it('takes columns of the same names and types, whatever table they are of', () => {
  checkColumns(described(['a', 23, 1]), described(['a', 23, 2]));
  checkColumns(NOTHING, Buffer.from(NOTHING));
});

it('refuses another name, another type, more columns, and none', () => {
  const told = described(['a', 23, 1]);
  for (const now of [
    described(['b', 23, 1]),
    described(['a', 20, 1]),
    described(['a', 23, 1], ['b', 23, 2]),
    NOTHING,
  ])
    expect(() => checkColumns(told, now)).toThrow('cached plan must not change result type');
});
