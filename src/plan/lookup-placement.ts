/** Whether a SELECT whose uses are bound by no shard key is one of a single bucket by a unique constraint off the key (lookup-reads.ts). */
import { slotIsBound } from './binding.ts';
import { LOOKUP_READ_TYPES } from './lookup-reads.ts';
import type { Placement } from './plan.ts';
import type { Scatter } from './scatter.ts';
import type { Slot } from './scope.ts';

/** The statement as one of a single bucket, if the rows of one use are found by a lookup, and those of all others by its key. */
export function placeByLookup(slots: readonly Slot[], several: Scatter): Placement | undefined {
  if (several.kind !== 'read' || slots.some(({ sources }) => sources.length > 0)) return undefined;
  for (const slot of slots) {
    const { table, equals } = slot;
    const lookup = table.lookups?.find(({ columns }) => columns.every((column) => equals.has(column)));
    if (!lookup) continue;
    slot.sources.push({ kind: 'literal', text: null });
    const isKeyed = slots.every(slotIsBound);
    slot.sources.pop();
    if (!isKeyed) continue;
    const values = lookup.columns.map((column) => equals.get(column)!);
    const types = lookup.columns.map(
      (name) => LOOKUP_READ_TYPES.get(table.columns.find((column) => column.name === name)!.typeOid)!,
    );
    return {
      ...{ kind: 'keyed', table, keys: [], suppliedIds: [], several },
      lookup: { table, lookup, values, types },
    };
  }
  return undefined;
}
