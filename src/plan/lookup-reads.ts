/**
 * SELECTs that name all columns of a unique constraint off the shard key (src/lookup/SPEC.md): `WHERE email = $1`. Where the constraint's
 * values are kept the one shard key stands that such a row can have, and with it the statement is one of a single bucket.
 *
 * Invariant: what an equality equates here every row of the use in the result must satisfy, as with shard keys (binding.ts).
 */
import type { Node } from '@pgsql/types';
import type { ColumnInfo, Lookup, ShardedTable } from '../catalog/map.ts';
import type { KeyTypeName } from '../pg/hash/key-type.ts';
import { OID } from '../pg/oid.ts';
import { keySourceOf } from './key-source.ts';
import type { KeySource } from './plan.ts';
import { columnNamesOf, type Scope, type Slot } from './scope.ts';

/** Where the shard key of the only row is to be read. */
export interface LookupRead {
  readonly table: ShardedTable;
  readonly lookup: Lookup;
  /** Of its columns, in their order. */
  readonly values: readonly KeySource[];
  /** Of these columns. */
  readonly types: readonly LookupReadType[];
}

export type LookupReadType = Extract<KeyTypeName, 'int2' | 'int4' | 'int8' | 'text' | 'varchar' | 'uuid'>;

/** Those whose values the router writes as the server would. */
export const LOOKUP_READ_TYPES: ReadonlyMap<number, LookupReadType> = new Map([
  [OID.int2, 'int2'],
  [OID.int4, 'int4'],
  [OID.int8, 'int8'],
  [OID.text, 'text'],
  [OID.varchar, 'varchar'],
  [OID.uuid, 'uuid'],
]);

/** `column = value`, of a column that may be part of such a constraint. */
export function equateColumn(
  left: Node | undefined,
  right: Node | undefined,
  scope: Scope,
  mayBind: (slot: Slot) => boolean,
): void {
  const found = columnOf(left, scope) ?? columnOf(right, scope);
  if (!found || !mayBind(found.slot)) return;
  const { slot, column } = found;
  if (!slot.table.lookups?.some(({ columns }) => columns.includes(column.name))) return;
  const type = LOOKUP_READ_TYPES.get(column.typeOid);
  const source = type && keySourceOf(columnOf(left, scope) ? right : left, type);
  if (source) slot.equals.set(column.name, source);
}

/** A column of a use of this query level alone, that no other can mean. */
function columnOf(node: Node | undefined, scope: Scope): { slot: Slot; column: ColumnInfo } | undefined {
  const names = node && 'ColumnRef' in node ? columnNamesOf(node.ColumnRef) : undefined;
  if (!names || names.length > 2) return undefined;
  const column = names.at(-1)!;
  const owners = scope.items.filter(({ visibleName, slot, keys }) =>
    names.length === 2 ? visibleName === names[0] : slot?.columnNames.includes(column) || keys?.has(column),
  );
  const [owner, another] = owners;
  if (!owner?.slot || another) return undefined;
  if (names.length === 1 && (scope.natural || scope.merged.has(column))) return undefined;
  const { slot } = owner;
  const info = slot.table.columns[slot.columnNames.indexOf(column)];
  return info && { slot, column: info };
}
