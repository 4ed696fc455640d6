/**
 * From a shard key's value to its bucket: what the router asks for each keyed statement. Equal to the remainder that the
 * face's satisfies_hash_partition finds on the server, or ASK_SERVER; never a guess.
 *
 * `typeModifier` is the key column's pg_attribute.atttypmod. varchar(n), numeric(p,s), timestamp(p) and timestamptz(p)
 * change some values when they are stored (trailing blanks, rounding); with the modifier given, those are ASK_SERVER.
 * Casting a value to the column's full type, modifier included, gives the right bucket for a comparison as well: a value
 * that the cast changes equals no stored one, so any bucket answers it rightly.
 */

import { OID } from '../oid.ts';
import { hashIntegerNumber } from './integer-key.ts';
import { hashKeyBinary, hashKeyText, NO_TYPE_MODIFIER } from './key-hash.ts';
import type { KeyTypeName } from './key-type.ts';
import { bucketOfHash, type Hash64 } from './lookup3.ts';

/**
 * The router can't be sure what the value is. The server can: it casts it to the key column's type under the client's
 * settings (DateStyle, TimeZone), or says what is wrong with it.
 */
export const ASK_SERVER = -1;

/** Text up to this length is encoded into a standing buffer. */
const SCRATCH_BYTES = 4096;
const UTF8_BYTES_PER_UNIT_MAX = 3;
const scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);

/** Set anew by each call and read at once. */
const hash: Hash64 = { high: 0, low: 0 };

/** The bucket of a literal, or of a text-format value that is a string already. */
export function bucketOfText(
  type: KeyTypeName,
  text: string,
  bucketCount: number,
  typeModifier = NO_TYPE_MODIFIER,
): number {
  if (text.length * UTF8_BYTES_PER_UNIT_MAX <= SCRATCH_BYTES) {
    return bucketOfTextBytes(type, scratch, 0, scratch.write(text), bucketCount, typeModifier);
  }
  const bytes = Buffer.from(text);
  return bucketOfTextBytes(type, bytes, 0, bytes.length, bucketCount, typeModifier);
}

/** The bucket of a parameter in text format: bytes [start, end) of `buffer`, in UTF-8. */
export function bucketOfTextBytes(
  type: KeyTypeName,
  buffer: Buffer,
  start: number,
  end: number,
  bucketCount: number,
  typeModifier = NO_TYPE_MODIFIER,
): number {
  const sure = hashKeyText(hash, type, buffer, start, end, typeModifier);
  return sure ? bucketOfHash(hash, bucketCount) : ASK_SERVER;
}

/**
 * The bucket of a parameter in binary format. `parameterOid` is the type it was declared with, 0 if the server infers it
 * from the key column; of one that is not comparable with the key, nothing is known: ASK_SERVER.
 */
export function bucketOfBinary(
  type: KeyTypeName,
  parameterOid: number,
  buffer: Buffer,
  start: number,
  end: number,
  bucketCount: number,
  typeModifier = NO_TYPE_MODIFIER,
): number {
  const sure =
    isComparable(type, parameterOid) &&
    hashKeyBinary(hash, type, parameterOid, buffer, start, end, typeModifier);
  return sure ? bucketOfHash(hash, bucketCount) : ASK_SERVER;
}

/** The bucket of an integer; one that is not safe (2^53) or not of the type is ASK_SERVER. */
export function bucketOfInteger(type: 'int2' | 'int4' | 'int8', value: number, bucketCount: number): number {
  return hashIntegerNumber(hash, type, value) ? bucketOfHash(hash, bucketCount) : ASK_SERVER;
}

/** The bucket of NULL: PostgreSQL leaves a null out of the row's hash, which is then 0. */
export function bucketOfNull(): number {
  return 0;
}

/**
 * Whether a parameter declared with this type is compared with the key in the key's own hash family, so that equal
 * values have equal hashes. Integers of all sizes are, and text and varchar; what PostgreSQL compares under a third type
 * (int8 and numeric, text and bpchar, timestamp and timestamptz) is not. 0 and unknown leave the type to the server.
 */
export function isComparable(type: KeyTypeName, parameterOid: number): boolean {
  if (parameterOid === OID.unspecified || parameterOid === OID.unknown) return true;
  switch (type) {
    case 'int2':
    case 'int4':
    case 'int8':
      return parameterOid === OID.int8 || parameterOid === OID.int4 || parameterOid === OID.int2;
    case 'text':
    case 'varchar':
      return parameterOid === OID.text || parameterOid === OID.varchar;
    default:
      return parameterOid === OID[type];
  }
}
