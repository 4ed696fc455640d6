/**
 * INSERT … VALUES into a sharded table: where each row's shard key comes from, which ids the router has to supply, and the
 * edits that put them into the text.
 *
 * Invariant: one SuppliedId per row and sequence column that the row leaves out or gives as DEFAULT, and one per call of nextval(),
 * currval() or lastval() in a row, in the order of the text.
 */
import type { FuncCall, InsertStmt, Node, SelectStmt } from '@pgsql/types';
import { notSupported, PosternError } from '../base/errors.ts';
import type { ShardedTable } from '../catalog/map.ts';
import { quoteIdentifier } from '../pg/identifier.ts';
import { BYTE, closingParen, isPunctuation, keywordOf, nextToken } from '../sql/scanner.ts';
import { keySourceOf } from './key-source.ts';
import type { Edit, KeySource, SuppliedId } from './plan.ts';
import { nameOf, notUnderstood } from './refusal.ts';
import type { PlanContext } from './resolve.ts';
import type { RowOfValues } from './scatter.ts';
import { namedSequence, rangeOfCall, sequenceCallsIn, sequenceFunctionOf } from './sequences.ts';

/** What grows while a statement is analysed. */
export interface InsertOutput {
  readonly edits: Edit[];
  readonly suppliedIds: SuppliedId[];
  /** Of the target: one per row. */
  readonly sources: KeySource[];
  /** Filled if there are several. */
  readonly rows: RowOfValues[];
}

export interface InsertTarget {
  readonly table: ShardedTable;
  readonly statement: InsertStmt;
  readonly sql: Uint8Array;
  /** Where the table's name ends in the text. */
  readonly nameEnd: number;
  readonly context: PlanContext;
}

const DEFAULT_KEYWORD_BYTES = 'DEFAULT'.length;

export function planInsert(target: InsertTarget, output: InsertOutput): void {
  const { statement, table } = target;
  if (!statement.selectStmt) {
    planDefaultValues(target, output);
    return;
  }
  const rows = valuesRows(statement.selectStmt);
  if (!rows) {
    throw notUnderstood('INSERT … SELECT', table, 'Read the rows first, then INSERT … VALUES.');
  }
  const columns = insertColumns(table, statement, rows[0]?.length ?? 0);
  const missing = table.columns.filter((column) => column.sequence && !columns.includes(column.name));
  if (!columns.includes(table.keyColumn) && !missing.some((column) => column.name === table.keyColumn)) {
    throw keyMissing(table);
  }
  const listEnd = missing.length > 0 ? placeColumns(target, columns, missing, output) : afterColumns(target);
  const overridden = statement.override === 'OVERRIDING_USER_VALUE';
  const ranges =
    missing.length > 0 || rows.length > 1 || overridden ? rangesOfRows(target, listEnd, rows.length) : [];
  for (const [index, row] of rows.entries()) {
    const range = ranges[index];
    planRow(target, columns, { values: row, start: range?.start ?? -1 }, output);
    if (!range) continue;
    const rowEnd = range.end - 1;
    for (const column of missing) {
      output.edits.push({ start: rowEnd, end: rowEnd, replacement: { kind: 'text', text: ', ' } });
      supplyId(table, column.name, rowEnd, rowEnd, output);
    }
    const key = output.sources[index];
    if (key && rows.length > 1) output.rows.push({ ...range, key });
  }
}

/** The rows of a plain VALUES; undefined for a SELECT, or a VALUES with clauses of its own. */
function valuesRows(node: Node): Node[][] | undefined {
  if (!('SelectStmt' in node)) return undefined;
  const select: SelectStmt = node.SelectStmt;
  if (!select.valuesLists || select.withClause || select.sortClause || select.limitCount) return undefined;
  if (select.limitOffset || select.lockingClause) return undefined;
  return select.valuesLists.map((row) => ('List' in row ? (row.List.items ?? []) : []));
}

/** The names of the columns that the rows give, in order; without a column list, the first `count` of the table. */
export function insertColumns(table: ShardedTable, statement: InsertStmt, count: number): string[] {
  if (!statement.cols) return table.columns.slice(0, count).map((column) => column.name);
  return statement.cols.map((node) => {
    if (!('ResTarget' in node)) return '';
    const { name, indirection } = node.ResTarget;
    if (indirection && name === table.keyColumn) throw keyIsExpression(table);
    return name ?? '';
  });
}

