/**
 * Cuts what a socket delivers into the typed frames of PostgreSQL's protocol, without copying: a frame that arrived whole
 * is a view over the socket's own chunk. Only a frame that spans chunks is put together, in memory of the reader, and
 * only its own bytes are copied: the frames behind it are views again.
 *
 * Invariants:
 * - A length is checked before memory is reserved for it, and memory grows with what has really arrived: a peer that
 *   announces a gigabyte and sends ten bytes costs a kilobyte.
 * - When next() returns false, nothing of the chunk is referenced any more: the caller may use its memory again.
 * - A reader that has thrown throws again: the position of the next frame is unknown for good.
 */
import { assert } from '../base/assert.ts';
import { protocolViolation } from '../base/errors.ts';

/** A view of one frame: buffer[start] is its type byte, [bodyStart, end) what follows the length. */
export interface Frame {
  readonly type: number;
  readonly buffer: Buffer;
  readonly start: number;
  readonly bodyStart: number;
  readonly end: number;
}

/** Type byte and length. */
const HEADER_BYTES = 5;
const ASSEMBLY_BYTES_MIN = 1024;
/** More than this is given back once its frame is done with: a connection that idles after a large message stays small. */
const ASSEMBLY_BYTES_KEPT_MAX = 4096;
const EMPTY = Buffer.alloc(0);

export class FrameReader implements Frame {
  type = 0;
  buffer: Buffer = EMPTY;
  start = 0;
  bodyStart = 0;
  end = 0;

  /** May be raised, e.g. after a login. */
  frameBytesMax: number;
  /** Told of a frame whose head is there and whose rest is not; may throw, rather than have it waited for. */
  onUnfinished: ((type: number, length: number) => void) | undefined;
  #chunk: Buffer = EMPTY;
  #position = 0;
  /** The frame that spans chunks: its first #assembledBytes bytes. 0: there is none. */
  #assembly: Buffer = EMPTY;
  #assembledBytes = 0;
  #wantsChunk = true;

  /** @param options.frameBytesMax the largest length that a frame may announce (the length counts itself, not the type byte) */
  constructor(options: { frameBytesMax: number }) {
    assert(options.frameBytesMax >= 4 && options.frameBytesMax < 2 ** 31, 'frameBytesMax is out of range');
    this.frameBytesMax = options.frameBytesMax;
  }

  /** Bytes that have been pushed and not yet been delivered as a frame. */
  get bufferedBytes(): number {
    return this.#assembledBytes + this.#chunk.length - this.#position;
  }

  /** Takes what one read of the socket gave. Only after next() has returned false. */
  push(chunk: Buffer): void {
    assert(this.#wantsChunk, 'a chunk was pushed before the last one was used up');
    this.#wantsChunk = false;
    this.#chunk = chunk;
    this.#position = 0;
  }

  /** Takes away what bufferedBytes counts; the reader is as new. */
  takeRest(): Buffer {
    const rest = Buffer.concat([
      this.#assembly.subarray(0, this.#assembledBytes),
      this.#chunk.subarray(this.#position),
    ]);
    this.#assembledBytes = 0;
    this.#waitForChunk();
    return rest;
  }

  /** Moves to the next whole frame and makes it the current one; false: none has arrived whole yet. */
  next(): boolean {
    if (this.#assembledBytes > 0) return this.#nextAcrossChunks();
    const chunk = this.#chunk;
    const start = this.#position;
    const available = chunk.length - start;
    if (available >= HEADER_BYTES) {
      const end = start + this.#frameBytes(chunk, start);
      if (end <= chunk.length) {
        this.#position = end;
        this.#setCurrent(chunk, start, end);
        return true;
      }
    }
    if (this.#assembly.length > ASSEMBLY_BYTES_KEPT_MAX) this.#assembly = EMPTY;
    return available > 0 ? this.#nextAcrossChunks() : this.#waitForChunk();
  }

  #nextAcrossChunks(): boolean {
    this.#assemble(HEADER_BYTES);
    if (this.#assembledBytes < HEADER_BYTES) return this.#waitForChunk();
    const frameBytes = this.#frameBytes(this.#assembly, 0);
    this.#assemble(frameBytes);
    if (this.#assembledBytes < frameBytes) {
      this.onUnfinished?.(this.#assembly[0]!, frameBytes - 1);
      return this.#waitForChunk();
    }
    this.#assembledBytes = 0;
    this.#setCurrent(this.#assembly, 0, frameBytes);
    return true;
  }

  /** Copies from the chunk until `targetBytes` of the frame are together or the chunk is used up. */
  #assemble(targetBytes: number): void {
    const have = this.#assembledBytes;
    const copied = Math.min(targetBytes - have, this.#chunk.length - this.#position);
    if (copied <= 0) return;
    const needed = have + copied;
    if (needed > this.#assembly.length) {
      const doubled = Math.min(2 * this.#assembly.length, targetBytes);
      const grown = Buffer.allocUnsafeSlow(Math.max(needed, doubled, ASSEMBLY_BYTES_MIN));
      this.#assembly.copy(grown, 0, 0, have);
      this.#assembly = grown;
    }
    this.#chunk.copy(this.#assembly, have, this.#position, this.#position + copied);
    this.#position += copied;
    this.#assembledBytes = needed;
  }

  /** Bytes of the whole frame, type byte included, that starts at `start`. */
  #frameBytes(buffer: Buffer, start: number): number {
    const length = buffer.readInt32BE(start + 1);
    if (length < 4 || length > this.frameBytesMax) throw protocolViolation('invalid message length');
    return 1 + length;
  }

  #setCurrent(buffer: Buffer, start: number, end: number): void {
    this.type = buffer[start]!;
    this.buffer = buffer;
    this.start = start;
    this.bodyStart = start + HEADER_BYTES;
    this.end = end;
  }

  /** Lets go of the chunk, and of the current frame with it: a view that is used too late fails instead of lying. */
  #waitForChunk(): false {
    this.#chunk = EMPTY;
    this.#position = 0;
    this.type = 0;
    this.buffer = EMPTY;
    this.start = 0;
    this.bodyStart = 0;
    this.end = 0;
    this.#wantsChunk = true;
    return false;
  }
}
