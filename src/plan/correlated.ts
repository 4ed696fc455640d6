/**
 * A scalar subquery that compares columns of its own with the outer row's, as a grouped table that the outer table is joined to:
 *
 *   … FROM part WHERE size < (SELECT 2 * avg(n) FROM lines WHERE lines.part = part.id AND lines.open)
 *   … FROM part LEFT JOIN (SELECT lines.part AS postern_k1, avg(n) AS postern_a1 FROM lines WHERE true AND lines.open GROUP BY 1)
 *       postern_d1 ON postern_d1.postern_k1 = part.id WHERE size < (SELECT 2 * postern_d1.postern_a1)
 *
 * PostgreSQL carries such a subquery out for each outer row, and over a mesh's tables each time asks every bucket
 * (docs/decisions/2026-11-23-correlated-subqueries-are-joined.md). Pure.
 *
 * Invariant: the answer is the same. Each outer row finds one group at most; one that finds none gets what the aggregate of no
 * rows is (NULL; count: 0). What isn't understood wholly is left as it is.
 */
import type { A_Expr, ColumnRef, FuncCall, Node, RangeVar, SelectStmt, SubLink } from '@pgsql/types';
import { stringsOf } from '../sql/facts.ts';
import { parseSql } from '../sql/parser.ts';
import { BYTE, closingParen, endOfName, isPunctuation, keywordOf, nextToken } from '../sql/scanner.ts';
import { functionName } from './calls.ts';

/** A column, as far as it matters here. */
export interface CorrelatedColumn {
  /** As format_type() prints it. */
  readonly type: string;
  readonly collation: string | null;
  /** An index begins with it: few rows have a given value. */
  readonly leadsIndex: boolean;
}

type Columns = ReadonlyMap<string, CorrelatedColumn>;
/** undefined: no table of that name, or several. */
export type ColumnsOf = (schema: string | undefined, name: string) => Columns | undefined;

