/**
 * What a condition says about the range of a shard key (`k >= 5`, `k BETWEEN $1 AND $2`), for tables that are sharded by range: buckets
 * that no such key is in need not be visited.
 *
 * Invariant: each row that satisfies the condition has a key within the limits.
 */
import type { A_Expr, Node } from '@pgsql/types';
import { stringsOf } from '../sql/facts.ts';
import { keySourceOf } from './key-source.ts';
import type { KeySource } from './plan.ts';
import { keyReferenceOf, type Scope, type Slot } from './scope.ts';

export type KeyComparison = '<' | '<=' | '>=' | '>';

/** `key <comparison> value` */
export interface KeyLimit {
  readonly comparison: KeyComparison;
  readonly value: KeySource;
}

/** The buckets that a statement may have to do with: those of these keys, or of keys within limits; undefined: all. */
export type KeyScope = readonly KeySource[] | { readonly limits: readonly KeyLimit[] } | undefined;

const TURNED: Readonly<Record<KeyComparison, KeyComparison>> = { '<': '>', '<=': '>=', '>=': '<=', '>': '<' };

/** One of the top-level AND parts of a condition. */
export function limitByConjunct(node: A_Expr, scope: Scope, mayBind: (slot: Slot) => boolean): void {
  const { kind, lexpr, rexpr } = node;
  if (kind === 'AEXPR_BETWEEN') {
    const [low, high] = rexpr && 'List' in rexpr ? (rexpr.List.items ?? []) : [];
    limit(lexpr, '>=', low, scope, mayBind);
    limit(lexpr, '<=', high, scope, mayBind);
    return;
  }
  const comparison = comparisonOf(node);
  if (kind !== 'AEXPR_OP' || !comparison) return;
  limit(lexpr, comparison, rexpr, scope, mayBind);
  limit(rexpr, TURNED[comparison], lexpr, scope, mayBind);
}

function comparisonOf(expression: A_Expr): KeyComparison | undefined {
  const name = stringsOf(expression.name);
  const operator = name?.at(-1);
  if (!name || name.length > 2 || (name.length === 2 && name[0] !== 'pg_catalog')) return undefined;
  return operator === '<' || operator === '<=' || operator === '>=' || operator === '>'
    ? operator
    : undefined;
}

function limit(
  left: Node | undefined,
  comparison: KeyComparison,
  right: Node | undefined,
  scope: Scope,
  mayBind: (slot: Slot) => boolean,
): void {
  for (const slot of keyReferenceOf(left, scope)?.slots ?? []) {
    if (slot.table.placement.method !== 'range' || !mayBind(slot)) continue;
    const value = keySourceOf(right, slot.table.keyType);
    if (value) slot.limits.push({ comparison, value });
  }
}

/** What is known of the key of this use of a table, by its own conditions and those of uses whose key it equals. */
export function keyScopeOf(root: Slot): KeyScope {
  const seen = new Set<Slot>([root]);
  const limits: KeyLimit[] = [];
  for (const current of seen) {
    if (current.sources.length > 0) return current.sources;
    limits.push(...current.limits);
    for (const next of current.equalTo) seen.add(next);
  }
  return limits.length > 0 ? { limits } : undefined;
}
