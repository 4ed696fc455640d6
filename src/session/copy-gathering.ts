/** Rows of a COPY … FROM that wait in the router: by slot, in bounded memory, and which of them are to go. */
import { BOUNDS } from '../base/bounds.ts';
import { BINARY_HEADER } from '../copy/binary-rows.ts';
import type { RowView } from '../copy/line-rows.ts';
import { RowChunk } from '../copy/row-chunk.ts';

const CHUNK_BYTES_MIN = 16 * 1024;

export class CopyGathering {
  /** Memory that is held. */
  bytes = 0;
  /** So many bytes of a slot are worth a COPY. */
  readonly chunkBytes: number;
  readonly #chunks: (RowChunk | undefined)[];
  readonly #isBinary: boolean;

  constructor(slotCount: number, options: { readonly isBinary: boolean }) {
    this.#chunks = new Array(slotCount).fill(undefined);
    this.#isBinary = options.isBinary;
    const share = BOUNDS.copyBufferBytesMax / (2 * slotCount);
    this.chunkBytes = Math.max(CHUNK_BYTES_MIN, Math.min(share, BOUNDS.copyChunkBytesMax));
  }

  /** An empty one, or one of the header line alone. */
  newChunk(): RowChunk {
    const chunk = new RowChunk();
    if (this.#isBinary) chunk.put(BINARY_HEADER, 0, BINARY_HEADER.length);
    return chunk;
  }

  /** `replaced`: so many bytes of the row has the prefix taken the place of. `behind` follows it. true: its slot is full. */
  add(
    slot: number,
    row: RowView,
    parts: {
      readonly prefix: Buffer | undefined;
      readonly replaced: number;
      readonly behind: Buffer | undefined;
    },
  ): boolean {
    let chunk = this.#chunks[slot];
    if (!chunk) {
      chunk = this.newChunk();
      this.#chunks[slot] = chunk;
      this.bytes += chunk.reservedBytes;
    }
    const before = chunk.reservedBytes;
    chunk.add(row, parts.prefix, parts.replaced);
    if (parts.behind) chunk.put(parts.behind, 0, parts.behind.length);
    this.bytes += chunk.reservedBytes - before;
    return chunk.bytes >= this.chunkBytes;
  }

  take(slot: number): RowChunk | undefined {
    const chunk = this.#chunks[slot];
    if (!chunk) return undefined;
    this.#chunks[slot] = undefined;
    this.bytes -= chunk.reservedBytes;
    return chunk;
  }

  /** The slots that have rows, those with most ahead. */
  filled(): number[] {
    const slots: number[] = [];
    for (const [slot, chunk] of this.#chunks.entries()) if (chunk) slots.push(slot);
    return slots.sort((a, b) => this.bytesOf(b) - this.bytesOf(a));
  }

  bytesOf(slot: number): number {
    return this.#chunks[slot]?.bytes ?? 0;
  }

  firstLineOf(slot: number): number {
    return this.#chunks[slot]?.firstLine ?? 0;
  }

  dropSlot(slot: number): void {
    const chunk = this.take(slot);
    chunk?.giveBack(chunk.takeFrames());
  }

  drop(): void {
    for (const slot of this.#chunks.keys()) this.dropSlot(slot);
  }
}
