/**
 * What goes out to one client: a writer that is borrowed while there is something to write, one write a turn, and the
 * count of what the client has not read yet.
 */
import type { Socket } from 'node:net';
import { assert } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';
import type { Flushable, FlushQueue } from '../platform/flush-queue.ts';
import { FrameWriter } from '../wire/frame-writer.ts';

/** Writers are shared, so that an idle client holds none. */
const spare: FrameWriter[] = [];
const SPARE_MAX = 64;

export class ClientOutput implements Flushable {
  readonly #socket: Socket;
  readonly #queue: FlushQueue;
  #writer: FrameWriter | undefined;
  /** So much was sent that somebody may have waited for it. */
  onTaken: (() => void) | undefined;
  #ended = false;

  constructor(socket: Socket, queue: FlushQueue) {
    this.#socket = socket;
    this.#queue = queue;
  }

  /** To be written to within this turn; it is sent at the turn's end. */
  get writer(): FrameWriter {
    if (!this.#writer) {
      this.#writer = spare.pop() ?? new FrameWriter();
      this.#queue.add(this);
    }
    return this.#writer;
  }

  get unsentBytes(): number {
    return this.#socket.writableLength + (this.#writer?.length ?? 0);
  }

  flush(): void {
    const writer = this.#writer;
    if (!writer) return;
    this.#writer = undefined;
    const bytes = writer.take();
    assert(writer.length === 0, 'a writer that was taken is empty');
    if (spare.length < SPARE_MAX) spare.push(writer);
    // What a backend still answers to a client that has been closed goes nowhere.
    if (bytes.length === 0 || this.#ended || this.#socket.destroyed) return;
    // What the system takes at once is followed by no 'drain'.
    const isTaken = this.#socket.write(bytes);
    if (isTaken && bytes.length > BOUNDS.clientUnsentBytesMax) this.onTaken?.();
  }

  /** Sends what is there and closes. */
  end(): void {
    this.flush();
    this.#ended = true;
    this.#socket.end();
  }
}
