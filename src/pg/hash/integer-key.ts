/**
 * int2, int4 and int8 as keys. They hash alike where they are equal: an int8 is folded into 32 bits such that one that
 * fits an int4 is that int4 (PostgreSQL source: hashint8extended). Timestamps are int8 as well and hash the same way.
 *
 * Each function returns whether it is sure of the value; only then `out` is set.
 */
import { digitOf, digitsAt, MINUS, PLUS, skipSpaces, trimSpaces } from './ascii.ts';
import { type Hash64, hashUint32 } from './lookup3.ts';

export type IntegerTypeName = 'int2' | 'int4' | 'int8';

const TWO_32 = 4294967296;
const TWO_31 = 2147483648;
/** Decimal digits that always fit an int32, and a double without loss. */
const INT32_DIGITS = 9;
const DOUBLE_DIGITS = 15;

/** high * 2^32 + low, both unsigned: what readMagnitude last read. */
const magnitude = { high: 0, low: 0 };

/** `high` is signed, `low` may be signed or not. */
export function hashInt64(out: Hash64, high: number, low: number): void {
  hashUint32(out, low ^ (high >= 0 ? high : ~high));
}

export function hashIntegerNumber(out: Hash64, type: IntegerTypeName, value: number): boolean {
  if (!Number.isSafeInteger(value)) return false;
  const magnitudeMax = value < 0 ? magnitudeBelowZeroMax(type) : magnitudeBelowZeroMax(type) - 1;
  if (Math.abs(value) > magnitudeMax) return false;
  hashInt64(out, Math.floor(value / TWO_32), value >>> 0);
  return true;
}

/** Big-endian two's complement of two, four or eight bytes; their number, not the key's type, says how it is read. */
export function hashIntegerBinary(out: Hash64, buffer: Buffer, start: number, end: number): boolean {
  switch (end - start) {
    case 2:
      hashUint32(out, buffer.readInt16BE(start));
      return true;
    case 4:
      hashUint32(out, buffer.readInt32BE(start));
      return true;
    case 8:
      hashInt64(out, buffer.readInt32BE(start), buffer.readInt32BE(start + 4));
      return true;
    default:
      return false;
  }
}

/**
 * What PostgreSQL 15 and older take: white space around, a sign, decimal digits. The hexadecimal and the underscores of
 * 16 and later are left to the server, as is everything out of the type's range.
 */
export function hashIntegerText(
  out: Hash64,
  type: IntegerTypeName,
  bytes: Uint8Array,
  start: number,
  end: number,
): boolean {
  let at = skipSpaces(bytes, start, end);
  const last = trimSpaces(bytes, at, end);
  const negative = at < last && bytes[at] === MINUS;
  if (negative || (at < last && bytes[at] === PLUS)) at++;
  if (at === last) return false;
  if (last - at <= INT32_DIGITS) {
    const value = digitsAt(bytes, at, last - at);
    if (value < 0 || (type === 'int2' && value > (negative ? 0x8000 : 0x7fff))) return false;
    hashUint32(out, negative ? -value : value);
    return true;
  }
  if (!readMagnitude(bytes, at, last)) return false;
  const { high, low } = magnitude;
  if (type === 'int8') {
    if (high >= TWO_31 && !(negative && high === TWO_31 && low === 0)) return false;
  } else if (high > 0 || low > magnitudeBelowZeroMax(type) - (negative ? 0 : 1)) {
    return false;
  }
  if (!negative || (high === 0 && low === 0)) {
    hashInt64(out, high, low);
  } else {
    // −m is the complement of m − 1, in both halves.
    hashInt64(out, ~(low === 0 ? high - 1 : high), ~(low - 1));
  }
  return true;
}

/** Sets `magnitude` to the decimal digits of bytes[start, end), and returns whether they are that, and not far above 2^63. */
function readMagnitude(bytes: Uint8Array, start: number, end: number): boolean {
  let at = start;
  let exact = 0;
  for (const exactEnd = Math.min(end, start + DOUBLE_DIGITS); at < exactEnd; at++) {
    const digit = digitOf(bytes[at]!);
    if (digit < 0) return false;
    exact = exact * 10 + digit;
  }
  let high = Math.floor(exact / TWO_32);
  let low = exact >>> 0;
  for (; at < end; at++) {
    const digit = digitOf(bytes[at]!);
    if (digit < 0) return false;
    const product = low * 10 + digit;
    high = high * 10 + Math.floor(product / TWO_32);
    low = product >>> 0;
    if (high > TWO_31) return false;
  }
  magnitude.high = high;
  magnitude.low = low;
  return true;
}

/** How far below zero the type reaches; above zero it is one less. */
function magnitudeBelowZeroMax(type: IntegerTypeName): number {
  switch (type) {
    case 'int2':
      return 0x8000;
    case 'int4':
      return TWO_31;
    case 'int8':
      return 2 ** 63;
  }
}
