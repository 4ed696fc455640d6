/**
 * A prepared statement whose columns have changed since its client was told of them (ALTER TABLE behind `SELECT *`) fails as
 * it does in PostgreSQL, for as long as it is prepared: rows of another shape would be read by the description of before.
 */
import { notSupported } from '../base/errors.ts';
import { readRowDescription } from '../wire/backend.ts';
import { Backend } from '../wire/message-types.ts';

/** Both are frames as they came: RowDescription or NoData. */
export function checkColumns(told: Buffer, now: Buffer): void {
  if (told === now || shapeOf(told) === shapeOf(now)) return;
  // PostgreSQL's own words: drivers look for them, and prepare the statement again.
  throw notSupported('cached plan must not change result type', 'Prepare the statement again.');
}

/** Names and types: tables and the places in them may be others (PostgreSQL: RevalidateCachedQuery). */
function shapeOf(frame: Buffer): string {
  if (frame[0] !== Backend.RowDescription) return '';
  const fields = readRowDescription({ buffer: frame, bodyStart: 5, end: frame.length });
  return JSON.stringify(fields.map(({ name, typeOid, typeModifier }) => [name, typeOid, typeModifier]));
}
