/**
 * What a PL/pgSQL function runs by EXECUTE, as far as its source shows it: a text in quotes, or one that is put together with
 * format() or || from such texts and from names (%I, quote_ident(), x::regclass) and values (%L, quote_literal()) in quotes of
 * their own. Such an INSERT, UPDATE, DELETE or SELECT is judged by its text, like one that stands in the function itself;
 * anything else that is executed may do anything.
 *
 * Invariant: what is judged is what is run, whatever the names and values are. Each stands where the grammar wants a relation,
 * or a column that stands alone (`x.name` may call a function), or a constant; the parser says so, of a text with marks in their places.
 */
import { parseSql } from '../sql/parser.ts';
import {
  BYTE,
  closingParen,
  endOfName,
  isPunctuation,
  keywordOf,
  nextToken,
  type Token,
} from '../sql/scanner.ts';

export interface VisibleSource {
  /** The source without the EXECUTE of each statement that can be judged, and with those statements' texts behind it. */
  readonly text: string;
  /** One of them uses a relation whose name is only known when it runs. */
  readonly usesAnyRelation: boolean;
}

const NAME_MARK = 'postern_some_name';
const VALUE_MARK = 'postern_some_value';
const NAME = ` ${NAME_MARK} `;
const VALUE = ` '${VALUE_MARK}' `;

/** What may come behind the text of EXECUTE. */
const FOLLOWERS = new Set(['into', 'using', 'loop']);
const STATEMENTS = ['InsertStmt', 'UpdateStmt', 'DeleteStmt', 'SelectStmt'];

