/**
 * Where one execution of a query goes: the node, and for each statement the bucket and the ids that the router supplies.
 * First without waiting (chooseNow), and where that can't be told at once, with (choose).
 */

import type { Rows } from '../backend/internal-query.ts';
import { assert } from '../base/assert.ts';
import type { ClusterMap } from '../catalog/map.ts';
import { ASK_SERVER } from '../pg/hash/bucket.ts';
import type { LookupRead } from '../plan/lookup-reads.ts';
import type { QueryPlan, StatementPlan, SuppliedId } from '../plan/plan.ts';
import type { IdSupply } from './id-chooser.ts';
import { isMesh } from './mesh.ts';
import { askBucket, bucketOf, type Keyed, type KeyValues, SEVERAL } from './route.ts';

/** The statements of one query string belong to several nodes, or one of them does: each has to be carried out by itself. */
export class SeveralNodes extends Error {}

export interface StatementChoice {
  /** −1: not a keyed statement. */
  readonly bucket: number;
  readonly ids: readonly number[];
}

export interface Choice {
  /** undefined: any node will do. */
  readonly nodeId: number | undefined;
  readonly statements: readonly StatementChoice[];
}

export interface ChooseContext {
  readonly map: ClusterMap;
  /** Where a statement goes that reads nothing but reference tables. */
  readonly readingNodeId: () => number;
  /** Where the transaction has declared a cursor of this name; undefined: nowhere that is known. */
  readonly cursorNodeId: (name: string) => number | undefined;
  readonly ids: IdSupply;
  /** What the session knows of sequences: currval() and lastval(), and what its statements have been given. */
  readonly sequences: {
    valueOf(supplied: SuppliedId): number;
    noteSupplied(supplied: SuppliedId, id: number): void;
  };
  /** The bucket of the row that has these unique values, any one if there is none, or SEVERAL: that can't be told. */
  readonly findByLookup: (read: LookupRead, values: KeyValues) => Promise<number>;
  /** Runs a query with the client's settings. */
  readonly ask: (text: string) => Promise<Rows>;
}

const NOT_KEYED: StatementChoice = { bucket: -1, ids: [] };
const OF_SEVERAL: StatementChoice = { bucket: SEVERAL, ids: [] };
const NO_IDS: readonly number[] = [];
const ANYWHERE: Choice = { nodeId: undefined, statements: [] };

/** It goes to several buckets: execute/scatter.ts takes it apart. */
export const SCATTERED: Choice = { nodeId: undefined, statements: [] };

/** undefined: an id block or a server has to be waited for. */
export function chooseNow(
  plan: QueryPlan,
  bind: KeyValues['bind'],
  context: ChooseContext,
): Choice | undefined {
  const { statements } = plan;
  if (statements.length === 1) {
    // The usual case, without the arrays of the general one.
    const [statement] = statements;
    const { placement } = statement!;
    if (placement.kind === 'anywhere') return ANYWHERE;
    if (placement.kind === 'cursor')
      return { nodeId: context.cursorNodeId(placement.name), statements: [NOT_KEYED] };
    const choice = chooseOneNow(statement!, bind, context);
    if (!choice) return undefined;
    if (choice.bucket === SEVERAL) return SCATTERED;
    const nodeId = nodeOf(statement!, choice, context) ?? context.readingNodeId();
    return { nodeId, statements: [choice] };
  }
  const choices: StatementChoice[] = [];
  for (const statement of statements) {
    const choice = chooseOneNow(statement, bind, context);
    if (!choice) return undefined;
    choices.push(choice);
  }
  return { nodeId: commonNode(statements, choices, context), statements: choices };
}

export async function choose(
  plan: QueryPlan,
  bind: KeyValues['bind'],
  context: ChooseContext,
): Promise<Choice> {
  const choices: StatementChoice[] = [];
  for (const { placement, keepsLookups } of plan.statements) {
    if (placement.kind !== 'keyed' || keepsLookups) {
      choices.push(isOfSeveral(placement) || keepsLookups ? OF_SEVERAL : NOT_KEYED);
      continue;
    }
    choices.push(await chooseBucket(placement, bind, context));
  }
  if (plan.statements.length === 1 && choices[0]!.bucket === SEVERAL) return SCATTERED;
  return { nodeId: commonNode(plan.statements, choices, context), statements: choices };
}

