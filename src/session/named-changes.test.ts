import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type NamedChange, NamedChanges } from './named-changes.ts';

const step = fc.record({
  name: fc.constantFrom('a', 'b', ''),
  value: fc.option(fc.integer({ min: 0, max: 9 }), { nil: undefined }),
  undone: fc.boolean(),
});

describe('NamedChanges', () => {
  it('ends with the changes that were not undone', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), fc.nat({ max: 12 }), (steps, settledEarly) => {
        const changes = new NamedChanges<number>();
        const open: { change: NamedChange<number>; undone: boolean }[] = [];
        const settleFirst = (): void => {
          const { change, undone } = open.shift()!;
          if (undone) changes.undo(change);
          else changes.done(change);
        };
        for (const [i, { name, value, undone }] of steps.entries()) {
          open.push({ change: changes.set(name, value), undone });
          if (i < settledEarly) settleFirst();
        }
        while (open.length > 0) settleFirst();
        const expected = new Map<string, number>();
        for (const { name, value, undone } of steps) {
          if (undone) continue;
          if (value === undefined) expected.delete(name);
          else expected.set(name, value);
        }
        expect(new Map(changes.names().map((name) => [name, changes.get(name)]))).toEqual(expected);
      }),
    );
  });

  it('says which names are open from before the last Sync', async () => {
    const changes = new NamedChanges<number>();
    const change = changes.set('a', 1);
    expect(changes.unsettled('a')).toBeUndefined();
    changes.nextBatch();
    const settled = changes.unsettled('a');
    expect(settled).toBeInstanceOf(Promise);
    expect(changes.unsettled('b')).toBeUndefined();
    changes.undo(change);
    await settled;
    expect(changes.get('a')).toBeUndefined();
    expect(changes.unsettled('a')).toBeUndefined();
  });
});
