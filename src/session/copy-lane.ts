/**
 * The way to one node of a COPY … FROM STDIN that the router takes apart: rows of one table at a time, each batch a COPY of its
 * own on the node's branch, one behind the other. One is carried out while the next one is on its way.
 *
 * Invariant: what is written to the connection is a whole COPY, from its text to CopyDone, in one go; so that anything else may
 * be written behind it, and a COPY that has failed is followed by nothing but a failing transaction.
 */
import type { BackendConnection } from '../backend/connection.ts';
import type { PendingKind, ResponseSink } from '../backend/pending.ts';
import { connectionLost, type PosternError } from '../base/errors.ts';
import { readCommandTag, readErrorFields } from '../wire/backend.ts';
import type { Frame, FrameReader } from '../wire/frame-reader.ts';
import { Backend, Frontend } from '../wire/message-types.ts';
import { countOf } from './scattered-run.ts';

/** Sent and not answered: one that is carried out, and one that waits at the server. */
const UNDER_WAY_MAX = 2;
const COPY_DONE = Buffer.from([Frontend.CopyDone, 0, 0, 0, 4]);

/** Rows that are sent together. */
export interface CopyPart {
  readonly text: string;
  /** CopyData messages. */
  readonly frames: readonly Buffer[];
  readonly bytes: number;
  /** Of the client's data; 0: it has no rows. */
  readonly firstLine: number;
}

export interface LaneListener<Part extends CopyPart> {
  /** The part has been answered, with an error or without. `rows`: as its command tag says. */
  onAnswered(lane: CopyLane<Part>, part: Part, rows: number): void;
  onRefused(part: Part, fields: Map<string, string>): void;
  onNotice(part: Part, frame: FrameReader): void;
  onLost(cause: PosternError): void;
}

export class CopyLane<Part extends CopyPart> implements ResponseSink {
  readonly nodeId: number;
  /** The server's answer to the last COPY that it has begun. */
  copyInResponse: Buffer | undefined;
  readonly connection: BackendConnection;
  readonly #listener: LaneListener<Part>;
  #waiting: Part[] = [];
  #underWay = 0;
  /** Of parts that are not answered. */
  #bytes = 0;
  #failed = false;
  #rows: number | undefined;

  constructor(connection: BackendConnection, listener: LaneListener<Part>) {
    this.connection = connection;
    this.nodeId = connection.address.nodeId;
    this.#listener = listener;
  }

  /** Nothing of it is waited for. */
  get isIdle(): boolean {
    return this.#underWay === 0 && (this.#waiting.length === 0 || this.#failed);
  }

  /** Could it do with more to do? */
  get isHungry(): boolean {
    return this.#waiting.length === 0 && this.#underWay < UNDER_WAY_MAX;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(part: Part): void {
    this.#waiting.push(part);
    this.#bytes += part.bytes;
    this.#send();
  }

  /** Rows from this line on are not wanted any more. */
  dropFrom(line: number): void {
    this.#waiting = this.#waiting.filter(({ firstLine }) => firstLine < line);
  }

  #send(): void {
    const { connection } = this;
    while (this.#underWay < UNDER_WAY_MAX && this.#waiting.length > 0 && !this.#failed) {
      if (connection.closed) {
        this.#lose(connectionLost(connection.address.nodeName));
        return;
      }
      const part = this.#waiting.shift()!;
      this.#underWay++;
      connection.query(part.text, this, part);
      for (const frame of part.frames) connection.sendBlock(frame);
      connection.copyFrames(COPY_DONE, 0, COPY_DONE.length);
    }
  }

  onMessage(type: number, reader: FrameReader, _kind: PendingKind, tag: unknown): void {
    const part = tag as Part;
    switch (type) {
      case Backend.CopyInResponse:
        this.copyInResponse = copyOf(reader);
        return;
      case Backend.CommandComplete:
        this.#rows = countOf(readCommandTag(reader));
        return;
      case Backend.ErrorResponse: {
        const isFirst = !this.#failed;
        this.#failed = true;
        // Those behind it fail because it has.
        if (isFirst) this.#listener.onRefused(part, readErrorFields(reader));
        return;
      }
      case Backend.ReadyForQuery: {
        this.#underWay--;
        this.#bytes -= part.bytes;
        const rows = this.#rows;
        this.#rows = undefined;
        this.#send();
        this.#listener.onAnswered(this, part, rows ?? 0);
      }
    }
  }

  onRows(): void {}
  onLocal(): void {}
  onDiscarded(): void {}

  onNotice(reader: FrameReader, tag: unknown): void {
    this.#listener.onNotice(tag as Part, reader);
  }

  onLost(_connection: BackendConnection, cause: PosternError): void {
    this.#lose(cause);
  }

  #lose(cause: PosternError): void {
    this.#failed = true;
    this.#underWay = 0;
    this.#listener.onLost(cause);
  }
}

function copyOf({ buffer, start, end }: Frame): Buffer {
  return Buffer.from(buffer.subarray(start, end));
}
