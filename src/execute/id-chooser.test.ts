import { describe, expect, it } from 'vitest';
import type { ShardedTable } from '../catalog/map.ts';
import { bucketOfInteger } from '../pg/hash/bucket.ts';
import { IdChooser } from './id-chooser.ts';

const BUCKETS = 8;
const table = {
  id: 1,
  columns: [],
  keyColumn: 'id',
  keyType: 'int8',
  placement: { method: 'hash', hashBuckets: BUCKETS, bounds: [], lists: [] },
  buckets: Array.from({ length: BUCKETS }, () => ({ nodeId: 1, generation: 1 })),
} as unknown as ShardedTable;

/** Counts up from 1, and can be made to run dry. */
function source() {
  let last = 0;
  const ids = {
    dry: false,
    next: () => (ids.dry ? undefined : ++last),
    take: async (_table: number, _column: string, count: number) =>
      Array.from({ length: count }, () => ++last),
  };
  return ids;
}

function turns() {
  let callbacks: (() => void)[] = [];
  return {
    after: (callback: () => void) => void callbacks.push(callback),
    end: () => {
      const now = callbacks;
      callbacks = [];
      for (const callback of now) callback();
    },
  };
}

/** Enough on the only node for runs of full batches. */
const BUSY = new Map([[1, 1_000]]);
const bucketOf = (id: number) => bucketOfInteger('int8', id, BUCKETS);

describe('IdChooser', () => {
  it('gives the ids of one turn to one bucket, and the next turn to the next', () => {
    const turn = turns();
    const chooser = new IdChooser(source(), { afterTurn: turn.after, underWay: () => BUSY });
    const first = Array.from({ length: 20 }, () => chooser.next(table, 'id')!);
    turn.end();
    const second = Array.from({ length: 20 }, () => chooser.next(table, 'id')!);
    expect(new Set(first.map(bucketOf)).size).toBe(1);
    expect(new Set(second.map(bucketOf)).size).toBe(1);
    expect(bucketOf(second[0]!)).toBe((bucketOf(first[0]!) + 1) % BUCKETS);
  });

  it('goes on to another bucket within a turn when one has had a batch', () => {
    const chooser = new IdChooser(source(), { afterTurn: () => {}, underWay: () => BUSY });
    const ids = Array.from({ length: 200 }, () => chooser.next(table, 'id')!);
    expect(new Set(ids.map(bucketOf)).size).toBe(4);
  });

  it('spreads them where few writes are under way, so that no node is idle', () => {
    const nodes = { ...table, buckets: table.buckets.map((_, i) => ({ nodeId: i % 4, generation: 1 })) };
    const chooser = new IdChooser(source(), {
      afterTurn: () => {},
      underWay: () => new Map([0, 1, 2, 3].map((node) => [node, 6])),
    });
    const ids = Array.from({ length: 24 }, () => chooser.next(nodes as ShardedTable, 'id')!);
    expect(new Set(ids.map(bucketOf)).size).toBe(8);
  });

  it('prefers the node with the fewest writes under way', () => {
    const nodes = {
      ...table,
      buckets: table.buckets.map((_, i) => ({ nodeId: i % 4, generation: 1 })),
    } as ShardedTable;
    const load = new Map([0, 1, 2, 3].map((node) => [node, node === 2 ? 0 : 50]));
    const chooser = new IdChooser(source(), { afterTurn: () => {}, underWay: () => load });
    const chosen = new Set<number>();
    for (let i = 0; i < 50; i++) {
      const { nodeId } = nodes.buckets[bucketOf(chooser.next(nodes, 'id')!)]!;
      chosen.add(nodeId);
      load.set(nodeId, load.get(nodeId)! + 1);
    }
    expect([...chosen]).toEqual([2]);
  });

  it('never gives an id twice, and uses nearly all of those that it draws', async () => {
    const turn = turns();
    const chooser = new IdChooser(source(), { afterTurn: turn.after, underWay: () => BUSY });
    const given: number[] = [];
    for (let i = 0; i < 2_000; i++) {
      given.push(chooser.next(table, 'id')!);
      if (i % 7 === 0) turn.end();
      if (i % 11 === 0) given.push(...(await chooser.takeOfOneBucket(table, 3)));
    }
    expect(new Set(given).size).toBe(given.length);
    expect(Math.max(...given)).toBeLessThan(given.length + 2_000);
  });

  it('gives what waits for other buckets when the source is dry, and then says so', () => {
    const ids = source();
    const chooser = new IdChooser(ids, { afterTurn: () => {}, underWay: () => BUSY });
    const first = chooser.next(table, 'id')!;
    ids.dry = true;
    const rest: number[] = [];
    for (let id = chooser.next(table, 'id'); id !== undefined; id = chooser.next(table, 'id')) rest.push(id);
    expect([first, ...rest].sort((a, b) => a - b)).toEqual(
      Array.from({ length: rest.length + 1 }, (_, i) => i + 1),
    );
    expect(chooser.next(table, 'id')).toBeUndefined();
  });

  it('takes ids of other columns as they come', () => {
    const chooser = new IdChooser(source(), { afterTurn: () => {}, underWay: () => BUSY });
    expect([chooser.next(table, 'n'), chooser.next(table, 'n')]).toEqual([1, 2]);
  });

  it('gives out nothing of before a sequence was set: by this router at once, by another with its new map', async () => {
    const ids = source();
    const forgotten: string[] = [];
    const chooser = new IdChooser(
      { ...ids, forget: (tableId, column) => void forgotten.push(`${tableId} ${column}`) },
      { afterTurn: () => {}, underWay: () => BUSY },
    );
    const at = (restarts: number) =>
      ({
        ...table,
        columns: [
          { name: 'id', typeOid: 20, sequence: true, idSequence: { schema: 'public', name: 's', restarts } },
        ],
      }) as ShardedTable;
    const before = at(3);
    const first = chooser.next(before, 'id')!;
    expect(chooser.next(before, 'id')).not.toBe(first);
    expect(forgotten).toEqual([]);
    chooser.restart(1, 'id');
    expect(forgotten).toEqual(['1 id']);
    chooser.next(at(3), 'id');
    chooser.next(at(2), 'id');
    expect(forgotten).toEqual(['1 id']);
    await chooser.take(at(4), 'id', 1);
    expect(forgotten).toEqual(['1 id', '1 id']);
  });
});
