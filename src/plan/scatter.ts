/**
 * How a statement over several buckets is taken apart. Plans say what is done; execute/scatter.ts makes the pieces when the
 * values are known, session/pieces.ts runs them.
 *
 * Invariant: a statement is given a Scatter only if its pieces together do what the statement does on one table that holds
 * all rows; where that can't be told from the text, it is refused.
 */
import type { ShardedTable } from '../catalog/map.ts';
import type { KeyScope } from './key-limits.ts';
import type { ScatterMesh } from './mesh.ts';
import type { KeySource } from './plan.ts';
import type { ScatterRead } from './scatter-read.ts';
import type { TextPart } from './scatter-text.ts';

export type Scatter = ScatterLeaves | ScatterRows | ScatterCopy | ScatterMove | ScatterRead | ScatterMesh;

/**
 * The whole statement, once for each bucket, with that bucket's leaves put in by the plan's edits: results concatenated,
 * counts summed.
 */
export interface ScatterLeaves {
  readonly kind: 'leaves';
  readonly keys: KeyScope;
}

/** INSERT … VALUES: for each bucket an INSERT of the rows that belong there. */
export interface ScatterRows {
  readonly kind: 'rows';
  readonly head: readonly TextPart[];
  /** In the order of the text. */
  readonly rows: readonly PlacedRow[];
  readonly tail: readonly TextPart[];
}

export interface PlacedRow {
  readonly key: KeySource;
  /** With the parentheses. */
  readonly parts: readonly TextPart[];
}

/** INSERT … SELECT across buckets: the query's rows are read, and inserted in batches. */
export interface ScatterCopy {
  readonly kind: 'copy';
  /** A query by itself; its $n are the client's. */
  readonly sourceText: string;
  /** From 1-based character positions in it to those in the client's text: where it stands there, in characters. */
  readonly sourceAt: number | undefined;
  /** The columns that it gives, in order; undefined: the table's first ones. */
  readonly columns: readonly string[] | undefined;
  /** Indexes of columns whose values have no type of their own but the target's. */
  readonly untyped: readonly number[];
  readonly target: RowTarget;
}

/** An UPDATE that sets the shard key: rows are deleted where they are, and inserted where they belong. */
export interface ScatterMove {
  readonly kind: 'move';
  readonly keys: KeyScope;
  /** DELETE … WHERE; what it returns is the rows as they are to be, column by column. */
  readonly source: readonly TextPart[];
  /** What columns are called there. */
  readonly alias: string;
  /** What the statement sets; undefined: DEFAULT. */
  readonly assigned: ReadonlyMap<string, readonly TextPart[] | undefined>;
  /** Columns that are set to a bare literal or parameter, whose type is the column's. */
  readonly untyped: ReadonlySet<string>;
  readonly target: RowTarget;
}

/** Where rows go that were read before. */
export interface RowTarget {
  readonly table: ShardedTable;
  readonly alias: string;
  /** ON CONFLICT DO UPDATE, which must not change a row twice: all rows go in one batch. */
  readonly atOnce: boolean;
  /** ON CONFLICT, RETURNING. */
  readonly tail: readonly TextPart[];
}

/** One row of VALUES: a byte range of the whole query string. */
export interface RowOfValues {
  readonly start: number;
  readonly end: number;
  readonly key: KeySource;
}

/** Where a statement over several buckets goes. */
export interface ScatteredPlacement {
  readonly kind: 'scattered';
  /** The table whose buckets they are; all sharded tables of the statement are colocated with it. */
  readonly table: ShardedTable;
  readonly scatter: Scatter;
  /** Columns whose values the router supplies: the plan's edits of kind 'id' count in this list. */
  readonly suppliedIds: readonly { readonly table: ShardedTable; readonly column: string }[];
}
