/**
 * EXPLAIN of a query: the router explains where the query goes, and has each node explain its own part. Here the text is cut
 * where the query begins, and the query planned by itself; session/explain-run.ts carries it out.
 *
 * Invariant: without ANALYZE nothing is carried out, whatever the query is; with it, each part is, once.
 */
import type { DefElem, ExplainStmt, Node } from '@pgsql/types';
import { notSupported } from '../base/errors.ts';
import { BYTE, closingParen, isPunctuation, keywordOf, nextToken } from '../sql/scanner.ts';
import type { QueryPlan } from './plan.ts';
import type { PlanParts, Request } from './query.ts';

export type ExplainFormat = 'text' | 'json' | 'yaml' | 'xml';

export interface ExplainPlacement {
  readonly kind: 'explain';
  /** What stands before the query, with the format of single parts: text, or JSON for all others. */
  readonly prefix: string;
  readonly query: string;
  /** Characters of the query string before the query. */
  readonly charactersBefore: number;
  readonly analyzes: boolean;
  readonly verbose: boolean;
  readonly format: ExplainFormat;
}

const QUERIES = ['SelectStmt', 'InsertStmt', 'UpdateStmt', 'DeleteStmt', 'MergeStmt'];

/** Undefined: it is of a statement that only the home node can explain. Throws what refuses the query itself. */
export function planExplain(
  statement: ExplainStmt,
  request: Request,
  planText: (text: string) => QueryPlan,
): PlanParts | undefined {
  const { sql, start, end, context } = request;
  const { query, options = [] } = statement;
  if (!query) return undefined;
  const isCursor = 'DeclareCursorStmt' in query;
  if (!isCursor && !QUERIES.some((kind) => kind in query)) return undefined;
  const at = startOfQuery(sql, { start, hasOptions: options.length > 0 });
  const queryStart = isCursor ? startOfCursorQuery(sql, at.query) : at.query;
  const bytes = Buffer.from(sql.buffer, sql.byteOffset, sql.length);
  const text = bytes.toString('utf8', queryStart, end);
  const [inner] = planText(text).statements;
  if (!inner) return undefined;
  if (inner.refusal) throw inner.refusal;
  if (inner.command)
    throw notSupported('EXPLAIN of what the router carries out by itself', 'Send the statement alone.');
  const analyzes = optionOf(options, 'analyze') === true;
  const { placement, effects, needsPinBefore, unknownFunctions } = inner;
  if (analyzes && (inner.sequences?.reads ?? []).length > 0)
    throw notSupported('EXPLAIN ANALYZE of currval() or lastval()', 'Leave ANALYZE out.');
  const mayLeave = effects.length > 0 || needsPinBefore || unknownFunctions.length > 0;
  const isOfOneNode = placement.kind === 'home' || placement.kind === 'anywhere';
  // What it leaves in the session is kept as it is for the query itself; and one server has nothing to say but its own plan.
  if (placement.kind === 'node' || (isOfOneNode && ((analyzes && mayLeave) || isOneServer(request)))) {
    const state = analyzes
      ? { effects, unknownFunctions, needsPinBefore }
      : { effects: [], unknownFunctions: [], needsPinBefore: false };
    return { placement, ...state, readOnly: !analyzes };
  }
  if (analyzes && effects.length > 0)
    throw notSupported(
      'EXPLAIN ANALYZE of a function that leaves state in the session',
      'Leave ANALYZE out, or send the query by itself.',
    );
  const format = formatOf(options);
  const explain: ExplainPlacement = {
    kind: 'explain',
    prefix: prefixOf(bytes, { start, at, format }),
    query: text,
    charactersBefore: [...bytes.toString('utf8', 0, queryStart)].length,
    analyzes,
    verbose: optionOf(options, 'verbose') === true,
    format,
  };
  const called = analyzes ? { unknownFunctions, needsPinBefore } : {};
  // The map is the same for both, but only the session's own may be up to date when it is carried out.
  return { placement: explain, effects: [], readOnly: !analyzes, ...called };
  function isOneServer({ facts }: Request): boolean {
    return context.map.nodes.length === 1 && facts.rangeVars.every(({ relname }) => !hasDoor(relname ?? ''));
  }
  function hasDoor(name: string): boolean {
    return context.map.tablesByName.has(name) || context.map.referencesByName.has(name);
  }
}

interface QueryStart {
  readonly query: number;
  /** Of the list of options; −1: there is none. */
  readonly closingParen: number;
}

/** EXPLAIN (options) query, or EXPLAIN [ANALYZE] [VERBOSE] query. */
function startOfQuery(
  sql: Uint8Array,
  { start, hasOptions }: { start: number; hasOptions: boolean },
): QueryStart {
  const explain = nextToken(sql, start);
  let token = nextToken(sql, explain.end);
  if (hasOptions && isPunctuation(sql, token, BYTE.openParen)) {
    const closing = closingParen(sql, token.start);
    return { query: nextToken(sql, closing + 1).start, closingParen: closing };
  }
  while (['analyze', 'analyse', 'verbose'].includes(keywordOf(sql, token))) token = nextToken(sql, token.end);
  return { query: token.start, closingParen: -1 };
}

/** DECLARE name … CURSOR … FOR query. */
function startOfCursorQuery(sql: Uint8Array, start: number): number {
  // The name may be `for` only in quotes.
  for (let token = nextToken(sql, start); token.kind !== 'end'; token = nextToken(sql, token.end))
    if (keywordOf(sql, token) === 'for') return nextToken(sql, token.end).start;
  return start;
}

/** Of several options of one name, the last one counts. */
function prefixOf(
  bytes: Buffer,
  { start, at, format }: { start: number; at: QueryStart; format: ExplainFormat },
): string {
  if (format === 'text' || at.closingParen < 0) return bytes.toString('utf8', start, at.query);
  const before = bytes.toString('utf8', start, at.closingParen);
  return `${before}, FORMAT JSON${bytes.toString('utf8', at.closingParen, at.query)}`;
}

function formatOf(options: readonly Node[]): ExplainFormat {
  const value = optionOf(options, 'format');
  return value === 'json' || value === 'yaml' || value === 'xml' ? value : 'text';
}

/** true and false as PostgreSQL reads them; another value in lower case; undefined: not given. */
function optionOf(options: readonly Node[], name: string): boolean | string | undefined {
  let value: boolean | string | undefined;
  for (const node of options)
    if ('DefElem' in node && node.DefElem.defname === name) value = optionValue(node.DefElem);
  return value;
}

function optionValue({ arg }: DefElem): boolean | string {
  if (!arg) return true;
  if ('Integer' in arg) return (arg.Integer.ival ?? 0) !== 0;
  if ('Boolean' in arg) return arg.Boolean.boolval === true;
  const text = 'String' in arg ? (arg.String.sval ?? '').toLowerCase() : '';
  if (['on', 'true', '1'].includes(text)) return true;
  return ['off', 'false', '0'].includes(text) ? false : text;
}
