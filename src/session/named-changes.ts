/**
 * Values by name whose changes may still be taken back: a message that defines or closes a prepared statement is carried out
 * here when it is read, and is skipped after all if an earlier message of its pipeline turns out to have failed.
 *
 * Changes are settled in the order in which they were made, as messages are answered.
 * Invariant: once every change is settled, the values are those of the changes that were not undone, applied in order.
 */

/** One change, until it is settled by done() or undo(). */
export interface NamedChange<T> {
  readonly name: string;
  before: T | undefined;
  readonly batch: number;
  wake: (() => void) | undefined;
}

export class NamedChanges<T> {
  readonly #values = new Map<string, T>();
  readonly #open: NamedChange<T>[] = [];
  #batch = 0;

  /** Is anything not settled yet? */
  get isOpen(): boolean {
    return this.#open.length > 0;
  }

  get size(): number {
    return this.#values.size;
  }

  get(name: string): T | undefined {
    return this.#values.get(name);
  }

  names(): string[] {
    return [...this.#values.keys()];
  }

  /** Takes those names away, to be settled together. */
  removeAll(isMeant: (name: string) => boolean): { done(): void; undo(): void } {
    const changes = this.names()
      .filter(isMeant)
      .map((name) => this.set(name, undefined));
    return {
      done: () => {
        for (const change of changes) this.done(change);
      },
      undo: () => {
        for (const change of changes) this.undo(change);
      },
    };
  }

  /** `undefined` takes the name away. */
  set(name: string, value: T | undefined): NamedChange<T> {
    const change = { name, before: this.#values.get(name), batch: this.#batch, wake: undefined };
    this.#open.push(change);
    this.put(name, value);
    return change;
  }

  /** A change that can't be taken back. */
  put(name: string, value: T | undefined): void {
    if (value === undefined) this.#values.delete(name);
    else this.#values.set(name, value);
  }

  /** Forgets all names, and that anything was to be taken back. */
  clear(): void {
    this.#values.clear();
    for (const change of this.#open.splice(0)) change.wake?.();
  }

  done(change: NamedChange<T>): void {
    const at = this.#open.indexOf(change);
    if (at < 0) return;
    this.#open.splice(at, 1);
    change.wake?.();
  }

  undo(change: NamedChange<T>): void {
    const at = this.#open.indexOf(change);
    if (at < 0) return;
    const later = this.#open.find((other, i) => i > at && other.name === change.name);
    if (later) later.before = change.before;
    else this.put(change.name, change.before);
    this.#open.splice(at, 1);
    change.wake?.();
  }

  undoAll(): void {
    for (let last = this.#open.at(-1); last; last = this.#open.at(-1)) this.undo(last);
  }

  /** A Sync: what follows is not skipped with what came before. */
  nextBatch(): void {
    this.#batch++;
  }

  /** Is the name's value still open from before the last Sync? Then resolves when it is settled. */
  unsettled(name: string): Promise<void> | undefined {
    if (this.#open.length === 0) return undefined;
    const last = this.#open.findLast((change) => change.name === name);
    if (!last || last.batch === this.#batch) return undefined;
    return new Promise((resolve) => {
      last.wake = resolve;
    });
  }
}
