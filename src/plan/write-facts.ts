/**
 * Which single-statement writes may be merged with others into one transaction as far as their text tells
 * (coalesce/SPEC.md, "Who may be a member"). What it can't tell, because it is in the server's catalogs (triggers, defaults,
 * a user's functions and operators with the names of built-in ones), is asked by execute/write-facts.ts.
 *
 * Invariant: a statement that reads another relation, or calls a function by a name that is not PostgreSQL's own and
 * harmless, has no WriteFacts.
 */
import type { FuncCall, InsertStmt, Node, SelectStmt, UpdateStmt } from '@pgsql/types';
import { BUILTIN_FUNCTIONS, WRITING_BUILTIN_FUNCTIONS } from '../sql/builtin-functions.ts';
import { type StatementFacts, stringsOf } from '../sql/facts.ts';
import { BYTE, closingParen, endOfName, isPunctuation, keywordOf, nextToken } from '../sql/scanner.ts';
import { functionName } from './calls.ts';
import type { StatementPlan, WriteFacts } from './plan.ts';
import { type PlanContext, resolveRangeVar } from './resolve.ts';

interface WriteRequest {
  readonly node: Node;
  readonly facts: StatementFacts;
  readonly context: PlanContext;
  readonly sql: Uint8Array;
  /** Where the statement ends in `sql`. */
  readonly end: number;
}

/** `plan`: the rest of the statement's plan. Undefined: the statement has to have its transaction to itself. */
export function writeFactsOf(
  request: WriteRequest,
  plan: Omit<StatementPlan, 'write'>,
): WriteFacts | undefined {
  const { node, facts, context } = request;
  const write = targetOf(node);
  if (!write?.rangeVar) return undefined;
  if (plan.refusal || plan.command || plan.outsideTransaction || plan.copy || plan.needsPinBefore) {
    return undefined;
  }
  if (plan.placement.kind === 'scattered' || plan.placement.kind === 'referenceWrite') return undefined;
  if (plan.effects.length > 0 || plan.unknownFunctions.length > 0) return undefined;
  if (facts.rangeVars.length !== 1 || facts.kinds.has('SubLink') || facts.kinds.has('CurrentOfExpr')) {
    return undefined;
  }
  if (!facts.functionCalls.every(isHarmlessCall)) return undefined;
  const rows = 'InsertStmt' in node ? valuesRows(node.InsertStmt) : [];
  if (!rows) return undefined;
  const names = new Set<string>();
  collectNames(node, names);
  const rowParameters = new Set<number>();
  collectRowParameters(write.where, rowParameters);
  const [row] = rows;
  const mergeable = rows.length === 1 && !write.onConflict && row!.every(isPlainValue);
  const range = mergeable && 'InsertStmt' in node ? rangeOfRow(node.InsertStmt, request) : undefined;
  return {
    kind: write.kind,
    schema: write.rangeVar.schemaname,
    name: write.rangeVar.relname ?? '',
    table: plan.placement.kind === 'keyed' ? resolveRangeVar(context, write.rangeVar) : undefined,
    returning: write.returning,
    onConflict: write.onConflict,
    multiRow: rows.length > 1,
    rowParameters: [...rowParameters],
    names: [...names],
    valuesOnly: range !== undefined,
    updatesByKey: 'UpdateStmt' in node && isUpdateByKey(node.UpdateStmt),
    valuesStart: range?.start ?? -1,
    valuesEnd: range?.end ?? -1,
  };
}

/** A write of one relation without WITH, FROM or USING; undefined for anything else. */
function targetOf(node: Node) {
  if ('InsertStmt' in node) {
    const { relation, withClause, returningClause, onConflictClause } = node.InsertStmt;
    if (withClause) return undefined;
    return {
      kind: 'insert',
      rangeVar: relation,
      where: undefined,
      returning: returningClause !== undefined,
      onConflict: onConflictClause !== undefined,
    } as const;
  }
  if ('UpdateStmt' in node) {
    const { relation, withClause, fromClause, whereClause, returningClause } = node.UpdateStmt;
    if (withClause || fromClause) return undefined;
    const returning = returningClause !== undefined;
    return { kind: 'update', rangeVar: relation, where: whereClause, returning, onConflict: false } as const;
  }
  if ('DeleteStmt' in node) {
    const { relation, withClause, usingClause, whereClause, returningClause } = node.DeleteStmt;
    if (withClause || usingClause) return undefined;
    const returning = returningClause !== undefined;
    return { kind: 'delete', rangeVar: relation, where: whereClause, returning, onConflict: false } as const;
  }
  return undefined;
}

