/**
 * RETURNING of an INSERT whose rows went to several buckets: the rows in the order of VALUES, as a single server gives them
 * and as clients that match ids with objects rely on. What is kept back is bounded; beyond the bound, and where a bucket did
 * not return one row for each that it was given (ON CONFLICT DO NOTHING), they come bucket by bucket.
 */
import { rowFrames } from '../backend/row-frames.ts';
import { BOUNDS } from '../base/bounds.ts';

/** Who takes the rows of pieces, by the index of the piece; the buffer is good for the call alone. */
export interface RowsListener {
  onRows(index: number, buffer: Buffer, start: number, end: number): void;
}

export class RowsInOrder implements RowsListener {
  /** By piece: the statement's rows that it inserts. */
  readonly #rows: readonly (readonly number[])[];
  readonly #output: RowsListener;
  /** By piece: its rows so far, whole frames; undefined: they are passed on as they come. */
  #kept: Buffer[][] | undefined;
  #keptBytes = 0;

  constructor(rows: readonly (readonly number[])[], output: RowsListener) {
    this.#rows = rows;
    this.#output = output;
    this.#kept = rows.map(() => []);
  }

  onRows(index: number, buffer: Buffer, start: number, end: number): void {
    if (!this.#kept) {
      this.#output.onRows(index, buffer, start, end);
      return;
    }
    for (const { bodyStart, end: frameEnd } of rowFrames(buffer, start, end))
      this.#kept[index]!.push(Buffer.from(buffer.subarray(bodyStart - 5, frameEnd)));
    this.#keptBytes += end - start;
    if (this.#keptBytes > BOUNDS.returnedRowsBytesMax) this.#passOn();
  }

  /** All have come. */
  end(): void {
    const kept = this.#kept;
    if (!kept || kept.some((frames, piece) => frames.length !== this.#rows[piece]!.length)) {
      this.#passOn();
      return;
    }
    const ordered: Buffer[] = [];
    for (const [piece, rows] of this.#rows.entries())
      for (const [i, row] of rows.entries()) ordered[row] = kept[piece]![i]!;
    for (const frame of ordered) this.#output.onRows(0, frame, 0, frame.length);
    this.#kept = undefined;
  }

  #passOn(): void {
    for (const frame of (this.#kept ?? []).flat()) this.#output.onRows(0, frame, 0, frame.length);
    this.#kept = undefined;
  }
}
