/**
 * The client's SELECT as text in parts: its clauses, the items of its lists, and slices of it with the plan's edits put in.
 * The tree says what an expression means, but not where it ends: that is found by the tokens, and what was found is parsed
 * again and compared with the tree.
 *
 * Invariant: a range that is given for a node holds that node's text and nothing else; where that can't be shown, undefined
 * is given.
 */
import type { Node, SelectStmt } from '@pgsql/types';
import { parseSql } from '../sql/parser.ts';
import { BYTE, isPunctuation, keywordOf, nextToken, type Token } from '../sql/scanner.ts';
import type { Edit } from './plan.ts';
import { cutText, type TextPart, textPart } from './scatter-text.ts';

export interface Range {
  readonly start: number;
  readonly end: number;
}

export interface Clauses {
  /** What comes before the list of columns: WITH, SELECT. ALL and DISTINCT are left out. */
  readonly head: Range;
  readonly list: Range;
  /** FROM and WHERE, with their keywords. */
  readonly source: Range;
  /** Without their keywords. */
  readonly group: Range | undefined;
  readonly having: Range | undefined;
  readonly order: Range | undefined;
  /** FROM up to HAVING, with all keywords. */
  readonly sourceAndGroups: Range;
}

const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
/** Keys of the tree that say where something is written, and not what. */
const PLACES = /^(location|.*_location|.*_start|.*_end|stmt_len)$/;

/** Equal for what means the same at the same place of a statement. */
export function treeText(node: unknown): string {
  return JSON.stringify(node, (key, value) => (PLACES.test(key) ? undefined : value));
}

/** What `SELECT text` is; undefined if it is none. */
function parseFragment(text: string): SelectStmt | undefined {
  const parsed = parseSql(`SELECT ${text}`);
  if (parsed.kind !== 'parsed' || parsed.statements.length !== 1) return undefined;
  const { node } = parsed.statements[0]!;
  return 'SelectStmt' in node ? node.SelectStmt : undefined;
}

/** The tokens of a range that are in no parentheses or brackets of their own. */
function* outerTokens(sql: Uint8Array, { start, end }: Range): Generator<Token> {
  let depth = 0;
  for (let at = start; ; ) {
    const token = nextToken(sql, at);
    if (token.kind === 'end' || token.end > end) return;
    const byte = token.kind === 'punctuation' ? sql[token.start] : undefined;
    if (byte === BYTE.closeParen || byte === CLOSE_BRACKET) depth--;
    if (depth === 0) yield token;
    if (byte === BYTE.openParen || byte === OPEN_BRACKET) depth++;
    at = token.end;
  }
}

export class SelectText {
  readonly #sql: Buffer;
  readonly #edits: readonly Edit[];
  readonly #range: Range;

  /** `edits` in their order; they are the tables and what was taken out of column names. */
  constructor(options: { sql: Uint8Array; edits: readonly Edit[]; range: Range }) {
    const { sql } = options;
    this.#sql = Buffer.from(sql.buffer, sql.byteOffset, sql.byteLength);
    this.#edits = options.edits;
    this.#range = options.range;
  }

  /** As the client wrote it. */
  raw({ start, end }: Range): string {
    return this.#sql.toString('utf8', start, end);
  }

