/**
 * Walks the body of one frame from field to field and checks each against the frame's end, with PostgreSQL's own words
 * where one is broken (src/backend/libpq/pqformat.c has the same set). Decoders share one cursor a module: they run to
 * their end without waiting for anything, so no two are ever under way, and none allocates a cursor.
 *
 * Invariant: nothing outside [bodyStart, end) is read, whatever the body claims.
 */
import { isUtf8 } from 'node:buffer';
import { invalidByteSequence, protocolViolation } from '../base/errors.ts';

/** Where a body lies: a Frame, or a start-up packet. */
export interface Body {
  readonly buffer: Buffer;
  readonly bodyStart: number;
  readonly end: number;
}

/** Names are short: up to here a loop finds their end faster than a call out of JavaScript does. */
const LOOPED_BYTES_MAX = 64;
const EMPTY = Buffer.alloc(0);

export class BodyCursor {
  position = 0;
  #buffer: Buffer = EMPTY;
  #end = 0;

  open(body: Body): void {
    this.#buffer = body.buffer;
    this.position = body.bodyStart;
    this.#end = body.end;
  }

  /** The body has to be used up. */
  finish(): void {
    if (this.position !== this.#end) throw protocolViolation('invalid message format');
    this.#buffer = EMPTY;
  }

  get remainingBytes(): number {
    return this.#end - this.position;
  }

  /** Steps over `bytes` bytes and returns where they begin. */
  skip(bytes: number): number {
    const start = this.position;
    if (bytes < 0 || bytes > this.#end - start) throw protocolViolation('insufficient data left in message');
    this.position = start + bytes;
    return start;
  }

  uint8(): number {
    return this.#buffer[this.skip(1)]!;
  }

  /** Counts are unsigned, as in PostgreSQL: a Bind may carry 65,535 parameters. */
  uint16(): number {
    const start = this.skip(2);
    return (this.#buffer[start]! << 8) | this.#buffer[start + 1]!;
  }

  int16(): number {
    return (this.uint16() << 16) >> 16;
  }

  int32(): number {
    const start = this.skip(4);
    const buffer = this.#buffer;
    return (
      (buffer[start]! << 24) | (buffer[start + 1]! << 16) | (buffer[start + 2]! << 8) | buffer[start + 3]!
    );
  }

  uint32(): number {
    return this.int32() >>> 0;
  }

  /** A copy, which outlives the frame. */
  bytes(count: number): Buffer {
    const start = this.skip(count);
    return Buffer.from(this.#buffer.subarray(start, start + count));
  }

  /** A zero-terminated string that has to be UTF-8: changed silently, it would come back as different data. */
  cstring(): string {
    const start = this.position;
    return strictText(this.#buffer, start, this.#stepOverCstring());
  }

  /** A zero-terminated string of a server, which may predate the agreement on an encoding: U+FFFD for what isn't UTF-8. */
  lenientCstring(): string {
    const start = this.position;
    return text(this.#buffer, start, this.#stepOverCstring());
  }

  /** `count` bytes of text that has to be UTF-8. */
  countedText(count: number): string {
    const start = this.skip(count);
    return strictText(this.#buffer, start, start + count);
  }

  lenientCountedText(count: number): string {
    const start = this.skip(count);
    return text(this.#buffer, start, start + count);
  }

  /** Returns where the string ends; the position is then behind its terminator. */
  #stepOverCstring(): number {
    const buffer = this.#buffer;
    const loopEnd = Math.min(this.#end, this.position + LOOPED_BYTES_MAX);
    for (let i = this.position; i < loopEnd; i++) {
      if (buffer[i] === 0) {
        this.position = i + 1;
        return i;
      }
    }
    const found = loopEnd < this.#end ? buffer.indexOf(0, loopEnd) : -1;
    if (found < 0 || found >= this.#end) throw protocolViolation('invalid string in message');
    this.position = found + 1;
    return found;
  }
}

function text(buffer: Buffer, start: number, end: number): string {
  return start === end ? '' : buffer.toString('utf8', start, end);
}

function strictText(buffer: Buffer, start: number, end: number): string {
  const decoded = text(buffer, start, end);
  // What can't be decoded becomes U+FFFD, so text without one was valid and needs no second look.
  if (decoded.includes('\ufffd') && !isUtf8(buffer.subarray(start, end))) {
    throw invalidByteSequence(firstInvalidBytes(buffer.subarray(start, end)));
  }
  return decoded;
}

/** The bytes of the first character that is not one, in PostgreSQL's notation. */
function firstInvalidBytes(bytes: Buffer): string {
  let at = 0;
  while (at < bytes.length) {
    const lead = bytes[at]!;
    const announced = lead < 0xc0 || lead >= 0xf8 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    const character = bytes.subarray(at, at + announced);
    if (character.length < announced || !isUtf8(character)) {
      return Array.from(character, (byte) => `0x${byte.toString(16).padStart(2, '0')}`).join(' ');
    }
    at += announced;
  }
  return '';
}
