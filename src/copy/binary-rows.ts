/**
 * Cuts a stream of COPY data in binary format into its rows (documentation: "COPY", Binary Format), from pieces that may be cut
 * anywhere, and finds one field of each on the way.
 *
 *   header ──▶ rows ──field count −1──▶ ended: nothing may follow
 *
 * Errors are told in the server's words (source: NextCopyFrom in src/backend/commands/copyfromparse.c).
 */
import { CopyDataError, type RowListener, type RowView } from './line-rows.ts';

const SIGNATURE = Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1');
/** Signature, flags, and the length of the header's extension. */
const HEADER_BYTES = SIGNATURE.length + 8;
const WITH_OIDS = 1 << 16;

/** What stands before the rows of COPY data in binary, and behind them. */
export const BINARY_HEADER: Buffer = Buffer.concat([SIGNATURE, Buffer.alloc(8)]);
export const BINARY_TRAILER: Buffer = Buffer.from([0xff, 0xff]);

export class BinaryRows implements RowView {
  // The current row: one object for all of them.
  buffer: Buffer = Buffer.alloc(0);
  start = 0;
  contentEnd = 0;
  end = 0;
  line = 0;
  readonly breaks = 0;
  readonly returns = 0;
  /** The field that was asked for: buffer[fieldStart, fieldEnd); −1: it is NULL. */
  fieldStart = 0;
  fieldEnd = 0;
  readonly #listener: Pick<RowListener, 'onRow'>;
  readonly #columnCount: number;
  readonly #fieldIndex: number;
  readonly #rowBytesMax: number;
  #state: 'header' | 'rows' | 'ended' = 'header';
  #carry: Buffer = Buffer.alloc(0);
  #carried = 0;
  /** How many bytes the next part is known to have at least. */
  #needed = 0;

  constructor(
    listener: Pick<RowListener, 'onRow'>,
    options: { readonly columnCount: number; readonly fieldIndex: number; readonly rowBytesMax: number },
  ) {
    this.#listener = listener;
    this.#columnCount = options.columnCount;
    this.#fieldIndex = options.fieldIndex;
    this.#rowBytesMax = options.rowBytesMax;
  }

  get carriedBytes(): number {
    return this.#carried;
  }

  push(data: Buffer, start: number, end: number): void {
    if (start === end) return;
    if (this.#carried === 0) {
      const rest = this.#read(data, start, end);
      if (rest < end) this.#keep(data, rest, end);
      return;
    }
    this.#keep(data, start, end);
    const carry = this.#carry;
    const carried = this.#carried;
    if (carried < this.#needed) return;
    const rest = this.#read(carry, 0, carried);
    if (rest === 0) return;
    this.#carry = Buffer.alloc(0);
    this.#carried = 0;
    if (rest < carried) this.#keep(carry, rest, carried);
  }

  finish(): void {
    const left = this.#carried;
    if (this.#state === 'header') {
      if (left < SIGNATURE.length) throw this.#error('COPY file signature not recognized', 0);
      if (left < SIGNATURE.length + 4) throw this.#error('invalid COPY file header (missing flags)', 0);
      if (left < HEADER_BYTES) throw this.#error('invalid COPY file header (missing length)', 0);
      throw this.#error('invalid COPY file header (wrong length)', 0);
    }
    // One byte where the count of fields should be passes for the end.
    if (this.#state === 'rows' && left >= 2)
      throw this.#error('unexpected EOF in COPY data', undefined, this.#columnAtEnd());
  }

  /** The column that the kept part of a row ends in. */
  #columnAtEnd(): number {
    let at = 2;
    let column = 0;
    for (; column < this.#columnCount && at + 4 <= this.#carried; column++) {
      at += 4 + Math.max(this.#carry.readInt32BE(at), 0);
      if (at > this.#carried) break;
    }
    return column;
  }

  #keep(data: Buffer, start: number, end: number): void {
    const needed = this.#carried + end - start;
    if (needed > this.#carry.length) {
      const doubled = Math.min(2 * this.#carry.length, this.#rowBytesMax);
      const grown = Buffer.allocUnsafeSlow(Math.max(needed, doubled, 1024));
      this.#carry.copy(grown, 0, 0, this.#carried);
      this.#carry = grown;
    }
    data.copy(this.#carry, this.#carried, start, end);
    this.#carried = needed;
  }

  /** Gives where the first part begins that is not whole. */
  #read(data: Buffer, start: number, end: number): number {
    let at = start;
    this.#needed = 0;
    if (this.#state === 'header') {
      at = this.#readHeader(data, start, end);
      if (this.#state === 'header') return start;
    }
    while (at < end) {
      if (this.#state === 'ended') throw this.#error('received copy data after EOF marker');
      const after = this.#readRow(data, at, end);
      if (after < 0) return at;
      at = after;
    }
    return at;
  }

  #readHeader(data: Buffer, start: number, end: number): number {
    const known = Math.min(end - start, SIGNATURE.length);
    if (SIGNATURE.compare(data, start, start + known, 0, known) !== 0)
      throw this.#error('COPY file signature not recognized', 0);
    if (end - start < HEADER_BYTES) return start;
    const flags = data.readInt32BE(start + SIGNATURE.length);
    if ((flags & WITH_OIDS) !== 0) throw this.#error('invalid COPY file header (WITH OIDS)', 0);
    if (flags >> 16 !== 0) throw this.#error('unrecognized critical flags in COPY file header', 0);
    const extension = data.readInt32BE(start + SIGNATURE.length + 4);
    if (extension < 0) throw this.#error('invalid COPY file header (missing length)', 0);
    if (extension > this.#rowBytesMax) throw this.#error('invalid COPY file header (wrong length)', 0);
    const after = start + HEADER_BYTES + extension;
    if (after > end) return start;
    this.#state = 'rows';
    return after;
  }

  /** −1: it is not whole. */
  #readRow(data: Buffer, start: number, end: number): number {
    if (end - start < 2) return -1;
    const count = data.readInt16BE(start);
    if (count === -1) {
      this.#state = 'ended';
      return start + 2;
    }
    if (count !== this.#columnCount)
      throw this.#error(`row field count is ${count}, expected ${this.#columnCount}`);
    let at = start + 2;
    for (let index = 0; index < count; index++) {
      if (at + 4 > end) return -1;
      const length = data.readInt32BE(at);
      at += 4;
      if (length < -1) throw this.#error('invalid field size', undefined, index);
      if (index === this.#fieldIndex) {
        this.fieldStart = length < 0 ? -1 : at;
        this.fieldEnd = at + length;
      }
      if (length > 0) at += length;
      if (at - start > this.#rowBytesMax) throw this.#tooLong();
      if (at > end) {
        this.#needed = at - start;
        return -1;
      }
    }
    this.line++;
    this.buffer = data;
    this.start = start;
    this.contentEnd = at;
    this.end = at;
    this.#listener.onRow(this);
    return at;
  }

  #tooLong(): CopyDataError {
    const message = `a row of COPY data is longer than ${this.#rowBytesMax} bytes`;
    return new CopyDataError({ message, sqlState: '54000', line: this.line + 1 });
  }

  /** `line` 0: it is of none. */
  #error(message: string, line = this.line + 1, column?: number): CopyDataError {
    return new CopyDataError({ message, line, column });
  }
}
