/**
 * What a condition says about shard keys: `key = value`, `key IN (values)`, `(key, a) = (value, b)` and `key = other key`
 * among its top-level AND parts.
 *
 * Invariant: a slot gets a source only if every row that satisfies the condition has a key among its sources.
 */
import type { A_Expr, Node } from '@pgsql/types';
import { stringsOf } from '../sql/facts.ts';
import { limitByConjunct } from './key-limits.ts';
import { keySourceOf } from './key-source.ts';
import { equateColumn } from './lookup-reads.ts';
import { type KeyReference, keyReferenceOf, type Scope, type Slot } from './scope.ts';

type MayBind = (slot: Slot) => boolean;

interface BindOutcome {
  /** A key was compared with something that is not a source: for the hint. */
  comparedWithExpression: boolean;
}

export function bindByCondition(condition: Node | undefined, scope: Scope, mayBind: MayBind): BindOutcome {
  const outcome: BindOutcome = { comparedWithExpression: false };
  if (condition) bindConjunct(condition, scope, mayBind, outcome);
  return outcome;
}

function bindConjunct(node: Node, scope: Scope, mayBind: MayBind, outcome: BindOutcome): void {
  if ('BoolExpr' in node) {
    if (node.BoolExpr.boolop !== 'AND_EXPR') return;
    for (const part of node.BoolExpr.args ?? []) bindConjunct(part, scope, mayBind, outcome);
    return;
  }
  if (!('A_Expr' in node)) return;
  if (!isEquality(node.A_Expr)) {
    limitByConjunct(node.A_Expr, scope, mayBind);
    return;
  }
  const { kind, lexpr, rexpr } = node.A_Expr;
  if (kind === 'AEXPR_IN') bindIn(lexpr, rexpr, scope, mayBind, outcome);
  else if (kind === 'AEXPR_OP_ANY' && elementsOf(rexpr))
    bindIn(lexpr, elementsOf(rexpr), scope, mayBind, outcome);
  else if (kind === 'AEXPR_OP') bindEquality(lexpr, rexpr, scope, mayBind, outcome);
  else if (keyReferenceOf(lexpr, scope)) outcome.comparedWithExpression = true;
}

function isEquality(expression: A_Expr): boolean {
  const name = stringsOf(expression.name);
  if (name?.at(-1) !== '=') return false;
  return name.length === 1 || (name.length === 2 && name[0] === 'pg_catalog');
}

/** The elements of ARRAY[…] as a list; undefined: it is another array. */
function elementsOf(array: Node | undefined): Node | undefined {
  if (!array || !('A_ArrayExpr' in array)) return undefined;
  const { elements } = array.A_ArrayExpr;
  return elements && elements.length > 0 ? { List: { items: elements } } : undefined;
}

function bindIn(
  left: Node | undefined,
  right: Node | undefined,
  scope: Scope,
  mayBind: MayBind,
  outcome: BindOutcome,
): void {
  const key = keyReferenceOf(left, scope);
  if (!key || !right || !('List' in right)) return;
  for (const slot of key.slots) {
    if (!mayBind(slot)) continue;
    const sources = (right.List.items ?? []).map((item) => keySourceOf(item, slot.table.keyType));
    if (sources.every((source) => source !== undefined)) slot.sources.push(...sources);
    else outcome.comparedWithExpression = true;
  }
}

function bindEquality(
  left: Node | undefined,
  right: Node | undefined,
  scope: Scope,
  mayBind: MayBind,
  outcome: BindOutcome,
): void {
  if (left && right && 'RowExpr' in left && 'RowExpr' in right) {
    const leftParts = left.RowExpr.args ?? [];
    const rightParts = right.RowExpr.args ?? [];
    if (leftParts.length !== rightParts.length) return;
    for (const [index, part] of leftParts.entries()) {
      bindEquality(part, rightParts[index], scope, mayBind, outcome);
    }
    return;
  }
  equateColumn(left, right, scope, mayBind);
  const leftKey = keyReferenceOf(left, scope);
  const rightKey = keyReferenceOf(right, scope);
  if (leftKey && rightKey) {
    bindToKey(leftKey, rightKey, mayBind);
    bindToKey(rightKey, leftKey, mayBind);
  } else if (leftKey) bindToValue(leftKey, right, mayBind, outcome);
  else if (rightKey) bindToValue(rightKey, left, mayBind, outcome);
}

function bindToValue(
  key: KeyReference,
  value: Node | undefined,
  mayBind: MayBind,
  outcome: BindOutcome,
): void {
  for (const slot of key.slots) {
    if (!mayBind(slot)) continue;
    const source = keySourceOf(value, slot.table.keyType);
    if (source) slot.sources.push(source);
    else outcome.comparedWithExpression = true;
  }
}

/** A merged column may hold another item's value, so it binds nothing. */
function bindToKey(target: KeyReference, source: KeyReference, mayBind: MayBind): void {
  const [from] = source.slots;
  if (!from || source.merged) return;
  for (const slot of target.slots) if (slot !== from && mayBind(slot)) slot.equalTo.push(from);
}

/** JOIN … USING (column); `left` and `right` are the uses whose own column the merged one is. */
export function bindByUsing(join: {
  column: string;
  left: readonly Slot[];
  right: readonly Slot[];
  bindLeft: boolean;
  bindRight: boolean;
}): void {
  for (const left of join.left) {
    if (left.keyName !== join.column) continue;
    for (const right of join.right) {
      if (right.keyName !== join.column) continue;
      if (join.bindLeft) left.equalTo.push(right);
      if (join.bindRight) right.equalTo.push(left);
    }
  }
}

/** Whether a chain of equalities leads from the slot to a value. */
export function slotIsBound(slot: Slot): boolean {
  const seen = new Set<Slot>([slot]);
  for (const current of seen) {
    if (current.sources.length > 0) return true;
    for (const next of current.equalTo) seen.add(next);
  }
  return false;
}
