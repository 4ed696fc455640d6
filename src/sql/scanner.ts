/**
 * The tokens of SQL text, over UTF-8 bytes, as far as editing the text needs them: where names, strings, comments,
 * parentheses and commas begin and end (documentation: "Lexical Structure"). The parse tree says what a text means; this only
 * finds the byte at which something ends, which the tree does not say.
 *
 * Invariant: the text has been parsed, so strings and comments are closed; and standard_conforming_strings is on, as the
 * parser itself assumes.
 */

export type TokenKind =
  | 'identifier'
  | 'quotedIdentifier'
  | 'string'
  | 'number'
  | 'parameter'
  /** One byte: a parenthesis, a comma, or one character of an operator. */
  | 'punctuation'
  | 'end';

export interface Token {
  readonly kind: TokenKind;
  readonly start: number;
  readonly end: number;
}

export const BYTE = {
  doubleQuote: 0x22,
  dollar: 0x24,
  quote: 0x27,
  openParen: 0x28,
  closeParen: 0x29,
  star: 0x2a,
  comma: 0x2c,
  minus: 0x2d,
  dot: 0x2e,
  slash: 0x2f,
  backslash: 0x5c,
  newline: 0x0a,
  carriageReturn: 0x0d,
} as const;

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || (byte !== undefined && byte >= 0x09 && byte <= 0x0d);
}

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= 0x30 && byte <= 0x39;
}

function isIdentifierStart(byte: number | undefined): boolean {
  if (byte === undefined) return false;
  return (byte >= 0x61 && byte <= 0x7a) || (byte >= 0x41 && byte <= 0x5a) || byte === 0x5f || byte >= 0x80;
}

function isIdentifierPart(byte: number | undefined): boolean {
  return isIdentifierStart(byte) || isDigit(byte) || byte === BYTE.dollar;
}

/** The first byte at or after `position` that is neither white space nor in a comment. */
export function skipSpace(sql: Uint8Array, position: number): number {
  let at = position;
  for (;;) {
    const byte = sql[at];
    if (isSpace(byte)) at++;
    else if (byte === BYTE.minus && sql[at + 1] === BYTE.minus) {
      while (at < sql.length && sql[at] !== BYTE.newline && sql[at] !== BYTE.carriageReturn) at++;
    } else if (byte === BYTE.slash && sql[at + 1] === BYTE.star) at = endOfBlockComment(sql, at);
    else return at;
  }
}

/** Block comments nest. */
function endOfBlockComment(sql: Uint8Array, start: number): number {
  let depth = 0;
  let at = start;
  while (at < sql.length) {
    if (sql[at] === BYTE.slash && sql[at + 1] === BYTE.star) {
      depth++;
      at += 2;
    } else if (sql[at] === BYTE.star && sql[at + 1] === BYTE.slash) {
      depth--;
      at += 2;
      if (depth === 0) return at;
    } else at++;
  }
  return at;
}

/** The next token at or after `position`; kind 'end' at the end of the text. */
export function nextToken(sql: Uint8Array, position: number): Token {
  const start = skipSpace(sql, position);
  const byte = sql[start];
  if (byte === undefined) return { kind: 'end', start, end: start };
  if (isIdentifierStart(byte)) return wordToken(sql, start);
  if (byte === BYTE.doubleQuote) {
    return { kind: 'quotedIdentifier', start, end: endOfQuoted(sql, start, BYTE.doubleQuote, false) };
  }
  if (byte === BYTE.quote) return { kind: 'string', start, end: endOfQuoted(sql, start, BYTE.quote, false) };
  if (byte === BYTE.dollar) return dollarToken(sql, start);
  if (isDigit(byte)) {
    let end = start + 1;
    while (isIdentifierPart(sql[end]) || sql[end] === BYTE.dot) end++;
    return { kind: 'number', start, end };
  }
  return { kind: 'punctuation', start, end: start + 1 };
}