interface Edit {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** A table in FROM. */
interface Item {
  readonly rangeVar: RangeVar;
  readonly name: string;
  readonly columns: Columns;
}

/** What is known of the text that is being rewritten. */
interface Work {
  readonly bytes: Buffer;
  readonly columnsOf: ColumnsOf;
  readonly ctes: ReadonlySet<string>;
  readonly edits: Edit[];
  derived: number;
}

type Tree = { readonly [key: string]: unknown };

const AGGREGATES = new Set(['sum', 'avg', 'min', 'max', 'count']);
/** Types whose values are grouped as `=` compares them. */
const COMPARABLE =
  /^(smallint|integer|bigint|numeric|text|character varying|character|date|uuid|boolean|bytea|timestamp with(out)? time zone|"?char"?)$/;
/** What a subquery that is taken apart may not have. */
const BARRIERS = [
  ...[
    'groupClause',
    'havingClause',
    'distinctClause',
    'sortClause',
    'limitCount',
    'limitOffset',
    'windowClause',
  ],
  ...['withClause', 'lockingClause', 'valuesLists', 'larg', 'intoClause'],
] as const;

/** The text with its correlated subqueries joined; the same text if there are none, or none that is understood. */
export function joinCorrelated(text: string, columnsOf: ColumnsOf): string {
  if (!MAY_HAVE_ONE.test(text)) return text;
  const parsed = parseSql(text);
  const [only, second] = parsed.kind === 'parsed' ? parsed.statements : [];
  if (!only || second) return text;
  const ctes = new Set<string>();
  walk(only.node as Tree, (kind, value) => {
    if (kind === 'CommonTableExpr') ctes.add(String(value.ctename));
    return true;
  });
  const work: Work = { bytes: Buffer.from(text), columnsOf, ctes, edits: [], derived: 0 };
  walk(only.node as Tree, (kind, value) => {
    if (kind === 'SelectStmt') joinIn(work, value as SelectStmt);
    return true;
  });
  if (work.edits.length === 0) return text;
  const joined = edited(work.bytes, work.edits);
  return parseSql(joined).kind === 'parsed' ? joined : text;
}

const MAY_HAVE_ONE = /\(\s*select\b[\s\S]*?\b(sum|avg|min|max|count)\s*\(/i;

function joinIn(work: Work, select: SelectStmt): void {
  if (!select.whereClause || !select.fromClause) return;
  const items = select.fromClause.map((node) => itemOf(work, node));
  if (!items.every((item) => item !== undefined)) return;
  // The grouped table's columns would be among them.
  if (select.targetList?.some(isStar)) return;
  // Few outer rows are found by an index: asking for each of them is cheaper than grouping a whole table.
  if (conjunctsOf(select.whereClause).some((node) => findsFew(node, items))) return;
  walk(select.whereClause as Tree, (kind, value) => {
    if (kind === 'SubLink') joinOne(work, value as SubLink, items);
    return kind !== 'SubLink' && kind !== 'SelectStmt';
  });
}

function joinOne(work: Work, link: SubLink, outer: readonly Item[]): void {
  const { bytes } = work;
  const select = link.subselect && 'SelectStmt' in link.subselect ? link.subselect.SelectStmt : undefined;
  if (link.subLinkType !== 'EXPR_SUBLINK' || !select?.whereClause || link.location === undefined) return;
  if (BARRIERS.some((field) => isGiven(select[field]))) return;
  const inner = select.fromClause?.length === 1 ? itemOf(work, select.fromClause[0]!) : undefined;
  const target = select.targetList?.length === 1 ? select.targetList[0] : undefined;
  if (!inner || !target) return;
  const matches: { readonly inner: string; readonly outer: string; readonly edit: Edit }[] = [];
  let joined: Item | undefined;
  for (const conjunct of conjunctsOf(select.whereClause)) {
    const match = matchOf(bytes, conjunct, inner, outer);
    if (!match) {
      if (!isOf(conjunct, inner)) return;
      continue;
    }
    if (joined && joined !== match.item) return;
    joined = match.item;
    matches.push(match);
  }
  const calls = aggregatesOf(target, inner);
  if (!joined || !calls || calls.length === 0) return;
  const first = nextToken(bytes, link.location);
  const open = link.location;
  if (!isPunctuation(bytes, first, BYTE.openParen)) return;
  const close = closingParen(bytes, open);
  const word = nextToken(bytes, open + 1);
  const from = fromOf(bytes, word.end, inner.rangeVar.location ?? 0);
  const end = endOfItem(bytes, joined.rangeVar);
  if (keywordOf(bytes, word) !== 'select' || from === undefined || end === undefined) return;
  const name = `postern_d${++work.derived}`;
  const list: string[] = matches.map((match, i) => `${match.inner} AS postern_k${i + 1}`);
  const replaced: Edit[] = [];
  for (const [i, call] of calls.entries()) {
    const start = call.location!;
    const nameEnd = endOfName(bytes, start, call.funcname!.length);
    if (nameEnd === undefined) return;
    const callEnd = closingParen(bytes, nextToken(bytes, nameEnd).start) + 1;
    list.push(`${bytes.toString('utf8', start, callEnd)} AS postern_a${i + 1}`);
    const value = `${name}.postern_a${i + 1}`;
    const text = functionName(call).name === 'count' ? `coalesce(${value}, 0)` : value;
    replaced.push({ start, end: callEnd, text });
  }
  const tail = edited(
    bytes,
    matches.map(({ edit }) => edit),
    inner.rangeVar.location,
    close,
  );
  const groups = matches.map((_, i) => i + 1).join(', ');
  const on = matches.map((match, i) => `${name}.postern_k${i + 1} = ${match.outer}`).join(' AND ');
  const derived = `(SELECT ${list.join(', ')} FROM ${tail} GROUP BY ${groups})`;
  work.edits.push(
    { start: end, end, text: ` LEFT JOIN ${derived} ${name} ON ${on}` },
    { start: open, end: close + 1, text: `(SELECT ${edited(bytes, replaced, word.end, from)})` },
  );
}

/** `mine = its`, or the other way around. */
function matchOf(bytes: Buffer, node: Node, inner: Item, outer: readonly Item[]) {
  if (!('A_Expr' in node) || !isEquality(node.A_Expr)) return undefined;
  const { lexpr, rexpr } = node.A_Expr;
  if (!lexpr || !rexpr || !('ColumnRef' in lexpr) || !('ColumnRef' in rexpr)) return undefined;
  const sides = [lexpr.ColumnRef, rexpr.ColumnRef];
  const mine = sides.findIndex((reference) => columnIn(reference, [inner]));
  const its = sides[1 - mine];
  if (mine < 0 || !its || columnIn(its, [inner])) return undefined;
  const [own, found] = [columnIn(sides[mine]!, [inner])!, columnIn(its, outer)];
  if (!found || !isAlike(own.column, found.column)) return undefined;
  const ranges = sides.map((reference) => rangeOf(bytes, reference));
  const [left, right] = ranges;
  if (!left || !right || bytes.toString('utf8', left.end, right.start).trim() !== '=') return undefined;
  const text = (range: { start: number; end: number }) => bytes.toString('utf8', range.start, range.end);
  return {
    ...{ item: found.item, inner: text(ranges[mine]!), outer: text(ranges[1 - mine]!) },
    edit: { start: left.start, end: right.end, text: 'true' },
  };
}

function isAlike(one: CorrelatedColumn, two: CorrelatedColumn): boolean {
  const [first, second] = [one, two].map(({ type }) => type.replace(/\(.*?\)/, ''));
  const integers = ['smallint', 'integer', 'bigint'];
  if (integers.includes(first!) && integers.includes(second!)) return true;
  return first === second && COMPARABLE.test(first!) && one.collation === two.collation;
}

/** It reads nothing but columns of the table, and calls nothing. */
function isOf(node: Node, inner: Item): boolean {
  let understood = true;
  walk({ node } as Tree, (kind, value) => {
    if (['SubLink', 'FuncCall', 'CollateClause', 'A_Indirection'].includes(kind)) understood = false;
    if (kind === 'ColumnRef' && !columnIn(value as ColumnRef, [inner])) understood = false;
    return understood && kind !== 'ColumnRef';
  });
  return understood;
}

/** Those of an expression that is made of nothing else but constants; undefined: it isn't. */
function aggregatesOf(target: Node, inner: Item): FuncCall[] | undefined {
  const calls: FuncCall[] = [];
  let understood = true;
  walk(target as Tree, (kind, value) => {
    if (['SubLink', 'ColumnRef', 'CollateClause', 'A_Indirection', 'WindowDef'].includes(kind))
      understood = false;
    if (kind !== 'FuncCall') return understood;
    const call = value as FuncCall;
    const { schema, name } = functionName(call);
    const [argument, second] = call.args ?? [];
    const isPlain =
      AGGREGATES.has(name) &&
      (schema === undefined || schema === 'pg_catalog') &&
      !second &&
      call.location !== undefined;
    const isBare =
      !call.agg_order && !call.agg_filter && !call.over && !call.func_variadic && !call.agg_within_group;
    const ofColumn =
      argument === undefined
        ? call.agg_star === true && name === 'count'
        : 'ColumnRef' in argument && columnIn(argument.ColumnRef, [inner]) !== undefined;
    if (isPlain && isBare && ofColumn) calls.push(call);
    else understood = false;
    return false;
  });
  return understood ? calls : undefined;
}

/** `column = value` or `column IN (values)`, of a column that an index begins with. */
function findsFew(node: Node, items: readonly Item[]): boolean {
  if (!('A_Expr' in node)) return false;
  const { kind, lexpr, rexpr } = node.A_Expr;
  if (!isEquality(node.A_Expr) && kind !== 'AEXPR_IN' && kind !== 'AEXPR_OP_ANY') return false;
  return [lexpr, rexpr].some((side, i) => {
    if (!side || !('ColumnRef' in side) || !columnIn(side.ColumnRef, items)?.column.leadsIndex) return false;
    let isValue = true;
    walk({ other: i === 0 ? rexpr : lexpr } as Tree, (name) => {
      if (name === 'ColumnRef') isValue = false;
      return isValue;
    });
    return isValue;
  });
}

function isEquality({ kind, name }: A_Expr): boolean {
  return kind === 'AEXPR_OP' && stringsOf(name)?.join('.') === '=';
}

function conjunctsOf(where: Node): readonly Node[] {
  return 'BoolExpr' in where && where.BoolExpr.boolop === 'AND_EXPR' ? (where.BoolExpr.args ?? []) : [where];
}

function itemOf({ columnsOf, ctes }: Work, node: Node): Item | undefined {
  if (!('RangeVar' in node)) return undefined;
  const rangeVar = node.RangeVar;
  const { schemaname, relname, alias } = rangeVar;
  if (relname === undefined || rangeVar.location === undefined || alias?.colnames) return undefined;
  if (schemaname === undefined && ctes.has(relname)) return undefined;
  const columns = columnsOf(schemaname, relname);
  return columns && { rangeVar, name: alias?.aliasname ?? relname, columns };
}

/** The one column that is meant. */
function columnIn(reference: ColumnRef, items: readonly Item[]) {
  const names = stringsOf(reference.fields);
  if (!names || names.length > 2) return undefined;
  const column = names.at(-1)!;
  const table = names.length === 2 ? names[0] : undefined;
  const found = items.filter(
    ({ name, columns }) => (table === undefined || name === table) && columns.has(column),
  );
  const [item, second] = found;
  return item && !second ? { item, column: item.columns.get(column)! } : undefined;
}

function rangeOf(bytes: Buffer, { location, fields }: ColumnRef) {
  const end = location === undefined ? undefined : endOfName(bytes, location, fields?.length ?? 0);
  return end === undefined ? undefined : { start: location!, end };
}

/** Behind the table's name and its alias. */
function endOfItem(
  bytes: Buffer,
  { location, schemaname, catalogname, alias }: RangeVar,
): number | undefined {
  const end = endOfName(bytes, location ?? 0, 1 + (schemaname ? 1 : 0) + (catalogname ? 1 : 0));
  if (end === undefined || !alias) return end;
  const next = nextToken(bytes, end);
  return keywordOf(bytes, next) === 'as' ? nextToken(bytes, next.end).end : next.end;
}

/** Where the word FROM stands, if the table stands behind it. */
function fromOf(bytes: Buffer, start: number, table: number): number | undefined {
  let last = start;
  for (let token = nextToken(bytes, start); token.start < table; token = nextToken(bytes, token.end)) {
    if (token.kind === 'end') return undefined;
    last = token.start;
  }
  return keywordOf(bytes, nextToken(bytes, last)) === 'from' ? last : undefined;
}

function edited(bytes: Buffer, edits: readonly Edit[], start = 0, end = bytes.length): string {
  const parts: string[] = [];
  let at = start;
  for (const edit of [...edits].sort((one, two) => one.start - two.start)) {
    parts.push(bytes.toString('utf8', at, edit.start), edit.text);
    at = edit.end;
  }
  return parts.join('') + bytes.toString('utf8', at, end);
}

function isStar(node: Node): boolean {
  let found = false;
  walk(node as Tree, (kind) => {
    if (kind === 'A_Star') found = true;
    return kind !== 'SubLink';
  });
  return found;
}

function isGiven(value: unknown): boolean {
  return Array.isArray(value) ? value.length > 0 : value !== undefined && value !== null;
}

/** Each node with its kind, the outer ones first; what is inside of it only if `visit` says so. */
function walk(tree: Tree, visit: (kind: string, value: Tree) => boolean): void {
  for (const [kind, value] of Object.entries(tree)) {
    if (typeof value !== 'object' || value === null) continue;
    const isNode = !Array.isArray(value) && /^[A-Z]/.test(kind);
    if (!isNode || visit(kind, value as Tree)) walk(value as Tree, visit);
  }
}
