/**
 * A shard key's value in a form that JavaScript compares as PostgreSQL compares the values of the key's type: numbers of whole
 * units (integers, days, microseconds; a bigint where a number would lose digits), or strings (decimal.ts; a uuid's digits; the
 * UTF-8 bytes of characters, one a code unit, which is the order of collation "C"). Equal values are equal by ===, so a
 * Map finds them.
 *
 * Invariant: `undefined` where the value that the server would store or compare is not known for sure (pg/hash/key-hash.ts
 * has the same rules); there is no guess.
 */
import { unreachable } from '../../base/assert.ts';
import { MINUS, PLUS, SPACE, skipSpaces, trimSpaces } from '../hash/ascii.ts';
import { fitsPrecision, readDateText, readTime, readTimestampText } from '../hash/datetime-key.ts';
import { integerBytes, precisionOf, scaleOf } from '../hash/key-hash.ts';
import type { KeyTypeName } from '../hash/key-type.ts';
import { readUuidText } from '../hash/uuid-key.ts';
import { decimalOfBinary, decimalOfText } from './decimal.ts';

export type KeyValue = number | bigint | string;

const MODIFIER_OFFSET = 4;
const UUID_BYTES = 16;
const INTEGER_CHARS_MAX = 40;

const INTEGER_LIMITS: Readonly<Record<'int2' | 'int4' | 'int8', bigint>> = {
  int2: 1n << 15n,
  int4: 1n << 31n,
  int8: 1n << 63n,
};

const uuidBytes = Buffer.alloc(UUID_BYTES);

/** The value in bytes [start, end) of `buffer`, in text format and UTF-8; `typeModifier` is the key column's. */
export function keyValueOfText(
  type: KeyTypeName,
  buffer: Buffer,
  start: number,
  end: number,
  typeModifier: number,
): KeyValue | undefined {
  switch (type) {
    case 'int2':
    case 'int4':
    case 'int8':
      return integerOfText(type, buffer, start, end);
    case 'text':
    case 'varchar':
    case 'bpchar':
      return characters(type, buffer, start, end, typeModifier);
    case 'uuid':
      return readUuidText(uuidBytes, buffer, start, end) ? uuidBytes.toString('hex') : undefined;
    case 'date':
      return readDateText(buffer, start, end) ? readTime.days : undefined;
    case 'timestamp':
    case 'timestamptz': {
      const precision = precisionOf(typeModifier);
      if (!readTimestampText(buffer, start, end, type === 'timestamptz', precision)) return undefined;
      return smallest(BigInt(readTime.seconds) * 1_000_000n + BigInt(readTime.microseconds));
    }
    case 'numeric':
      return decimalOfText(buffer, start, end, scaleOf(typeModifier));
    default:
      return unreachable(type);
  }
}

/** The same in binary format, of a parameter declared with `parameterOid`, one that is comparable with the key. */
export function keyValueOfBinary(
  type: KeyTypeName,
  parameterOid: number,
  buffer: Buffer,
  start: number,
  end: number,
  typeModifier: number,
): KeyValue | undefined {
  switch (type) {
    case 'int2':
    case 'int4':
    case 'int8':
      return end - start === integerBytes(type, parameterOid)
        ? integerOfBinary(buffer, start, end)
        : undefined;
    case 'text':
    case 'varchar':
    case 'bpchar':
      return characters(type, buffer, start, end, typeModifier);
    case 'uuid':
      return end - start === UUID_BYTES ? buffer.toString('hex', start, end) : undefined;
    case 'date':
      return end - start === 4 ? buffer.readInt32BE(start) : undefined;
    case 'timestamp':
    case 'timestamptz':
      if (end - start !== 8 || !fitsPrecision(buffer, start, precisionOf(typeModifier))) return undefined;
      return smallest(buffer.readBigInt64BE(start));
    case 'numeric':
      return decimalOfBinary(buffer, start, end, scaleOf(typeModifier));
    default:
      return unreachable(type);
  }
}

/** What PostgreSQL 15 and older take: white space around, a sign, decimal digits. */
function integerOfText(
  type: 'int2' | 'int4' | 'int8',
  bytes: Buffer,
  start: number,
  end: number,
): KeyValue | undefined {
  let at = skipSpaces(bytes, start, end);
  const last = trimSpaces(bytes, at, end);
  const isNegative = bytes[at] === MINUS;
  if (at < last && (isNegative || bytes[at] === PLUS)) at++;
  if (last - at > INTEGER_CHARS_MAX) return undefined;
  const digits = bytes.toString('latin1', at, last);
  if (!/^\d+$/.test(digits)) return undefined;
  const value = isNegative ? -BigInt(digits) : BigInt(digits);
  const limit = INTEGER_LIMITS[type];
  return value >= -limit && value < limit ? smallest(value) : undefined;
}

function integerOfBinary(buffer: Buffer, start: number, end: number): KeyValue | undefined {
  switch (end - start) {
    case 2:
      return buffer.readInt16BE(start);
    case 4:
      return buffer.readInt32BE(start);
    default:
      return smallest(buffer.readBigInt64BE(start));
  }
}

/** One value, one form: a number wherever it is exact. */
function smallest(value: bigint): KeyValue {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function characters(
  type: 'text' | 'varchar' | 'bpchar',
  buffer: Buffer,
  start: number,
  end: number,
  typeModifier: number,
): KeyValue | undefined {
  let last = end;
  if (type === 'bpchar') {
    while (last > start && buffer[last - 1] === SPACE) last--;
  } else if (type === 'varchar' && typeModifier >= 0 && end > start && buffer[end - 1] === SPACE) {
    // varchar(n) cuts blanks (and only blanks) beyond n characters, silently. No character has less than a byte.
    if (end - start > typeModifier - MODIFIER_OFFSET) return undefined;
  }
  return buffer.toString('latin1', start, last);
}
