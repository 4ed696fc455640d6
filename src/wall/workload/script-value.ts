/**
 * The values of a script's variables and expressions, as pgbench has them: 64-bit integers, doubles, booleans and null;
 * and text, which comes from a query's result (\gset) and is read as one of the others when an expression uses it.
 * Source: PostgreSQL documentation, pgbench, "Custom Scripts".
 *
 * Invariant: an integer within ±(2^53 − 1) is a number, any other is a bigint, so that the usual ones cost no memory;
 * a double is wrapped, since 1 and 1.0 divide differently.
 */
import { invalidParameter } from '../../base/errors.ts';

export class Double {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

export type Integer = number | bigint;
export type Value = Integer | Double | boolean | null | string;

const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;
/** Doubles have no 2^63 − 1; what rounds to 2^63 does not fit. */
const INT64_END = 2 ** 63;
/** %.15g, as pgbench prints doubles. */
const DOUBLE_DIGITS = 15;

/** The shortest form of an integer that is known to fit into 64 bits. */
export function integer(value: bigint): Integer {
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
}

/** Throws if it needs more than 64 bits; `operation` is told then. */
export function checkedInteger(value: bigint, operation: string): Integer {
  if (value < INT64_MIN || value > INT64_MAX) throw invalidParameter(`bigint ${operation} out of range`);
  return integer(value);
}

function typeName(value: Value): string {
  if (value === null) return 'null';
  if (value instanceof Double) return 'double';
  if (typeof value === 'boolean') return 'boolean';
  return typeof value === 'string' ? 'text' : 'int';
}

export function toInteger(value: Value): Integer {
  if (typeof value === 'number' || typeof value === 'bigint') return value;
  if (!(value instanceof Double)) throw invalidParameter(`cannot coerce ${typeName(value)} to int`);
  const rounded = roundHalfEven(value.value);
  if (!(rounded >= -INT64_END && rounded < INT64_END)) {
    throw invalidParameter(`double to int overflow for ${value.value}`);
  }
  return Number.isSafeInteger(rounded) ? rounded : integer(BigInt(rounded));
}

export function toDouble(value: Value): number {
  if (value instanceof Double) return value.value;
  if (typeof value === 'number' || typeof value === 'bigint') return Number(value);
  throw invalidParameter(`cannot coerce ${typeName(value)} to double`);
}

export function toBoolean(value: Value): boolean {
  if (typeof value === 'boolean') return value;
  throw invalidParameter(`cannot coerce ${typeName(value)} to boolean`);
}

/** For \if and CASE: a number that is not 0 is true, and null is false. */
export function isTrue(value: Value): boolean {
  if (value instanceof Double) return value.value !== 0;
  if (typeof value === 'string') return isTrue(readText(value));
  return typeof value === 'boolean' ? value : value !== null && value !== 0;
}

/** What a text means in an expression. */
export function readText(text: string): Exclude<Value, string> {
  const lower = text.toLowerCase();
  if (lower === 'null') return null;
  if (lower !== '' && ('true'.startsWith(lower) || 'yes'.startsWith(lower) || lower === 'on')) return true;
  if (lower !== '' && ('false'.startsWith(lower) || 'no'.startsWith(lower) || /^off?$/.test(lower)))
    return false;
  if (/^\s*[-+]?\d+\s*$/.test(text)) return checkedInteger(BigInt(text.trim().replace(/^\+/, '')), 'value');
  const double = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isNaN(double))
    throw invalidParameter(`"${text.slice(0, 60)}" is not a number that an expression can use`);
  return new Double(double);
}

/** As it stands in SQL and in parameters; null is for the caller. */
export function valueText(value: Exclude<Value, null>): string {
  return value instanceof Double ? doubleText(value.value) : String(value);
}

/** C's %.15g. */
function doubleText(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf';
  const exponential = value.toExponential(DOUBLE_DIGITS - 1);
  const exponent = Number(exponential.slice(exponential.indexOf('e') + 1));
  const trimmed = (digits: string): string => (digits.includes('.') ? digits.replace(/\.?0+$/, '') : digits);
  if (exponent >= -4 && exponent < DOUBLE_DIGITS) return trimmed(value.toFixed(DOUBLE_DIGITS - 1 - exponent));
  const magnitude = String(Math.abs(exponent)).padStart(2, '0');
  return `${trimmed(exponential.slice(0, exponential.indexOf('e')))}e${exponent < 0 ? '-' : '+'}${magnitude}`;
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
