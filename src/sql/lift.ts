/**
 * A simple-protocol text with its values inside, turned into a text with parameters, so that statements that differ in
 * their values alone are planned once by the router and prepared once on each server. A lexer in one pass, since it runs for
 * every simple statement; what it gives is a proposal, and lifted-shape.ts judges it with the real parser, once for each text.
 *
 * A literal is lifted where an expression may begin: after an operator, a comma, an opening parenthesis, AND and BETWEEN. After
 * any other word it stays (DATE '2020-01-01', LIMIT 5, ORDER BY 1, SELECT 1, LIKE 'x%'), and so does what is in the
 * parentheses of a function or type and in brackets, where a parameter could mean something else.
 *
 * Invariants: standard_conforming_strings is on (the caller asks the session). The original is the lifted text with each
 * $n replaced by a literal of the type oids[n-1], but for what follows the statement (white space, one semicolon). Two originals with one
 * lifted text have the same tokens elsewhere, and so one verdict of lifted-shape.ts holds for both. Whatever the lexer isn't sure of
 * isn't lifted at all.
 */
import { BOUNDS } from '../base/bounds.ts';
import { OID } from '../pg/oid.ts';

export interface Lifted {
  /** With $1 … $n. Together with `oids` it is what plans and prepared statements are kept by. */
  readonly text: string;
  /** In text format. */
  readonly values: readonly (string | null)[];
  /** As PostgreSQL types the literals: int4, int8 or numeric; unspecified for a string. */
  readonly oids: readonly number[];
}

/** Kinds of characters; 0 is one that begins no token that is understood here. */
const SPACE = 1;
const LETTER = 2;
const DIGIT = 3;
const OPERATOR = 4;
const OPEN = 5;
const CLOSE = 6;
const QUOTE = 7;
const DOUBLE_QUOTE = 8;
const COMMA = 9;
const COLON = 10;
const DOT = 11;
const SEMICOLON = 12;
/** Part of a word, but begins a parameter or a dollar-quoted string. */
const DOLLAR = 13;

const KINDS = new Uint8Array(128);
for (const [characters, kind] of [
  [' \t\n\r\f\v', SPACE],
  ['abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_', LETTER],
  ['0123456789', DIGIT],
  ['+-*/<>=~!@#%^&|`?', OPERATOR],
  ['([', OPEN],
  [')]', CLOSE],
  ["'", QUOTE],
  ['"', DOUBLE_QUOTE],
  [',', COMMA],
  [':', COLON],
  ['.', DOT],
  [';', SEMICOLON],
  ['$', DOLLAR],
] as const) {
  for (const character of characters) KINDS[character.charCodeAt(0)] = kind;
}

/** What stands before a token: something after which an expression begins, a word, or the end of an operand. */
const NOTHING = 0;
const WORD = 1;
const OPERAND = 2;

const MINUS = 0x2d;
const SLASH = 0x2f;
const STAR = 0x2a;
const PLUS = 0x2b;
const QUOTE_CODE = 0x27;
const AMPERSAND = 0x26;
const BRACKET_CODE = 0x5b;
const DOT_CODE = 0x2e;
const LOWER_E = 0x65;
const LETTER_CASE = 0x20;

const FIRST_WORDS = new Set(['insert', 'update', 'delete', 'select']);
/** After these an expression begins, though they are words. */
const EXPRESSION_WORDS: readonly string[] = ['and', 'between'];
/** A parenthesis after any other word is a function's, a type's or a column list's. */
const LIST_WORDS: readonly string[] = ['values', 'in', 'where', 'and', 'or', 'not'];

/** Undefined: not a candidate, send it as it came. */
export function liftLiterals(text: string): Lifted | undefined {
  return lift(text, undefined);
}