/** `start`: of its parenthesis; read only if identity columns take no value of the user's. */
interface RowText {
  readonly values: readonly Node[];
  readonly start: number;
}

function planRow(target: InsertTarget, columns: readonly string[], row: RowText, output: InsertOutput): void {
  const { table, statement } = target;
  const ignored = new Set<number>();
  for (const column of table.columns) {
    const isKey = column.name === table.keyColumn;
    const position = columns.indexOf(column.name);
    if (position < 0 || (!isKey && !column.sequence)) continue;
    const value = row.values[position];
    if (!value) {
      throw new PosternError({
        sqlState: '42601',
        message: 'INSERT has more target columns than expressions',
      });
    }
    if (column.identity && statement.override === 'OVERRIDING_USER_VALUE' && !('SetToDefault' in value)) {
      const { start, end } = rangeOfValue(target, row.start, position);
      ignored.add(position);
      supplyId(table, column.name, start, end, output);
      continue;
    }
    if (column.identity === 'always' && !('SetToDefault' in value))
      refuseValueOfIdentity(column.name, target);
    if ('SetToDefault' in value) {
      if (!column.sequence) throw keyMissing(table);
      const start = value.SetToDefault.location ?? -1;
      if (start < 0) throw notUnderstood('this INSERT', table, 'Leave the column with DEFAULT out.');
      supplyId(table, column.name, start, start + DEFAULT_KEYWORD_BYTES, output);
    } else if (isKey && !isSequenceCall(value)) {
      const source = keySourceOf(value, table.keyType);
      if (!source) throw keyIsExpression(table);
      output.sources.push(source);
    }
  }
  for (const [position, value] of row.values.entries()) {
    if (ignored.has(position)) continue;
    for (const call of sequenceCallsIn(value)) {
      const idIndex = supplyCall(target, call, output);
      if (columns[position] === table.keyColumn && isSequenceCall(value) && idIndex !== undefined)
        output.sources.push({ kind: 'suppliedId', idIndex });
    }
  }
}

/** The value, maybe in parentheses, is one of these calls and nothing else. */
function isSequenceCall(value: Node): boolean {
  return 'FuncCall' in value && sequenceFunctionOf(value.FuncCall) !== undefined;
}

/** Calls of sequences that no sharded table has are refused when the plan is whole. */
function supplyCall(
  { table, sql, context }: InsertTarget,
  call: FuncCall,
  { edits, suppliedIds }: InsertOutput,
): number | undefined {
  const name = sequenceFunctionOf(call);
  if (name === undefined || name === 'setval') return undefined;
  const idColumn = name === 'lastval' ? undefined : namedSequence(call, sql, context)?.idColumn;
  if (name !== 'lastval' && !idColumn) return undefined;
  const idIndex = suppliedIds.length;
  suppliedIds.push({ table: idColumn?.table ?? table, column: idColumn?.column ?? '', call: name });
  const { start, end } = rangeOfCall(sql, call);
  edits.push({ start, end, replacement: { kind: 'id', idIndex } });
  return idIndex;
}

/** As PostgreSQL says it: the leaves have no identity columns that could. */
export function refuseValueOfIdentity(column: string, { statement }: Pick<InsertTarget, 'statement'>): void {
  if (statement.override === 'OVERRIDING_SYSTEM_VALUE') return;
  throw new PosternError({
    sqlState: '428C9',
    message: `cannot insert a non-DEFAULT value into column "${column}"`,
    detail: `Column "${column}" is an identity column defined as GENERATED ALWAYS.`,
    hint: 'Use OVERRIDING SYSTEM VALUE to override.',
  });
}

/** A value of a row, between its commas. */
function rangeOfValue(
  { sql }: InsertTarget,
  rowStart: number,
  position: number,
): { start: number; end: number } {
  let token = nextToken(sql, rowStart + 1);
  let { start } = token;
  let { end } = token;
  for (let index = 0; ; token = nextToken(sql, token.end)) {
    if (isPunctuation(sql, token, BYTE.openParen))
      token = { ...token, end: closingParen(sql, token.start) + 1 };
    const isComma = isPunctuation(sql, token, BYTE.comma);
    if (isComma || isPunctuation(sql, token, BYTE.closeParen)) {
      if (index === position || !isComma) return { start, end };
      index++;
      start = nextToken(sql, token.end).start;
    }
    end = token.end;
  }
}

