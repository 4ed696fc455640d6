/**
 * One branch for each kind of statement that is not a query: what it does to its session, and what of it is refused or done
 * by the router. Kinds that are not named here are DDL of the home node.
 */
import type {
  CopyStmt,
  CreateStmt,
  CreateTableAsStmt,
  ExplainStmt,
  Node,
  RangeVar,
  RenameStmt,
} from '@pgsql/types';
import { functionName, inspectCalls } from './calls.ts';
import { planCopy } from './copy.ts';
import { planDdlOverNodes } from './ddl/ddl.ts';
import { planAlterDoor, planDoorTable } from './door-ddl.ts';
import { posternOptions, readDoorOptions } from './door-options.ts';
import { planLock } from './lock-table.ts';
import { planCursorOverNodes } from './mesh.ts';
import type { SessionEffect } from './plan.ts';
import { ANYWHERE, creationEffects, type PlanParts, planQueryNode, type Request } from './query.ts';
import { planTruncateOfReferences, refuseChangeOfReference } from './reference-ddl.ts';
import { notUnderstood } from './refusal.ts';
import { planDiscard, planSet } from './settings.ts';
import {
  planDrop,
  refuseIfAnySharded,
  refuseName,
  refuseShadowing,
  refuseShardedBody,
  refuseShardedNames,
} from './utility.ts';

const DDL: readonly SessionEffect[] = [{ kind: 'ddl' }];
const OUTSIDE: PlanParts = { outsideTransaction: true, effects: DDL };
/** DECLARE … WITH HOLD in nodes/parsenodes.h. */
const CURSOR_OPT_HOLD = 0x20;

export function planNonQuery(request: Request): PlanParts {
  return planSessionStatement(request) ?? planQueryCarrier(request) ?? planDdl(request);
}

/** Statements about the session itself; undefined for all others. */
function planSessionStatement({ node, facts }: Request): PlanParts | undefined {
  if ('VariableSetStmt' in node) {
    const statement = node.VariableSetStmt;
    const effects = [planSet(statement)];
    // A snapshot is one of a node.
    return statement.name === 'TRANSACTION SNAPSHOT' ? { effects } : { placement: ANYWHERE, effects };
  }
  if ('VariableShowStmt' in node) return { placement: ANYWHERE, readOnly: true };
  if ('DiscardStmt' in node) {
    const effect = planDiscard(node.DiscardStmt);
    return { effects: effect ? [effect] : [] };
  }
  if ('ConstraintsSetStmt' in node && facts.rangeVars.length === 0) {
    const deferred = node.ConstraintsSetStmt.deferred === true;
    return { placement: ANYWHERE, effects: [{ kind: 'constraints', deferred }] };
  }
  if ('FetchStmt' in node) return { placement: { kind: 'cursor', name: node.FetchStmt.portalname ?? '' } };
  if ('ClosePortalStmt' in node) {
    const name = node.ClosePortalStmt.portalname;
    return {
      placement: name === undefined ? ANYWHERE : { kind: 'cursor', name },
      effects: [{ kind: 'closeCursor', name }],
    };
  }
  if ('ListenStmt' in node)
    return { effects: [{ kind: 'listen', channel: node.ListenStmt.conditionname ?? '' }] };
  if ('UnlistenStmt' in node)
    return { effects: [{ kind: 'unlisten', channel: node.UnlistenStmt.conditionname }] };
  if ('CheckPointStmt' in node) return {};
  if ('NotifyStmt' in node) return { effects: [{ kind: 'notify' }] };
  if ('LoadStmt' in node) return { effects: [{ kind: 'pin', reason: 'LOAD' }] };
  if ('DeallocateStmt' in node) return { effects: [{ kind: 'sqlPrepare' }] };
  return undefined;
}

