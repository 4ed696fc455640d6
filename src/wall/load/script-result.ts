/**
 * Results that a script wants (\gset and \aset), out of the frames that AnswerScanner has kept: only they are decoded, and
 * as text.
 */
import { protocolViolation } from '../../base/errors.ts';
import { Backend } from '../../wire/message-types.ts';
import type { ResultTarget } from '../workload/pgbench-script.ts';
import type { Value } from '../workload/script-value.ts';
import type { KeptFrame, ServerError } from './answer-scanner.ts';

interface Result {
  readonly columns: readonly string[];
  /** The last of them; undefined: none. */
  lastRow: readonly Value[] | undefined;
  rowCount: number;
}

/** What follows a column's name: table, attribute, type, length, modifier, format. */
const COLUMN_TAIL_BYTES = 18;

export function readResults(frames: readonly KeptFrame[]): Result[] {
  const results: Result[] = [];
  try {
    for (const { type, body } of frames) {
      if (type === Backend.RowDescription) {
        results.push({ columns: readColumns(body), lastRow: undefined, rowCount: 0 });
      } else {
        const result = results.at(-1);
        if (result === undefined) throw protocolViolation('the server sent a row without its description');
        result.lastRow = readRow(body);
        result.rowCount++;
      }
    }
  } catch (error) {
    if (error instanceof RangeError) throw protocolViolation('the server sent a row that is cut short');
    throw error;
  }
  return results;
}

/** The variables by name; or the error that the transaction has failed with. */
export function valuesOfResults(
  results: readonly Result[],
  into: ResultTarget,
): ReadonlyMap<string, Value> | ServerError {
  const values = new Map<string, Value>();
  const wanted = into.kind === 'gset' ? results.slice(-1) : results.filter(({ rowCount }) => rowCount > 0);
  if (into.kind === 'gset' && wanted[0]?.rowCount !== 1) {
    const rowCount = wanted[0]?.rowCount ?? 0;
    return {
      sqlState: rowCount === 0 ? 'P0002' : 'P0003',
      severity: 'ERROR',
      message: `\\gset wants one row, and the statement gave ${rowCount}`,
    };
  }
  for (const { columns, lastRow } of wanted) {
    for (const [index, column] of columns.entries())
      values.set(into.prefix + column, lastRow?.[index] ?? null);
  }
  return values;
}

function readColumns(body: Buffer): string[] {
  const columns: string[] = [];
  let position = 2;
  for (let rest = body.readInt16BE(0); rest > 0; rest--) {
    const end = body.indexOf(0, position);
    if (end < 0) throw new RangeError('no end of a name');
    columns.push(body.toString('utf8', position, end));
    position = end + 1 + COLUMN_TAIL_BYTES;
  }
  return columns;
}

function readRow(body: Buffer): Value[] {
  const values: Value[] = [];
  let position = 2;
  for (let rest = body.readInt16BE(0); rest > 0; rest--) {
    const length = body.readInt32BE(position);
    position += 4;
    values.push(length < 0 ? null : body.toString('utf8', position, position + length));
    position += Math.max(0, length);
  }
  return values;
}
