/**
 * COPY: of a sharded table, of a reference table, and of queries. What is of one node alone passes through as it came.
 *
 * Next: session/copy-in.ts and session/copy-out.ts, which carry it out.
 */
import type { CopyStmt, DefElem, Node, RangeVar } from '@pgsql/types';
import { notSupported } from '../base/errors.ts';
import type { ReferenceTable, ShardedTable } from '../catalog/map.ts';
import { ALL_COLUMNS, type CopyOption, isOptionOn } from '../copy/format.ts';
import { collectFacts, stringsOf } from '../sql/facts.ts';
import { BYTE, closingParen, isPunctuation, keywordOf, nextToken } from '../sql/scanner.ts';
import { inspectCalls } from './calls.ts';
import { type PlanParts, planQueryNode, type Request } from './query.ts';
import { notOnReference } from './reference-refusal.ts';
import { nameOf, notUnderstood } from './refusal.ts';
import { resolveRangeVar, resolveReferenceVar } from './resolve.ts';
import type { ScatterRead } from './scatter-read.ts';

export type CopyPlacement = { readonly kind: 'copy' } & (CopyIn | CopyOut | CopyQuery);

/** COPY … FROM STDIN: each row to its bucket, or to all copies. */
export interface CopyIn {
  readonly direction: 'in';
  readonly table: ShardedTable | ReferenceTable;
  /** As written; undefined: all but the generated ones. */
  readonly columns: readonly string[] | undefined;
  readonly options: readonly CopyOption[];
  /** What stands behind WHERE. */
  readonly where: string | undefined;
}

/** COPY … TO STDOUT of a sharded table. */
export interface CopyOut {
  readonly direction: 'out';
  readonly table: ShardedTable;
  readonly columns: readonly string[] | undefined;
  readonly options: readonly CopyOption[];
}

/** COPY (query) TO STDOUT over several buckets. */
export interface CopyQuery {
  readonly direction: 'query';
  readonly table: ShardedTable;
  readonly query: string;
  /** Its rows are those of its pieces, as they are; undefined: they have to be put together. */
  readonly read: ScatterRead | undefined;
  readonly options: readonly CopyOption[];
}

export function isSharded(table: ShardedTable | ReferenceTable): table is ShardedTable {
  return 'keyColumn' in table;
}

/** Undefined: it concerns the home node alone. */
export function planCopy(
  request: Request & { readonly node: { readonly CopyStmt: CopyStmt } },
): PlanParts | undefined {
  const { node, context } = request;
  const statement = node.CopyStmt;
  if (statement.query) return planCopyOfQuery(statement, statement.query, request);
  const { relation } = statement;
  if (!relation) return undefined;
  const table = resolveRangeVar(context, relation);
  const reference = table ? undefined : resolveReferenceVar(context, relation);
  if (!table && !(reference && statement.is_from)) return undefined;
  const named = (table ?? reference)!;
  if (statement.filename !== undefined || statement.is_program) {
    throw notSupported(
      `COPY of table ${nameOf(named)} from or to a file of a server`,
      'Use COPY … FROM STDIN or TO STDOUT; \\copy in psql reads and writes files of the client.',
    );
  }
  const options = optionsOf(statement);
  const columns = statement.attlist && stringsOf(statement.attlist);
  const { effects, unknownFunctions, needsPinBefore } = inspectCalls(request.facts.functionCalls);
  const calls = { effects, unknownFunctions, needsPinBefore };
  if (!statement.is_from) {
    const placement: CopyPlacement = { kind: 'copy', direction: 'out', table: table!, columns, options };
    return { placement, ...calls, readOnly: true };
  }
  refuseOptions(options, named);
  if (statement.whereClause) refuseQualified(statement.whereClause, relation, named);
  const where = statement.whereClause ? whereText(request) : undefined;
  const placement: CopyPlacement = { kind: 'copy', direction: 'in', table: named, columns, options, where };
  return { placement, ...calls };
}