/** Statements that carry a query, a body or arguments; undefined for all others. */
function planQueryCarrier(request: Request): PlanParts | undefined {
  const { node, facts, context } = request;
  if ('ExplainStmt' in node) return planExplain(node.ExplainStmt, request);
  if ('DeclareCursorStmt' in node) {
    const { query, options, portalname = '' } = node.DeclareCursorStmt;
    if (!query) return undefined;
    const inner = { ...request, node: query };
    const read = planCursorOverNodes(planQueryNode(inner), inner, inspectCalls(facts.functionCalls), options);
    const parts = read.isOverNodes ? read.parts : ofOneBucket(read.parts, 'DECLARE CURSOR');
    const hold = ((options ?? 0) & CURSOR_OPT_HOLD) !== 0;
    const effects: SessionEffect[] = [...(parts.effects ?? [])];
    if (hold) effects.push({ kind: 'pin', reason: 'cursor WITH HOLD' });
    effects.push({ kind: 'declareCursor', name: portalname, hold });
    return { ...parts, effects, readOnly: false };
  }
  const calls = () => {
    const { effects, unknownFunctions, needsPinBefore } = inspectCalls(facts.functionCalls);
    return { effects, unknownFunctions, needsPinBefore };
  };
  if ('PrepareStmt' in node) {
    refuseShardedNames('PrepareStmt', facts, context, undefined);
    const parts = calls();
    return { ...parts, effects: [...parts.effects, { kind: 'sqlPrepare' }] };
  }
  if ('ExecuteStmt' in node) {
    const parts = calls();
    return { ...parts, effects: [...parts.effects, { kind: 'sqlPrepare' }] };
  }
  if ('CopyStmt' in node) {
    const copy = planCopy({ ...request, node });
    if (copy) return copy;
    return { ...calls(), copy: copyDirection(node.CopyStmt) };
  }
  if ('CallStmt' in node) {
    const { schema, name } = functionName(node.CallStmt.funccall ?? {});
    const parts = calls();
    const procedure = schema === undefined ? name : `${schema}.${name}`;
    const unknownFunctions = [...new Set([...parts.unknownFunctions, procedure])];
    return { ...parts, unknownFunctions, outsideTransaction: true };
  }
  if ('DoStmt' in node) {
    refuseShardedBody('DoStmt', facts, context);
    return { unknownFunctions: ['do'], outsideTransaction: true };
  }
  if ('CreateTableAsStmt' in node) return { ...calls(), ...planCreateAs(node.CreateTableAsStmt, request) };
  return undefined;
}

/** Of anything but a query; for those see explain.ts. */
function planExplain(statement: ExplainStmt, request: Request): PlanParts {
  const inner = statement.query;
  const runs = (statement.options ?? []).some(
    (node) => 'DefElem' in node && node.DefElem.defname === 'analyze',
  );
  refuseShardedNames('ExplainStmt', request.facts, request.context, undefined);
  if (inner && 'ExecuteStmt' in inner) return { effects: [{ kind: 'sqlPrepare' }] };
  return { effects: runs ? DDL : [], readOnly: !runs };
}

/** A statement around a query can't be taken apart as the query can. */
function ofOneBucket(parts: PlanParts, what: string): PlanParts {
  const { placement } = parts;
  // The home node has a copy to plan with; if it were to be carried out there alone, the copy's guard would refuse it.
  if (placement?.kind === 'referenceWrite') return { ...parts, placement: { kind: 'home' } };
  if (placement?.kind === 'scattered')
    throw notUnderstood(`${what} over several buckets`, placement.table, 'Name one value of the shard key.');
  return placement?.kind === 'keyed' ? { ...parts, placement: { ...placement, several: undefined } } : parts;
}

function copyDirection(statement: CopyStmt): 'in' | 'out' | undefined {
  if (statement.filename !== undefined || statement.is_program) return undefined;
  return statement.is_from ? 'in' : 'out';
}

function planCreateAs(statement: CreateTableAsStmt, { facts, context }: Request): PlanParts {
  const created = statement.into?.rel;
  refuseShardedNames('CreateTableAsStmt', facts, context, created);
  if (!created) return { effects: DDL };
  refuseShadowing(created, context);
  return { effects: [...inspectCalls(facts.functionCalls).effects, ...creationEffects(created)] };
}

function planDdl(request: Request): PlanParts {
  const { node, facts, context, sql } = request;
  if ('CreateStmt' in node) return planCreateTable(node.CreateStmt, request);
  if ('AlterTableStmt' in node) {
    const command = planAlterDoor(node.AlterTableStmt, sql, context);
    if (command) return { command, effects: DDL };
  }
  const overNodes = planDdlOverNodes(request);
  if (overNodes) return overNodes;
  if ('DropStmt' in node) {
    refuseChangeOfReference(node, context);
    const command = planDrop(node.DropStmt, facts, context);
    return { command, effects: DDL, outsideTransaction: node.DropStmt.concurrent === true };
  }
  if ('TruncateStmt' in node) {
    const placement = planTruncateOfReferences(node.TruncateStmt, context);
    return placement ? { placement } : {};
  }
  const lock = 'LockStmt' in node ? planLock(node.LockStmt, request) : undefined;
  if (lock) return lock;
  refuseChangeOfReference(node, context);
  const [kind] = Object.keys(node);
  const created = createdRelation(node);
  refuseShardedNames(kind ?? '', facts, context, created);
  if (created) refuseShadowing(created, context);
  refuseByKind(request);
  if (mustRunAlone(node)) return OUTSIDE;
  if ('LockStmt' in node || 'VacuumStmt' in node) return {};
  return { effects: created ? creationEffects(created) : DDL };
}

