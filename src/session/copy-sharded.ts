/** COPY … FROM of a sharded table: the bucket of each row, by its key or by the id that it is given. */
import type { BackendConnection } from '../backend/connection.ts';
import { ask, borrow } from '../backend/internal-query.ts';
import { notSupported } from '../base/errors.ts';
import type { ColumnInfo, ShardedTable } from '../catalog/map.ts';
import { BinaryRows } from '../copy/binary-rows.ts';
import type { CopyFormat } from '../copy/format.ts';
import { KeyField } from '../copy/key-field.ts';
import type { RowView } from '../copy/line-rows.ts';
import { bucketOfId, bucketsOf } from '../execute/route.ts';
import { nodeOf } from '../execute/scatter.ts';
import { ASK_SERVER, bucketOfBinary, bucketOfNull, bucketOfTextBytes } from '../pg/hash/bucket.ts';
import { BY_HASH } from '../pg/key/directory.ts';
import { keyValueOfBinary, keyValueOfText } from '../pg/key/key-value.ts';
import { OID } from '../pg/oid.ts';
import { ServerError } from '../platform/control-connection.ts';
import type { Conversation } from './conversation.ts';
import { type CopyColumn, leafOf } from './copy-facts.ts';
import { type CopyTarget, type PlacedRow, type Slot, UNSURE } from './copy-target.ts';

/** Where a row goes that no bucket takes: the server there says what is wrong with it. */
const FOR_ITS_ERROR = 0;

interface UnsureRow {
  readonly row: RowView;
  readonly prefix: Buffer | undefined;
  readonly text: string;
}

export class ShardedCopy implements CopyTarget {
  readonly slotCount: number;
  readonly prefixColumns: readonly string[];
  readonly prefixPattern: RegExp | undefined;
  readonly replacedBytes: number;
  readonly keyIndex: number;
  prefix: Buffer | undefined;
  readonly #c: Conversation;
  readonly #table: ShardedTable;
  readonly #format: CopyFormat;
  readonly #supplied: readonly ColumnInfo[];
  /** Of the key among them; −1: the client gives it. */
  readonly #suppliedKeyAt: number;
  readonly #key: KeyField | undefined;
  readonly #columnCount: number;
  /** Ids to be given out, by supplied column. */
  readonly #ids: number[][];
  readonly #slots: (Slot | undefined)[];
  #unsure: UnsureRow[] = [];

