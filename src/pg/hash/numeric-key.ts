/**
 * numeric as a key. PostgreSQL keeps it in digits of base 10000 that are aligned to the decimal point; the hash is that
 * of the digits without zeros at either end, XOR the weight (power of 10000) of the first. So 1, 1.0 and 1e0 hash alike,
 * and so do 1 and −1 (PostgreSQL source: hash_numeric_extended).
 *
 * Each function returns whether it is sure of the value; only then `out` is set. `scale` is the column's number of
 * decimal places (undefined: any): a value with more would be rounded by the column and is not taken.
 */
import { DOT, digitOf, isWord, MINUS, PLUS, skipSpaces, trimSpaces } from './ascii.ts';
import { type Hash64, hashBytes, hashIsSeedPlus } from './lookup3.ts';

/** Beyond these, text may be past a limit of the type, or a waste of time: the server is asked. */
const TEXT_CHARS_MAX = 1000;
const EXPONENT_MAX = 1000;
/** Two bytes for each digit of base 10000; a binary value with more is left to the server. */
const DIGITS_MAX = 1024;
const LETTER_E = 0x65;

const SIGN_POSITIVE = 0x0000;
const SIGN_NEGATIVE = 0x4000;
const SIGN_NAN = 0xc000;
const SIGN_INFINITY = 0xd000;
const SIGN_NEGATIVE_INFINITY = 0xf000;
const HEADER_BYTES = 8;

/** Digits of base 10000 as little-endian int16, as they stand in a server's memory. */
const scratch = new Uint8Array(DIGITS_MAX * 2);

export function hashNumericText(
  out: Hash64,
  bytes: Uint8Array,
  start: number,
  end: number,
  scale: number | undefined,
): boolean {
  let at = skipSpaces(bytes, start, end);
  const last = trimSpaces(bytes, at, end);
  if (last - at > TEXT_CHARS_MAX) return false;
  if (isWord(bytes, at, last, 'nan')) {
    hashIsSeedPlus(out, 0);
    return true;
  }
  if (at < last && (bytes[at] === PLUS || bytes[at] === MINUS)) at++;
  if (isWord(bytes, at, last, 'infinity') || isWord(bytes, at, last, 'inf')) {
    hashIsSeedPlus(out, 0);
    return true;
  }
  return hashDecimal(out, bytes, at, last, scale);
}

/** digits[.digits][e[±]digits], with at least one digit on either side of the point. */
function hashDecimal(
  out: Hash64,
  bytes: Uint8Array,
  start: number,
  end: number,
  scale: number | undefined,
): boolean {
  let pointAt = -1;
  let firstAt = -1;
  let lastAt = -1;
  let at = start;
  for (; at < end; at++) {
    const byte = bytes[at]!;
    if (byte === DOT && pointAt < 0) {
      pointAt = at;
      continue;
    }
    const digit = digitOf(byte);
    if (digit < 0) break;
    if (digit > 0) {
      if (firstAt < 0) firstAt = at;
      lastAt = at;
    }
  }
  const mantissaEnd = at;
  if (mantissaEnd - start - (pointAt < 0 ? 0 : 1) === 0) return false;
  const exponent = at < end ? exponentAt(bytes, at, end) : 0;
  if (Number.isNaN(exponent)) return false;
  if (firstAt < 0) {
    hashIsSeedPlus(out, -1);
    return true;
  }
  const unitsAt = (pointAt < 0 ? mantissaEnd : pointAt) - 1;
  const lastPower = powerAt(lastAt, unitsAt, exponent);
  if (scale !== undefined && lastPower < -scale) return false;

  const weight = Math.floor(powerAt(firstAt, unitsAt, exponent) / 4);
  const digitCount = weight - Math.floor(lastPower / 4) + 1;
  scratch.fill(0, 0, digitCount * 2);
  for (let position = firstAt; position <= lastAt; position++) {
    if (position === pointAt) continue;
    const power = powerAt(position, unitsAt, exponent);
    const group = Math.floor(power / 4);
    const added = digitOf(bytes[position]!) * 10 ** (power - group * 4);
    const offset = (weight - group) * 2;
    const value = scratch[offset]! + (scratch[offset + 1]! << 8) + added;
    scratch[offset] = value & 0xff;
    scratch[offset + 1] = value >> 8;
  }
  hashDigits(out, 0, digitCount, weight);
  return true;
}

