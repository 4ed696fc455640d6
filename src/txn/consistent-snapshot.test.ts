import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seesAllOf } from './consistent-snapshot.ts';

describe('seesAllOf', () => {
  it.each([
    ['10:10:', '10:10:', true],
    ['11:11:', '10:10:', true],
    ['10:10:', '11:11:', false],
    ['10:12:10', '10:12:10', true],
    ['12:12:', '10:12:10', true],
    ['10:12:10', '11:12:11', false],
    ['10:15:10,13,14', '10:12:10', true],
    ['18446744073709551610:18446744073709551611:', '18446744073709551610:18446744073709551612:', false],
  ])('%s after %s: %s', (snapshot, least, expected) => {
    expect(seesAllOf(snapshot, least)).toBe(expected);
  });

  it('is what comparing each transaction says', () => {
    const snapshots = fc
      .tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 0, max: 6 }), fc.nat({ max: 63 }))
      .map(([xmin, length, mask]) => {
        const xmax = xmin + length;
        const running = Array.from({ length }, (_, i) => xmin + i).filter((_, i) => mask & (1 << i));
        const text = `${running[0] ?? xmax}:${xmax}:${running.join(',')}`;
        return { text, sees: (xid: number) => xid < xmax && !running.includes(xid) };
      });
    fc.assert(
      fc.property(snapshots, snapshots, (a, b) => {
        const all = Array.from({ length: 20 }, (_, xid) => xid);
        expect(seesAllOf(a.text, b.text)).toBe(all.every((xid) => !b.sees(xid) || a.sees(xid)));
      }),
    );
  });
});
