/**
 * Text to plan: parses a query string and says of each statement where it goes, what it does to its session and what is put
 * into its text. Pure, given the map and the search_path; runs on misses of the plan cache only.
 *
 * Next on the way of a row: execute/choose.ts, which finds the bucket of a keyed plan.
 */
import type { Node, TransactionStmt } from '@pgsql/types';
import { notSupported, PosternError } from '../base/errors.ts';
import { COMMIT_SCHEMA, LEAF_SCHEMA } from '../catalog/map.ts';
import { collectFacts, type StatementFacts, stringsOf } from '../sql/facts.ts';
import { type ParsedStatement, parseSql } from '../sql/parser.ts';
import { functionName } from './calls.ts';
import { planDoBlock } from './do-block.ts';
import { planExplain } from './explain.ts';
import { shownEdits } from './introspection.ts';
import { placeInSchema } from './node-schemas.ts';
import type { QueryPlan, SessionEffect, StatementPlan, Uses } from './plan.ts';
import { ANYWHERE, type PlanParts, planQueryNode, planSelect, type Request } from './query.ts';
import { commitSchemaIsPrivate, dumpWouldLack, leafSchemaIsPrivate, snapshotOfOneNode } from './refusal.ts';
import type { PlanContext } from './resolve.ts';
import { roleChangesOf } from './role-passwords.ts';
import { sequenceUseOf } from './sequences.ts';
import { planNonQuery } from './statement-kinds.ts';
import { refuseUsesOfViews, withViews } from './views.ts';
import { writeFactsOf } from './write-facts.ts';

const NOTHING_SPECIAL: Omit<StatementPlan, 'start' | 'end'> = {
  placement: { kind: 'home' },
  effects: [],
  edits: [],
  readOnly: false,
  outsideTransaction: false,
  needsPinBefore: false,
  copy: undefined,
  unknownFunctions: [],
  uses: { names: [], writes: false },
  parameterCount: 0,
  command: undefined,
  write: undefined,
  refusal: undefined,
};

export function planQuery(text: string, context: PlanContext): QueryPlan {
  return planText(text, context, 0);
}

/** `depth`: how often views' queries have been put in. */
function planText(text: string, context: PlanContext, depth: number): QueryPlan {
  const parsed = parseSql(text);
  if (parsed.kind === 'syntaxError') return { text, statements: [], unparsed: true };
  if (parsed.kind === 'tooComplex') {
    const refusal = tooComplex(parsed.reason);
    const end = Buffer.byteLength(text);
    return { text, statements: [{ ...NOTHING_SPECIAL, start: 0, end, refusal }], unparsed: false };
  }
  const sql = Buffer.from(text);
  const statements: StatementPlan[] = [];
  const expanded = new Map<ParsedStatement, string>();
  let pathChanges = false;
  for (const statement of parsed.statements) {
    const plan = planStatement(statement, sql, context, pathChanges);
    statements.push(plan);
    if (!plan.refusal && !pathChanges) {
      const withoutViews = withViews({ ...statement, sql }, context);
      if (withoutViews !== undefined) expanded.set(statement, withoutViews);
    }
    pathChanges ||= plan.effects.some(changesSearchPath);
  }
  if (expanded.size === 0 || depth >= VIEW_DEPTH_MAX)
    return { text, statements, unparsed: false, roles: roleChangesOf(parsed.statements, sql) };
  const slice = (start: number, end: number) => sql.toString('utf8', start, end);
  let at = 0;
  let whole = '';
  for (const [{ start, end }, withoutViews] of expanded) {
    whole += slice(at, start) + withoutViews;
    at = end;
  }
  return planText(whole + slice(at, sql.length), context, depth + 1);
}

/** Views on views on views: PostgreSQL has no recursive ones. */
const VIEW_DEPTH_MAX = 64;

