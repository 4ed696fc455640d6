/** What is known of one execution of a statement over several buckets, and the sum of its pieces' command tags. */
import type { ShardedTable } from '../catalog/map.ts';
import type { Described } from '../execute/plan-cache.ts';
import type { QueryPlan, StatementPlan, SuppliedId } from '../plan/plan.ts';
import type { BindView } from '../wire/frontend.ts';
import type { ClientStatement } from './prepared-execution.ts';

/** A statement over several buckets with its values. */
export interface ScatteredPortal {
  readonly statement: ClientStatement;
  /** Of `buffer`, which is a copy of the Bind message. */
  readonly view: BindView;
  readonly buffer: Buffer;
  /** Executed: it has no rows that a second Execute could go on with. */
  done: boolean;
}

/** The parts of a statement that is carried out. */
export interface ScatteredRun {
  readonly plan: QueryPlan;
  readonly statement: StatementPlan;
  readonly table: ShardedTable;
  readonly described: Described;
  readonly portal: ScatteredPortal;
  readonly suppliedIds: readonly SuppliedId[];
}

/** `INSERT 0 3`, `UPDATE 3`: the rows counted together. */
export function summedTag(tags: readonly string[]): string {
  let sum = 0;
  for (const tag of tags) sum += countOf(tag);
  const [first = ''] = tags;
  return first.replace(/\d+$/, String(sum));
}

export function countOf(tag: string): number {
  return Number(/\d+$/.exec(tag)?.[0] ?? 0);
}
