/**
 * From a plan and its values to pieces: the statements that go to single nodes. Pieces come in the order of nodes and
 * buckets, the same for every statement, so that two statements that lock many rows lock buckets in one order.
 */
import { assert } from '../base/assert.ts';
import type { ShardedTable } from '../catalog/map.ts';
import type { QueryPlan } from '../plan/plan.ts';
import { rewriteQuery, type StatementBinding, textOfReplacement } from '../plan/rewrite.ts';
import type { ScatterRows } from '../plan/scatter.ts';
import type { ScatterRead } from '../plan/scatter-read.ts';
import { type AssembledText, assemble, characterAt, type TextPart } from '../plan/scatter-text.ts';
import { unionOfLeaves } from './merge.ts';

/** One statement for one node. */
export interface Piece {
  readonly nodeId: number;
  /** Whose leaves it names, to tell errors in the user's names; −1: none. */
  readonly table: ShardedTable;
  readonly bucket: number;
  readonly text: string;
  /** The client's parameters that it uses, in order; undefined: all of them. */
  readonly parameters: readonly number[] | undefined;
  /** The same text will be sent again for other values. */
  readonly recurs: boolean;
  /** 1-based character position in `text` → in the client's text. */
  readonly mapPosition: (position: number) => number;
  /** Indexes of the statement's rows that it inserts, in its order. */
  readonly rows: readonly number[] | undefined;
}

/** The whole statement for each of these buckets. */
export function piecesOfLeaves(plan: QueryPlan, table: ShardedTable, buckets: readonly number[]): Piece[] {
  return inOrder(table, buckets).map((bucket) => {
    const { text, mapPosition } = rewriteQuery(plan, [{ bucket, ids: [] }], 'literal');
    const nodeId = nodeOf(table, bucket);
    return {
      ...{ nodeId, table, bucket, text, mapPosition },
      ...{ parameters: undefined, recurs: true, rows: undefined },
    };
  });
}

/** An INSERT for each bucket that rows go to. `buckets`: of each row. */
export function piecesOfRows(
  plan: QueryPlan,
  scatter: ScatterRows,
  values: {
    readonly table: ShardedTable;
    readonly buckets: readonly number[];
    readonly ids: readonly number[];
  },
): Piece[] {
  const { table, buckets, ids } = values;
  const rowsByBucket = new Map<number, number[]>();
  for (const [row, bucket] of buckets.entries()) {
    const rows = rowsByBucket.get(bucket);
    if (rows) rows.push(row);
    else rowsByBucket.set(bucket, [row]);
  }
  return inOrder(table, [...rowsByBucket.keys()]).map((bucket) => {
    const rows = rowsByBucket.get(bucket)!;
    const parts = [...scatter.head];
    for (const [i, row] of rows.entries()) {
      if (i > 0) parts.push(COMMA);
      parts.push(...scatter.rows[row]!.parts);
    }
    parts.push(...scatter.tail);
    return { ...pieceOfParts(plan, parts, { table, binding: { bucket, ids } }), rows };
  });
}

/** A query that needs no merging, as parts: of each node, or of each bucket. */
export function piecesOfRead(
  plan: QueryPlan,
  read: ScatterRead,
  where: { readonly table: ShardedTable; readonly buckets: readonly number[] },
) {
  const { table, buckets } = where;
  const groups =
    read.unit === 'bucket' ? buckets.map((bucket) => [bucket]) : [...bucketsByNode(table, buckets).values()];
  return groups.map((own) => {
    const [bucket] = own as [number];
    const assembled = assemble(read.text, (replacement) =>
      read.unit === 'node'
        ? unionOfLeaves(replacement, own)
        : textOfReplacement(replacement, { bucket, ids: [] }),
    );
    return {
      ...{ nodeId: nodeOf(table, bucket), text: assembled.text, parameters: assembled.parameters },
      leaf: { table, bucket, buckets: own, mapPosition: positionMapper(plan, assembled) },
    };
  });
}

/** One statement made of parts of the client's. */
function pieceOfParts(
  plan: QueryPlan,
  parts: readonly TextPart[],
  where: { readonly table: ShardedTable; readonly binding: StatementBinding },
): Piece {
  const { table, binding } = where;
  const assembled = assemble(parts, (replacement) => textOfReplacement(replacement, binding));
  return {
    ...{ nodeId: nodeOf(table, binding.bucket), table, bucket: binding.bucket, text: assembled.text },
    ...{ parameters: assembled.parameters, recurs: false, rows: undefined },
    mapPosition: positionMapper(plan, assembled),
  };
}

/** Positions that the client's text does not have are told as its first one. */
export function positionMapper(plan: QueryPlan, { offsetOf }: AssembledText): (position: number) => number {
  return (position) => characterAt(plan.text, offsetOf(position) ?? 0);
}

function bucketsByNode(table: ShardedTable, buckets: readonly number[]): ReadonlyMap<number, number[]> {
  const byNode = new Map<number, number[]>();
  for (const bucket of buckets) {
    const nodeId = nodeOf(table, bucket);
    const own = byNode.get(nodeId);
    if (own) own.push(bucket);
    else byNode.set(nodeId, [bucket]);
  }
  return byNode;
}

const COMMA: TextPart = { kind: 'text', text: ', ', at: -1 };

export function nodeOf(table: ShardedTable, bucket: number): number {
  const place = table.buckets[bucket];
  assert(place, 'a bucket has a place');
  return place.nodeId;
}

/** All buckets of the table, or these, each once. */
export function inOrder(table: ShardedTable, buckets: readonly number[] | undefined): number[] {
  const distinct = buckets ? [...new Set(buckets)] : table.buckets.map((_, bucket) => bucket);
  return distinct.sort((a, b) => nodeOf(table, a) - nodeOf(table, b) || a - b);
}
