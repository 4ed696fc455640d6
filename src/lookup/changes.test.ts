import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Lookup } from '../catalog/map.ts';
import { changeText, NotedChanges } from './changes.ts';

const lookup = (id: number): Lookup =>
  ({ id, name: `u${id}`, isConstraint: true, columns: ['email'], table: {} }) as unknown as Lookup;
const LOOKUPS = new Map([1, 2].map((id) => [id, lookup(id)]));

function noted(...portions: unknown[][]): NotedChanges {
  const changes = new NotedChanges();
  for (const portion of portions) changes.add(JSON.stringify(portion));
  return changes;
}

describe('the sum of what was noted', () => {
  test('of a value that goes from row to row is nothing', () => {
    const changes = noted([[1, ['a', '7'], null]], [[1, null, ['a', '7']]]);
    expect(changes.isEmpty).toBe(true);
  });

  test('keeps the key apart, and one lookup from another', () => {
    const { removed, added } = noted([
      [1, ['a', '7'], ['a', '8']],
      [2, null, ['a', '7']],
    ]).changes(LOOKUPS);
    expect(removed.map(({ values }) => values)).toEqual([['a', '7']]);
    expect(added.map(({ lookup: { id }, values }) => [id, values])).toEqual([
      [1, ['a', '8']],
      [2, ['a', '7']],
    ]);
  });

  test('has a value that was put in twice twice, so that it is refused', () => {
    const { added } = noted([
      [1, null, ['a', '7']],
      [1, null, ['a', '7']],
    ]).changes(LOOKUPS);
    expect(added).toHaveLength(2);
  });

  test('of a constraint that the map does not have yet is for the next try', () => {
    expect(() => noted([[3, null, ['a', '1']]]).changes(LOOKUPS)).toThrowError(
      expect.objectContaining({ sqlState: '40001' }),
    );
  });

  test('is what leads from the rows before to the rows after, in whatever order it is read', () => {
    const row = fc.record({
      email: fc.constantFrom('a', 'b', 'c', null),
      key: fc.integer({ min: 0, max: 2 }),
    });
    const step = fc.tuple(fc.option(row), fc.option(row));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), fc.infiniteStream(fc.nat()), (steps, order) => {
        const counts = new Map<string, number>();
        const lines: unknown[] = [];
        for (const [before, after] of steps) {
          const values = (one: typeof before) =>
            one && one.email !== null ? [one.email, String(one.key)] : null;
          lines.push([1, values(before), values(after)]);
          for (const [one, by] of [
            [before, -1],
            [after, 1],
          ] as const) {
            const key = JSON.stringify(values(one));
            if (key !== 'null') counts.set(key, (counts.get(key) ?? 0) + by);
          }
        }
        const shuffled = lines
          .map((line) => [order.next().value as number, line] as const)
          .sort(([a], [b]) => a - b)
          .map(([, line]) => line);
        const { removed, added } = noted(shuffled).changes(LOOKUPS);
        const found = new Map<string, number>();
        for (const { values } of removed)
          found.set(JSON.stringify(values), (found.get(JSON.stringify(values)) ?? 0) - 1);
        for (const { values } of added)
          found.set(JSON.stringify(values), (found.get(JSON.stringify(values)) ?? 0) + 1);
        expect(found).toEqual(new Map([...counts].filter(([, count]) => count !== 0)));
      }),
    );
  });
});

test('a change names the columns of the rows', () => {
  const text = changeText({ lookup: lookup(1), leaf: 'x', removed: [['a', null]], added: [] });
  expect(JSON.parse(text)).toEqual({
    ...{ leaf: 'x', columns: ['email'] },
    removed: [{ email: 'a', postern_key: null }],
    added: [],
  });
});
