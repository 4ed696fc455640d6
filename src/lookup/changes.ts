/**
 * What statements have put into the columns of a lookup and taken out of them, by what the triggers have noted
 * (catalog/lookup-objects.ts): the sum of it, and the changes of the lookup's own tables that follow from it. Pure.
 *
 * Invariant: the order in which nodes, leaves and rows are read makes no difference: a value that is taken out of one row and put
 * into another is no change unless the shard key is another one.
 */
import { assert } from '../base/assert.ts';
import { PosternError } from '../base/errors.ts';
import { LOOKUP_KEY } from '../catalog/lookup-objects.ts';
import type { Lookup } from '../catalog/map.ts';

/** Of one row: its unique values, and its shard key, as texts. */
type Values = readonly (string | null)[];

/** As the trigger writes it: id of the lookup, what was taken out, what was put in. */
type Noted = readonly [number, Values | null, Values | null];

export interface LookupChange {
  readonly lookup: Lookup;
  /** Its first unique value, which decides the bucket. */
  readonly first: string;
  readonly values: Values;
}

export interface LookupChanges {
  readonly removed: readonly LookupChange[];
  /** As often as it was put in. */
  readonly added: readonly LookupChange[];
}

export class NotedChanges {
  readonly #counts = new Map<string, { readonly id: number; readonly values: Values; count: number }>();

  get isEmpty(): boolean {
    return this.#counts.size === 0;
  }

  /** One portion of what a node has noted. */
  add(portion: string): void {
    for (const [id, removed, added] of JSON.parse(portion) as readonly Noted[]) {
      if (removed) this.#count(id, removed, -1);
      if (added) this.#count(id, added, 1);
    }
  }

  #count(id: number, values: Values, by: 1 | -1): void {
    const key = JSON.stringify([id, values]);
    const known = this.#counts.get(key);
    if (!known) this.#counts.set(key, { id, values, count: by });
    else if (known.count + by === 0) this.#counts.delete(key);
    else known.count += by;
  }

  /** In one order, whatever the order in which it was noted: two statements wait for one another, and not in a ring. */
  changes(lookups: ReadonlyMap<number, Lookup>): LookupChanges {
    const removed: LookupChange[] = [];
    const added: LookupChange[] = [];
    const keys = [...this.#counts.keys()].sort();
    for (const key of keys) {
      const { id, values, count } = this.#counts.get(key)!;
      const lookup = lookups.get(id);
      if (!lookup) throw constraintsHaveChanged();
      const [first] = values;
      assert(typeof first === 'string', 'no value that is NULL is noted');
      const list = count > 0 ? added : removed;
      for (let i = 0; i < Math.abs(count); i++) list.push({ lookup, first, values });
    }
    return { removed, added };
  }
}

/** Retry is right, as soon as this router has the new map. */
function constraintsHaveChanged(): PosternError {
  return new PosternError({
    sqlState: '40001',
    message: 'could not serialize access: the constraints of the table have changed',
    hint: 'Retry the transaction.',
  });
}

/** What keep_unique() is told of one table of a lookup. */
export function changeText(options: {
  readonly lookup: Lookup;
  /** Quoted and qualified. */
  readonly leaf: string;
  readonly removed: readonly Values[];
  readonly added: readonly Values[];
}): string {
  const { lookup, leaf, removed, added } = options;
  const { columns } = lookup;
  const rowOf = (values: Values) =>
    Object.fromEntries([...columns, LOOKUP_KEY].map((column, i) => [column, values[i] ?? null]));
  return JSON.stringify({ leaf, columns, removed: removed.map(rowOf), added: added.map(rowOf) });
}
