/**
 * One write per socket and turn: whoever has output registers, and all are flushed when the read event that produced the
 * output has returned and no microtask is left: what goes on behind an await that had nothing to wait for is in the same
 * write, and a server wakes up once for it.
 *
 * What a server waits for goes first: it works while the answers to many clients, a system call each, are being written.
 */
export interface Flushable {
  flush(): void;
}

export class FlushQueue {
  #toServers: Flushable[] = [];
  #toClients: Flushable[] = [];
  #isScheduled = false;
  /** A tick that is asked for by a microtask comes when there are no more of these. */
  readonly #schedule = (): void => process.nextTick(this.#run);
  readonly #run = (): void => {
    const servers = this.#toServers;
    const clients = this.#toClients;
    this.#toServers = [];
    this.#toClients = [];
    this.#isScheduled = false;
    for (const one of servers) one.flush();
    for (const one of clients) one.flush();
  };

  /** Registering twice before the flush is harmless: the second finds nothing to write. */
  add(one: Flushable): void {
    this.#register(this.#toClients, one);
  }

  /** The same for what goes to a server. */
  addToServer(one: Flushable): void {
    this.#register(this.#toServers, one);
  }

  #register(list: Flushable[], one: Flushable): void {
    if (list[list.length - 1] !== one) list.push(one);
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    queueMicrotask(this.#schedule);
  }
}