  /** A range with the edits that lie in it. A comment at its end can't swallow what follows. */
  slice({ start, end }: Range): TextPart[] {
    return [...cutText(this.#sql, start, end, this.#edits), textPart('\n')];
  }

  /** The clauses of `SELECT … FROM …`; undefined if it is written in another way. */
  clauses(select: SelectStmt): Clauses | undefined {
    const words = this.#keywords();
    const first = words.get('select');
    const from = words.get('from');
    if (!first || !from) return undefined;
    const end = this.#range.end;
    const group = words.get('group');
    const having = words.get('having');
    const order = words.get('order');
    const limit = words.get('limit');
    const starts = [group, having, order, limit].map((token) => token?.start ?? end);
    const endOf = (index: number) => Math.min(...starts.slice(index));
    const listStart = this.#listStart(first.end);
    const behind = (keyword: Token | undefined, index: number, words: number): Range | undefined => {
      if (!keyword) return undefined;
      const begin = words === 2 ? nextToken(this.#sql, keyword.end).end : keyword.end;
      return { start: begin, end: endOf(index + 1) };
    };
    const clauses: Clauses = {
      head: { start: this.#range.start, end: first.end },
      list: { start: listStart, end: from.start },
      source: { start: from.start, end: endOf(0) },
      group: behind(group, 0, 2),
      having: behind(having, 1, 1),
      order: behind(order, 2, 2),
      sourceAndGroups: { start: from.start, end: endOf(2) },
    };
    return this.#isRight(clauses, select) ? clauses : undefined;
  }

  /** The first token of each clause. */
  #keywords(): ReadonlyMap<string, Token> {
    const words = new Map<string, Token>();
    let before = '';
    let last = '';
    let afterDot = false;
    for (const token of outerTokens(this.#sql, this.#range)) {
      const word = keywordOf(this.#sql, token);
      const isName = afterDot || last === 'as';
      const isOperator = word === 'from' && last === 'distinct' && (before === 'is' || before === 'not');
      const isWithin = word === 'group' && last === 'within';
      if (CLAUSES.has(word) && !isName && !isOperator && !isWithin) {
        const clause = word === 'offset' || word === 'fetch' || word === 'for' ? 'limit' : word;
        if (!words.has(clause)) words.set(clause, token);
      }
      afterDot = isPunctuation(this.#sql, token, BYTE.dot);
      before = last;
      last = word;
    }
    return words;
  }

  #listStart(selectEnd: number): number {
    const token = nextToken(this.#sql, selectEnd);
    const word = keywordOf(this.#sql, token);
    return word === 'all' || word === 'distinct' ? token.end : selectEnd;
  }

  /** Parses the clauses as they were found. */
  #isRight(clauses: Clauses, select: SelectStmt): boolean {
    const { list, source, group, having, order } = clauses;
    const text = [
      this.raw(list),
      this.raw(source),
      group ? `GROUP BY ${this.raw(group)}` : '',
      having ? `HAVING ${this.raw(having)}` : '',
      order ? `ORDER BY ${this.raw(order)}` : '',
    ].join('\n');
    const parsed = parseFragment(text);
    if (!parsed) return false;
    const compared = [
      'targetList',
      'fromClause',
      'whereClause',
      'groupClause',
      'havingClause',
      'sortClause',
    ] as const;
    return compared.every((clause) => treeText(parsed[clause]) === treeText(select[clause]));
  }

  /** The items of a list, without the commas between them. */
  items(range: Range): Range[] {
    const items: Range[] = [];
    let { start } = range;
    for (const token of outerTokens(this.#sql, range)) {
      if (!isPunctuation(this.#sql, token, BYTE.comma)) continue;
      items.push({ start, end: token.start });
      start = token.end;
    }
    items.push({ start, end: range.end });
    return items;
  }

  /** The expression of an item of the list of columns, without its name. */
  expressionOfTarget(item: Range, value: Node): Range | undefined {
    const tokens = [...outerTokens(this.#sql, item)];
    const last = tokens.length - 1;
    const ends = [item.end, tokens[last]?.start];
    const isAs = last > 0 && keywordOf(this.#sql, tokens[last - 1]!) === 'as';
    if (isAs) ends.push(tokens[last - 1]!.start);
    return this.#firstThatIs(item.start, ends, value);
  }

  /** The expression of an item of ORDER BY, without ASC, DESC and NULLS. */
  expressionOfSort(item: Range, value: Node): Range | undefined {
    const tokens = [...outerTokens(this.#sql, item)].slice(-3).reverse();
    return this.#firstThatIs(item.start, [item.end, ...tokens.map(({ start }) => start)], value);
  }

  #firstThatIs(start: number, ends: readonly (number | undefined)[], value: Node): Range | undefined {
    for (const end of ends) {
      if (end === undefined || end <= start) continue;
      const range = { start, end };
      if (this.isText(range, value)) return range;
    }
    return undefined;
  }

  /** Does the range hold this expression and nothing else? */
  isText(range: Range, value: Node): boolean {
    const parsed = parseFragment(`\n${this.raw(range)}\n`);
    const target = parsed?.targetList?.[0];
    if (!target || !('ResTarget' in target)) return false;
    const only: SelectStmt = { targetList: [{ ResTarget: { val: value } }] };
    return treeText(parsed.targetList) === treeText(only.targetList) && treeText(bare(parsed)) === '{}';
  }
}

const CLAUSES = new Set(['select', 'from', 'group', 'having', 'order', 'limit', 'offset', 'fetch', 'for']);

/** What a SELECT has beside its list of columns. */
function bare(select: SelectStmt): Partial<SelectStmt> {
  const { targetList: _targetList, limitOption: _limitOption, op: _op, ...rest } = select;
  return rest;
}
