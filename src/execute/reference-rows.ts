/**
 * Rows of a reference table on their way from the home node's answer to the other nodes: which format each column travels in, how
 * a row is cut off the client's own columns, and the statements that apply rows.
 *
 * Invariant: a value arrives as it was. In binary nothing depends on the session's settings; in text go only the types that have no
 * binary form, and those whose values are names.
 */
import { assert } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';
import { PosternError } from '../base/errors.ts';
import type { ReferenceColumn, ReferenceTable } from '../catalog/map.ts';
import { quoteIdentifier, quoteQualified } from '../pg/identifier.ts';
import type { ReferenceRows } from '../plan/reference-write.ts';
import type { Body } from '../wire/body-cursor.ts';
import type { BoundValue } from '../wire/frontend.ts';

/** The reg* types and their arrays: their values are names, and in binary OIDs, which differ between nodes. */
const NAMES = new Set([
  24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191, 1008, 2207, 2208, 2209, 2210, 2211, 3735,
  3770, 4090, 4097, 4192,
]);

export function formatOf({ binary, typeOid }: ReferenceColumn): 0 | 1 {
  return binary && !NAMES.has(typeOid) ? 1 : 0;
}

const DATA_ROW = 0x44;
const HEADER_BYTES = 7;

/** Takes the home node's rows: keeps the columns for the other nodes, and gives the client's own as a row of their own. */
export class ReturnedRows {
  readonly rows: (readonly BoundValue[])[] = [];
  readonly #columns: readonly ReferenceColumn[];
  readonly #clientCount: number;
  readonly #tableName: string;
  #bytes = 0;

  constructor(options: { rows: ReferenceRows; clientCount: number; tableName: string }) {
    this.#columns = options.rows.columns;
    this.#clientCount = options.clientCount;
    this.#tableName = options.tableName;
  }

  /** Gives the DataRow for the client, a whole frame. Throws 54000 when it is too much to be kept. */
  take({ buffer, bodyStart, end }: Body): Buffer {
    const count = buffer.readUInt16BE(bodyStart);
    assert(count === this.#clientCount + this.#columns.length, 'the home node returns what was asked for');
    let at = bodyStart + 2;
    for (let column = 0; column < this.#clientCount; column++) at = endOfValue(buffer, at);
    const client = Buffer.alloc(HEADER_BYTES + at - (bodyStart + 2));
    client[0] = DATA_ROW;
    client.writeInt32BE(client.length - 1, 1);
    client.writeUInt16BE(this.#clientCount, 5);
    buffer.copy(client, HEADER_BYTES, bodyStart + 2, at);
    this.#bytes += end - at;
    if (this.#bytes > BOUNDS.referenceWriteBytesMax) throw tooMuch(this.#tableName);
    // One copy for all values of the row.
    const kept = Buffer.from(buffer.subarray(at, end));
    const values: BoundValue[] = [];
    let keptAt = 0;
    for (const column of this.#columns) {
      const length = kept.readInt32BE(keptAt);
      const start = keptAt + 4;
      const bytes = length < 0 ? null : kept.subarray(start, start + length);
      values.push({ bytes, format: formatOf(column) });
      keptAt = start + Math.max(length, 0);
    }
    this.rows.push(values);
    return client;
  }
}

function endOfValue(buffer: Buffer, at: number): number {
  return at + 4 + Math.max(buffer.readInt32BE(at), 0);
}

/** Nothing stays written; the same in portions is right. */
function tooMuch(tableName: string): PosternError {
  return new PosternError({
    sqlState: '54000',
    message: `a statement changes more than ${BOUNDS.referenceWriteBytesMax / 1024 / 1024} MB of reference table "${tableName}"`,
    hint: 'Write the rows in portions.',
  });
}

/** Parameters of one statement, well below what the protocol takes. */
const PARAMETERS_MAX = 30_000;
const BATCH_ROWS_MAX = 500;

export interface Batch {
  readonly text: string;
  readonly values: readonly BoundValue[];
  readonly rowCount: number;
}

/** The statements that do to another copy what the home node has done, in order. */
export function batchesOf(
  table: ReferenceTable,
  how: ReferenceRows,
  rows: readonly (readonly BoundValue[])[],
): readonly Batch[] {
  if (how.apply.kind === 'update' && how.columns.length === how.apply.keyCount) return [];
  const size = Math.max(1, Math.min(BATCH_ROWS_MAX, Math.floor(PARAMETERS_MAX / how.columns.length)));
  const batches: Batch[] = [];
  for (let at = 0; at < rows.length; at += size) {
    const part = rows.slice(at, at + size);
    const text = applyText(table, how, part.length);
    batches.push({ text, values: part.flat(), rowCount: part.length });
  }
  return batches;
}

function applyText(table: ReferenceTable, { columns, apply }: ReferenceRows, rowCount: number): string {
  const name = quoteQualified(table.schema, table.name);
  const names = columns.map((column) => quoteIdentifier(column.name));
  const list = names.join(', ');
  const values = `VALUES ${valuesText(columns, rowCount)}`;
  switch (apply.kind) {
    case 'insert':
    case 'upsert': {
      const insert = `INSERT INTO ${name} (${list}) OVERRIDING SYSTEM VALUE ${values}`;
      if (apply.kind === 'insert') return insert;
      const { conflict, rewritten } = apply;
      const isSet = (column: string) => !conflict.includes(column) || rewritten.includes(column);
      const changed = names.filter((_, index) => isSet(columns[index]!.name));
      const set = changed.map((column) => `${column} = excluded.${column}`).join(', ');
      return `${insert} ON CONFLICT (${conflict.map(quoteIdentifier).join(', ')}) DO UPDATE SET ${set}`;
    }
    case 'update':
    case 'delete': {
      const isKey = (_: string, index: number) => index < apply.keyCount;
      const where = names.filter(isKey).map((column) => `t.${column} = v.${column}`);
      const given = `(${values}) AS v (${list}) WHERE ${where.join(' AND ')}`;
      if (apply.kind === 'delete') return `DELETE FROM ${name} AS t USING ${given}`;
      const set = names.slice(apply.keyCount).map((column) => `${column} = v.${column}`);
      return `UPDATE ${name} AS t SET ${set.join(', ')} FROM ${given}`;
    }
  }
}

function valuesText(columns: readonly ReferenceColumn[], rowCount: number): string {
  const rows: string[] = [];
  for (let row = 0; row < rowCount; row++) {
    const values = columns.map((column, index) => `$${row * columns.length + index + 1}::${column.typeText}`);
    rows.push(`(${values.join(', ')})`);
  }
  return rows.join(', ');
}
