/**
 * The value of one field of a row of COPY data, in place where it stands there as it is, and put together where it is quoted
 * or escaped (source: CopyReadAttributesText and CopyReadAttributesCSV in src/backend/commands/copyfromparse.c).
 *
 * One object for all rows of a stream: find() sets what the last row has.
 */
import { type CopyFormat, isAmong } from './format.ts';
import type { RowView } from './line-rows.ts';

const BACKSLASH = 0x5c;
const LETTER_X = 0x78;

/**
 * `missing`: the row has fewer fields. `default`: it stands for the column's default.
 */
export type FieldKind = 'value' | 'null' | 'default' | 'missing';

export class KeyField {
  /** The value: buffer[start, end). */
  buffer: Buffer = Buffer.alloc(0);
  start = 0;
  end = 0;
  readonly #format: CopyFormat;
  readonly #index: number;
  readonly #neverNull: boolean;
  readonly #quotedNull: boolean;
  /** Where a value is put together. */
  #scratch: Buffer = Buffer.alloc(256);
  #isQuoted = false;
  #isEscaped = false;

  /** `index`: of the field among those of a row; `column`: its name. */
  constructor(format: CopyFormat, index: number, column: string) {
    this.#format = format;
    this.#index = index;
    this.#neverNull = format.kind === 'csv' && isAmong(format.forceNotNull, column);
    this.#quotedNull = format.kind === 'csv' && isAmong(format.forceNull, column);
  }

  find(row: RowView): FieldKind {
    const { nullText, defaultText, kind } = this.#format;
    const isThere = kind === 'csv' ? this.#findQuoted(row) : this.#findEscaped(row);
    if (!isThere) return 'missing';
    const { buffer } = row;
    if (!this.#isQuoted && equals(buffer, this.start, this.end, nullText)) {
      if (!this.#neverNull) return 'null';
    } else if (defaultText && equals(buffer, this.start, this.end, defaultText)) return 'default';
    this.buffer = buffer;
    if (kind === 'text' && this.#isEscaped) this.#unescape(row);
    else if (this.#isQuoted) {
      this.#unquote(row);
      if (this.#quotedNull && equals(this.buffer, this.start, this.end, nullText)) return 'null';
    }
    return 'value';
  }

  #findEscaped({ buffer, start, contentEnd }: RowView): boolean {
    const { delimiter } = this.#format;
    let left = this.#index;
    let at = start;
    while (left > 0) {
      if (at >= contentEnd) return false;
      const byte = buffer[at++]!;
      if (byte === BACKSLASH) at++;
      else if (byte === delimiter) left--;
    }
    this.start = at;
    this.#isEscaped = false;
    while (at < contentEnd) {
      const byte = buffer[at]!;
      if (byte === delimiter) break;
      if (byte === BACKSLASH) {
        this.#isEscaped = true;
        at++;
      }
      at++;
    }
    this.end = Math.min(at, contentEnd);
    return true;
  }

  #findQuoted({ buffer, start, contentEnd }: RowView): boolean {
    const { delimiter, quote, escape: escapeByte } = this.#format;
    let left = this.#index;
    let at = start;
    let fieldStart = start;
    let isQuoted = false;
    for (;;) {
      let isDelimited = false;
      fieldStart = at;
      isQuoted = false;
      while (at < contentEnd) {
        const byte = buffer[at++]!;
        if (byte === delimiter) {
          isDelimited = true;
          break;
        }
        if (byte !== quote) continue;
        isQuoted = true;
        // Up to the quote that ends it.
        while (at < contentEnd) {
          const inner = buffer[at++]!;
          if (inner === escapeByte && at < contentEnd && (buffer[at] === escapeByte || buffer[at] === quote))
            at++;
          else if (inner === quote) break;
        }
      }
      if (left-- === 0) {
        this.start = fieldStart;
        this.end = isDelimited ? at - 1 : at;
        this.#isQuoted = isQuoted;
        return true;
      }
      if (!isDelimited) return false;
    }
  }

  /** Without its backslashes. */
  #unescape({ buffer }: RowView): void {
    const out = this.#room(this.end - this.start);
    let length = 0;
    for (let at = this.start; at < this.end; ) {
      let byte = buffer[at++]!;
      if (byte === BACKSLASH && at < this.end) {
        byte = buffer[at++]!;
        const digit = octalOf(byte);
        if (digit >= 0) {
          let value = digit;
          for (let more = 0; more < 2 && at < this.end; more++) {
            const next = octalOf(buffer[at]!);
            if (next < 0) break;
            value = value * 8 + next;
            at++;
          }
          byte = value & 0xff;
        } else if (byte === LETTER_X) {
          let value = -1;
          for (let more = 0; more < 2 && at < this.end; more++) {
            const next = hexOf(buffer[at]!);
            if (next < 0) break;
            value = Math.max(value, 0) * 16 + next;
            at++;
          }
          if (value >= 0) byte = value;
        } else byte = ESCAPED.get(byte) ?? byte;
      } else if (byte === BACKSLASH) break;
      out[length++] = byte;
    }
    this.#set(out, length);
  }

  /** Without its quotes. */
  #unquote({ buffer }: RowView): void {
    const { quote, escape: escapeByte } = this.#format;
    const out = this.#room(this.end - this.start);
    let length = 0;
    let inQuotes = false;
    for (let at = this.start; at < this.end; ) {
      const byte = buffer[at++]!;
      if (!inQuotes) {
        if (byte === quote) inQuotes = true;
        else out[length++] = byte;
      } else if (
        byte === escapeByte &&
        at < this.end &&
        (buffer[at] === escapeByte || buffer[at] === quote)
      ) {
        out[length++] = buffer[at++]!;
      } else if (byte === quote) inQuotes = false;
      else out[length++] = byte;
    }
    this.#set(out, length);
  }

  #room(bytes: number): Buffer {
    if (bytes > this.#scratch.length) this.#scratch = Buffer.allocUnsafeSlow(bytes);
    return this.#scratch;
  }

  #set(buffer: Buffer, length: number): void {
    this.buffer = buffer;
    this.start = 0;
    this.end = length;
  }
}

/** \b \f \n \r \t \v */
const ESCAPED: ReadonlyMap<number, number> = new Map([
  [0x62, 0x08],
  [0x66, 0x0c],
  [0x6e, 0x0a],
  [0x72, 0x0d],
  [0x74, 0x09],
  [0x76, 0x0b],
]);

function octalOf(byte: number): number {
  return byte >= 0x30 && byte <= 0x37 ? byte - 0x30 : -1;
}

function hexOf(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const letter = byte | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x61 + 10 : -1;
}

function equals(buffer: Buffer, start: number, end: number, text: Buffer): boolean {
  if (end - start !== text.length) return false;
  for (let i = 0; i < text.length; i++) if (buffer[start + i] !== text[i]) return false;
  return true;
}