/** Those would hold everybody else of the batch up, or answer by what others of the batch did, or by how they were sent. */
const NOT_BESIDE_OTHERS = new Set([
  'pg_sleep',
  'pg_sleep_for',
  'pg_sleep_until',
  'currval',
  'lastval',
  'current_query',
]);

/**
 * Whether a call by this name leaves nothing behind but what the statement itself writes. nextval does, but a sequence
 * takes no part in transactions. pg_notify does not: PostgreSQL drops a message that is sent twice in one transaction.
 */
export function isHarmlessCall(call: FuncCall): boolean {
  const { schema, name } = functionName(call);
  if (schema !== undefined || !BUILTIN_FUNCTIONS.has(name) || NOT_BESIDE_OTHERS.has(name)) return false;
  return !WRITING_BUILTIN_FUNCTIONS.has(name) || name === 'nextval';
}

/** The rows of VALUES, none for DEFAULT VALUES; undefined for a query. */
function valuesRows(insert: InsertStmt): Node[][] | undefined {
  if (!insert.selectStmt) return [];
  if (!('SelectStmt' in insert.selectStmt)) return undefined;
  const select: SelectStmt = insert.selectStmt.SelectStmt;
  if (!select.valuesLists || select.withClause || select.sortClause || select.lockingClause) return undefined;
  if (select.limitCount || select.limitOffset) return undefined;
  return select.valuesLists.map((row) => ('List' in row ? (row.List.items ?? []) : []));
}

/**
 * Functions that give one value for each row wherever they stand. Not a list of what is harmless: a function that returns a
 * set is accepted by PostgreSQL in the only row of VALUES (and makes several of it), and refused where there are more rows.
 */
const ONE_VALUE_EACH = new Set(
  (
    'now transaction_timestamp statement_timestamp clock_timestamp gen_random_uuid nextval lower upper md5 abs round floor ' +
    'ceil length concat concat_ws btrim ltrim rtrim replace substring left right encode decode date_trunc to_timestamp ' +
    'to_date to_char to_json to_jsonb json_build_object jsonb_build_object json_build_array jsonb_build_array ' +
    'make_date make_interval make_timestamptz timezone'
  ).split(' '),
);

/** A value of VALUES that means the same when other rows stand beside it. */
function isPlainValue(node: Node): boolean {
  if ('SetToDefault' in node || 'A_Const' in node || 'ParamRef' in node || 'SQLValueFunction' in node) {
    return true;
  }
  if ('TypeCast' in node) return node.TypeCast.arg !== undefined && isPlainValue(node.TypeCast.arg);
  if ('CoalesceExpr' in node) return (node.CoalesceExpr.args ?? []).every(isPlainValue);
  if (!('FuncCall' in node)) return false;
  const { name } = functionName(node.FuncCall);
  return ONE_VALUE_EACH.has(name) && (node.FuncCall.args ?? []).every(isPlainValue);
}

/** The bytes of `(…)`; undefined if it is not where it usually is: VALUES in parentheses, names with odd escapes. */
function rangeOfRow(
  insert: InsertStmt,
  { sql, end }: WriteRequest,
): { start: number; end: number } | undefined {
  const { location, catalogname, schemaname, alias } = insert.relation ?? {};
  if (location === undefined) return undefined;
  let at = endOfName(sql, location, (catalogname ? 1 : 0) + (schemaname ? 1 : 0) + 1);
  if (at === undefined) return undefined;
  // AS alias
  if (alias) at = nextToken(sql, nextToken(sql, at).end).end;
  for (;;) {
    const token = nextToken(sql, at);
    if (token.kind === 'end' || token.start >= end) return undefined;
    if (keywordOf(sql, token) === 'values') {
      const open = nextToken(sql, token.end);
      if (!isPunctuation(sql, open, BYTE.openParen)) return undefined;
      return { start: open.start, end: closingParen(sql, open.start) + 1 };
    }
    at = isPunctuation(sql, token, BYTE.openParen) ? closingParen(sql, token.start) + 1 : token.end;
  }
}