/** numeric_send's form: int16 count, weight, sign, display scale, then the digits, all big-endian. */
export function hashNumericBinary(
  out: Hash64,
  buffer: Buffer,
  start: number,
  end: number,
  scale: number | undefined,
): boolean {
  if (end - start < HEADER_BYTES) return false;
  const digitCount = buffer.readUInt16BE(start);
  const weight = buffer.readInt16BE(start + 2);
  const sign = buffer.readUInt16BE(start + 4);
  const displayScale = buffer.readUInt16BE(start + 6);
  if (digitCount > DIGITS_MAX || end - start !== HEADER_BYTES + digitCount * 2) return false;
  if (sign === SIGN_NAN || sign === SIGN_INFINITY || sign === SIGN_NEGATIVE_INFINITY) {
    hashIsSeedPlus(out, 0);
    return true;
  }
  if (sign !== SIGN_POSITIVE && sign !== SIGN_NEGATIVE) return false;
  let first = digitCount;
  let last = -1;
  for (let index = 0; index < digitCount; index++) {
    const digit = buffer.readUInt16BE(start + HEADER_BYTES + index * 2);
    if (digit > 9999) return false;
    scratch[index * 2] = digit & 0xff;
    scratch[index * 2 + 1] = digit >> 8;
    if (digit === 0) continue;
    if (first === digitCount) first = index;
    last = index;
  }
  if (last < 0) {
    hashIsSeedPlus(out, -1);
    return true;
  }
  // The server cuts what lies beyond the display scale, and the column rounds what lies beyond its own.
  const lastPower = (weight - last) * 4 + trailingZeros(scratch[last * 2]! + (scratch[last * 2 + 1]! << 8));
  if (lastPower < -displayScale || (scale !== undefined && lastPower < -scale)) return false;
  hashDigits(out, first, last + 1, weight - first);
  return true;
}

/** Hashes digits [first, end) of `scratch`, the first of which is worth 10000^weight. */
function hashDigits(out: Hash64, first: number, end: number, weight: number): void {
  hashBytes(out, scratch, first * 2, end * 2);
  // The weight is a signed int that PostgreSQL widens to 64 bits before the XOR.
  out.low ^= weight;
  if (weight < 0) out.high = ~out.high;
}

/** The power of ten of the digit at `position`, where the digit of the units stands, or would, at `unitsAt`. */
function powerAt(position: number, unitsAt: number, exponent: number): number {
  // Behind the units is the decimal point.
  return unitsAt - position + (position > unitsAt ? 1 : 0) + exponent;
}

/** The exponent that begins with the `e` at `at`, or NaN where there is none, or too large a one. */
function exponentAt(bytes: Uint8Array, at: number, end: number): number {
  if ((bytes[at]! | 0x20) !== LETTER_E) return Number.NaN;
  const signed = at + 1 < end && (bytes[at + 1] === PLUS || bytes[at + 1] === MINUS);
  let index = signed ? at + 2 : at + 1;
  if (index === end) return Number.NaN;
  let exponent = 0;
  for (; index < end; index++) {
    const digit = digitOf(bytes[index]!);
    if (digit < 0) return Number.NaN;
    exponent = exponent * 10 + digit;
    if (exponent > EXPONENT_MAX) return Number.NaN;
  }
  return signed && bytes[at + 1] === MINUS ? -exponent : exponent;
}

/** Decimal zeros at the end of a digit of base 10000 that is not 0. */
function trailingZeros(digit: number): number {
  if (digit % 1000 === 0) return 3;
  if (digit % 100 === 0) return 2;
  return digit % 10 === 0 ? 1 : 0;
}
