/**
 * The text that statements are counted by: constants become $n, behind the parameters that are there already, so that texts
 * which differ in values alone are one, and no value of a user's is kept. A list of constants behind IN is told by its first.
 *
 * Strings are replaced in every statement (CREATE ROLE … PASSWORD '…'); numbers in queries alone, since in other statements
 * they are part of what is made (varchar(20)).
 */
import { BYTE, isPunctuation, keywordOf, nextToken, skipSpace, type Token } from '../sql/scanner.ts';

/** Bytes of a text that are looked at, and kept. */
export const NORMALIZED_BYTES_MAX = 8 * 1024;

const QUERIES = new Set('select insert update delete merge with values table explain declare'.split(' '));
const CUT = ' …';

export function normalizeText(text: string): string {
  const bytes = Buffer.from(text.length > NORMALIZED_BYTES_MAX ? text.slice(0, NORMALIZED_BYTES_MAX) : text);
  const isCut = text.length > NORMALIZED_BYTES_MAX;
  const first = firstWord(bytes);
  const isQuery = QUERIES.has(first);
  const parts: string[] = [];
  let next = highestParameter(bytes) + 1;
  let copied = skipSpace(bytes, 0);
  let end = bytes.length;
  let previous: Token | undefined;
  let listBegins = false;
  for (let token = nextToken(bytes, copied); token.kind !== 'end'; token = nextToken(bytes, token.end)) {
    if (isCut && token.end >= bytes.length) {
      end = token.start;
      break;
    }
    if (isPunctuation(bytes, token, BYTE.openParen))
      listBegins = previous !== undefined && keywordOf(bytes, previous) === 'in';
    if (token.kind === 'string' || (isQuery && token.kind === 'number')) {
      parts.push(bytes.toString('utf8', copied, token.start), `$${next++}`);
      copied = token.end;
      if (listBegins) {
        const listEnd = endOfConstants(bytes, token.end);
        if (listEnd > token.end) {
          parts.push(' /*, ... */');
          copied = listEnd;
          previous = token;
          token = { ...token, end: listEnd };
        }
      }
      listBegins = false;
    } else if (!isPunctuation(bytes, token, BYTE.openParen)) listBegins = false;
    previous = token;
  }
  parts.push(bytes.toString('utf8', copied, end));
  return parts.join('').replace(/[\s;]+$/, '') + (isCut ? CUT : '');
}

function firstWord(bytes: Uint8Array): string {
  let token = nextToken(bytes, 0);
  while (isPunctuation(bytes, token, BYTE.openParen)) token = nextToken(bytes, token.end);
  return keywordOf(bytes, token);
}

/** `, constant, constant`: the end of the last one; `start` if another thing is in the list. */
function endOfConstants(bytes: Uint8Array, start: number): number {
  let at = start;
  for (;;) {
    const comma = nextToken(bytes, at);
    if (isPunctuation(bytes, comma, BYTE.closeParen)) return at;
    if (!isPunctuation(bytes, comma, BYTE.comma)) return start;
    let constant = nextToken(bytes, comma.end);
    if (isPunctuation(bytes, constant, BYTE.minus)) constant = nextToken(bytes, constant.end);
    if (constant.kind !== 'string' && constant.kind !== 'number') return start;
    at = constant.end;
  }
}

function highestParameter(bytes: Buffer): number {
  let highest = 0;
  if (!bytes.includes(BYTE.dollar)) return highest;
  for (let token = nextToken(bytes, 0); token.kind !== 'end'; token = nextToken(bytes, token.end)) {
    if (token.kind === 'parameter')
      highest = Math.max(highest, Number(bytes.toString('latin1', token.start + 1, token.end)) || 0);
  }
  return highest;
}
