/** The CTEs of a statement, as the analysis of keyed statements knows them. */
import type { Slot } from './scope.ts';

/** Names of CTEs that are visible, innermost first. */
export interface VisibleCte {
  readonly name: string;
  readonly outer: VisibleCte | undefined;
  readonly cte: Cte;
}

export interface Cte {
  /** Uses of sharded tables, of whose rows each row of it is one; empty if it is something else. */
  roots: readonly Slot[];
  /** Are there sharded tables in it? */
  isSharded: boolean;
  references: number;
}

export function visibleCte(ctes: VisibleCte | undefined, name: string): Cte | undefined {
  for (let visible = ctes; visible; visible = visible.outer) if (visible.name === name) return visible.cte;
  return undefined;
}