function chooseOneNow(
  statement: StatementPlan,
  bind: KeyValues['bind'],
  context: ChooseContext,
): StatementChoice | undefined {
  const { placement } = statement;
  if (isOfSeveral(placement) || statement.keepsLookups) return OF_SEVERAL;
  if (placement.kind !== 'keyed') return NOT_KEYED;
  let ids = NO_IDS;
  if (placement.suppliedIds.length > 0) {
    const [only] = placement.suppliedIds;
    if (placement.suppliedIds.length > 1) return undefined;
    const id = isRead(only!) ? context.sequences.valueOf(only!) : context.ids.next(only!.table, only!.column);
    if (id === undefined) return undefined;
    context.sequences.noteSupplied(only!, id);
    ids = [id];
  }
  const bucket = bucketOf(placement, { bind, ids });
  return bucket === ASK_SERVER ? undefined : { bucket, ids };
}

const OF_SEVERAL_KINDS = new Set<StatementPlan['placement']['kind']>([
  ...(['scattered', 'referenceWrite', 'copy', 'everywhere', 'explain'] as const),
]);

/** Of a statement with one table's leaf; SEVERAL if its keys are of several buckets. */
export async function chooseBucket(
  placement: Keyed,
  bind: KeyValues['bind'],
  context: ChooseContext,
): Promise<StatementChoice> {
  if (placement.lookup)
    return { bucket: await context.findByLookup(placement.lookup, { bind, ids: NO_IDS }), ids: NO_IDS };
  const ids = await supplyIds(placement, context);
  let bucket = bucketOf(placement, { bind, ids });
  if (bucket === ASK_SERVER) bucket = await askBucket(placement, { bind, ids }, context.ask);
  return { bucket, ids };
}

/** Does it go to several nodes, whatever its values are? */
function isOfSeveral({ kind }: StatementPlan['placement']): boolean {
  return OF_SEVERAL_KINDS.has(kind);
}

/** Key ids all of one bucket; ids of other columns as they come. */
async function supplyIds({ table, suppliedIds }: Keyed, context: ChooseContext): Promise<number[]> {
  const ids: number[] = new Array(suppliedIds.length).fill(0);
  const isKey = (supplied: SuppliedId) => supplied.table === table && supplied.column === table.keyColumn;
  const keyAt = [...suppliedIds.keys()].filter((i) => !isRead(suppliedIds[i]!) && isKey(suppliedIds[i]!));
  if (keyAt.length > 0) {
    const keys = await context.ids.takeOfOneBucket(table, keyAt.length);
    for (const [k, i] of keyAt.entries()) ids[i] = keys[k]!;
  }
  for (const [i, supplied] of suppliedIds.entries()) {
    if (isRead(supplied)) ids[i] = context.sequences.valueOf(supplied);
    else if (!isKey(supplied)) [ids[i] = 0] = await context.ids.take(supplied.table, supplied.column, 1);
    context.sequences.noteSupplied(supplied, ids[i]!);
  }
  return ids;
}

function isRead({ call }: SuppliedId): boolean {
  return call === 'currval' || call === 'lastval';
}

function nodeOf(
  statement: StatementPlan,
  choice: StatementChoice,
  { map, cursorNodeId }: Pick<ChooseContext, 'map' | 'cursorNodeId'>,
): number | undefined {
  switch (statement.placement.kind) {
    case 'anywhere':
      return undefined;
    case 'cursor': {
      const nodeId = cursorNodeId(statement.placement.name);
      // By itself it is planned as one of the mesh's.
      if (isMesh(nodeId)) throw new SeveralNodes();
      return nodeId;
    }
    case 'node':
      return statement.placement.nodeId;
    case 'home':
      return map.homeNodeId;
    case 'reference':
      return undefined;
    case 'scattered':
    case 'referenceWrite':
    case 'copy':
    case 'everywhere':
    case 'explain':
      throw new SeveralNodes();
    case 'keyed': {
      if (choice.bucket === SEVERAL) throw new SeveralNodes();
      const place = statement.placement.table.buckets[choice.bucket];
      assert(place, 'a bucket has a place');
      return place.nodeId;
    }
  }
}

function commonNode(
  statements: readonly StatementPlan[],
  choices: readonly StatementChoice[],
  context: ChooseContext,
): number | undefined {
  let common: number | undefined;
  for (const [i, statement] of statements.entries()) {
    const node = nodeOf(statement, choices[i]!, context);
    if (node === undefined) continue;
    if (common !== undefined && common !== node) throw new SeveralNodes();
    common = node;
  }
  const reads = statements.some(({ placement }) => placement.kind === 'reference');
  return common ?? (reads ? context.readingNodeId() : undefined);
}
