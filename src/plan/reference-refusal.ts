/** What is refused of statements about reference tables; as plan/refusal.ts. */
import type { LockingClause } from '@pgsql/types';
import { notSupported, type PosternError } from '../base/errors.ts';
import type { ReferenceTable } from '../catalog/map.ts';
import { nameOf } from './refusal.ts';

export function notOnReference(what: string, table: ReferenceTable, hint: string): PosternError {
  return notSupported(`${what} is not supported on reference table ${nameOf(table)}`, hint);
}

/** A write of a reference table as a part of another statement would reach one copy only. */
export function writesReferenceWithin(table: ReferenceTable): PosternError {
  return notSupported(
    `reference table ${nameOf(table)} cannot be written to inside another statement`,
    'Send its INSERT, UPDATE or DELETE by itself, in the same transaction.',
  );
}

/** Two locks of one row on two nodes would not exclude one another. `usesReference`: there is a reference table in the statement. */
export function refuseLockOfReference(clause: LockingClause, usesReference: boolean): void {
  if (!usesReference || (clause.lockedRels ?? []).length > 0) return;
  if (clause.strength !== 'LCS_FORUPDATE' && clause.strength !== 'LCS_FORNOKEYUPDATE') return;
  throw notSupported(
    'FOR UPDATE of a sharded table and a reference table together is not supported',
    'Say whose rows are locked: FOR UPDATE OF the sharded table. Rows of a reference table are locked by a SELECT of it alone.',
  );
}
