/**
 * From a key's value to its bucket where that is not the hash alone: ranges between bounds, and values that are listed.
 */
import { assert } from '../../base/assert.ts';
import { NO_TYPE_MODIFIER } from '../hash/key-hash.ts';
import type { KeyTypeName } from '../hash/key-type.ts';
import { type KeyValue, keyValueOfText } from './key-value.ts';

export interface DirectorySpec {
  readonly keyType: KeyTypeName;
  /** How many of the first buckets share the rest by hash. */
  readonly hashBuckets: number;
  /** RANGE: ascending. */
  readonly bounds: readonly string[];
  /** Index = bucket − hashBuckets. */
  readonly lists: readonly (readonly string[])[];
}

/** The value is in no list: it goes by hash. */
export const BY_HASH = -3;

export class KeyDirectory {
  readonly #bounds: readonly KeyValue[];
  readonly #listed: ReadonlyMap<KeyValue, number>;
  readonly #hashBuckets: number;

  /** Texts are in the form that PostgreSQL prints with DateStyle ISO and TimeZone UTC. */
  constructor(spec: DirectorySpec) {
    const compiled = (text: string): KeyValue => {
      const value = keyValueOfBound(spec.keyType, text);
      assert(value !== undefined, 'bounds and listed values were checked when they were stored');
      return value;
    };
    this.#hashBuckets = spec.hashBuckets;
    this.#bounds = spec.bounds.map(compiled);
    const listed = new Map<KeyValue, number>();
    for (const [index, list] of spec.lists.entries())
      for (const text of list) listed.set(compiled(text), spec.hashBuckets + index);
    this.#listed = listed;
  }

  /** BY_HASH: of one of the hashed buckets. A value that no bucket takes is looked for in the first: nothing is there. */
  bucketOf(value: KeyValue): number {
    if (this.#bounds.length > 0) return this.rangeOf(value);
    return this.#listed.get(value) ?? (this.#hashBuckets > 1 ? BY_HASH : 0);
  }

  /** NULL has no range and is in no list; where keys go by hash, its hash is 0. */
  bucketOfNull(): number {
    return 0;
  }

  /** RANGE: how many bounds are at or below the value, which is the number of its bucket. */
  rangeOf(value: KeyValue): number {
    let low = 0;
    let high = this.#bounds.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#bounds[middle]! <= value) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** RANGE: is the value itself the lower bound of a bucket? Then what is below it is in the bucket before. */
  isBound(value: KeyValue): boolean {
    const bucket = this.rangeOf(value);
    return bucket > 0 && this.#bounds[bucket - 1] === value;
  }
}

/** undefined: not a value that a router is sure of, so that it can't be a bound or listed. */
export function keyValueOfBound(type: KeyTypeName, text: string): KeyValue | undefined {
  const bytes = Buffer.from(text);
  return keyValueOfText(type, bytes, 0, bytes.length, NO_TYPE_MODIFIER);
}