/** `spans` receives start and end of each lifted literal in the original. */
function lift(text: string, spans: number[] | undefined): Lifted | undefined {
  const length = text.length;
  let wordStart = startOfStatement(text);
  if (wordStart < 0) return undefined;
  let wordEnd = wordStart + 6;
  let at = wordEnd;
  let before = WORD;
  /** Depth of brackets and parentheses in which everything stays as it is. */
  let keptDepth = 0;
  const values: string[] = [];
  const oids: number[] = [];
  let lifted = '';
  let copied = 0;
  let textEnd = length;

  while (at < length) {
    const code = text.charCodeAt(at);
    // The literal that begins here, if one does; its sign belongs to it, as in PostgreSQL's own grammar.
    let start = -1;
    switch (code < 128 ? KINDS[code] : LETTER) {
      case SPACE:
        at++;
        continue;
      case LETTER:
        wordStart = at;
        at = endOfWord(text, at + 1);
        wordEnd = at;
        before = WORD;
        continue;
      case DOUBLE_QUOTE:
        at = endOfQuoted(text, at, '"');
        if (at < 0) return undefined;
        before = OPERAND;
        continue;
      case OPEN:
        if (keptDepth > 0) keptDepth++;
        else if (code === BRACKET_CODE) keptDepth = 1;
        else if (before !== NOTHING && !(before === WORD && isOneOf(text, wordStart, wordEnd, LIST_WORDS))) {
          keptDepth = 1;
        }
        at++;
        before = NOTHING;
        continue;
      case CLOSE:
        if (keptDepth > 0) keptDepth--;
        at++;
        before = OPERAND;
        continue;
      case COMMA:
      case COLON:
        at++;
        before = NOTHING;
        continue;
      case OPERATOR: {
        const end = endOfOperator(text, at);
        if (end < 0) return undefined;
        if (end === at) {
          at = endOfComment(text, at);
          if (at < 0) return undefined;
          continue;
        }
        const signed = text.charCodeAt(end - 1) === MINUS && beginsNumber(text, end);
        const begins =
          signed &&
          (before === NOTHING || (before === WORD && isOneOf(text, wordStart, wordEnd, EXPRESSION_WORDS)));
        if (!signed || !isSign(text, at, end, begins)) {
          at = end;
          before = NOTHING;
          continue;
        }
        start = end - 1;
        // With an operator glued before it, the sign is not after a word.
        if (start > at) before = NOTHING;
        break;
      }
      case SEMICOLON:
        if (!isBlank(text, at + 1)) return undefined;
        textEnd = at;
        at = length;
        continue;
      case DOT:
        if (!beginsNumber(text, at)) {
          at++;
          before = NOTHING;
          continue;
        }
        if (before !== NOTHING) return undefined;
        start = at;
        break;
      case DIGIT:
        start = at;
        break;
      case QUOTE:
        // A prefix that changes how the string is read: E'…', N'…', B'…', X'…', U&'…', or a word that only touches it.
        if ((before === WORD && wordEnd === at) || text.charCodeAt(at - 1) === AMPERSAND) return undefined;
        start = at;
        break;
      default:
        return undefined;
    }

    const isString = code === QUOTE_CODE;
    const end = isString ? endOfString(text, start) : endOfNumber(text, start);
    if (end < 0 || isGlued(text, end)) return undefined;
    at = end;
    const lifts =
      keptDepth === 0 &&
      (before === NOTHING || (before === WORD && isOneOf(text, wordStart, wordEnd, EXPRESSION_WORDS)));
    before = OPERAND;
    if (!lifts) continue;
    if (values.length === BOUNDS.liftedValuesMax) return undefined;
    if (isString) {
      const inside = text.slice(start + 1, end - 1);
      values.push(inside.includes("'") ? inside.replaceAll("''", "'") : inside);
      oids.push(OID.unspecified);
    } else {
      const oid = numberOid(text, start, end);
      if (oid < 0) return undefined;
      values.push(text.slice(start, end));
      oids.push(oid);
    }
    lifted += `${text.slice(copied, start)}$${values.length}`;
    copied = end;
    spans?.push(start, end);
  }
  if (values.length === 0) return undefined;
  if (copied < textEnd) lifted += text.slice(copied, textEnd);
  return { text: lifted, values, oids };
}

/** Where the first word begins, if it is INSERT, UPDATE, DELETE or SELECT, which all have six letters; -1 if not. */
function startOfStatement(text: string): number {
  let at = 0;
  while (KINDS[text.charCodeAt(at)] === SPACE) at++;
  return FIRST_WORDS.has(text.slice(at, at + 6).toLowerCase()) && endOfWord(text, at + 6) === at + 6
    ? at
    : -1;
}

function endOfWord(text: string, from: number): number {
  let at = from;
  for (; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code >= 128) continue;
    const kind = KINDS[code];
    if (kind !== LETTER && kind !== DIGIT && kind !== DOLLAR) break;
  }
  return at;
}

/** Whether the word is one of `words`, which are in lower case. */
function isOneOf(text: string, start: number, end: number, words: readonly string[]): boolean {
  for (const word of words) {
    if (word.length !== end - start) continue;
    let index = 0;
    while (index < word.length && (text.charCodeAt(start + index) | LETTER_CASE) === word.charCodeAt(index)) {
      index++;
    }
    if (index === word.length) return true;
  }
  return false;
}

/** The end of what is quoted by `quote`, which stands for itself when doubled; -1 if it is not closed. */
function endOfQuoted(text: string, open: number, quote: string): number {
  let at = open + 1;
  for (;;) {
    const close = text.indexOf(quote, at);
    if (close < 0) return -1;
    if (text.charCodeAt(close + 1) !== quote.charCodeAt(0)) return close + 1;
    at = close + 2;
  }
}

/** -1 also for a string that goes on in other quotes on a later line. */
function endOfString(text: string, open: number): number {
  const end = endOfQuoted(text, open, "'");
  if (end < 0) return -1;
  let at = end;
  while (KINDS[text.charCodeAt(at)] === SPACE) at++;
  return at > end && text.charCodeAt(at) === QUOTE_CODE ? -1 : end;
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39;
}

/** A digit, or a dot and a digit. */
function beginsNumber(text: string, at: number): boolean {
  const code = text.charCodeAt(at);
  return isDigit(code) || (code === DOT_CODE && isDigit(text.charCodeAt(at + 1)));
}

