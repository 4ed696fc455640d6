import type { ResponseSink } from '../backend/pending.ts';
import { Backend } from '../wire/message-types.ts';

/** Messages of the router's own in a client's pipeline; `onEnd` hears of ReadyForQuery, or the connection's loss. */
export class Unheard implements ResponseSink {
  readonly #onEnd: () => void;

  constructor(onEnd: () => void) {
    this.#onEnd = onEnd;
  }

  onMessage(type: number): void {
    if (type === Backend.ReadyForQuery) this.#onEnd();
  }

  onRows(): void {}
  onNotice(): void {}
  onLocal(): void {}
  onDiscarded(): void {}

  onLost(): void {
    this.#onEnd();
  }
}
