/** SET of the shard key: where it changes nothing, where the new key is known, and where it is refused. */
import type { Node, UpdateStmt } from '@pgsql/types';
import { PosternError } from '../base/errors.ts';
import type { ShardedTable } from '../catalog/map.ts';
import { keySourceOf } from './key-source.ts';
import type { KeySource } from './plan.ts';
import { keyIsFixed, notUnderstood } from './refusal.ts';
import { columnNamesOf, keyReferenceOf, type Scope, type Slot } from './scope.ts';

/** What an UPDATE sets the shard key to. */
export interface NewKey {
  /** Rows get another key, or may. */
  readonly setsKey: boolean;
  /** The new key, if it is known when the statement is placed: of the rows' own bucket, nothing moves. */
  readonly newKeys: readonly KeySource[];
  readonly isNotKeyed: PosternError | undefined;
}

/** `SET key = …`: the key as it was is no change. */
export function newKeyOf(update: UpdateStmt, slot: Slot, scope: Scope): NewKey {
  const { table } = slot;
  refuseIdUpdate(update.targetList, table);
  const newKeys: KeySource[] = [];
  let isNotKeyed: PosternError | undefined;
  for (const node of update.targetList ?? []) {
    if (!('ResTarget' in node) || node.ResTarget.name !== table.keyColumn) continue;
    const value = node.ResTarget.val;
    const same = keyReferenceOf(value, scope);
    if (same && !same.merged && same.slots[0] === slot) continue;
    const source = keySourceOf(value, table.keyType);
    if (source) newKeys.push(source);
    else
      isNotKeyed = notUnderstood('this UPDATE of the shard key', table, 'DELETE the rows and INSERT them.');
  }
  const setsKey = newKeys.length > 0 || isNotKeyed !== undefined;
  // A row that moves is deleted where it was: its foreign keys' actions would follow that.
  if (setsKey && table.cascades) {
    const hint = 'INSERT the row with its new key, UPDATE those that refer to it, and DELETE the old one.';
    throw notUnderstood(
      'an UPDATE of the shard key that foreign keys with ON DELETE actions refer to',
      table,
      hint,
    );
  }
  return { setsKey, newKeys, isNotKeyed };
}

/** Where no row may be moved. */
export function refuseKeyUpdate(targets: readonly Node[] | undefined, table: ShardedTable): void {
  refuseIdUpdate(targets, table);
  for (const node of targets ?? []) {
    if ('ResTarget' in node && node.ResTarget.name === table.keyColumn) throw keyIsFixed(table);
  }
}

/** ON CONFLICT DO UPDATE: the row that EXCLUDED is in conflict with has its key, since each unique index has the key in it. */
export function refuseKeyUpdateOnConflict(targets: readonly Node[] | undefined, table: ShardedTable): void {
  const isExcluded = (value: Node | undefined) =>
    value !== undefined &&
    'ColumnRef' in value &&
    columnNamesOf(value.ColumnRef)?.join('.') === `excluded.${table.keyColumn}`;
  refuseIdUpdate(targets, table);
  const changes = targets?.filter((node) => !('ResTarget' in node && isExcluded(node.ResTarget.val)));
  refuseKeyUpdate(changes, table);
}

/** Leaves have neither the identity nor the default of a column whose ids the router supplies. */
function refuseIdUpdate(targets: readonly Node[] | undefined, table: ShardedTable): void {
  for (const node of targets ?? []) {
    if (!('ResTarget' in node)) continue;
    const { name, val } = node.ResTarget;
    const column = table.columns.find((one) => one.name === name);
    if (!column?.sequence || !val) continue;
    if ('SetToDefault' in val)
      throw notUnderstood(
        'UPDATE … SET of an id to DEFAULT',
        table,
        'Give it a value from SELECT nextval(…).',
      );
    if (column.identity !== 'always') continue;
    throw new PosternError({
      sqlState: '428C9',
      message: `column "${column.name}" can only be updated to DEFAULT`,
      detail: `Column "${column.name}" is an identity column defined as GENERATED ALWAYS.`,
    });
  }
}
