/**
 * What a backend connection still owes: one entry per message sent, in order, with who wants the answer. The server
 * answers strictly in order, so the head of this queue says whose each incoming message is.
 *
 * Invariant: after an ErrorResponse in the extended protocol the server answers nothing up to the next Sync; the entries
 * in between are discarded, not answered.
 */
import { assert } from '../base/assert.ts';
import type { PosternError } from '../base/errors.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import type { BackendConnection } from './connection.ts';

export const Pending = {
  parse: 1,
  bind: 2,
  describeStatement: 3,
  describePortal: 4,
  execute: 5,
  close: 6,
  sync: 7,
  query: 8,
  /** Nothing was sent: an answer of the router's own that has to wait for its turn. */
  local: 9,
} as const;
export type PendingKind = (typeof Pending)[keyof typeof Pending];

/** Whoever sent a request. All calls are synchronous; the reader's view dies when they return. */
export interface ResponseSink {
  /** A message that answers the request (kind, tag), ErrorResponse included. */
  onMessage(type: number, reader: FrameReader, kind: PendingKind, tag: unknown): void;
  /** Consecutive DataRow or CopyData frames, whole, as they came. */
  onRows(buffer: Buffer, start: number, end: number, tag: unknown): void;
  /** A NoticeResponse while the request was at the head. */
  onNotice(reader: FrameReader, tag: unknown): void;
  /** The turn of a local entry. */
  onLocal(tag: unknown): void;
  /** The request was skipped by the server after an earlier error. */
  onDiscarded(kind: PendingKind, tag: unknown): void;
  /** The connection is gone; nothing more comes. Called once for each sink. */
  onLost(connection: BackendConnection, cause: PosternError): void;
}

interface Entry {
  kind: PendingKind;
  sink: ResponseSink;
  tag: unknown;
}

/** A ring of reused entries: nothing is allocated once it has grown to the pipeline's depth. */
export class PendingQueue {
  #ring: (Entry | undefined)[] = new Array(16).fill(undefined);
  #head = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(kind: PendingKind, sink: ResponseSink, tag: unknown): void {
    if (this.#length === this.#ring.length) this.#grow();
    const at = (this.#head + this.#length) & (this.#ring.length - 1);
    const entry = this.#ring[at];
    if (entry) {
      entry.kind = kind;
      entry.sink = sink;
      entry.tag = tag;
    } else this.#ring[at] = { kind, sink, tag };
    this.#length++;
  }

  head(): Entry | undefined {
    return this.#length === 0 ? undefined : this.#ring[this.#head];
  }

  /** Removes the head. Its entry object stays in the ring, but lets go of the tag. */
  shift(): void {
    assert(this.#length > 0, 'shift of an empty queue');
    const entry = this.#ring[this.#head]!;
    entry.tag = undefined;
    this.#head = (this.#head + 1) & (this.#ring.length - 1);
    this.#length--;
  }

  *entries(): Generator<Readonly<Entry>> {
    for (let i = 0; i < this.#length; i++) yield this.#ring[(this.#head + i) & (this.#ring.length - 1)]!;
  }

  clear(): void {
    this.#ring = new Array(16).fill(undefined);
    this.#head = 0;
    this.#length = 0;
  }

  #grow(): void {
    const bigger: (Entry | undefined)[] = new Array(this.#ring.length * 2).fill(undefined);
    for (let i = 0; i < this.#length; i++) bigger[i] = this.#ring[(this.#head + i) & (this.#ring.length - 1)];
    this.#ring = bigger;
    this.#head = 0;
  }
}
