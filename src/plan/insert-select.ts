/**
 * INSERT … SELECT into a sharded table: which column of the query is the target's shard key, and what that says about the
 * bucket of a row. If it is the shard key of a table that the query reads, a row stays in its bucket; if it is a literal or a
 * parameter, all rows go to one bucket; if it is anything else, each row has to be looked at (plan/scatter-write.ts).
 */
import type { InsertStmt, Node, SelectStmt } from '@pgsql/types';
import type { PosternError } from '../base/errors.ts';
import { insertColumns, keyMissing, refuseValueOfIdentity } from './insert.ts';
import { keySourceOf } from './key-source.ts';
import { notUnderstood } from './refusal.ts';
import { columnNamesOf, keyReferenceOf, type Scope, type Slot } from './scope.ts';

export interface InsertSelect {
  /** The target's columns that the query gives, in order; undefined: as many as it has columns, in the table's order. */
  readonly columns: readonly string[] | undefined;
  /** The query's columns that are a bare literal or parameter: their type is the target column's. */
  readonly untyped: readonly number[];
  /** Why the statement can't go to one bucket as it is. */
  readonly isNotKeyed: PosternError | undefined;
  /** The use of a table whose shard key becomes the target's, if there is one. */
  readonly keySlot: Slot | undefined;
}

/** A column of the query: an expression, or one that a star stands for. */
type Entry =
  | { readonly node: Node; readonly slot?: undefined }
  | { readonly slot: Slot; readonly column: string; readonly node?: undefined };

/** VALUES without clauses of its own. */
export function isPlainValues(node: Node): boolean {
  if (!('SelectStmt' in node)) return false;
  const { valuesLists, withClause, sortClause, limitCount, limitOffset, lockingClause } = node.SelectStmt;
  return (
    valuesLists !== undefined && !withClause && !sortClause && !limitCount && !limitOffset && !lockingClause
  );
}

/** Binds the target to what the query says of its key. */
export function bindInsertSelect(options: {
  slot: Slot;
  insert: InsertStmt;
  select: SelectStmt;
  scope: Scope;
}): InsertSelect {
  const { slot, insert, select, scope } = options;
  const { table } = slot;
  const entries = select.larg || select.valuesLists ? undefined : entriesOf(select, scope);
  const columns = insert.cols
    ? insertColumns(table, insert, 0)
    : entries && insertColumns(table, insert, entries.length);
  const untyped = (entries ?? []).flatMap((entry, index) =>
    entry.node && isUntyped(entry.node) ? [index] : [],
  );
  const eachRow = notUnderstood('INSERT … SELECT', table, 'Read the rows first, then INSERT … VALUES.');
  const unbound = { columns, untyped, isNotKeyed: eachRow, keySlot: undefined };
  if (!columns) return unbound;
  refuseIdentity(table, insert, columns);
  const missing = table.columns.filter((column) => column.sequence && !columns.includes(column.name));
  const position = columns.indexOf(table.keyColumn);
  if (position < 0 && !missing.some((column) => column.name === table.keyColumn)) throw keyMissing(table);
  const entry = entries?.[position];
  if (!entry || missing.length > 0) return unbound;
  const keySlot = keySlotOf(entry, scope);
  if (keySlot) {
    slot.equalTo.push(keySlot);
    return { columns, untyped, isNotKeyed: undefined, keySlot };
  }
  const source = entry.node && keySourceOf(entry.node, table.keyType);
  if (!source) return unbound;
  slot.sources.push(source);
  return { columns, untyped, isNotKeyed: undefined, keySlot: undefined };
}

function refuseIdentity(table: Slot['table'], statement: InsertStmt, columns: readonly string[]): void {
  for (const { name, identity } of table.columns) {
    if (!identity || !columns.includes(name)) continue;
    if (statement.override === 'OVERRIDING_USER_VALUE')
      throw notUnderstood('OVERRIDING USER VALUE', table, 'Leave the column out.');
    if (identity === 'always') refuseValueOfIdentity(name, { statement });
  }
}

function keySlotOf(entry: Entry, scope: Scope): Slot | undefined {
  if (entry.slot) return entry.slot.keyName === entry.column ? entry.slot : undefined;
  const reference = keyReferenceOf(entry.node, scope);
  const [slot] = reference?.slots ?? [];
  if (!reference || reference.merged || !slot) return undefined;
  // An outer query has no part in the rows of this one.
  return scope.items.some((item) => item.slot === slot) ? slot : undefined;
}

/** undefined: it has a star of which it is not known here what it stands for. */
function entriesOf(select: SelectStmt, scope: Scope): Entry[] | undefined {
  const entries: Entry[] = [];
  for (const target of select.targetList ?? []) {
    const value = 'ResTarget' in target ? target.ResTarget.val : undefined;
    if (!value) return undefined;
    const names = 'ColumnRef' in value ? columnNamesOf(value.ColumnRef) : [];
    if (names?.at(-1) !== '*') {
      entries.push({ node: value });
      continue;
    }
    const slots = slotsOfStar(names, scope);
    if (!slots) return undefined;
    for (const slot of slots) for (const column of slot.columnNames) entries.push({ slot, column });
  }
  return entries;
}

function slotsOfStar(names: readonly string[], scope: Scope): Slot[] | undefined {
  if (scope.natural || scope.merged.size > 0) return undefined;
  const items =
    names.length === 1 ? scope.items : scope.items.filter((item) => item.visibleName === names.at(-2));
  const slots = items.flatMap((item) => item.slot ?? []);
  return slots.length === items.length && slots.length > 0 ? slots : undefined;
}

function isUntyped(node: Node): boolean {
  if ('ParamRef' in node) return true;
  return 'A_Const' in node && (node.A_Const.isnull === true || node.A_Const.sval !== undefined);
}