function planStatement(
  { node, start, end }: ParsedStatement,
  sql: Uint8Array,
  context: PlanContext,
  pathHasChanged: boolean,
): StatementPlan {
  let parameterCount = 0;
  try {
    const facts = collectFacts(node);
    parameterCount = facts.parameterCount;
    refusePrivateSchemas(facts, context);
    refuseSharedSnapshot(node, facts, context);
    if (pathHasChanged) refuseUnsurePath(facts, context);
    refuseUsesOfViews({ node, sql, start, end }, context);
    const request = { node, facts, context, sql, start, end };
    const planned = planNode(request);
    const parts = placeInSchema(request, planned) ?? planned;
    const effects = [...(parts.effects ?? []), ...unnamedEffects(facts)];
    const uses = usesOf(node, facts);
    const kind = parts.placement?.kind;
    const sequences =
      kind === 'keyed' || kind === 'scattered' ? undefined : sequenceUseOf({ node, facts, sql, context });
    const plan = { ...NOTHING_SPECIAL, uses, parameterCount, start, end, sequences, ...parts, effects };
    const shown = withShownCatalogs(plan, { node, facts, sql, context });
    if (shown) return shown;
    // What decides on sharing transactions is read on home.
    if (kind === 'node') return plan;
    return { ...plan, write: writeFactsOf({ node, facts, context, sql, end }, plan) };
  } catch (error) {
    const refusal = error instanceof RangeError ? tooComplex('it is too deeply nested') : error;
    if (!(refusal instanceof PosternError)) throw error;
    return { ...NOTHING_SPECIAL, start, end, parameterCount, refusal };
  }
}

/** The same plan, reading PostgreSQL's catalogs as users should see them; undefined: it reads none of them. */
function withShownCatalogs(
  plan: StatementPlan,
  { node, facts, sql, context }: Pick<Request, 'node' | 'facts' | 'sql' | 'context'>,
): StatementPlan | undefined {
  const { shown, searchPath } = context;
  if (!shown || plan.placement.kind !== 'home' || plan.command) return undefined;
  const edits = shownEdits({ node, facts, sql, searchPath, shown });
  if (edits.length === 0) return undefined;
  refusePartialDump(facts, context);
  return { ...plan, edits: [...plan.edits, ...edits].sort((one, other) => one.start - other.start) };
}

const WRITING_KINDS = ['InsertStmt', 'UpdateStmt', 'DeleteStmt', 'MergeStmt', 'LockingClause', 'IntoClause'];
/** Kinds that read, or carry a query that may only read. */
const READING_KINDS = ['SelectStmt', 'ExplainStmt', 'DeclareCursorStmt', 'PrepareStmt'];

function usesOf(node: Node, facts: StatementFacts): Uses {
  const names = new Set(facts.operators);
  for (const { relname } of facts.rangeVars) names.add(relname ?? '');
  for (const type of facts.typeNames) names.add(`type ${stringsOf(type.names)?.at(-1) ?? ''}`);
  const writes =
    WRITING_KINDS.some((kind) => facts.kinds.has(kind) || kind in node) ||
    !READING_KINDS.some((kind) => kind in node);
  return { names: [...names], writes };
}

function tooComplex(reason: string): PosternError {
  return new PosternError({
    sqlState: '54001',
    message: `the statement is too complex: ${reason}`,
    hint: 'Send less at once, and values as parameters.',
  });
}

function planNode(request: Request): PlanParts {
  const { node } = request;
  if ('SelectStmt' in node) return planSelect(node.SelectStmt, request);
  if ('InsertStmt' in node || 'UpdateStmt' in node || 'DeleteStmt' in node || 'MergeStmt' in node) {
    return planQueryNode(request);
  }
  if ('TransactionStmt' in node) return planTransaction(node.TransactionStmt);
  if ('ExplainStmt' in node) {
    const explained = planExplain(node.ExplainStmt, request, (text) => planQuery(text, request.context));
    if (explained) return explained;
  }
  if ('DoStmt' in node) {
    const wrapped = planDoBlock(node.DoStmt, (text) => planQuery(text, request.context));
    if (wrapped) return wrapped;
  }
  return planNonQuery(request);
}

/** What a statement does to the session by the relations that it names. */
function unnamedEffects(facts: StatementFacts): readonly SessionEffect[] {
  const effects: SessionEffect[] = [];
  const isTemporary = (name: string | undefined) => name !== undefined && /^pg_temp(_\d+)?$/.test(name);
  const named = [...facts.names].some(isTemporary);
  if (named || facts.rangeVars.some((rangeVar) => isTemporary(rangeVar.schemaname)))
    effects.push({ kind: 'pin', reason: 'temporary schema' });
  // A rule of that view calls set_config().
  const writes = facts.kinds.has('UpdateStmt');
  if (writes && facts.rangeVars.some(({ relname }) => relname === 'pg_settings'))
    effects.push({ kind: 'setMany' });
  return effects;
}

