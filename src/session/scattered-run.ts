/** What is known of one execution of a statement over several buckets, and the sum of its pieces' command tags. */
import { notSupported } from '../base/errors.ts';
import type { ShardedTable } from '../catalog/map.ts';
import type { Described } from '../execute/plan-cache.ts';
import type { Placement, QueryPlan, StatementPlan, SuppliedId } from '../plan/plan.ts';
import type { Scatter } from '../plan/scatter.ts';
import type { BindView } from '../wire/frontend.ts';
import type { ClientStatement } from './prepared-execution.ts';

/** A statement over several buckets with its values. */
export interface ScatteredPortal {
  readonly statement: ClientStatement;
  /** Of `buffer`, which is a copy of the Bind message. */
  readonly view: BindView;
  readonly buffer: Buffer;
  /** The command tag, once it has been executed to its end: it has no rows that a second Execute could go on with. */
  done: string | false;
  /** Of an EXPLAIN that is read in portions. */
  rowsLeft?: Buffer[];
  /** Set while a connection is held for it. */
  release?: () => Promise<void>;
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

/** Throws 0A000 for what has to be carried out as a whole. */
export function runInPortions(statement: StatementPlan, portal: ScatteredPortal): ScatteredRun {
  const { plan } = portal.statement.cached;
  const { placement } = statement;
  const scatter =
    placement.kind === 'scattered' || placement.kind === 'keyed' ? scatterOf(placement) : undefined;
  const isRead = statement.readOnly && (scatter?.scatter.kind === 'read' || scatter?.scatter.kind === 'mesh');
  if (!isRead || (scatter.scatter.kind === 'mesh' && scatter.scatter.cursor !== undefined))
    throw notSupported(
      'this statement over several buckets cannot be executed with a limit of rows',
      'Set no fetch size for it, or use LIMIT.',
    );
  const { table, suppliedIds } = scatter;
  return { plan, statement, table, described: portal.statement.described!, portal, suppliedIds };
}

export function scatterOf(placement: Placement): {
  scatter: Scatter;
  table: ShardedTable;
  suppliedIds: readonly SuppliedId[];
} {
  if (placement.kind === 'scattered') return placement;
  if (placement.kind !== 'keyed' || !placement.several)
    throw notSupported('the statement is of one bucket', 'This is a bug in Postern.');
  const { several, table, suppliedIds } = placement;
  return { scatter: several, table, suppliedIds };
}
