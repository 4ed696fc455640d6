/**
 * A server's error about a leaf, told in the user's names: `events_b17_g4_pkey` of schema postern_leaves is the user's
 * `events_pkey`. Only errors pass here, never rows.
 */
import { bucketMoved } from '../base/errors.ts';
import { LEAF_SCHEMA, leafSuffix, type ShardedTable } from '../catalog/map.ts';

export interface LeafTarget {
  readonly table: ShardedTable;
  readonly bucket: number;
  /** If the statement names leaves of several: all of them. */
  readonly buckets?: readonly number[];
  /** 1-based character position in the sent text → in the client's; 0: it has none there. */
  readonly mapPosition: (position: number) => number;
}

/** The leaf that the router believed in is not there: the map was stale. Nothing was written. */
export function isMissingLeaf(fields: ReadonlyMap<string, string>, target: LeafTarget): boolean {
  return (
    fields.get('C') === '42P01' &&
    suffixesOf(target).some((suffix) => (fields.get('M') ?? '').includes(suffix))
  );
}

export function inUsersNames(fields: Map<string, string>, target: LeafTarget): Map<string, string> {
  if (isMissingLeaf(fields, target)) {
    const moved = bucketMoved(target.table.name);
    return new Map([
      ['S', moved.severity],
      ['V', moved.severity],
      ['C', moved.sqlState],
      ['M', moved.message],
      ['H', moved.hint ?? ''],
    ]);
  }
  const renamed = new Map<string, string>();
  for (const [code, value] of fields) {
    if (code === 's' && value === LEAF_SCHEMA) renamed.set(code, target.table.schema);
    else if (code === 'P') {
      const position = target.mapPosition(Number(value));
      if (position > 0) renamed.set(code, String(position));
    } else renamed.set(code, usersName(value, target));
  }
  return renamed;
}

/** Takes the suffixes out of every name, and the leaves' schema from before them. */
function usersName(text: string, target: LeafTarget): string {
  let told = text.replaceAll(`${LEAF_SCHEMA}.`, '').replaceAll(`"${LEAF_SCHEMA}".`, '');
  // Tables that are colocated have leaves of the same buckets, with generations of their own: a foreign key's error names both.
  for (const bucket of target.buckets ?? [target.bucket])
    told = told.replaceAll(new RegExp(`_b${bucket}_g[0-9]+(?![0-9])`, 'g'), '');
  return told;
}

function suffixesOf({ table, bucket, buckets }: LeafTarget): string[] {
  return (buckets ?? [bucket]).map((one) => leafSuffix(one, table.buckets[one]!.generation));
}