function planCreateTable(statement: CreateStmt, { facts, context, sql, start, end }: Request): PlanParts {
  const created = statement.relation;
  // What a sharded table references is judged where it is made.
  const referenced = isSharded(statement) ? referencedBy(statement) : [];
  const others = facts.rangeVars.filter((rangeVar) => !referenced.includes(rangeVar));
  refuseShardedNames('CreateStmt', { ...facts, rangeVars: others }, context, created);
  refuseChangeOfReference({ CreateStmt: statement }, context);
  const door = planDoorTable(statement, sql, { start, end }, context);
  if (door?.command?.kind === 'createShardedTable') return { command: door.command, effects: DDL };
  if (!created) return { effects: DDL };
  refuseShadowing(created, context);
  if (door?.command) return { command: door.command, effects: DDL };
  return { effects: creationEffects(created), edits: door?.edits ?? [] };
}

function isSharded({ options }: CreateStmt): boolean {
  const own = posternOptions(options);
  return own.length > 0 && readDoorOptions(own).door === 'sharded';
}

/** The tables of its foreign keys. */
function referencedBy({ tableElts }: CreateStmt): RangeVar[] {
  return (tableElts ?? []).flatMap((element) => {
    const constraints = 'ColumnDef' in element ? (element.ColumnDef.constraints ?? []) : [element];
    return constraints.flatMap((one) =>
      'Constraint' in one && one.Constraint.pktable ? [one.Constraint.pktable] : [],
    );
  });
}

/** The relation that the statement makes, for the kinds that make one. */
function createdRelation(node: Node): RangeVar | undefined {
  if ('ViewStmt' in node) return node.ViewStmt.view;
  if ('CreateSeqStmt' in node) return node.CreateSeqStmt.sequence;
  if ('CreateForeignTableStmt' in node) return node.CreateForeignTableStmt.base?.relation;
  if ('CompositeTypeStmt' in node) return node.CompositeTypeStmt.typevar;
  return undefined;
}

function refuseByKind({ node, facts, context }: Request): void {
  if ('CreateFunctionStmt' in node) refuseShardedBody('CreateFunctionStmt', facts, context);
  else if ('RenameStmt' in node) refuseRename(node.RenameStmt, { facts, context });
  else if ('AlterObjectSchemaStmt' in node) {
    refuseName(node.AlterObjectSchemaStmt.relation?.relname ?? '', context);
  } else if ('DropOwnedStmt' in node) refuseIfAnySharded('DROP OWNED', context);
  else if ('ReassignOwnedStmt' in node) refuseIfAnySharded('REASSIGN OWNED', context);
}

const RELATION_KINDS = new Set<string>([
  'OBJECT_TABLE',
  'OBJECT_VIEW',
  'OBJECT_MATVIEW',
  'OBJECT_SEQUENCE',
  'OBJECT_FOREIGN_TABLE',
  'OBJECT_TYPE',
]);

function refuseRename(statement: RenameStmt, { context }: Pick<Request, 'facts' | 'context'>): void {
  const kind = statement.renameType ?? '';
  if (RELATION_KINDS.has(kind)) refuseName(statement.newname ?? '', context);
}

function mustRunAlone(node: Node): boolean {
  if ('VacuumStmt' in node) return node.VacuumStmt.is_vacuumcmd === true;
  if ('IndexStmt' in node) return node.IndexStmt.concurrent === true;
  if ('ClusterStmt' in node) return node.ClusterStmt.relation === undefined;
  if ('ReindexStmt' in node) {
    const { kind, params } = node.ReindexStmt;
    const whole = kind !== 'REINDEX_OBJECT_TABLE' && kind !== 'REINDEX_OBJECT_INDEX';
    return whole || (params ?? []).some((p) => 'DefElem' in p && p.DefElem.defname === 'concurrently');
  }
  if ('AlterTableStmt' in node) {
    return (node.AlterTableStmt.cmds ?? []).some((command) => {
      const def = 'AlterTableCmd' in command ? command.AlterTableCmd.def : undefined;
      return def !== undefined && 'PartitionCmd' in def && def.PartitionCmd.concurrent === true;
    });
  }
  return ALONE.some((kind) => kind in node);
}

const ALONE = [
  'CreatedbStmt',
  'DropdbStmt',
  'AlterDatabaseStmt',
  'AlterSystemStmt',
  'CreateTableSpaceStmt',
  'DropTableSpaceStmt',
  'CreateSubscriptionStmt',
  'AlterSubscriptionStmt',
  'DropSubscriptionStmt',
];
