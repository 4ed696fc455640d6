/**
 * The hash of a shard key's value as PostgreSQL's hash partitioning computes it, from the value's bytes in text or binary
 * format: the hash…extended function of the key's type with the partition seed, equal on PostgreSQL 14 to 18.
 *
 * Invariant: a function returns true only where the value that the server would store or compare is known for sure;
 * then, and only then, `out` is its hash. There is no guess.
 * Boundary: character keys are hashed as the bytes that came. The client's encoding has to be the server's, and the
 * key's collation deterministic; both are the caller's to check.
 */
import { unreachable } from '../../base/assert.ts';
import { OID } from '../oid.ts';
import { SPACE } from './ascii.ts';
import { fitsPrecision, hashDateText, hashTimestampText } from './datetime-key.ts';
import { hashIntegerBinary, hashIntegerText } from './integer-key.ts';
import type { KeyTypeName } from './key-type.ts';
import { type Hash64, hashBytes } from './lookup3.ts';
import { hashNumericBinary, hashNumericText } from './numeric-key.ts';
import { hashUuidBinary, hashUuidText } from './uuid-key.ts';

/** pg_attribute.atttypmod of a column whose type has no modifier. */
export const NO_TYPE_MODIFIER = -1;

/** What the modifiers of varchar and numeric are counted from (PostgreSQL's VARHDRSZ). */
const MODIFIER_OFFSET = 4;
const PRECISION_MAX = 6;

/** The hash of a value in text format; `typeModifier` is the key column's. */
export function hashKeyText(
  out: Hash64,
  type: KeyTypeName,
  buffer: Buffer,
  start: number,
  end: number,
  typeModifier: number,
): boolean {
  switch (type) {
    case 'int2':
    case 'int4':
    case 'int8':
      return hashIntegerText(out, type, buffer, start, end);
    case 'text':
    case 'varchar':
    case 'bpchar':
      return hashCharacters(out, type, buffer, start, end, typeModifier);
    case 'uuid':
      return hashUuidText(out, buffer, start, end);
    case 'date':
      return hashDateText(out, buffer, start, end);
    case 'timestamp':
    case 'timestamptz':
      return hashTimestampText(out, buffer, start, end, type === 'timestamptz', precisionOf(typeModifier));
    case 'numeric':
      return hashNumericText(out, buffer, start, end, scaleOf(typeModifier));
    default:
      return unreachable(type);
  }
}

/** The hash of a value in binary format, of a parameter declared with `parameterOid`, one that is comparable with the key. */
export function hashKeyBinary(
  out: Hash64,
  type: KeyTypeName,
  parameterOid: number,
  buffer: Buffer,
  start: number,
  end: number,
  typeModifier: number,
): boolean {
  switch (type) {
    case 'int2':
    case 'int4':
    case 'int8':
      return end - start === integerBytes(type, parameterOid) && hashIntegerBinary(out, buffer, start, end);
    case 'text':
    case 'varchar':
    case 'bpchar':
      return hashCharacters(out, type, buffer, start, end, typeModifier);
    case 'uuid':
      return hashUuidBinary(out, buffer, start, end);
    case 'date':
      return end - start === 4 && hashIntegerBinary(out, buffer, start, end);
    case 'timestamp':
    case 'timestamptz':
      return (
        end - start === 8 &&
        fitsPrecision(buffer, start, precisionOf(typeModifier)) &&
        hashIntegerBinary(out, buffer, start, end)
      );
    case 'numeric':
      return hashNumericBinary(out, buffer, start, end, scaleOf(typeModifier));
    default:
      return unreachable(type);
  }
}

function hashCharacters(
  out: Hash64,
  type: 'text' | 'varchar' | 'bpchar',
  buffer: Buffer,
  start: number,
  end: number,
  typeModifier: number,
): boolean {
  let last = end;
  if (type === 'bpchar') {
    while (last > start && buffer[last - 1] === SPACE) last--;
  } else if (type === 'varchar' && typeModifier >= 0 && end > start && buffer[end - 1] === SPACE) {
    // varchar(n) cuts blanks (and only blanks) beyond n characters, silently. No character has less than a byte.
    if (end - start > typeModifier - MODIFIER_OFFSET) return false;
  }
  hashBytes(out, buffer, start, last);
  return true;
}

/** The size of an integer parameter; one without a type of its own takes the key's. */
export function integerBytes(type: 'int2' | 'int4' | 'int8', parameterOid: number): number {
  const inferred = parameterOid === OID.unspecified || parameterOid === OID.unknown;
  switch (inferred ? OID[type] : parameterOid) {
    case OID.int2:
      return 2;
    case OID.int4:
      return 4;
    default:
      return 8;
  }
}

/** Digits of a second's fraction that a timestamp(p) keeps. */
export function precisionOf(typeModifier: number): number {
  return typeModifier < 0 ? PRECISION_MAX : Math.min(typeModifier, PRECISION_MAX);
}

/** Decimal places of a numeric(p, s): the lower eleven bits, signed (negative scales came with PostgreSQL 15). */
export function scaleOf(typeModifier: number): number | undefined {
  return typeModifier < MODIFIER_OFFSET ? undefined : ((typeModifier - MODIFIER_OFFSET) << 21) >> 21;
}