  constructor(
    conversation: Conversation,
    options: {
      readonly table: ShardedTable;
      readonly format: CopyFormat;
      /** The client's. */
      readonly columns: readonly string[];
      readonly facts: readonly CopyColumn[];
    },
  ) {
    const { table, format, columns, facts } = options;
    this.#c = conversation;
    this.#table = table;
    this.#format = format;
    this.#columnCount = columns.length;
    this.slotCount = table.buckets.length;
    this.#slots = new Array(this.slotCount).fill(undefined);
    this.#supplied = table.columns.filter(({ name, sequence }) => sequence && !columns.includes(name));
    this.#ids = this.#supplied.map(() => []);
    this.prefixColumns = this.#supplied.map(({ name }) => name);
    this.#suppliedKeyAt = this.prefixColumns.indexOf(table.keyColumn);
    const keyAt = columns.indexOf(table.keyColumn);
    this.keyIndex = keyAt;
    this.#key = keyAt < 0 ? undefined : new KeyField(format, keyAt, table.keyColumn);
    this.replacedBytes = this.#supplied.length > 0 && format.kind === 'binary' ? 2 : 0;
    this.prefixPattern = prefixPattern(format, this.#supplied.length);
    if (keyAt < 0 && this.#suppliedKeyAt < 0 && hasDefault(facts, table.keyColumn)) throw leftOut(table);
    const hasSequences = table.columns.some(({ name, sequence }) => sequence && columns.includes(name));
    if (format.defaultText && hasSequences) throw noDefaults(table);
  }

  /** One that is on this node. */
  slotOfNode(nodeId: number): number | undefined {
    const bucket = this.#table.buckets.findIndex((place) => place.nodeId === nodeId);
    return bucket < 0 ? undefined : bucket;
  }

  slot(index: number): Slot {
    let slot = this.#slots[index];
    if (!slot) {
      const { name, quoted } = leafOf(this.#table, index);
      const leaf = { table: this.#table, bucket: index, mapPosition: () => 1 };
      slot = { name, quoted, leaf, nodeIds: [nodeOf(this.#table, index)] };
      this.#slots[index] = slot;
    }
    return slot;
  }

  async open(connection: BackendConnection): Promise<void> {
    if (this.#table.lookups) await this.#c.copiedLookups?.open(connection);
  }

  async close(connection: BackendConnection): Promise<void> {
    if (this.#table.lookups) await this.#c.copiedLookups?.close(connection);
  }

  lacks(rowsMax: number): boolean {
    return this.#ids.some((ids) => ids.length < rowsMax);
  }

  differs(nodeId: number): Error {
    throw new Error(`a part of node ${nodeId} was sent twice`);
  }

  async provide(count: number): Promise<void> {
    for (const [index, { name }] of this.#supplied.entries()) {
      const ids = this.#ids[index]!;
      const missing = count - ids.length;
      if (missing <= 0) continue;
      const source = this.#c.chooseContext.ids;
      const taken = await source.take(this.#table, name, missing);
      // Given out from the end.
      this.#ids[index] = [...taken.reverse(), ...ids];
    }
  }

  place(row: RowView): number {
    this.prefix = undefined;
    let keyId = 0;
    if (this.#supplied.length > 0) {
      const ids = this.#ids.map((stock) => stock.pop()!);
      this.prefix = this.#prefixOf(ids);
      keyId = ids[this.#suppliedKeyAt] ?? 0;
    }
    const table = this.#table;
    if (this.#suppliedKeyAt >= 0) {
      const bucket = bucketOfId(table, keyId);
      return bucket === ASK_SERVER ? this.#keepUnsure(row, String(keyId)) : bucket;
    }
    const key = this.#key;
    if (!key) return bucketOfNull();
    if (row instanceof BinaryRows) return this.#placeBinary(row);
    const kind = key.find(row);
    if (kind !== 'value') {
      if (kind === 'default') throw noDefaults(table);
      return kind === 'null' ? bucketOfNull() : FOR_ITS_ERROR;
    }
    const bucket = this.#bucketOfText(key);
    if (bucket !== ASK_SERVER) return bucket;
    return this.#keepUnsure(row, key.buffer.toString('utf8', key.start, key.end));
  }

  #bucketOfText({ buffer, start, end }: KeyField): number {
    const { keyType, keyTypeModifier: modifier, directory } = this.#table;
    if (directory) {
      const value = keyValueOfText(keyType, buffer, start, end, modifier);
      const bucket = value === undefined ? ASK_SERVER : directory.bucketOf(value);
      if (bucket !== BY_HASH) return bucket;
    }
    return bucketOfTextBytes(keyType, buffer, start, end, this.#hashBuckets, modifier);
  }

  get #hashBuckets(): number {
    return this.#table.placement.hashBuckets;
  }

  #placeBinary(row: BinaryRows): number {
    const { fieldStart, fieldEnd, buffer } = row;
    if (fieldStart < 0) return bucketOfNull();
    const { keyType, keyTypeModifier: modifier, directory, columns, keyColumn } = this.#table;
    const typeOid = columns.find(({ name }) => name === keyColumn)?.typeOid ?? OID.unspecified;
    let bucket: number = BY_HASH;
    if (directory) {
      const value = keyValueOfBinary(keyType, typeOid, buffer, fieldStart, fieldEnd, modifier);
      bucket = value === undefined ? ASK_SERVER : directory.bucketOf(value);
    }
    if (bucket === BY_HASH)
      bucket = bucketOfBinary(keyType, typeOid, buffer, fieldStart, fieldEnd, this.#hashBuckets, modifier);
    if (bucket !== ASK_SERVER) return bucket;
    throw notSupported(
      `the bucket of a binary value of the shard key "${keyColumn}" cannot be told`,
      'Use COPY in text or CSV format.',
    );
  }

  get hasUnsure(): boolean {
    return this.#unsure.length > 0;
  }

  async placeUnsure(): Promise<readonly PlacedRow[]> {
    const unsure = this.#unsure;
    this.#unsure = [];
    const buckets = await this.#ask(unsure);
    return unsure.map(({ row, prefix }, i) => ({ row, prefix, slot: buckets[i]! }));
  }

  #keepUnsure(row: RowView, text: string): number {
    const { start, end, contentEnd, line, breaks, returns } = row;
    const buffer = Buffer.from(row.buffer.subarray(start, end));
    const kept = {
      buffer,
      start: 0,
      contentEnd: contentEnd - start,
      end: end - start,
      line,
      breaks,
      returns,
    };
    this.#unsure.push({ row: kept, prefix: this.prefix, text });
    return UNSURE;
  }

  /** Values that the server refuses go where it refuses them with their line. */
  async #ask(rows: readonly UnsureRow[]): Promise<number[]> {
    if (rows.length === 0) return [];
    const { context, user, settings } = this.#c.state;
    if (this.#c.lease.changed.inTransaction) throw changedSettings(this.#table);
    const sources = rows.map(({ text }) => ({ kind: 'literal', text }) as const);
    const home = context.pools.get(this.#c.homeNodeId)!;
    try {
      return await bucketsOf(this.#table, sources, { bind: undefined, ids: [] }, (text) =>
        borrow(home, { user, settings }, (connection) => ask(connection, text)),
      );
    } catch (error) {
      if (!(error instanceof ServerError)) throw error;
      if (rows.length === 1) return [FOR_ITS_ERROR];
      const half = rows.length >> 1;
      return [...(await this.#ask(rows.slice(0, half))), ...(await this.#ask(rows.slice(half)))];
    }
  }

  #prefixOf(ids: readonly number[]): Buffer {
    const { kind, delimiter, quote } = this.#format;
    if (kind === 'binary') return this.#binaryPrefixOf(ids);
    const delimiterText = String.fromCharCode(delimiter);
    const quoteText = kind === 'csv' ? String.fromCharCode(quote) : '';
    let text = '';
    for (const id of ids) text += quoteText + id + quoteText + delimiterText;
    return Buffer.from(text, 'latin1');
  }

  /** The count of fields, and the ids as binary fields. */
  #binaryPrefixOf(ids: readonly number[]): Buffer {
    const bytes = Buffer.alloc(2 + 12 * ids.length);
    let at = bytes.writeInt16BE(this.#columnCount + ids.length, 0);
    for (const [index, id] of ids.entries()) {
      const size = SIZES.get(this.#supplied[index]!.typeOid) ?? 8;
      at = bytes.writeInt32BE(size, at);
      if (size === 8) at = bytes.writeBigInt64BE(BigInt(id), at);
      else at = bytes.writeIntBE(id, at, size);
    }
    return bytes.subarray(0, at);
  }
}

const SIZES: ReadonlyMap<number, number> = new Map([
  [OID.int2, 2],
  [OID.int4, 4],
]);

function prefixPattern(format: CopyFormat, count: number): RegExp | undefined {
  if (count === 0 || format.kind === 'binary') return undefined;
  const literal = (byte: number) => `\\x${byte.toString(16).padStart(2, '0')}`;
  const quote = format.kind === 'csv' ? literal(format.quote) : '';
  return new RegExp(`^(?:${quote}\\d+${quote}${literal(format.delimiter)}){${count}}`);
}

function hasDefault(facts: readonly CopyColumn[], name: string): boolean {
  return facts.some((column) => column.name === name && column.defaultText !== undefined);
}

function leftOut(table: ShardedTable) {
  return notSupported(
    `COPY leaves out the shard key "${table.keyColumn}" of table "${table.schema}.${table.name}"`,
    'Give it in the data: which bucket a row belongs to has to be known before it is inserted.',
  );
}

function noDefaults(table: ShardedTable) {
  return notSupported(
    `DEFAULT in the data is not supported for the shard key and the ids of table "${table.schema}.${table.name}"`,
    'Leave ids out of the list of columns, and give the shard key.',
  );
}

function changedSettings(table: ShardedTable) {
  return notSupported(
    `a value of the shard key "${table.keyColumn}" depends on settings that this transaction has changed`,
    'Give it in ISO form, with its time zone, or change the settings before the transaction.',
  );
}
