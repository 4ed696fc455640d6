/**
 * Rows as COPY … TO writes them, for rows that the router has as values (source: CopyAttributeOutText and CopyAttributeOutCSV in
 * src/backend/commands/copyto.c). Values are the texts that the server gave, or its binary forms.
 */
import { BINARY_HEADER } from './binary-rows.ts';
import { type CopyFormat, isAmong } from './format.ts';

const BACKSLASH = 0x5c;
const NEWLINE = 0x0a;
const RETURN = 0x0d;

/** Bytes that COPY writes as a backslash and a letter. */
const LETTERS: ReadonlyMap<number, number> = new Map([
  [0x08, 0x62],
  [0x09, 0x74],
  [0x0a, 0x6e],
  [0x0b, 0x76],
  [0x0c, 0x66],
  [0x0d, 0x72],
]);

export type RowValues = readonly (Buffer | null)[];

export class RowOutput {
  readonly #format: CopyFormat;
  readonly #columns: readonly string[];
  readonly #forced: readonly boolean[];
  #bytes: Buffer = Buffer.allocUnsafeSlow(1024);
  #length = 0;

  constructor(format: CopyFormat, columns: readonly string[]) {
    this.#format = format;
    this.#columns = columns;
    this.#forced = columns.map((name) => isAmong(format.forceQuote, name));
  }

  /** What stands before the first row: the bodies of CopyData messages. */
  get head(): readonly Buffer[] {
    if (this.#format.kind === 'binary') return [BINARY_HEADER];
    if (this.#format.header === 'none') return [];
    return [
      Buffer.from(
        this.#line(
          this.#columns.map((name) => Buffer.from(name)),
          true,
        ),
      ),
    ];
  }

  /** One row with its end of line; good until the next one. */
  row(values: RowValues): Buffer {
    return this.#format.kind === 'binary' ? this.#binary(values) : this.#line(values, false);
  }

  /** Fields with a delimiter behind each, to stand before others. */
  prefix(values: RowValues): Buffer {
    this.#length = 0;
    for (const [index, value] of values.entries()) {
      this.#field(value, index, false);
      this.#byte(this.#format.delimiter);
    }
    return Buffer.from(this.#bytes.subarray(0, this.#length));
  }

  #line(values: RowValues, isHeader: boolean): Buffer {
    this.#length = 0;
    for (const [index, value] of values.entries()) {
      if (index > 0) this.#byte(this.#format.delimiter);
      this.#field(value, index, isHeader);
    }
    this.#byte(NEWLINE);
    return this.#bytes.subarray(0, this.#length);
  }

  #field(value: Buffer | null, index: number, isHeader: boolean): void {
    const { kind, nullText } = this.#format;
    if (value === null) this.#raw(nullText);
    else if (kind === 'csv') this.#csv(value, !isHeader && this.#forced[index] === true);
    else this.#text(value);
  }

  #text(value: Buffer): void {
    const { delimiter } = this.#format;
    this.#reserve(2 * value.length);
    for (const byte of value) {
      const letter = byte < 0x20 ? LETTERS.get(byte) : undefined;
      if (letter !== undefined) {
        this.#bytes[this.#length++] = BACKSLASH;
        this.#bytes[this.#length++] = letter;
        continue;
      }
      if (byte === BACKSLASH || byte === delimiter) this.#bytes[this.#length++] = BACKSLASH;
      this.#bytes[this.#length++] = byte;
    }
  }

  #csv(value: Buffer, isForced: boolean): void {
    const { delimiter, quote, escape: escapeByte, nullText } = this.#format;
    const isAlone = this.#columns.length === 1;
    const needsQuotes =
      isForced ||
      value.equals(nullText) ||
      (isAlone && value.equals(END_MARKER)) ||
      value.some((byte) => byte === delimiter || byte === quote || byte === NEWLINE || byte === RETURN);
    if (!needsQuotes) {
      this.#raw(value);
      return;
    }
    this.#reserve(2 * value.length + 2);
    this.#bytes[this.#length++] = quote;
    for (const byte of value) {
      if (byte === quote || byte === escapeByte) this.#bytes[this.#length++] = escapeByte;
      this.#bytes[this.#length++] = byte;
    }
    this.#bytes[this.#length++] = quote;
  }

  #binary(values: RowValues): Buffer {
    this.#length = 0;
    this.#reserve(2);
    this.#length = this.#bytes.writeInt16BE(values.length, 0);
    for (const value of values) {
      this.#reserve(4);
      this.#length = this.#bytes.writeInt32BE(value?.length ?? -1, this.#length);
      if (value) this.#raw(value);
    }
    return this.#bytes.subarray(0, this.#length);
  }

  #raw(value: Buffer): void {
    this.#reserve(value.length);
    this.#length += value.copy(this.#bytes, this.#length);
  }

  #byte(byte: number): void {
    this.#reserve(1);
    this.#bytes[this.#length++] = byte;
  }

  #reserve(bytes: number): void {
    if (this.#bytes.length - this.#length >= bytes) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(this.#length + bytes, 2 * this.#bytes.length));
    this.#bytes.copy(grown, 0, 0, this.#length);
    this.#bytes = grown;
  }
}

const END_MARKER = Buffer.from('\\.');
