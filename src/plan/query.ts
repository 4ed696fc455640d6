/**
 * SELECT, INSERT, UPDATE, DELETE and MERGE: keyed, on the home node, or anywhere; and what may be done with them if a
 * connection dies.
 */
import type { Node, RangeVar, SelectStmt } from '@pgsql/types';
import { notSupported } from '../base/errors.ts';
import type { StatementFacts } from '../sql/facts.ts';
import { type CallFacts, functionName, inspectCalls } from './calls.ts';
import { doorFunctionOf, planDoorFunction } from './door-ddl.ts';
import { plainTypeName } from './key-source.ts';
import { keepsLookups, refuseConflictOffKey } from './lookups.ts';
import { planNamed } from './mesh.ts';
import type { Placement, SessionEffect, StatementPlan } from './plan.ts';
import { readsReferencesOnly } from './reference-read.ts';
import { planReferenceWrite } from './reference-write.ts';
import { notUnderstood } from './refusal.ts';
import { type PlanContext, resolveRangeVar } from './resolve.ts';
import { refuseCallsOnLeaves } from './sequences.ts';
import { refuseShadowing } from './utility.ts';

/** What a planner of one kind of statement says; the rest is as in `NOTHING_SPECIAL`. */
export type PlanParts = Partial<Omit<StatementPlan, 'start' | 'end'>>;

/** A statement on its way through the planner. */
export interface Request {
  readonly node: Node;
  readonly facts: StatementFacts;
  readonly context: PlanContext;
  /** The whole query string in UTF-8. */
  readonly sql: Uint8Array;
  readonly start: number;
  readonly end: number;
}

const HOME: Placement = { kind: 'home' };
export const ANYWHERE: Placement = { kind: 'anywhere' };

export function planSelect(select: SelectStmt, request: Request): PlanParts {
  const call = request.facts.functionCalls.find((candidate) => doorFunctionOf(candidate) !== undefined);
  if (!call) return planQueryNode(request, { byLookup: true });
  return { command: planDoorFunction(select, call), effects: [{ kind: 'ddl' }] };
}

/** SELECT, INSERT, UPDATE, DELETE, MERGE; also those inside EXPLAIN and DECLARE CURSOR. `byLookup`: it may go by a unique constraint. */
export function planQueryNode(request: Request, mayGo = { byLookup: false }): PlanParts {
  const { node, facts, context } = request;
  if (facts.functionCalls.some((call) => doorFunctionOf(call) !== undefined)) {
    throw notSupported('a table cannot be sharded inside another statement', 'Call the function alone.');
  }
  const calls = inspectCalls(facts.functionCalls);
  const { effects, unknownFunctions, needsPinBefore } = calls;
  const written = planReferenceWrite(request);
  if (written) return { placement: written, effects, unknownFunctions, needsPinBefore };
  const named = facts.rangeVars.find((rangeVar) => resolveRangeVar(context, rangeVar));
  const keyed = named ? planNamed(request, calls) : undefined;
  const isSelect = 'SelectStmt' in node;
  if (keyed) {
    const { placement } = keyed;
    const table = placement.kind === 'keyed' || placement.kind === 'scattered' ? placement.table : undefined;
    const copies = placement.kind === 'scattered' && placement.scatter.kind === 'copy';
    if (table && !copies) refuseCallsOnLeaves(facts, request.sql, keyed.edits);
    if (table && placement.kind === 'scattered' && (effects.length > 0 || (copies && needsPinBefore))) {
      const hint = 'Send it for one bucket at a time, or call the function by itself.';
      throw notUnderstood('a function that leaves state in the session', table, hint);
    }
    if (table && facts.kinds.has('IntoClause')) {
      throw notUnderstood('SELECT INTO', table, 'Create the table first, read the rows, then INSERT them.');
    }
    const readOnly = isSelect && onlyReads(facts, calls);
    const keeps = keepsLookups(node, facts, context);
    if (keeps) refuseConflictOffKey(node, context);
    const { edits, byLookup } = keyed;
    const place = mayGo.byLookup && readOnly && byLookup ? byLookup : placement;
    return {
      placement: place,
      edits,
      effects,
      unknownFunctions,
      readOnly,
      ...(keeps && { keepsLookups: true }),
    };
  }
  const into = isSelect ? node.SelectStmt.intoClause?.rel : undefined;
  if (into) {
    refuseShadowing(into, context);
    return { effects: [...effects, ...creationEffects(into)], unknownFunctions, needsPinBefore };
  }
  const notifies = facts.functionCalls.some((call) => functionName(call).name === 'pg_notify');
  return {
    placement: isSelect ? placeOfSelect(request, calls) : HOME,
    effects: notifies ? [...effects, { kind: 'notify' }] : effects,
    unknownFunctions,
    needsPinBefore,
    readOnly: isSelect && onlyReads(facts, calls),
  };
}

const WRITING_KINDS = ['InsertStmt', 'UpdateStmt', 'DeleteStmt', 'MergeStmt', 'LockingClause', 'IntoClause'];

function onlyReads(facts: StatementFacts, calls: CallFacts): boolean {
  if (calls.writes || calls.unknownFunctions.length > 0 || calls.effects.length > 0) return false;
  return !WRITING_KINDS.some((kind) => facts.kinds.has(kind));
}

/** Types whose names need no catalog of the user's; reg* types look names up in it. */
const COMMON_TYPES = new Set(
  (
    'bool bytea char name int2 int4 int8 text oid float4 float8 numeric money bpchar varchar date time timetz timestamp ' +
    'timestamptz interval uuid json jsonb xml bit varbit inet cidr macaddr point tsvector tsquery'
  ).split(' '),
);

function placeOfSelect({ node, facts, context }: Request, calls: CallFacts): Placement {
  if (!fitsAnyNode(facts, calls)) return HOME;
  if (facts.rangeVars.length === 0) return ANYWHERE;
  return readsReferencesOnly(node, facts, context) && onlyReads(facts, calls) ? { kind: 'reference' } : HOME;
}

function fitsAnyNode(facts: StatementFacts, calls: CallFacts): boolean {
  if (calls.needsHome || calls.unknownFunctions.length > 0) return false;
  return facts.typeNames.every((type) => {
    // Modifiers and arrays don't matter here.
    const { typmods: _typmods, arrayBounds: _arrayBounds, ...plain } = type;
    return COMMON_TYPES.has(plainTypeName(plain) ?? '');
  });
}

/** A new relation: temporary ones live in their session. */
export function creationEffects(created: RangeVar): SessionEffect[] {
  return created.relpersistence === 't' ? [{ kind: 'pin', reason: 'temporary table' }] : [{ kind: 'ddl' }];
}
