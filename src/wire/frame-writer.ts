/**
 * Writes frames of PostgreSQL's protocol one behind the other into chunks of memory, and hands what was written out as
 * one view for one write to the socket.
 *
 * Invariant: bytes that take() has handed out are never written again; the writer goes on behind them or in a new chunk.
 * Chunks start small and double up to a bound, so that a connection that only said hello holds little; memory of a huge
 * message is let go as soon as the message has been taken.
 */
import { assert } from '../base/assert.ts';

const CHUNK_BYTES_FIRST = 1024;
const CHUNK_BYTES_MAX = 16 * 1024;
/** Up to this many UTF-16 units a string is written with three bytes a unit reserved, which saves counting them first. */
const UNCOUNTED_UNITS_MAX = 256;
/** Up to this many units a loop is faster than a call out of JavaScript. */
const LOOPED_UNITS_MAX = 24;
const EMPTY = Buffer.alloc(0);

export class FrameWriter {
  #chunk: Buffer = EMPTY;
  #position = 0;
  /** [#untakenStart, #position) is what take() will give. */
  #untakenStart = 0;
  /** Offset of the open frame's length field; -1: no frame is open. */
  #lengthOffset = -1;
  #nextChunkBytes: number;
  readonly #chunkBytesMax: number;

  constructor(initialBytes: number = CHUNK_BYTES_FIRST) {
    assert(initialBytes > 0, 'initialBytes is out of range');
    this.#nextChunkBytes = initialBytes;
    this.#chunkBytesMax = Math.max(initialBytes, CHUNK_BYTES_MAX);
  }

  /** Bytes written since the last take(). */
  get length(): number {
    return this.#position - this.#untakenStart;
  }

  begin(type: number): void {
    this.#reserve(5);
    this.#chunk[this.#position++] = type;
    this.#openLength();
  }

  /** For the packets before and at start-up, which have a length and no type byte. */
  beginUntyped(): void {
    this.#reserve(4);
    this.#openLength();
  }

  end(): void {
    assert(this.#lengthOffset >= 0, 'no frame is open');
    this.#chunk.writeInt32BE(this.#position - this.#lengthOffset, this.#lengthOffset);
    this.#lengthOffset = -1;
  }

  uint8(value: number): void {
    this.#reserve(1);
    this.#chunk[this.#position++] = value;
  }

  /** Signed, or unsigned as counts are: up to 65,535. */
  int16(value: number): void {
    assert(value >= -0x8000 && value <= 0xffff, 'a number does not fit into 16 bits');
    this.#reserve(2);
    const chunk = this.#chunk;
    chunk[this.#position++] = value >> 8;
    chunk[this.#position++] = value;
  }

  /** Signed, or unsigned as OIDs are. */
  int32(value: number): void {
    assert(value >= -0x8000_0000 && value <= 0xffff_ffff, 'a number does not fit into 32 bits');
    this.#reserve(4);
    const chunk = this.#chunk;
    chunk[this.#position++] = value >> 24;
    chunk[this.#position++] = value >> 16;
    chunk[this.#position++] = value >> 8;
    chunk[this.#position++] = value;
  }

  /** UTF-8 and a zero byte. A zero within would end the string early and begin a field of the caller's data. */
  cstring(text: string): void {
    assert(!text.includes('\0'), 'a string of the protocol contains a zero byte');
    this.string(text);
    this.uint8(0);
  }

  /** UTF-8, no terminator. */
  string(text: string): void {
    const units = text.length;
    if (units > UNCOUNTED_UNITS_MAX) {
      this.#reserve(Buffer.byteLength(text));
    } else {
      this.#reserve(units * 3);
      if (units <= LOOPED_UNITS_MAX && this.#ascii(text)) return;
    }
    this.#position += this.#chunk.write(text, this.#position);
  }

  /** A string with its length in bytes before it, as values are sent. */
  countedString(text: string): void {
    this.int32(Buffer.byteLength(text));
    this.string(text);
  }

  bytes(source: Buffer, start: number, end: number): void {
    assert(start >= 0 && start <= end && end <= source.length, 'a slice is outside its buffer');
    this.#reserve(end - start);
    this.#position += source.copy(this.#chunk, this.#position, start, end);
  }

  /** Whole frames, copied as they are. */
  raw(source: Buffer, start: number, end: number): void {
    assert(this.#lengthOffset < 0, 'a frame is open');
    this.bytes(source, start, end);
  }

  /** What was written since the last take, as a view that stays as it is. */
  take(): Buffer {
    assert(this.#lengthOffset < 0, 'a frame is open');
    const taken = this.#chunk.subarray(this.#untakenStart, this.#position);
    this.#untakenStart = this.#position;
    this.#forgetOversized();
    return taken;
  }

  /** Forgets what was written since the last take, an open frame too. */
  clear(): void {
    this.#position = this.#untakenStart;
    this.#lengthOffset = -1;
    this.#forgetOversized();
  }

  #openLength(): void {
    assert(this.#lengthOffset < 0, 'a frame is open');
    this.#lengthOffset = this.#position;
    this.#position += 4;
  }

  #ascii(text: string): boolean {
    const chunk = this.#chunk;
    const position = this.#position;
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i);
      if (unit > 0x7f) return false;
      chunk[position + i] = unit;
    }
    this.#position = position + text.length;
    return true;
  }

  #reserve(bytes: number): void {
    if (this.#chunk.length - this.#position < bytes) this.#grow(bytes);
  }

  /** Moves what is not yet taken to a new chunk with room for `bytes` more; doubling keeps the copying linear. */
  #grow(bytes: number): void {
    const untaken = this.length;
    const size = Math.max(this.#nextChunkBytes, untaken + bytes, 2 * untaken);
    const grown = Buffer.allocUnsafeSlow(size);
    this.#chunk.copy(grown, 0, this.#untakenStart, this.#position);
    if (this.#lengthOffset >= 0) this.#lengthOffset -= this.#untakenStart;
    this.#chunk = grown;
    this.#untakenStart = 0;
    this.#position = untaken;
    this.#nextChunkBytes = Math.min(2 * this.#nextChunkBytes, this.#chunkBytesMax);
  }

  #forgetOversized(): void {
    if (this.#chunk.length <= this.#chunkBytesMax) return;
    if (this.#untakenStart !== this.#position) return;
    this.#chunk = EMPTY;
    this.#position = 0;
    this.#untakenStart = 0;
  }
}
