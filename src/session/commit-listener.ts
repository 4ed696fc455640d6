/**
 * The lessee of a branch's connection while it commits or rolls back: what its server says unasked (NOTIFY's messages, notices)
 * is the client's to hear, but no loss is the session's: the coordinator judges what it means.
 */
import type { ResponseSink } from '../backend/pending.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import type { Responses } from './responses.ts';

export class CommitListener implements ResponseSink {
  readonly #responses: Responses;

  constructor(responses: Responses) {
    this.#responses = responses;
  }

  onNotice(reader: FrameReader): void {
    this.#responses.onNotice(reader);
  }

  onMessage(): void {}
  onRows(): void {}
  onLocal(): void {}
  onDiscarded(): void {}
  onLost(): void {}
}