/** A piece that touches one of these would be read with it: `a%I` is one name, `'%L'` ends a string. */
const JOINS = /[\w$'"\u0080-\uffff]/;

type Piece = { readonly kind: 'text'; readonly text: string } | { readonly kind: 'name' | 'value' };

interface Found {
  readonly pieces: readonly Piece[];
  readonly end: number;
}

/** @param taken names of functions that users have defined: format() then need not be PostgreSQL's own */
export function visibleSource(source: string, taken: ReadonlySet<string>): VisibleSource {
  const unchanged = { text: source, usesAnyRelation: false };
  if (!/\bexecute\b/i.test(source)) return unchanged;
  const bytes = Buffer.from(source);
  const shown = Buffer.from(source);
  const statements: string[] = [];
  let usesAnyRelation = false;
  for (let token = nextToken(bytes, 0); token.kind !== 'end'; token = nextToken(bytes, token.end)) {
    // With standard_conforming_strings off, this string would end elsewhere.
    if (token.kind === 'string' && bytes[token.start] === BYTE.quote && has(bytes, token, BYTE.backslash))
      return unchanged;
    if (keywordOf(bytes, token) !== 'execute') continue;
    const found = new Expression(bytes, taken).read(token.end);
    const text = found && isFollowed(bytes, found.end) ? statementOf(found.pieces) : undefined;
    if (!found || text === undefined) continue;
    shown.fill(' ', token.start, token.end);
    statements.push(text);
    usesAnyRelation ||= found.pieces.some(({ kind }) => kind === 'name');
  }
  return { text: [shown.toString(), ...statements].join('\n;\n'), usesAnyRelation };
}

function has(bytes: Buffer, { start, end }: Token, byte: number): boolean {
  return bytes.subarray(start, end).includes(byte);
}

function isFollowed(bytes: Buffer, at: number): boolean {
  const next = nextToken(bytes, at);
  return bytes[next.start] === SEMICOLON || FOLLOWERS.has(keywordOf(bytes, next));
}

const SEMICOLON = 0x3b;
const COLON = 0x3a;
const PIPE = 0x7c;

/** Texts, names and values with || between. */
class Expression {
  readonly #bytes: Buffer;
  readonly #taken: ReadonlySet<string>;

  constructor(bytes: Buffer, taken: ReadonlySet<string>) {
    this.#bytes = bytes;
    this.#taken = taken;
  }

  read(start: number): Found | undefined {
    const pieces: Piece[] = [];
    for (let at = start; ; ) {
      const operand = this.#operand(at);
      if (!operand) return undefined;
      pieces.push(...operand.pieces);
      const next = nextToken(this.#bytes, operand.end);
      if (this.#bytes[next.start] !== PIPE || this.#bytes[next.end] !== PIPE)
        return { pieces, end: operand.end };
      at = next.end + 1;
    }
  }

  #operand(at: number): Found | undefined {
    const bytes = this.#bytes;
    const token = nextToken(bytes, at);
    if (token.kind === 'string') {
      const text = textOf(bytes, token);
      return text === undefined ? undefined : { pieces: [{ kind: 'text', text }], end: token.end };
    }
    return this.#relation(token.start) ?? this.#call(token);
  }

  /** x::regclass, with a variable or a part of one. */
  #relation(start: number): Found | undefined {
    const bytes = this.#bytes;
    const end = endOfName(bytes, start, 2) ?? endOfName(bytes, start, 1);
    if (end === undefined) return undefined;
    const colon = nextToken(bytes, end);
    if (bytes[colon.start] !== COLON || bytes[colon.end] !== COLON) return undefined;
    const type = nextToken(bytes, colon.end + 1);
    return keywordOf(bytes, type) === 'regclass' ? { pieces: [{ kind: 'name' }], end: type.end } : undefined;
  }

  #call(first: Token): Found | undefined {
    const bytes = this.#bytes;
    let name = first;
    let open = nextToken(bytes, name.end);
    const qualified = keywordOf(bytes, first) === 'pg_catalog' && isPunctuation(bytes, open, BYTE.dot);
    if (qualified) {
      name = nextToken(bytes, open.end);
      open = nextToken(bytes, name.end);
    }
    const word = keywordOf(bytes, name);
    if (!isPunctuation(bytes, open, BYTE.openParen) || (!qualified && this.#taken.has(word)))
      return undefined;
    const close = closingParen(bytes, open.start);
    const end = close + 1;
    if (word === 'quote_ident') return { pieces: [{ kind: 'name' }], end };
    if (word === 'quote_literal' || word === 'quote_nullable') return { pieces: [{ kind: 'value' }], end };
    if (word !== 'format') return undefined;
    const pieces = this.#format(open.end, close);
    return pieces && { pieces, end };
  }

  #format(start: number, close: number): Piece[] | undefined {
    const bytes = this.#bytes;
    const literal = nextToken(bytes, start);
    const template = literal.kind === 'string' ? textOf(bytes, literal) : undefined;
    const next = nextToken(bytes, literal.end);
    if (template === undefined || (next.start !== close && !isPunctuation(bytes, next, BYTE.comma)))
      return undefined;
    return piecesOf(template, (index) => this.#isRelation(next.start, close, index));
  }

  /** Is the argument of this index, of those between `at` (a comma) and `close`, a relation's name? */
  #isRelation(at: number, close: number, index: number): boolean {
    const bytes = this.#bytes;
    let depth = 0;
    let argument = -1;
    for (let token = nextToken(bytes, at); token.start < close; token = nextToken(bytes, token.end)) {
      const byte = token.kind === 'punctuation' ? bytes[token.start] : undefined;
      if (byte === BYTE.openParen || byte === OPEN_BRACKET) depth++;
      else if (byte === BYTE.closeParen || byte === CLOSE_BRACKET) depth--;
      if (depth > 0 || byte !== BYTE.comma || ++argument !== index) continue;
      const found = this.#relation(nextToken(bytes, token.end).start);
      if (!found) return false;
      const next = nextToken(bytes, found.end);
      return next.start === close || isPunctuation(bytes, next, BYTE.comma);
    }
    return false;
  }
}

const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/** What is between the quotes, or between the tags; undefined: of another kind. */
function textOf(bytes: Buffer, { start, end }: Token): string | undefined {
  const token = bytes.toString('utf8', start, end);
  const tag = /^\$[^$]*\$/.exec(token)?.[0];
  if (tag !== undefined)
    return token.length >= 2 * tag.length && token.endsWith(tag)
      ? token.slice(tag.length, -tag.length)
      : undefined;
  const inside = token.slice(1, -1);
  const plain = token.startsWith("'") && token.endsWith("'") && token.length > 1;
  // One that goes on in the quotes of a later line is left to PostgreSQL.
  return plain && !inside.replaceAll("''", '').includes("'") ? inside.replaceAll("''", "'") : undefined;
}

/** The pieces of format()'s first argument; undefined: it has places for any text. */
function piecesOf(template: string, isRelation: (argument: number) => boolean): Piece[] | undefined {
  const pieces: Piece[] = [];
  let copied = 0;
  let argument = -1;
  for (let at = template.indexOf('%'); at >= 0; at = template.indexOf('%', copied)) {
    pieces.push({ kind: 'text', text: template.slice(copied, at) });
    const [place, position, letter] = /^%(?:(\d+)\$)?([ILs%])/.exec(template.slice(at)) ?? [];
    if (place === undefined) return undefined;
    copied = at + place.length;
    if (letter === '%') {
      if (position !== undefined) return undefined;
      pieces.push({ kind: 'text', text: '%' });
      continue;
    }
    argument = position === undefined ? argument + 1 : Number(position) - 1;
    if (letter === 's' && !isRelation(argument)) return undefined;
    pieces.push({ kind: letter === 'L' ? 'value' : 'name' });
  }
  pieces.push({ kind: 'text', text: template.slice(copied) });
  return pieces;
}

/** The statement with marks for its names and values, if it is one that can be judged by that. */
function statementOf(pieces: readonly Piece[]): string | undefined {
  let text = '';
  let names = 0;
  let values = 0;
  let afterMark = false;
  for (const piece of pieces) {
    if (piece.kind === 'text') {
      if (piece.text === '') continue;
      if (afterMark && JOINS.test(piece.text[0]!)) return undefined;
      text += piece.text;
      afterMark = false;
      continue;
    }
    if (afterMark || JOINS.test(text.at(-1) ?? ' ')) return undefined;
    if (piece.kind === 'name') names++;
    else values++;
    text += piece.kind === 'name' ? NAME : VALUE;
    afterMark = true;
  }
  const parsed = parseSql(text);
  const [only, another] = parsed.kind === 'parsed' ? parsed.statements : [];
  if (!only || another || !STATEMENTS.some((kind) => kind in only.node)) return undefined;
  const marks = new Marks();
  return marks.areInPlace(only.node as unknown as Tree, '') &&
    marks.names === names &&
    marks.values === values
    ? text
    : undefined;
}

type Tree = { readonly [key: string]: unknown };

/** Counts the marks in a parse tree. */
class Marks {
  names = 0;
  values = 0;

  /** False for a mark anywhere but where it names a relation or a column, or is a constant; and for SELECT INTO. */
  areInPlace(tree: Tree, kind: string): boolean {
    for (const key in tree) {
      const value = tree[key];
      if (typeof value === 'string' ? !this.#isInPlace(value, key, kind) : !this.#below(key, value, kind))
        return false;
    }
    return true;
  }

  #below(key: string, value: unknown, kind: string): boolean {
    if (key === 'intoClause') return false;
    if (key === 'fields' && kind === 'ColumnRef' && isMarkAlone(value)) {
      this.names++;
      return true;
    }
    if (key === 'sval' && kind === 'A_Const' && (value as { sval?: string }).sval === VALUE_MARK) {
      this.values++;
      return true;
    }
    if (Array.isArray(value)) return value.every((item) => this.#below('', item, kind));
    return typeof value !== 'object' || value === null || this.areInPlace(value as Tree, key || kind);
  }

  #isInPlace(text: string, key: string, kind: string): boolean {
    if (!text.includes(NAME_MARK) && !text.includes(VALUE_MARK)) return true;
    const named =
      ['relname', 'schemaname', 'catalogname', 'aliasname'].includes(key) ||
      (key === 'name' && (kind === 'ResTarget' || kind === 'IndexElem'));
    if (!named || text !== NAME_MARK) return false;
    this.names++;
    return true;
  }
}

function isMarkAlone(fields: unknown): boolean {
  const [only, another] = fields as readonly { String?: { sval?: string } }[];
  return another === undefined && only?.String?.sval === NAME_MARK;
}
