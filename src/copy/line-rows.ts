/**
 * Cuts a stream of COPY data in text or CSV format into its rows, as PostgreSQL's server does (source: CopyReadLineText in
 * src/backend/commands/copyfromparse.c), from pieces that may be cut anywhere.
 *
 *   first row ──its end of line is the stream's──▶ rows ──`\.` alone on its line──▶ ended: whatever follows is ignored
 *
 * A row that lies in one piece is handed on as a view of it; what is left of a piece is kept until the next one comes, and the
 * two are put together.
 *
 * Invariant: rows end where the server would end them, or an error is thrown: no byte of a row is told as another's.
 */
import type { CopyFormat } from './format.ts';

const NEWLINE = 0x0a;
const RETURN = 0x0d;
const BACKSLASH = 0x5c;
const DOT = 0x2e;
const NOWHERE = -1;

/** Who takes the rows. A view is good for the call alone. */
export interface RowListener {
  /**
   * buffer[start, contentEnd) is the row; up to `end` comes its end of line, of which the last row may have none.
   * `line`: of the client's data. `breaks`: line breaks within its quotes that count as lines, and `returns`: those that would if
   * it were the first row of its data.
   */
  onRow(row: RowView): void;
  /** The first line, where there is a header. */
  onHeader(row: RowView): void;
}

export interface RowView {
  readonly buffer: Buffer;
  readonly start: number;
  readonly contentEnd: number;
  readonly end: number;
  readonly line: number;
  readonly breaks: number;
  readonly returns: number;
}

/** The data are not what the format says. */
export class CopyDataError extends Error {
  readonly sqlState: string;
  readonly hint: string | undefined;
  /** Of the client's data; 0: it is not about one. */
  readonly line: number;
  /** Index of the column that it is about. */
  readonly column: number | undefined;

  constructor(fields: {
    readonly message: string;
    readonly line: number;
    readonly column?: number | undefined;
    readonly hint?: string | undefined;
    readonly sqlState?: string;
  }) {
    super(fields.message);
    this.sqlState = fields.sqlState ?? '22P04';
    this.hint = fields.hint;
    this.line = fields.line;
    this.column = fields.column;
  }
}

export class LineRows implements RowView {
  // The current row: one object for all of them.
  buffer: Buffer = EMPTY;
  start = 0;
  contentEnd = 0;
  end = 0;
  /** Of the row read last; 0: none. */
  line = 0;
  breaks = 0;
  returns = 0;
  readonly #listener: RowListener;
  readonly #isCsv: boolean;
  readonly #quote: number;
  /** −1: the quote itself. */
  readonly #escape: number;
  readonly #markerEnds: boolean;
  readonly #rowBytesMax: number;
  #awaitsHeader: boolean;
  /** The stream's end of line: NEWLINE, RETURN, both (CRLF), or 0 as long as it is not known. */
  #endOfLine = 0;
  #hasEnded = false;
  /** What is left of earlier pieces: #carry[0, #carried). */
  #carry: Buffer = EMPTY;
  #carried = 0;
  /** How far into it the row has been looked at. */
  #scanned = 0;
  #inQuotes = false;
  #escaped = false;
  /** No more comes. */
  #atEnd = false;

  /** `markerEnds`: in CSV, too, `\.` alone on a line ends the data, as it does up to PostgreSQL 17. */
  constructor(
    format: CopyFormat,
    listener: RowListener,
    options: { readonly markerEnds: boolean; readonly rowBytesMax: number },
  ) {
    this.#listener = listener;
    this.#isCsv = format.kind === 'csv';
    this.#quote = format.quote;
    this.#escape = format.escape === format.quote ? NOWHERE : format.escape;
    this.#markerEnds = options.markerEnds;
    this.#rowBytesMax = options.rowBytesMax;
    this.#awaitsHeader = format.header !== 'none';
  }