function planCopyOfQuery(
  statement: CopyStmt,
  query: Node,
  { node: _node, ...request }: Request,
): PlanParts | undefined {
  const { sql, start, end, context, facts } = request;
  if (!facts.rangeVars.some((rangeVar) => resolveRangeVar(context, rangeVar))) return undefined;
  if (statement.filename !== undefined || statement.is_program) {
    throw notSupported('COPY of a query over sharded tables to a file of a server', 'Use COPY … TO STDOUT.');
  }
  const range = rangeOfQuery(sql, start, end);
  const parts = planQueryNode({ ...request, ...range, node: query, facts: collectFacts(query) });
  const { placement } = parts;
  const several = placement?.kind === 'keyed' ? placement.several : undefined;
  const scatter = placement?.kind === 'scattered' ? placement.scatter : several;
  if (placement?.kind === 'keyed' && scatter?.kind !== 'read')
    return { ...parts, placement: { ...placement, several: undefined }, copy: 'out' };
  if (placement?.kind === 'referenceWrite')
    throw notOnReference(
      'COPY of a query that writes to it',
      placement.tables[0]!,
      'Send the query by itself.',
    );
  if ((placement?.kind !== 'scattered' && placement?.kind !== 'keyed') || !scatter)
    return { ...parts, copy: 'out' };
  const { table } = placement;
  if (parts.readOnly === false && scatter.kind !== 'read')
    throw notUnderstood('COPY of a query that writes to several buckets', table, 'Send the query by itself.');
  const text = Buffer.from(sql.buffer, sql.byteOffset, sql.length).toString('utf8', range.start, range.end);
  const read = scatter.kind === 'read' && !scatter.merge ? scatter : undefined;
  const options = optionsOf(statement);
  // The edits of the plan are in the parts of `read`, or those of the query when it is planned by itself.
  const copy: CopyPlacement = { kind: 'copy', direction: 'query', table, query: text, read, options };
  return { ...parts, placement: copy, edits: [] };
}

/** What stands between the parentheses of COPY (query) TO. */
function rangeOfQuery(sql: Uint8Array, start: number, end: number): { start: number; end: number } {
  let token = nextToken(sql, start);
  while (token.kind !== 'end' && !isPunctuation(sql, token, BYTE.openParen))
    token = nextToken(sql, token.end);
  return { start: token.end, end: Math.min(closingParen(sql, token.start), end) };
}

/** WHERE is the last clause, and the first of its name outside of parentheses. */
function whereText({ sql, start, end }: Request): string {
  const bytes = Buffer.from(sql.buffer, sql.byteOffset, sql.length);
  for (let at = start; at < end; ) {
    const token = nextToken(sql, at);
    if (token.kind === 'end') break;
    if (keywordOf(sql, token) === 'where') return bytes.toString('utf8', token.end, end);
    at = isPunctuation(sql, token, BYTE.openParen) ? closingParen(sql, token.start) + 1 : token.end;
  }
  return '';
}

function optionsOf(statement: CopyStmt): CopyOption[] {
  return (statement.options ?? []).flatMap((node) =>
    'DefElem' in node ? [{ name: node.DefElem.defname ?? '', value: optionValue(node.DefElem) }] : [],
  );
}

function optionValue({ arg }: DefElem): CopyOption['value'] {
  if (!arg) return undefined;
  if ('String' in arg) return arg.String.sval ?? '';
  if ('Integer' in arg) return String(arg.Integer.ival ?? 0);
  if ('Float' in arg) return arg.Float.fval ?? '';
  if ('Boolean' in arg) return String(arg.Boolean.boolval ?? false);
  if ('List' in arg) return stringsOf(arg.List.items) ?? [];
  return ALL_COLUMNS;
}

function refuseOptions(options: readonly CopyOption[], table: ShardedTable | ReferenceTable): void {
  const option = (name: string) => options.find((candidate) => candidate.name === name);
  const refuse = (what: string, hint: string): never => {
    throw notSupported(`COPY … FROM with ${what} is not supported on table ${nameOf(table)}`, hint);
  };
  if (isOptionOn(option('freeze')))
    refuse('FREEZE', 'Leave it out: it needs a table that was made in the same transaction.');
  if (option('reject_limit')) refuse('REJECT_LIMIT', 'Leave it out: each node would count by itself.');
  const encoding = option('encoding')?.value;
  if (typeof encoding === 'string' && !/^utf-?_?8$|^unicode$/i.test(encoding))
    refuse(`ENCODING ${encoding}`, 'Convert the data to UTF8.');
}

/** The leaf, which the condition is checked on, has another name. */
function refuseQualified(where: Node, relation: RangeVar, table: ShardedTable | ReferenceTable): void {
  if (!isSharded(table)) return;
  const qualified = (tree: unknown): boolean => {
    if (typeof tree !== 'object' || tree === null) return false;
    if (Array.isArray(tree)) return tree.some(qualified);
    if ('ColumnRef' in tree) {
      const names = stringsOf((tree.ColumnRef as { fields?: Node[] }).fields) ?? [];
      return (
        names.length > 1 ||
        (names[0] === relation.relname && !table.columns.some(({ name }) => name === names[0]))
      );
    }
    return Object.values(tree).some(qualified);
  };
  if (qualified(where))
    throw notUnderstood('a qualified column in WHERE of COPY', table, 'Name the columns by themselves.');
}
