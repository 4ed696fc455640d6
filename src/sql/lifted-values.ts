/**
 * Values of which it is sure that every server reads them, in whatever settings: what is lifted inside of a transaction has
 * no second try with the text as it came. Only forms that are easily told are among them; for all else the answer is no.
 */
import { OID } from '../pg/oid.ts';
import type { Lifted } from './lift.ts';

const DAY = '[12]\\d{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\\d|2[0-8])';
const TIMESTAMP = new RegExp(`^${DAY}(?:[ T](?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,6})?)?$`);

/** Strings, by the type that the server resolves the parameter to. */
const READABLE: ReadonlyMap<number, RegExp | 'any'> = new Map<number, RegExp | 'any'>([
  [OID.text, 'any'],
  [OID.varchar, 'any'],
  [OID.bpchar, 'any'],
  [OID.bool, /^(?:t|f|true|false)$/],
  [OID.int2, /^-?\d{1,4}$/],
  [OID.int4, /^-?\d{1,9}$/],
  [OID.int8, /^-?\d{1,18}$/],
  [OID.numeric, /^-?\d{1,30}(?:\.\d{1,30})?$/],
  [OID.uuid, /^[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}$/i],
  [OID.date, new RegExp(`^${DAY}$`)],
  [OID.timestamp, TIMESTAMP],
  [OID.timestamptz, TIMESTAMP],
]);

/** A number that is lifted as numeric is one that no server finds too large. */
const NUMERIC_DIGITS_MAX = 30;

export function isAlwaysReadable(lifted: Lifted, resolvedOids: readonly number[]): boolean {
  for (let index = 0; index < lifted.values.length; index++) {
    const value = lifted.values[index];
    const oid = resolvedOids[index];
    if (value === undefined || oid === undefined) return false;
    if (value === null) continue;
    const literalOid = lifted.oids[index];
    if (literalOid === OID.int4 || literalOid === OID.int8) continue;
    if (literalOid === OID.numeric) {
      if (value.length > NUMERIC_DIGITS_MAX || /e/i.test(value)) return false;
      continue;
    }
    const form = READABLE.get(oid);
    if (form === undefined || (form !== 'any' && !form.test(value))) return false;
  }
  return true;
}
