/**
 * Ids for columns that an INSERT leaves out, and the choice among them: the rows of one INSERT have to fall into one
 * bucket, so ids are drawn until enough of them do; the others are kept for later INSERTs.
 *
 * Invariant: an id is given out once. What is stashed and never used leaves a gap, as a PostgreSQL sequence's cache does.
 */
import { assert } from '../base/assert.ts';
import type { ShardedTable } from '../catalog/map.ts';
import { bucketOfInteger } from '../pg/hash/bucket.ts';

export interface IdSource {
  next(tableId: number, column: string): number | undefined;
  take(tableId: number, column: string, count: number): Promise<number[]>;
}

/** Stashed ids of one table, over all its buckets. */
const STASHED_MAX = 65_536;

export class IdChooser {
  readonly #source: IdSource;
  readonly #stashes = new Map<number, { byBucket: number[][]; count: number }>();

  constructor(source: IdSource) {
    this.#source = source;
  }

  /** The next id of a leased block; undefined when a block has to be waited for. */
  next(table: ShardedTable, column: string): number | undefined {
    return this.#source.next(table.id, column);
  }

  async take(table: ShardedTable, column: string, count: number): Promise<number[]> {
    return this.#source.take(table.id, column, count);
  }

  /** `count` ids of the key column that all hash to one bucket. */
  async takeOfOneBucket(table: ShardedTable, count: number): Promise<number[]> {
    assert(isInteger(table.keyType), 'ids are supplied for integer keys only');
    const stash = this.#stashOf(table);
    const first = await this.#draw(table);
    const bucket = bucketOfInteger(table.keyType, first, table.buckets.length);
    const chosen = [first];
    while (chosen.length < count) {
      const stashed = stash.byBucket[bucket]!.shift();
      if (stashed !== undefined) {
        stash.count--;
        chosen.push(stashed);
        continue;
      }
      const drawn = await this.#draw(table);
      const at = bucketOfInteger(table.keyType, drawn, table.buckets.length);
      if (at === bucket) chosen.push(drawn);
      else if (stash.count < STASHED_MAX) {
        stash.byBucket[at]!.push(drawn);
        stash.count++;
      }
    }
    return chosen;
  }

  async #draw(table: ShardedTable): Promise<number> {
    const id = this.#source.next(table.id, table.keyColumn);
    if (id !== undefined) return id;
    const [taken] = await this.#source.take(table.id, table.keyColumn, 1);
    assert(taken !== undefined, 'take gives as many as asked for');
    return taken;
  }

  #stashOf(table: ShardedTable): { byBucket: number[][]; count: number } {
    let stash = this.#stashes.get(table.id);
    if (!stash) {
      stash = { byBucket: table.buckets.map(() => []), count: 0 };
      this.#stashes.set(table.id, stash);
    }
    return stash;
  }
}

function isInteger(type: string): type is 'int2' | 'int4' | 'int8' {
  return type === 'int2' || type === 'int4' || type === 'int8';
}
