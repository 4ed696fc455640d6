/**
 * A table's placement in SQL: how its face is partitioned, the condition that the rows of a bucket satisfy, and the bucket of a
 * value that only a server is sure of.
 *
 * Values are compared as the key's type without a modifier. Names are qualified, or mean pg_catalog's own by the search_path
 * under which this is run.
 */
import type { KeyTypeName } from '../pg/hash/key-type.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import type { TablePlacement } from './map.ts';

export type PartitionStrategy = 'HASH' | 'RANGE' | 'LIST';

/** A face has no partitions; this is what it says that its leaves are by. Where keys go by hash, its hash is the leaves'. */
export function partitionStrategy({
  method,
  hashBuckets,
}: Pick<TablePlacement, 'method' | 'hashBuckets'>): PartitionStrategy {
  if (method === 'range') return 'RANGE';
  return method === 'list' && hashBuckets <= 1 ? 'LIST' : 'HASH';
}

export interface KeyColumn {
  /** Quoted. */
  readonly name: string;
  readonly type: KeyTypeName;
}

/** True for the rows of the bucket, false for all others, and never NULL. `face`: quoted and qualified. */
export function bucketCondition(
  placement: TablePlacement,
  key: KeyColumn,
  { face, bucket }: { readonly face: string; readonly bucket: number },
): string {
  const { hashBuckets, lists, bounds } = placement;
  if (placement.method === 'range') return rangeCondition(bounds, key, bucket);
  if (bucket >= hashBuckets) {
    const list = lists[bucket - hashBuckets] ?? [];
    return `(${key.name} IS NOT NULL AND ${key.name} = ANY (${arrayOf(list, key.type)}))`;
  }
  const parts: string[] = [];
  if (partitionStrategy(placement) === 'HASH') {
    const relation = `${quoteLiteral(face)}::pg_catalog.regclass`;
    parts.push(`pg_catalog.satisfies_hash_partition(${relation}, ${hashBuckets}, ${bucket}, ${key.name})`);
  }
  const listed = lists.flat();
  if (listed.length > 0)
    parts.push(`(${key.name} IS NULL OR ${key.name} <> ALL (${arrayOf(listed, key.type)}))`);
  if (parts.length === 0) return 'true';
  return parts.length === 1 ? parts[0]! : `(${parts.join(' AND ')})`;
}

function rangeCondition(bounds: readonly string[], key: KeyColumn, bucket: number): string {
  const parts = [`${key.name} IS NOT NULL`];
  const lower = bounds[bucket - 1];
  const upper = bounds[bucket];
  if (lower !== undefined) parts.push(`${key.name} >= ${literalOf(lower, key.type)}`);
  if (upper !== undefined) parts.push(`${key.name} < ${literalOf(upper, key.type)}`);
  return `(${parts.join(' AND ')})`;
}

/**
 * What ATTACH PARTITION says of a bucket: under a table partitioned by the face's strategy, or, where listed keys stand beside
 * several buckets of others, under one by LIST, whose default partition is partitioned by HASH and has those.
 */
export function partitionBound(placement: TablePlacement, type: KeyTypeName, bucket: number): string {
  const { method, hashBuckets, lists, bounds } = placement;
  if (method === 'range') {
    const end = (text: string | undefined, open: string) =>
      text === undefined ? open : literalOf(text, type);
    return `FOR VALUES FROM (${end(bounds[bucket - 1], 'MINVALUE')}) TO (${end(bounds[bucket], 'MAXVALUE')})`;
  }
  const list = lists[bucket - hashBuckets];
  if (list) return `FOR VALUES IN (${list.map((text) => literalOf(text, type)).join(', ')})`;
  return hashBuckets === 1 && (method === 'list' || lists.length > 0)
    ? 'DEFAULT'
    : `FOR VALUES WITH (MODULUS ${hashBuckets}, REMAINDER ${bucket})`;
}

/**
 * An expression whose text tells the bucket: `r` and the number of bounds at or below the value, `l` and its place among all
 * listed values, or `h` and its hash. `hash`: the expression of that.
 */
export function placeExpression(
  placement: TablePlacement,
  type: KeyTypeName,
  { value, hash }: { readonly value: string; readonly hash: string },
): string {
  if (placement.method === 'range') {
    const operand = isOfCharacters(type) ? `(${value} COLLATE "C")` : value;
    return `'r' || pg_catalog.width_bucket(${operand}, ${arrayOf(placement.bounds, type)})`;
  }
  const listed = placement.lists.flat();
  const rest = `'h' || ${hash}`;
  if (listed.length === 0) return rest;
  return `coalesce('l' || pg_catalog.array_position(${arrayOf(listed, type)}, ${castTo(value, type)}), ${rest})`;
}

/** The bucket that such a text tells; `byHash`: of a hash. */
export function placeOfText(
  placement: TablePlacement,
  text: string,
  byHash: (hash: string) => number,
): number {
  const rest = text.slice(1);
  if (text.startsWith('r')) return Number(rest);
  if (text.startsWith('h')) return placement.hashBuckets > 1 ? byHash(rest) : 0;
  let place = Number(rest);
  for (const [index, list] of placement.lists.entries()) {
    if (place <= list.length) return placement.hashBuckets + index;
    place -= list.length;
  }
  return 0;
}

export function isOfCharacters(type: KeyTypeName): boolean {
  return type === 'text' || type === 'varchar' || type === 'bpchar';
}

function castTo(value: string, type: KeyTypeName): string {
  return `(${value})::pg_catalog.${type}`;
}

function literalOf(text: string, type: KeyTypeName): string {
  return `${quoteLiteral(text)}::pg_catalog.${type}`;
}

function arrayOf(texts: readonly string[], type: KeyTypeName): string {
  return `ARRAY[${texts.map(quoteLiteral).join(', ')}]::pg_catalog.${type}[]`;
}
