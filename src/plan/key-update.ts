/** SET of the shard key: where it changes nothing, where the new key is known, and where it is refused. */
import type { Node, UpdateStmt } from '@pgsql/types';
import type { PosternError } from '../base/errors.ts';
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
  return { setsKey: newKeys.length > 0 || isNotKeyed !== undefined, newKeys, isNotKeyed };
}

/** Where no row may be moved. */
export function refuseKeyUpdate(targets: readonly Node[] | undefined, table: ShardedTable): void {
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
  const changes = targets?.filter((node) => !('ResTarget' in node && isExcluded(node.ResTarget.val)));
  refuseKeyUpdate(changes, table);
}
