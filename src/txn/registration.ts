/**
 * How a distributed transaction is recognised on each of its nodes, by every router: its branch holds a shared advisory
 * lock of the transaction level, whose key bears 48 bits of the transaction's id. pg_locks then says which backend, or
 * which prepared transaction (PREPARE TRANSACTION keeps such locks, under virtualtransaction '-1/<xid>'), belongs to it.
 *
 *   classid = 0x7074 << 16 | bits 47..32    objid = bits 31..0    objsubid = 2 (two int4 keys)    mode = ShareLock
 *
 * 16 bits tell it from an application's own two-part locks; with 48 random ones, a thousand transactions at once meet with
 * a probability of 2 in 10^9, and then a deadlock may be seen where none is (40P01, which may be retried).
 * Invariant: nobody waits for it, since it is only ever taken shared.
 * Boundary: a lock taken behind a savepoint is let go by ROLLBACK TO that savepoint. Whoever sends that sends the text again
 * behind it; to hold it twice does no harm.
 */
import type { SharedStatement } from '../backend/prepared.ts';
import { assert } from '../base/assert.ts';
import { OID } from '../pg/oid.ts';

/** 'pt': the upper half of classid. Other locks of Postern have 0x706f there (catalog/schema.ts). */
const REGISTRATION_CLASS = 0x7074;
const LOW_SPAN = 2 ** 32;
const KEY_SPAN = 2 ** 48;

/** The key of a transaction from its id, a random UUID: its first 12 hexadecimal digits, all of them random. */
export function transactionKeyOf(transactionId: string): number {
  const digits = transactionId.replaceAll('-', '').slice(0, 12);
  assert(/^[0-9a-f]{12}$/i.test(digits), 'a transaction id is a UUID');
  return Number.parseInt(digits, 16);
}

/** The statement that registers a branch, to be sent inside its transaction. */
export function registrationText(transactionKey: number): string {
  return `SELECT pg_catalog.pg_advisory_xact_lock_shared(${registrationValues(transactionKey).join(', ')})`;
}

/** The same to be kept prepared, which costs a server half as much: takes registrationValues(). */
export const REGISTRATION: SharedStatement = {
  text: 'SELECT pg_catalog.pg_advisory_xact_lock_shared($1, $2)',
  parameterOids: [OID.int4, OID.int4],
  validated: true,
};

/**
 * The same for a branch that is about to write: it gets its transaction id as well, so that nobody has to ask later whether it
 * may be the commit point (SPEC.md, I4).
 */
export const BRANCH_REGISTRATION: SharedStatement = {
  text: 'SELECT pg_catalog.pg_advisory_xact_lock_shared($1, $2), pg_catalog.pg_current_xact_id()',
  parameterOids: [OID.int4, OID.int4],
  validated: true,
};

export function registrationValues(transactionKey: number): readonly [string, string] {
  assert(
    Number.isInteger(transactionKey) && transactionKey >= 0 && transactionKey < KEY_SPAN,
    'a transaction key has 48 bits',
  );
  const high = Math.floor(transactionKey / LOW_SPAN);
  const low = (transactionKey % LOW_SPAN) | 0;
  return [String(REGISTRATION_CLASS * 65_536 + high), String(low)];
}

/** For rows `l` of pg_locks: is it a registration? */
export const IS_REGISTRATION = `l.locktype = 'advisory' AND l.objsubid = 2 AND l.mode = 'ShareLock' AND l.granted
    AND l.classid::bigint >> 16 = ${REGISTRATION_CLASS}`;

/** For those rows: the transaction's key as int8. */
export const REGISTERED_KEY = `((l.classid::bigint & 65535) << 32 | l.objid::bigint)`;
