/** Bytes of text-format values, which are ASCII in every type but the character ones. */

export const PLUS = 0x2b;
export const MINUS = 0x2d;
export const DOT = 0x2e;
export const COLON = 0x3a;
export const SPACE = 0x20;
const ZERO = 0x30;

/** 0 to 9, or −1 for a byte that is no decimal digit. */
export function digitOf(byte: number): number {
  const digit = byte - ZERO;
  return digit >= 0 && digit <= 9 ? digit : -1;
}

/** The value of exactly `count` (at most 9) decimal digits from `at` on, or −1. The caller knows that they are in bounds. */
export function digitsAt(bytes: Uint8Array, at: number, count: number): number {
  let value = 0;
  for (let index = at; index < at + count; index++) {
    const digit = digitOf(bytes[index]!);
    if (digit < 0) return -1;
    value = value * 10 + digit;
  }
  return value;
}

/** The first position from `start` on that holds no white space, or `end`. */
export function skipSpaces(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  while (at < end && isSpace(bytes[at]!)) at++;
  return at;
}

/** Where the white space at the end of bytes[start, end) begins. */
export function trimSpaces(bytes: Uint8Array, start: number, end: number): number {
  let at = end;
  while (at > start && isSpace(bytes[at - 1]!)) at--;
  return at;
}

/** Whether bytes[start, end) is `word` (lower-case letters), in any case. */
export function isWord(bytes: Uint8Array, start: number, end: number, word: string): boolean {
  if (end - start !== word.length) return false;
  for (let index = 0; index < word.length; index++) {
    if ((bytes[start + index]! | 0x20) !== word.charCodeAt(index)) return false;
  }
  return true;
}

/** isspace() of the C locale. */
function isSpace(byte: number): boolean {
  return byte === SPACE || (byte >= 0x09 && byte <= 0x0d);
}