  /** The bytes that end a line. */
  get lineEnd(): string {
    if (this.#endOfLine === CRLF) return '\r\n';
    return this.#endOfLine === RETURN ? '\r' : '\n';
  }

  /** Bytes that are kept for the next piece. */
  get carriedBytes(): number {
    return this.#carried;
  }

  /** Takes the next piece: data[start, end). */
  push(data: Buffer, start: number, end: number): void {
    if (this.#hasEnded || start === end) return;
    if (this.#carried === 0) {
      const rest = this.#read(data, start, end, start);
      if (rest < end && !this.#hasEnded) this.#keep(data, rest, end);
      return;
    }
    this.#keep(data, start, end);
    const carry = this.#carry;
    const carried = this.#carried;
    const rest = this.#read(carry, 0, carried, this.#scanned);
    if (rest === 0) return;
    this.#carry = EMPTY;
    this.#carried = 0;
    if (rest < carried && !this.#hasEnded) this.#keep(carry, rest, carried);
  }

  /** The data have ended: the last row may lack its end of line. */
  finish(): void {
    this.#atEnd = true;
    if (this.#hasEnded || this.#carried === 0) return;
    const carry = this.#carry;
    const carried = this.#carried;
    this.#carried = 0;
    const rest = this.#read(carry, 0, carried, this.#scanned);
    if (rest >= carried || this.#hasEnded) return;
    let contentEnd = carried;
    // A backslash with nothing behind it stands for nothing.
    if (!this.#isCsv && this.#scanned === carried - 1 && carry[carried - 1] === BACKSLASH) contentEnd--;
    this.#emit(carry, rest, contentEnd, contentEnd);
  }

  /** Is the data's end inside of quotes? */
  get endsInQuotes(): boolean {
    return this.#inQuotes;
  }

  #keep(data: Buffer, start: number, end: number): void {
    const needed = this.#carried + end - start;
    if (needed > this.#rowBytesMax) throw this.#tooLong();
    if (this.#carried === 0) this.#scanned -= start;
    if (needed > this.#carry.length) {
      const doubled = Math.min(2 * this.#carry.length, this.#rowBytesMax);
      const grown = Buffer.allocUnsafeSlow(Math.max(needed, doubled, CARRY_BYTES_MIN));
      this.#carry.copy(grown, 0, 0, this.#carried);
      this.#carry = grown;
    }
    data.copy(this.#carry, this.#carried, start, end);
    this.#carried = needed;
  }

  /** Reads whole rows; the first one has been looked at up to `scanned`. Gives where the first incomplete row begins. */
  #read(piece: Buffer, start: number, end: number, scanned: number): number {
    // What lies behind the piece in the same memory is not searched.
    const data = end < piece.length ? piece.subarray(0, end) : piece;
    let rowStart = start;
    let from = scanned;
    // Positions of what makes a row more than the bytes up to the next newline; beyond `end`: none is left.
    const special = this.#isCsv ? this.#quote : BACKSLASH;
    let nextSpecial = next(data, special, from);
    let nextReturn = next(data, RETURN, from);
    while (rowStart < end) {
      if (nextSpecial < from) nextSpecial = next(data, special, from);
      if (nextReturn < from) nextReturn = next(data, RETURN, from);
      let after = NOWHERE;
      if (from === rowStart && !this.#inQuotes) {
        const newline = next(data, NEWLINE, rowStart);
        const isPlain = newline < end && newline < nextSpecial;
        if (isPlain && this.#endOfLine === NEWLINE && newline < nextReturn) {
          this.contentEnd = newline;
          after = newline + 1;
        } else if (isPlain && this.#endOfLine === CRLF && nextReturn === newline - 1) {
          this.contentEnd = newline - 1;
          after = newline + 1;
        }
        // Alone on its line, it is the end of the data.
        if (after !== NOWHERE && this.#markerEnds && this.#isCsv && data[rowStart] === BACKSLASH)
          after = NOWHERE;
      }
      if (after === NOWHERE) {
        after = this.#isCsv
          ? this.#scanCsv(data, rowStart, from, end)
          : this.#scanText(data, rowStart, from, end);
        if (this.#hasEnded) return end;
        if (after === NOWHERE) return rowStart;
      }
      this.#emit(data, rowStart, this.contentEnd, after);
      rowStart = after;
      from = after;
    }
    this.#scanned = rowStart;
    return rowStart;
  }

  #emit(data: Buffer, start: number, contentEnd: number, end: number): void {
    if (end - start > this.#rowBytesMax) throw this.#tooLong();
    this.buffer = data;
    this.start = start;
    this.contentEnd = contentEnd;
    this.end = end;
    this.line += 1 + this.breaks;
    if (this.#awaitsHeader) {
      this.#awaitsHeader = false;
      this.#listener.onHeader(this);
    } else this.#listener.onRow(this);
    this.breaks = 0;
    this.returns = 0;
  }

  /** Where the row ends that begins at `rowStart` and has been looked at up to `from`; −1: not in these bytes. */
  #scanText(data: Buffer, rowStart: number, from: number, end: number): number {
    let at = from;
    while (at < end) {
      const byte = data[at]!;
      if (byte > BACKSLASH) at++;
      else if (byte === BACKSLASH) {
        if (at + 1 >= end) break;
        if (data[at + 1] === DOT) {
          if (!this.#endMarker(data, rowStart, at, end)) break;
          return NOWHERE;
        }
        at += 2;
      } else if (byte === NEWLINE || byte === RETURN) {
        const after = this.#lineEndAt(data, at, end);
        if (after === NOWHERE) break;
        return after;
      } else at++;
    }
    // What is told by the byte behind it is looked at again with that.
    this.#scanned = at;
    return NOWHERE;
  }

  #scanCsv(data: Buffer, rowStart: number, from: number, end: number): number {
    const quote = this.#quote;
    const escapeByte = this.#escape;
    let inQuotes = this.#inQuotes;
    let escaped = this.#escaped;
    let at = from;
    let after = NOWHERE;
    while (at < end) {
      const byte = data[at]!;
      if (byte === RETURN && at + 1 >= end && !this.#atEnd) break;
      if (byte === BACKSLASH && at === rowStart && this.#markerEnds && !inQuotes) {
        const isMarker = this.#csvMarker(data, at, end);
        if (isMarker === undefined) break;
        if (isMarker) {
          this.#hasEnded = true;
          return NOWHERE;
        }
      }
      if (inQuotes && byte === escapeByte) escaped = !escaped;
      if (byte === quote && !escaped) inQuotes = !inQuotes;
      if (byte !== escapeByte) escaped = false;
      if (byte === NEWLINE || byte === RETURN) {
        if (!inQuotes) {
          after = this.#lineEndAt(data, at, end);
          break;
        }
        if (byte === RETURN) this.returns++;
        if (byte === (this.#endOfLine === NEWLINE ? NEWLINE : RETURN)) this.breaks++;
      }
      at++;
    }
    this.#inQuotes = inQuotes;
    this.#escaped = escaped;
    if (after === NOWHERE) this.#scanned = at;
    return after;
  }

  /** Behind the end of line at `at`; −1: the byte that tells has yet to come. */
  #lineEndAt(data: Buffer, at: number, end: number): number {
    const known = this.#endOfLine;
    this.contentEnd = at;
    if (data[at] === NEWLINE) {
      if (known === RETURN || known === CRLF) throw this.#strayNewline();
      this.#endOfLine = NEWLINE;
      return at + 1;
    }
    if (known === NEWLINE) throw this.#strayReturn();
    if (known === RETURN) return at + 1;
    if (at + 1 >= end && !this.#atEnd) return NOWHERE;
    if (at + 1 < end && data[at + 1] === NEWLINE) {
      this.#endOfLine = CRLF;
      return at + 2;
    }
    if (known === CRLF) throw this.#strayReturn();
    this.#endOfLine = RETURN;
    return at + 1;
  }

  /** `\.` at `at` in text format: it has to be alone on its line. false: more has to come to tell. */
  #endMarker(data: Buffer, rowStart: number, at: number, end: number): boolean {
    if (at + 2 >= end && !this.#atEnd) return false;
    const byte = data[at + 2];
    const isReturn = at + 2 < end && byte === RETURN;
    if (isReturn && this.#endOfLine !== RETURN && at + 3 >= end && !this.#atEnd) return false;
    const isNewline = at + 2 < end && byte === NEWLINE;
    const isBoth = isReturn && at + 3 < end && data[at + 3] === NEWLINE;
    if (at > rowStart || !(isReturn || isNewline)) {
      throw this.#error('end-of-copy marker is not alone on its line');
    }
    const style = isNewline ? NEWLINE : isBoth && this.#endOfLine !== RETURN ? CRLF : RETURN;
    if (this.#endOfLine !== 0 && style !== this.#endOfLine) {
      throw this.#otherStyle();
    }
    this.#hasEnded = true;
    return true;
  }

  /** Is the line that begins at `at` nothing but `\.`? undefined: more has to come to tell. */
  #csvMarker(data: Buffer, at: number, end: number): boolean | undefined {
    if (at + 1 < end && data[at + 1] !== DOT) return false;
    if (at + 2 >= end) return this.#atEnd ? false : undefined;
    const known = this.#endOfLine;
    if (data[at + 2] === NEWLINE) {
      if (known === RETURN) throw this.#otherStyle();
      return known !== CRLF;
    }
    if (data[at + 2] !== RETURN) return false;
    if (known === NEWLINE) throw this.#otherStyle();
    if (known !== CRLF) return true;
    if (at + 3 >= end) return this.#atEnd ? false : undefined;
    if (data[at + 3] === RETURN) throw this.#otherStyle();
    return data[at + 3] === NEWLINE;
  }

  #otherStyle(): CopyDataError {
    return this.#error('end-of-copy marker does not match previous newline style');
  }

  #strayReturn(): CopyDataError {
    return this.#isCsv
      ? this.#error(
          'unquoted carriage return found in data',
          'Use quoted CSV field to represent carriage return.',
        )
      : this.#error('literal carriage return found in data', 'Use "\\r" to represent carriage return.');
  }

  #strayNewline(): CopyDataError {
    return this.#isCsv
      ? this.#error('unquoted newline found in data', 'Use quoted CSV field to represent newline.')
      : this.#error('literal newline found in data', 'Use "\\n" to represent newline.');
  }

  #tooLong(): CopyDataError {
    const message = `a row of COPY data is longer than ${this.#rowBytesMax} bytes`;
    return new CopyDataError({ message, sqlState: '54000', line: this.line + 1 });
  }

  #error(message: string, hint?: string): CopyDataError {
    return new CopyDataError({ message, hint, line: this.line + 1 + this.breaks });
  }
}

const EMPTY = Buffer.alloc(0);
const CRLF = 0x0d0a;
const CARRY_BYTES_MIN = 1024;
/** A small integer, so that what holds it stays one. */
const NOT_THERE = 0x3fff_ffff;

/** Where the first such byte is at or behind `from`. */
function next(data: Buffer, byte: number, from: number): number {
  const at = data.indexOf(byte, from);
  return at < 0 ? NOT_THERE : at;
}
