/**
 * numeric values as strings that compare, byte by byte, as PostgreSQL compares the values: −Infinity, negative numbers, 0,
 * positive numbers, Infinity, NaN. Equal values have equal strings, however they are written (1, 1.0, 1e0).
 *
 * A number is its sign, the exponent of 0.d₁d₂… × 10^exponent (d₁ is not 0), and its digits without zeros at either end.
 * Of a negative one, exponent and digits are complements, and `~`, which is above all digits, ends it.
 *
 * undefined: not sure of the value; the server is asked. `scale` is the column's number of decimal places (undefined: any): a
 * value with more would be rounded and is not taken.
 */
import { digitOf, isWord, MINUS, PLUS, skipSpaces, trimSpaces } from '../hash/ascii.ts';

const NEGATIVE_INFINITY = '1';
const NEGATIVE = '2';
const ZERO = '3';
const POSITIVE = '4';
const INFINITY = '5';
const NAN = '6';

const TEXT_CHARS_MAX = 1000;
const EXPONENT_MAX = 1000;
const EXPONENT_OFFSET = 500_000;
const EXPONENT_DIGITS = 6;

const SIGN_POSITIVE = 0x0000;
const SIGN_NEGATIVE = 0x4000;
const SIGN_NAN = 0xc000;
const SIGN_INFINITY = 0xd000;
const SIGN_NEGATIVE_INFINITY = 0xf000;
const HEADER_BYTES = 8;
const DIGITS_MAX = 1024;

/** digits[.digits][e[±]digits], with at least one digit before the exponent. */
const DECIMAL = /^(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,4}))?$/;

export function decimalOfText(
  bytes: Buffer,
  start: number,
  end: number,
  scale: number | undefined,
): string | undefined {
  let at = skipSpaces(bytes, start, end);
  const last = trimSpaces(bytes, at, end);
  if (last - at > TEXT_CHARS_MAX) return undefined;
  if (isWord(bytes, at, last, 'nan')) return NAN;
  const isNegative = bytes[at] === MINUS;
  if (at < last && (isNegative || bytes[at] === PLUS)) at++;
  if (isWord(bytes, at, last, 'infinity') || isWord(bytes, at, last, 'inf'))
    return isNegative ? NEGATIVE_INFINITY : INFINITY;
  const match = DECIMAL.exec(bytes.toString('latin1', at, last));
  if (!match) return undefined;
  const [, whole = '', fraction = '', exponentText = '0'] = match;
  if (whole === '' && fraction === '') return undefined;
  const exponent = Number(exponentText);
  if (Math.abs(exponent) > EXPONENT_MAX) return undefined;
  return ordered({ isNegative, digits: whole + fraction, pointAt: whole.length + exponent, scale });
}

/** numeric_send's form: int16 count, weight, sign, display scale, then digits of base 10000, all big-endian. */
export function decimalOfBinary(
  buffer: Buffer,
  start: number,
  end: number,
  scale: number | undefined,
): string | undefined {
  if (end - start < HEADER_BYTES) return undefined;
  const count = buffer.readUInt16BE(start);
  const weight = buffer.readInt16BE(start + 2);
  const sign = buffer.readUInt16BE(start + 4);
  const displayScale = buffer.readUInt16BE(start + 6);
  if (count > DIGITS_MAX || end - start !== HEADER_BYTES + count * 2) return undefined;
  if (sign === SIGN_NAN) return NAN;
  if (sign === SIGN_INFINITY) return INFINITY;
  if (sign === SIGN_NEGATIVE_INFINITY) return NEGATIVE_INFINITY;
  if (sign !== SIGN_POSITIVE && sign !== SIGN_NEGATIVE) return undefined;
  let digits = '';
  for (let index = 0; index < count; index++) {
    const digit = buffer.readUInt16BE(start + HEADER_BYTES + index * 2);
    if (digit > 9999) return undefined;
    digits += String(digit).padStart(4, '0');
  }
  // The server cuts what lies beyond the display scale, and the column rounds what lies beyond its own.
  const places = scale === undefined ? displayScale : Math.min(scale, displayScale);
  return ordered({ isNegative: sign === SIGN_NEGATIVE, digits, pointAt: (weight + 1) * 4, scale: places });
}

/** `pointAt`: how many of the digits stand before the decimal point. */
function ordered(number: {
  readonly isNegative: boolean;
  readonly digits: string;
  readonly pointAt: number;
  readonly scale: number | undefined;
}): string | undefined {
  const digits = number.digits.replace(/0+$/, '');
  const leading = /^0*/.exec(digits)![0].length;
  const significant = digits.slice(leading);
  if (significant === '') return ZERO;
  if (number.scale !== undefined && digits.length - number.pointAt > number.scale) return undefined;
  const exponent = String(number.pointAt - leading + EXPONENT_OFFSET).padStart(EXPONENT_DIGITS, '0');
  if (!number.isNegative) return POSITIVE + exponent + significant;
  return `${NEGATIVE}${complement(exponent)}${complement(significant)}~`;
}

function complement(digits: string): string {
  let result = '';
  for (let index = 0; index < digits.length; index++) result += 9 - digitOf(digits.charCodeAt(index));
  return result;
}