function endOfDigits(text: string, from: number): number {
  let at = from;
  while (isDigit(text.charCodeAt(at))) at++;
  return at;
}

/** Decimal notation, with its sign; others (0x1F, 1_000) go on with a letter, and are glued to it. */
function endOfNumber(text: string, start: number): number {
  let at = endOfDigits(text, text.charCodeAt(start) === MINUS ? start + 1 : start);
  if (text.charCodeAt(at) === DOT_CODE) at = endOfDigits(text, at + 1);
  if ((text.charCodeAt(at) | LETTER_CASE) !== LOWER_E) return at;
  at++;
  const sign = text.charCodeAt(at);
  if (sign === MINUS || sign === PLUS) at++;
  return isDigit(text.charCodeAt(at)) ? endOfDigits(text, at) : -1;
}

/** Something that would join the parameter that is put before it, or that PostgreSQL's versions read differently. */
function isGlued(text: string, end: number): boolean {
  if (end === text.length) return false;
  const code = text.charCodeAt(end);
  const kind = code < 128 ? KINDS[code] : LETTER;
  return (
    kind === LETTER ||
    kind === DIGIT ||
    kind === DOLLAR ||
    kind === QUOTE ||
    kind === DOUBLE_QUOTE ||
    kind === DOT
  );
}

/** PostgreSQL's own choice (make_const): the sign counts, so that -2147483648 is an int4. -1: not decided here. */
function numberOid(text: string, start: number, end: number): number {
  const first = text.charCodeAt(start) === MINUS ? start + 1 : start;
  const digits = end - first;
  if (endOfDigits(text, first) !== end) return OID.numeric;
  if (digits < 10) return OID.int4;
  if (text.charCodeAt(first) === 0x30) return -1;
  if (digits > 19) return OID.numeric;
  const value = BigInt(text.slice(start, end));
  if (BigInt.asIntN(32, value) === value) return OID.int4;
  return BigInt.asIntN(64, value) === value ? OID.int8 : OID.numeric;
}

/** The end of a run of operator characters; `start` itself where a comment begins; -1 for a comment to the end of the line. */
function endOfOperator(text: string, start: number): number {
  let at = start;
  for (; ; at++) {
    const code = text.charCodeAt(at);
    if (KINDS[code] !== OPERATOR) return at;
    const next = text.charCodeAt(at + 1);
    if (code === MINUS && next === MINUS) return -1;
    if (code === SLASH && next === STAR) return at;
  }
}

/** The end of a block comment; -1 for one that is open or has another in it. */
function endOfComment(text: string, start: number): number {
  const close = text.indexOf('*/', start + 2);
  if (close < 0) return -1;
  const inner = text.indexOf('/*', start + 2);
  return inner >= 0 && inner <= close ? -1 : close + 2;
}

/**
 * Whether the minus at the end of the operator characters is a sign. PostgreSQL cuts it off from what is before, unless that has
 * one of the characters that the standard's own operators lack. A minus alone is one where an expression `begins`; after most words it is
 * taken for a subtraction.
 */
function isSign(text: string, start: number, end: number, begins: boolean): boolean {
  if (end === start + 1) return begins;
  for (let at = start; at < end - 1; at++) {
    const code = text.charCodeAt(at);
    // * + - / and < = >
    const plain = code === STAR || code === PLUS || code === MINUS || code === SLASH;
    if (!plain && !(code >= 0x3c && code <= 0x3e)) return false;
  }
  return true;
}

function isBlank(text: string, from: number): boolean {
  let at = from;
  while (at < text.length && KINDS[text.charCodeAt(at)] === SPACE) at++;
  return at === text.length;
}

/**
 * From a position in the lifted text to the one in the original, as in ErrorResponse field P: 1-based, in characters (code points).
 * A parameter's position becomes that of its literal. Reads the original again: for errors, not for the fast path.
 */
export function mapPosition(original: string, lifted: Lifted): (position: number) => number {
  const spans: number[] = [];
  lift(original, spans);
  return (position) => {
    const target = codeUnitsBefore(lifted.text, position - 1);
    // How far the original is ahead of the lifted text after the literals so far.
    let ahead = 0;
    for (let index = 0; index < lifted.values.length; index++) {
      const start = spans[2 * index]!;
      const end = spans[2 * index + 1]!;
      const parameterStart = start - ahead;
      if (target < parameterStart) break;
      const parameterEnd = parameterStart + 1 + String(index + 1).length;
      if (target < parameterEnd) return codePoints(original, start) + 1;
      ahead = end - parameterEnd;
    }
    return codePoints(original, target + ahead) + 1;
  };
}

/** UTF-16 units of the first `count` code points. */
function codeUnitsBefore(text: string, count: number): number {
  let at = 0;
  for (let left = count; left > 0 && at < text.length; left--) at += text.codePointAt(at)! > 0xffff ? 2 : 1;
  return at;
}

function codePoints(text: string, units: number): number {
  let count = 0;
  for (let at = 0; at < units && at < text.length; count++) at += text.codePointAt(at)! > 0xffff ? 2 : 1;
  return count;
}