function supplyId(
  table: ShardedTable,
  column: string,
  start: number,
  end: number,
  { edits, suppliedIds, sources }: InsertOutput,
): void {
  const idIndex = suppliedIds.length;
  suppliedIds.push({ table, column });
  edits.push({ start, end, replacement: { kind: 'id', idIndex } });
  if (column === table.keyColumn) sources.push({ kind: 'suppliedId', idIndex });
}

/** Names the missing columns in the column list; says where that ends. */
function placeColumns(
  target: InsertTarget,
  columns: readonly string[],
  missing: ShardedTable['columns'],
  output: InsertOutput,
): number {
  const { sql, statement } = target;
  const missingNames = missing.map((column) => quoteIdentifier(column.name)).join(', ');
  const at = afterAlias(target);
  if (statement.cols) {
    const close = closingParen(sql, nextToken(sql, at).start);
    output.edits.push({ start: close, end: close, replacement: { kind: 'text', text: `, ${missingNames}` } });
    return close + 1;
  }
  const given = columns.map(quoteIdentifier).join(', ');
  const list = given ? `${given}, ${missingNames}` : missingNames;
  output.edits.push({ start: at, end: at, replacement: { kind: 'text', text: ` (${list})` } });
  return at;
}

/** Where the column list ends, or would. */
export function afterColumns(target: Omit<InsertTarget, 'context' | 'table'>): number {
  const at = afterAlias(target);
  return target.statement.cols ? closingParen(target.sql, nextToken(target.sql, at).start) + 1 : at;
}

/** The rows of VALUES, with their parentheses. */
function rangesOfRows(
  { sql, table }: InsertTarget,
  listEnd: number,
  rowCount: number,
): { readonly start: number; readonly end: number }[] {
  // [OVERRIDING … VALUE] [(] VALUES
  let token = nextToken(sql, listEnd);
  while (keywordOf(sql, token) !== 'values') {
    if (token.kind === 'end') throw notUnderstood('this INSERT', table, 'Write it as INSERT … VALUES.');
    token = nextToken(sql, token.end);
  }
  const ranges: { start: number; end: number }[] = [];
  do {
    const open = nextToken(sql, token.end);
    const end = closingParen(sql, open.start) + 1;
    ranges.push({ start: open.start, end });
    token = nextToken(sql, end);
  } while (isPunctuation(sql, token, BYTE.comma));
  if (ranges.length !== rowCount) throw notUnderstood('this INSERT', table, 'Write it as INSERT … VALUES.');
  return ranges;
}

function planDefaultValues(target: InsertTarget, output: InsertOutput): void {
  const { table, sql } = target;
  const supplied = table.columns.filter((column) => column.sequence);
  if (!supplied.some((column) => column.name === table.keyColumn)) throw keyMissing(table);
  const start = nextToken(sql, afterAlias(target)).start;
  const end = nextToken(sql, start + DEFAULT_KEYWORD_BYTES).end;
  const names = supplied.map((column) => quoteIdentifier(column.name)).join(', ');
  output.edits.push({ start, end, replacement: { kind: 'text', text: `(${names}) VALUES (` } });
  for (const [index, column] of supplied.entries()) {
    if (index > 0) output.edits.push({ start: end, end, replacement: { kind: 'text', text: ', ' } });
    supplyId(table, column.name, end, end, output);
  }
  output.edits.push({ start: end, end, replacement: { kind: 'text', text: ')' } });
}

/** Where `INSERT INTO name [AS alias]` ends. */
function afterAlias({ sql, nameEnd, statement }: Omit<InsertTarget, 'context' | 'table'>): number {
  if (!statement.relation?.alias) return nameEnd;
  return nextToken(sql, nextToken(sql, nameEnd).end).end;
}

export function keyMissing(table: ShardedTable): PosternError {
  return notSupported(
    `INSERT into sharded table ${nameOf(table)} without a value for its shard key "${table.keyColumn}"`,
    `Give "${table.keyColumn}" a value: its default is not known before the row is placed.`,
  );
}

function keyIsExpression(table: ShardedTable): PosternError {
  return notSupported(
    `the shard key "${table.keyColumn}" of table ${nameOf(table)} is given as an expression`,
    'Give it as a literal or a parameter, maybe cast to its own type.',
  );
}
