/**
 * Rows on their way to one table: their bytes in blocks that are CopyData frames by the time they are sent, and for each row
 * the line of the client's data that it came from, so that a server's line number can be told as the client's.
 *
 * Invariant: a chunk's blocks, one behind the other, are COPY data by themselves.
 */
import type { RowView } from './line-rows.ts';

/** Type and length of a CopyData message. */
const FRAME_BYTES = 5;
const COPY_DATA = 0x64;
/** Small ones first, so that few rows of many buckets hold little. */
const BLOCK_BYTES = [4 * 1024, 16 * 1024, 64 * 1024];
const BLOCK_BYTES_MAX = 64 * 1024;
/** Memory that is kept for the next chunks while there are any: blocks of the largest size, and lists of lines. */
const SPARE_BLOCKS_MAX = 256;
const SPARE_LISTS_MAX = 64;
const SPARE_LIST_LENGTH_MIN = 1024;
const SPARE_LIST_LENGTH_MAX = 65_536;
const spareBlocks: Buffer[] = [];
const spareLists: Uint32Array[] = [];

/** No chunk will be needed soon. */
export function forgetSpareMemory(): void {
  spareBlocks.length = 0;
  spareLists.length = 0;
}

export class RowChunk {
  rowCount = 0;
  /** Of rows. */
  bytes = 0;
  /** Of memory. */
  reservedBytes = 0;
  readonly #blocks: Buffer[] = [];
  #block: Buffer = EMPTY;
  #position = 0;
  #lines: Uint32Array = spareLists.pop() ?? new Uint32Array(64);
  /** Lines of the chunk up to each row's end; undefined: each row is one. */
  #ends: Uint32Array | undefined;
  #lastEnd = 0;

  /** `prefix` takes the place of the row's first `skipped` bytes. */
  add(row: RowView, prefix: Buffer | undefined, skipped = 0): void {
    this.#note(row);
    if (prefix) this.put(prefix, 0, prefix.length);
    this.put(row.buffer, row.start + skipped, row.end);
  }

  /** Bytes of a row, or of what stands before or behind all rows. */
  put(source: Buffer, start: number, end: number): void {
    this.bytes += end - start;
    let at = start;
    while (at < end) {
      const room = this.#block.length - this.#position;
      if (room === 0) {
        this.#grow();
        continue;
      }
      const stop = end - at > room ? at + room : end;
      source.copy(this.#block, this.#position, at, stop);
      this.#position += stop - at;
      at = stop;
    }
  }

  /** The first line of the client's data in it. */
  get firstLine(): number {
    return this.#lines[0] ?? 0;
  }

  /** The client's line for one of this chunk's (both count from 1). */
  lineOf(ownLine: number): number {
    const ends = this.#ends;
    let index = ownLine - 1;
    if (ends) {
      index = 0;
      while (index < this.rowCount - 1 && ends[index]! < ownLine) index++;
      return this.#lines[index]! - (ends[index]! - ownLine);
    }
    return this.#lines[Math.max(0, Math.min(index, this.rowCount - 1))] ?? 0;
  }

  /** Its blocks as CopyData frames. Nothing is added any more. */
  takeFrames(): Buffer[] {
    if (this.#position > FRAME_BYTES) this.#close();
    this.#block = EMPTY;
    this.#position = 0;
    return this.#blocks.splice(0);
  }

  /** Its memory may be used again: `frames` are what takeFrames() has given. */
  giveBack(frames: readonly Buffer[]): void {
    for (const frame of frames) {
      if (frame.buffer.byteLength === BLOCK_BYTES_MAX && spareBlocks.length < SPARE_BLOCKS_MAX)
        spareBlocks.push(Buffer.from(frame.buffer));
    }
    const lines = this.#lines;
    this.#lines = NO_LINES;
    this.rowCount = 0;
    if (lines.length < SPARE_LIST_LENGTH_MIN || lines.length > SPARE_LIST_LENGTH_MAX) return;
    if (spareLists.length < SPARE_LISTS_MAX) spareLists.push(lines);
  }

  #note({ line, breaks, returns }: RowView): void {
    const index = this.rowCount++;
    if (index === this.#lines.length) this.#lines = doubled(this.#lines);
    this.#lines[index] = line;
    // The server that reads the first row of its data doesn't know yet that lines end in a newline.
    const ownBreaks = index === 0 ? returns : breaks;
    if (ownBreaks > 0 && !this.#ends) {
      this.#ends = new Uint32Array(this.#lines.length);
      for (let before = 0; before < index; before++) this.#ends[before] = before + 1;
    }
    this.#lastEnd += 1 + ownBreaks;
    if (!this.#ends) return;
    if (this.#ends.length < this.#lines.length) this.#ends = doubled(this.#ends);
    this.#ends[index] = this.#lastEnd;
  }

  #grow(): void {
    if (this.#block.length > 0) this.#close();
    const size = BLOCK_BYTES[this.#blocks.length] ?? BLOCK_BYTES_MAX;
    const block = (size === BLOCK_BYTES_MAX ? spareBlocks.pop() : undefined) ?? Buffer.allocUnsafeSlow(size);
    this.reservedBytes += size;
    this.#block = block;
    this.#position = FRAME_BYTES;
  }

  #close(): void {
    const block = this.#block;
    block[0] = COPY_DATA;
    block.writeInt32BE(this.#position - 1, 1);
    this.#blocks.push(this.#position === block.length ? block : block.subarray(0, this.#position));
  }
}

const EMPTY = Buffer.alloc(0);
const NO_LINES = new Uint32Array(0);

function doubled(array: Uint32Array): Uint32Array<ArrayBuffer> {
  const larger = new Uint32Array(2 * array.length);
  larger.set(array);
  return larger;
}