function refusePrivateSchemas(facts: StatementFacts, context: PlanContext): void {
  const onPath = context.searchPath.includes(LEAF_SCHEMA);
  for (const { schemaname, relname } of facts.rangeVars) {
    if (schemaname === LEAF_SCHEMA) throw leafSchemaIsPrivate(LEAF_SCHEMA);
    if (onPath && schemaname === undefined && /_b\d+_g\d+$/.test(relname ?? '')) {
      throw leafSchemaIsPrivate(LEAF_SCHEMA);
    }
  }
  if (facts.names.has(LEAF_SCHEMA)) throw leafSchemaIsPrivate(LEAF_SCHEMA);
  if (facts.names.has(COMMIT_SCHEMA)) throw commitSchemaIsPrivate(COMMIT_SCHEMA);
}

/** pg_dump's question for all schemas: what lives on another node is not in the home node's catalogs. */
function refusePartialDump(facts: StatementFacts, { map, searchPath }: PlanContext): void {
  if (searchPath.length > 0 || !facts.names.has('tableoid')) return;
  if (!facts.rangeVars.some(({ relname }) => relname === 'pg_namespace')) return;
  const [elsewhere] = [...map.schemas.values()].filter(
    ({ nodeId, relations }) => nodeId !== map.homeNodeId && relations.size > 0,
  );
  if (elsewhere) throw dumpWouldLack(elsewhere.name);
}

function refuseSharedSnapshot(node: Node, facts: StatementFacts, { map }: PlanContext): void {
  if (map.tablesByName.size === 0 || map.nodes.length === 1) return;
  const exports = facts.functionCalls.some((call) => functionName(call).name === 'pg_export_snapshot');
  const imports = 'VariableSetStmt' in node && node.VariableSetStmt.name === 'TRANSACTION SNAPSHOT';
  if (exports || imports) throw snapshotOfOneNode();
}

function changesSearchPath(effect: SessionEffect): boolean {
  switch (effect.kind) {
    case 'set':
      // A role changes what "$user" means.
      return effect.names.some((name) => ['search_path', 'role', 'session_authorization'].includes(name));
    case 'setMany':
    case 'resetAll':
    case 'discardAll':
      return true;
    default:
      return false;
  }
}

/** After SET search_path in the same query string an unqualified name can't be resolved here. */
function refuseUnsurePath(facts: StatementFacts, context: PlanContext): void {
  for (const { schemaname, relname } of facts.rangeVars) {
    const { tablesByName, viewsByName } = context.map;
    const name = relname ?? '';
    if (schemaname !== undefined || (!tablesByName.has(name) && !viewsByName.has(name))) continue;
    throw notSupported(
      `"${relname}" comes after a change of search_path in the same query string`,
      'Send the change of search_path in a message of its own, or qualify the table with its schema.',
    );
  }
}

function planTransaction(statement: TransactionStmt): PlanParts {
  // One that fails becomes a ROLLBACK (PostgreSQL documentation: PREPARE TRANSACTION).
  if (statement.kind === 'TRANS_STMT_PREPARE')
    return {
      placement: ANYWHERE,
      effects: [{ kind: 'rollback', chain: false }],
      refusal: preparedByClient(),
    };
  const effect = transactionEffect(statement);
  return { placement: ANYWHERE, effects: [effect] };
}

function transactionEffect(statement: TransactionStmt): SessionEffect {
  const chain = statement.chain === true;
  const name = statement.savepoint_name ?? '';
  switch (statement.kind) {
    case 'TRANS_STMT_BEGIN':
    case 'TRANS_STMT_START':
      return { kind: 'begin', readOnly: isReadOnly(statement.options ?? []) };
    case 'TRANS_STMT_COMMIT':
      return { kind: 'commit', chain };
    case 'TRANS_STMT_ROLLBACK':
      return { kind: 'rollback', chain };
    case 'TRANS_STMT_SAVEPOINT':
      return { kind: 'savepoint', name };
    case 'TRANS_STMT_RELEASE':
      return { kind: 'releaseSavepoint', name };
    case 'TRANS_STMT_ROLLBACK_TO':
      return { kind: 'rollbackToSavepoint', name };
    default:
      throw preparedByClient();
  }
}

function preparedByClient(): PosternError {
  return notSupported(
    'prepared transactions are not supported for clients',
    'Postern uses them itself: end the transaction with COMMIT or ROLLBACK.',
  );
}

function isReadOnly(options: readonly Node[]): boolean {
  let readOnly = false;
  for (const node of options) {
    if (!('DefElem' in node) || node.DefElem.defname !== 'transaction_read_only') continue;
    const argument = node.DefElem.arg;
    readOnly = argument !== undefined && 'A_Const' in argument && argument.A_Const.ival?.ival === 1;
  }
  return readOnly;
}
