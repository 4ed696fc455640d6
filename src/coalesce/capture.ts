/** The answers of one batch, kept back until its commit is durable. Reused from batch to batch; large ones are let go. */

const BYTES_FIRST = 4 * 1024;
const BYTES_KEPT_MAX = 256 * 1024;

export class Capture {
  buffer: Buffer = Buffer.allocUnsafeSlow(BYTES_FIRST);
  length = 0;

  append(source: Buffer, start: number, end: number): void {
    const bytes = end - start;
    if (this.length + bytes > this.buffer.length) this.#grow(this.length + bytes);
    if (bytes <= 32) {
      // A command tag: a loop is faster than a call out of JavaScript.
      const { buffer } = this;
      let at = this.length;
      for (let i = start; i < end; i++) buffer[at++] = source[i]!;
    } else source.copy(this.buffer, this.length, start, end);
    this.length += bytes;
  }

  clear(): void {
    this.length = 0;
    if (this.buffer.length > BYTES_KEPT_MAX) this.buffer = Buffer.allocUnsafeSlow(BYTES_FIRST);
  }

  #grow(needed: number): void {
    const bigger = Buffer.allocUnsafeSlow(Math.max(needed, this.buffer.length * 2));
    this.buffer.copy(bigger, 0, 0, this.length);
    this.buffer = bigger;
  }
}
