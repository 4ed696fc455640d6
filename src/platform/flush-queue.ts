/**
 * One write per socket and turn: whoever has output registers, and all are flushed in a microtask, which runs as soon as
 * the read event (or continuation) that produced the output returns.
 */
export interface Flushable {
  flush(): void;
}

export class FlushQueue {
  #waiting: Flushable[] = [];
  readonly #run = (): void => {
    const batch = this.#waiting;
    this.#waiting = [];
    for (const one of batch) one.flush();
  };

  /** Registering twice before the flush is harmless: the second finds nothing to write. */
  add(one: Flushable): void {
    const length = this.#waiting.push(one);
    if (length === 1) queueMicrotask(this.#run);
    else if (this.#waiting[length - 2] === one) this.#waiting.pop();
  }
}