/** An identifier or keyword, or the prefix of a string: E'…', B'…', X'…', U&'…', U&"…". */
function wordToken(sql: Uint8Array, start: number): Token {
  let end = start + 1;
  while (isIdentifierPart(sql[end])) end++;
  if (end === start + 1) {
    const letter = String.fromCharCode(sql[start]! | 0x20);
    if (sql[end] === BYTE.quote && 'ebx'.includes(letter)) {
      return { kind: 'string', start, end: endOfQuoted(sql, end, BYTE.quote, letter === 'e') };
    }
    const quote = sql[end + 1];
    if (letter === 'u' && sql[end] === 0x26 && (quote === BYTE.quote || quote === BYTE.doubleQuote)) {
      const kind = quote === BYTE.quote ? 'string' : 'quotedIdentifier';
      return { kind, start, end: endOfQuoted(sql, end + 1, quote, false) };
    }
  }
  return { kind: 'identifier', start, end };
}

/** `open` is the position of the opening quote; a doubled quote stands for itself. */
function endOfQuoted(sql: Uint8Array, open: number, quote: number, backslashes: boolean): number {
  let at = open + 1;
  while (at < sql.length) {
    if (backslashes && sql[at] === BYTE.backslash) at += 2;
    else if (sql[at] !== quote) at++;
    else if (sql[at + 1] === quote) at += 2;
    else {
      const next = quote === BYTE.quote ? continuationOf(sql, at + 1) : undefined;
      if (next === undefined) return at + 1;
      at = next;
    }
  }
  return sql.length;
}

/**
 * A string goes on in the next quotes if only white space with a newline is between; in an E'…' string backslashes go on
 * meaning something there. (PostgreSQL also takes line comments between; the parser here does not.) The position behind
 * the opening quote; undefined if it does not go on.
 */
function continuationOf(sql: Uint8Array, end: number): number | undefined {
  let at = end;
  let newline = false;
  while (isSpace(sql[at])) {
    if (sql[at] === BYTE.newline || sql[at] === BYTE.carriageReturn) newline = true;
    at++;
  }
  return newline && sql[at] === BYTE.quote ? at + 1 : undefined;
}

/** $1, or $tag$ … $tag$. */
function dollarToken(sql: Uint8Array, start: number): Token {
  let end = start + 1;
  if (isDigit(sql[end])) {
    while (isDigit(sql[end])) end++;
    return { kind: 'parameter', start, end };
  }
  while (isIdentifierStart(sql[end]) || isDigit(sql[end])) end++;
  if (sql[end] !== BYTE.dollar) return { kind: 'punctuation', start, end: start + 1 };
  const tag = sql.subarray(start, end + 1);
  const close = Buffer.from(sql.buffer, sql.byteOffset, sql.length).indexOf(tag, end + 1);
  return { kind: 'string', start, end: close < 0 ? sql.length : close + tag.length };
}

/** With `open` at an opening parenthesis: the position of the one that closes it. */
export function closingParen(sql: Uint8Array, open: number): number {
  let depth = 0;
  let at = open;
  for (;;) {
    const token = nextToken(sql, at);
    if (token.kind === 'end') return sql.length;
    if (token.kind === 'punctuation') {
      if (sql[token.start] === BYTE.openParen) depth++;
      else if (sql[token.start] === BYTE.closeParen && --depth === 0) return token.start;
    }
    at = token.end;
  }
}

/** The text of a token, lower case: to compare keywords with. */
export function keywordOf(sql: Uint8Array, token: Token): string {
  if (token.kind !== 'identifier') return '';
  return Buffer.from(sql.buffer, sql.byteOffset + token.start, token.end - token.start)
    .toString('latin1')
    .toLowerCase();
}

export function isPunctuation(sql: Uint8Array, token: Token, byte: number): boolean {
  return token.kind === 'punctuation' && sql[token.start] === byte;
}

/** The end of the name at `start` with `parts` identifiers, dots between them; undefined if it is not written plainly. */
export function endOfName(sql: Uint8Array, start: number, parts: number): number | undefined {
  let at = start;
  for (let part = 0; ; part++) {
    const name = nextToken(sql, at);
    if (name.kind !== 'identifier' && name.kind !== 'quotedIdentifier') return undefined;
    if (part === parts - 1) return name.end;
    const dot = nextToken(sql, name.end);
    if (!isPunctuation(sql, dot, BYTE.dot)) return undefined;
    at = dot.end;
  }
}