/** `column = $n`, either way round, among the conditions that every row has to meet. */
function collectRowParameters(condition: Node | undefined, found: Set<number>): void {
  if (!condition) return;
  if ('BoolExpr' in condition) {
    if (condition.BoolExpr.boolop !== 'AND_EXPR') return;
    for (const part of condition.BoolExpr.args ?? []) collectRowParameters(part, found);
    return;
  }
  if (!('A_Expr' in condition)) return;
  const { kind, name, lexpr, rexpr } = condition.A_Expr;
  if (kind !== 'AEXPR_OP' || stringsOf(name)?.at(-1) !== '=' || !lexpr || !rexpr) return;
  const number = isColumn(lexpr) ? parameterOf(rexpr) : isColumn(rexpr) ? parameterOf(lexpr) : undefined;
  if (number) found.add(number - 1);
}

/** These change with every UPDATE, whatever it sets. */
const SYSTEM_COLUMNS = new Set(['ctid', 'xmin', 'xmax', 'cmin', 'cmax', 'tableoid']);

function isUpdateByKey({ relation, whereClause, targetList, returningClause }: UpdateStmt): boolean {
  const compared = new Set<string>();
  if (!whereClause || returningClause || !collectComparedColumns(whereClause, compared)) return false;
  // The table's own name is the whole row, if no column has it: that changes with each of them.
  if (compared.has(relation?.alias?.aliasname ?? relation?.relname ?? '')) return false;
  return (targetList ?? []).every(
    (target) => 'ResTarget' in target && !compared.has(target.ResTarget.name ?? ''),
  );
}

/** False: the condition has to do with more than columns that are equal to parameters. */
function collectComparedColumns(condition: Node, found: Set<string>): boolean {
  if ('BoolExpr' in condition) {
    const { boolop, args } = condition.BoolExpr;
    return boolop === 'AND_EXPR' && (args ?? []).every((part) => collectComparedColumns(part, found));
  }
  if (!('A_Expr' in condition)) return false;
  const { kind, name, lexpr, rexpr } = condition.A_Expr;
  if (kind !== 'AEXPR_OP' || stringsOf(name)?.join('.') !== '=' || !lexpr || !rexpr) return false;
  const column = 'ColumnRef' in lexpr ? lexpr : rexpr;
  if (!('ColumnRef' in column) || !parameterOf(column === lexpr ? rexpr : lexpr)) return false;
  const path = stringsOf(column.ColumnRef.fields);
  const last = path?.at(-1);
  // `t.f` may be a function of the whole row.
  if (!path || last === undefined || (path.length > 1 && BUILTIN_FUNCTIONS.has(last))) return false;
  if (SYSTEM_COLUMNS.has(last)) return false;
  found.add(last);
  return true;
}

function isColumn(node: Node): boolean {
  return 'TypeCast' in node
    ? node.TypeCast.arg !== undefined && isColumn(node.TypeCast.arg)
    : 'ColumnRef' in node;
}

function parameterOf(node: Node): number | undefined {
  if ('ParamRef' in node) return node.ParamRef.number;
  return 'TypeCast' in node && node.TypeCast.arg ? parameterOf(node.TypeCast.arg) : undefined;
}

/** Comparisons that PostgreSQL makes without an operator in the text. */
const IMPLIED: Readonly<Record<string, readonly string[]>> = {
  CaseExpr: ['='],
  MinMaxExpr: ['<'],
  RowExpr: ['=', '<', '>', '<=', '>='],
};

function collectNames(tree: object, names: Set<string>): void {
  for (const [key, value] of Object.entries(tree)) {
    if (typeof value !== 'object' || value === null) continue;
    switch (key) {
      case 'FuncCall':
        addLast(value.funcname, '', names);
        break;
      case 'A_Expr':
        addLast(value.name, '', names);
        // BETWEEN names none of the operators that it stands for.
        if (String(value.kind).includes('BETWEEN'))
          for (const operator of ['<', '<=', '>', '>=']) names.add(operator);
        break;
      case 'ColumnRef':
        // `t.f` means f(t) where t has no column f; `f` alone never does.
        if (value.fields?.length > 1) addLast(value.fields, '.', names);
        break;
      case 'A_Indirection':
        for (const step of value.indirection ?? []) addLast([step], '.', names);
        break;
      case 'typeName':
        addLast(value.names, 'type ', names);
        break;
      default:
        for (const operator of IMPLIED[key] ?? []) names.add(operator);
    }
    collectNames(value, names);
  }
}

function addLast(parts: readonly unknown[] | undefined, prefix: string, names: Set<string>): void {
  const last = stringsOf(parts?.slice(-1))?.[0];
  if (last !== undefined) names.add(prefix + last);
}
