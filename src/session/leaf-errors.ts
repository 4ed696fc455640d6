/**
 * A server's error about a leaf, told in the user's names: `events_b17_g4_pkey` of schema postern_leaves is the user's
 * `events_pkey`. Only errors pass here, never rows.
 */
import { bucketMoved } from '../base/errors.ts';
import { LEAF_SCHEMA, leafSuffix, type ShardedTable } from '../catalog/map.ts';

export interface LeafTarget {
  readonly table: ShardedTable;
  readonly bucket: number;
  /** 1-based character position in the sent text → in the client's. */
  readonly mapPosition: (position: number) => number;
}

/** The leaf that the router believed in is not there: the map was stale. Nothing was written. */
export function isMissingLeaf(fields: ReadonlyMap<string, string>, target: LeafTarget): boolean {
  return fields.get('C') === '42P01' && (fields.get('M') ?? '').includes(suffixOf(target));
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
    else if (code === 'P') renamed.set(code, String(target.mapPosition(Number(value))));
    else renamed.set(code, usersName(value, target));
  }
  return renamed;
}

/** Takes the suffix out of every name, and the leaves' schema from before them. */
function usersName(text: string, target: LeafTarget): string {
  const suffix = suffixOf(target);
  return text
    .replaceAll(`${LEAF_SCHEMA}.`, '')
    .replaceAll(`"${LEAF_SCHEMA}".`, '')
    .replaceAll(new RegExp(`${suffix}(?![0-9])`, 'g'), '');
}

function suffixOf(target: LeafTarget): string {
  return leafSuffix(target.bucket, target.table.buckets[target.bucket]!.generation);
}
