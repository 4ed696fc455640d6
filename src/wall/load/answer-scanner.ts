/**
 * Finds the ends of answers in what a server sends, with as little work as can be: frames are skipped by their length
 * and only ReadyForQuery and ErrorResponse are looked into. It keeps no bytes but those of an ErrorResponse or a frame's
 * header that was cut by the end of a read, so an answer of any size costs no memory; unless `keepsResults` asks for rows.
 * Source: PostgreSQL documentation, "Message Formats".
 */
import { protocolViolation } from '../../base/errors.ts';
import { Backend } from '../../wire/message-types.ts';

const HEADER_BYTES = 5;
/** PostgreSQL's own errors are some hundred bytes; one that quotes a long value is cut to this, not kept. */
const ERROR_BYTES_MAX = 65_536;
/** A script's \gset takes one row: whoever asks for more than this has forgotten a WHERE. */
const RESULT_BYTES_MAX = 16 * 1024 * 1024;

export interface ServerError {
  readonly sqlState: string;
  readonly severity: string;
  readonly message: string;
}

/** A RowDescription or DataRow, without its header. */
export interface KeptFrame {
  readonly type: number;
  readonly body: Buffer;
}

export class AnswerScanner {
  /** How many ReadyForQuery the last `scan` has seen. */
  readyCount = 0;
  /** Status byte of the last ReadyForQuery: 'I', 'T' or 'E' as its character code. */
  status = 0;
  /** The first error since the caller last set this to undefined. */
  error: ServerError | undefined = undefined;

  /** Rows and their descriptions are kept in `results`. */
  keepsResults = false;
  /** In their order; the caller empties it. */
  results: KeptFrame[] = [];

  private readonly header = Buffer.alloc(HEADER_BYTES);
  private headerLength = 0;
  /** Bytes still to come of the body that the last read was cut in. */
  private bodyMissing = 0;
  private bodyType = 0;
  private errorBody: Buffer[] = [];
  private errorBodyBytes = 0;
  private resultBody: Buffer[] = [];
  private resultBytes = 0;

  /** Goes through `length` bytes of `buffer`, of which nothing is kept that the caller may overwrite. */
  scan(buffer: Buffer, length: number): void {
    this.readyCount = 0;
    let position = 0;
    while (position < length) {
      if (this.bodyMissing > 0) {
        const end = Math.min(length, position + this.bodyMissing);
        this.bodyMissing -= end - position;
        this.takeBody(buffer, position, end);
        position = end;
        continue;
      }
      let type: number;
      let bodyLength: number;
      if (this.headerLength === 0 && length - position >= HEADER_BYTES) {
        type = buffer[position]!;
        bodyLength = buffer.readInt32BE(position + 1) - 4;
        position += HEADER_BYTES;
      } else {
        this.header[this.headerLength++] = buffer[position++]!;
        if (this.headerLength < HEADER_BYTES) continue;
        this.headerLength = 0;
        type = this.header[0]!;
        bodyLength = this.header.readInt32BE(1) - 4;
      }
      this.beginBody(type, bodyLength);
      // An empty body still has to be taken: BindComplete, NoData and their like end with their header.
      const end = Math.min(length, position + bodyLength);
      this.bodyMissing = bodyLength - (end - position);
      if (end > position) this.takeBody(buffer, position, end);
      position = end;
    }
  }

  private beginBody(type: number, bodyLength: number): void {
    const impossible =
      bodyLength < 0 ||
      (type === Backend.ReadyForQuery && bodyLength !== 1) ||
      (type === Backend.ErrorResponse && bodyLength === 0);
    if (impossible) {
      throw protocolViolation('the server sent a message of an impossible length');
    }
    if (type === Backend.CopyInResponse || type === Backend.CopyBothResponse) {
      throw protocolViolation(
        'a statement of the workload asks for COPY data, which the load generator does not send',
      );
    }
    this.bodyType = type;
  }

  /** `bodyMissing` already says what is still to come after these bytes. */
  private takeBody(buffer: Buffer, start: number, end: number): void {
    if (this.bodyType === Backend.ReadyForQuery) {
      this.status = buffer[start]!;
      this.readyCount++;
      this.resultBytes = 0;
    } else if (this.bodyType === Backend.ErrorResponse) {
      if (this.errorBodyBytes < ERROR_BYTES_MAX)
        this.errorBody.push(Buffer.from(buffer.subarray(start, end)));
      this.errorBodyBytes += end - start;
      if (this.bodyMissing === 0) this.endError();
    } else if (this.keepsResults) {
      this.keepResult(buffer, start, end);
    }
  }

  private keepResult(buffer: Buffer, start: number, end: number): void {
    if (this.bodyType !== Backend.RowDescription && this.bodyType !== Backend.DataRow) return;
    this.resultBytes += end - start;
    if (this.resultBytes > RESULT_BYTES_MAX) {
      throw protocolViolation(`a result for \\gset or \\aset is larger than ${RESULT_BYTES_MAX} bytes`);
    }
    this.resultBody.push(Buffer.from(buffer.subarray(start, end)));
    if (this.bodyMissing > 0) return;
    this.results.push({ type: this.bodyType, body: Buffer.concat(this.resultBody) });
    this.resultBody = [];
  }

  private endError(): void {
    const fields = new Map<string, string>();
    for (const field of Buffer.concat(this.errorBody).toString('utf8').split('\0')) {
      if (field !== '') fields.set(field[0]!, field.slice(1));
    }
    this.errorBody = [];
    this.errorBodyBytes = 0;
    this.error ??= {
      sqlState: fields.get('C') ?? 'XX000',
      severity: fields.get('V') ?? fields.get('S') ?? 'ERROR',
      message: fields.get('M') ?? 'no message',
    };
  }
}
