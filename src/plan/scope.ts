/**
 * Names inside one query level: which FROM items it has, and which of them a column reference means, as far as that can
 * be known without the catalogs of the server. Used to find the equalities that bind shard keys.
 *
 * Invariant: a reference is resolved only when every reading of it that PostgreSQL accepts is this one. A name that a
 * sharded table and an unknown item both have is ambiguous to PostgreSQL too, unless USING or NATURAL has merged them.
 */
import type { ColumnRef, Node, RangeVar, SelectStmt } from '@pgsql/types';
import type { ShardedTable } from '../catalog/map.ts';
import type { KeyLimit } from './key-limits.ts';
import type { KeySource } from './plan.ts';

/** One use of a sharded table in a statement. */
export interface Slot {
  readonly table: ShardedTable;
  readonly rangeVar: RangeVar;
  /** The alias, or the table's own name. */
  readonly visibleName: string;
  /** Column names as the query sees them (an alias may rename them). */
  readonly columnNames: readonly string[];
  /** What the shard key is called here. */
  readonly keyName: string;
  readonly sources: KeySource[];
  /** Of a table that is sharded by range. */
  readonly limits: KeyLimit[];
  /** Slots whose key this one's key equals: it is bound if one of them is. */
  readonly equalTo: Slot[];
  /** What columns of unique constraints off the key equal (lookup-reads.ts). */
  readonly equals: Map<string, KeySource>;
}

export interface FromItem {
  readonly visibleName: string | undefined;
  /** Undefined: a subquery, function, CTE or table whose columns are not known. */
  readonly slot: Slot | undefined;
  /** Of a subquery: its columns that are the shard keys of uses inside, of each of which every row of it has one row. */
  readonly keys?: KeyColumns | undefined;
}

type KeyColumns = ReadonlyMap<string, Slot>;

/** A query that is read like a table. */
export interface TableQuery {
  /** Uses of sharded tables, of whose rows each row of it is one. */
  readonly roots: readonly Slot[];
  readonly keys: KeyColumns | undefined;
}

export const NO_ROOTS: TableQuery = { roots: [], keys: undefined };

/** The uses that a condition on the item's columns may bind. */
export function slotsOf({ slot, keys }: FromItem): readonly Slot[] {
  return slot ? [slot] : [...(keys?.values() ?? [])];
}

/** The columns of a query that gives rows one by one: those that are the key of one of `roots`, by the names that they have outside. */
export function keysOfQuery(select: SelectStmt, scope: Scope, roots: readonly Slot[]): KeyColumns {
  const keys = new Map<string, Slot>();
  for (const node of select.targetList ?? []) {
    if (!('ResTarget' in node)) continue;
    const { name, val } = node.ResTarget;
    const reference = keyReferenceOf(val, scope);
    const [slot] = reference?.slots ?? [];
    if (!slot || reference?.merged || !roots.includes(slot)) continue;
    const written = val && 'ColumnRef' in val ? columnNamesOf(val.ColumnRef)?.at(-1) : undefined;
    const column = name ?? written;
    if (column !== undefined) keys.set(column, slot);
  }
  return keys;
}

export interface Scope {
  readonly items: FromItem[];
  /** Columns that JOIN … USING merged. */
  readonly merged: Set<string>;
  natural: boolean;
  readonly parent: Scope | undefined;
}

export function newScope(parent: Scope | undefined): Scope {
  return { items: [], merged: new Set(), natural: false, parent };
}

export function newSlot(table: ShardedTable, rangeVar: RangeVar): Slot {
  const renamed = rangeVar.alias?.colnames ?? [];
  const columnNames = table.columns.map((column, index) => {
    const node = renamed[index];
    return node && 'String' in node ? (node.String.sval ?? '') : column.name;
  });
  const keyIndex = table.columns.findIndex((column) => column.name === table.keyColumn);
  return {
    table,
    rangeVar,
    visibleName: rangeVar.alias?.aliasname ?? table.name,
    columnNames,
    keyName: columnNames[keyIndex] ?? table.keyColumn,
    sources: [],
    limits: [],
    equalTo: [],
    equals: new Map(),
  };
}

/** The slots whose shard key a column reference is. More than one only if USING or NATURAL merged them. */
export interface KeyReference {
  readonly slots: readonly Slot[];
  /** The column may be another item's, merged: what it equals binds the slots, but they bind nothing through it. */
  readonly merged: boolean;
}

export function keyReferenceOf(node: Node | undefined, scope: Scope): KeyReference | undefined {
  if (!node || !('ColumnRef' in node)) return undefined;
  const names = columnNamesOf(node.ColumnRef);
  if (!names) return undefined;
  const column = names.at(-1)!;
  if (names.length === 1) return unqualifiedKey(column, scope);
  const item = findItem(scope, names);
  const slot = item && keySlot(item, column);
  return slot && { slots: [slot], merged: false };
}

function unqualifiedKey(column: string, from: Scope): KeyReference | undefined {
  for (let scope: Scope | undefined = from; scope; scope = scope.parent) {
    const owners = scope.items.filter(
      ({ slot, keys }) => slot?.columnNames.includes(column) || keys?.has(column),
    );
    if (owners.length > 0) {
      const slots = owners.flatMap((item) => keySlot(item, column) ?? []);
      return { slots, merged: owners.length > 1 || scope.natural || scope.merged.has(column) };
    }
    // An unknown item may have the column, and then it does not mean the outer query's.
    if (scope.items.some((item) => item.slot === undefined)) return undefined;
  }
  return undefined;
}

function keySlot({ slot, keys }: FromItem, column: string): Slot | undefined {
  return slot ? (slot.keyName === column ? slot : undefined) : keys?.get(column);
}

/** The item that `[schema.]name.column` refers to: the nearest one that the name can mean. */
function findItem(from: Scope, names: readonly string[]): FromItem | undefined {
  const schema = names.length === 3 ? names[0] : undefined;
  const name = names.at(-2);
  for (let scope: Scope | undefined = from; scope; scope = scope.parent) {
    for (const item of scope.items) {
      if (item.visibleName !== name) continue;
      if (schema === undefined) return item;
      if (item.slot && !item.slot.rangeVar.alias && item.slot.table.schema === schema) return item;
    }
  }
  return undefined;
}

/** `a`, `t.a`, `s.t.a`; a star counts as a name of its own. Undefined for anything longer. */
export function columnNamesOf(reference: ColumnRef): string[] | undefined {
  const names: string[] = [];
  for (const field of reference.fields ?? []) {
    if ('String' in field) names.push(field.String.sval ?? '');
    else if ('A_Star' in field) names.push('*');
    else return undefined;
  }
  return names.length >= 1 && names.length <= 3 ? names : undefined;
}
