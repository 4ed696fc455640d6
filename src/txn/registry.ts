/**
 * The distributed transactions of this router: what the deadlock detector must know of them, and the one thing that it may
 * do to them. A session begins an entry before it asks for a connection to its second node, and ends it when the transaction
 * has ended, in whatever way.
 */
import { assert } from '../base/assert.ts';
import type { PosternError } from '../base/errors.ts';

/** What a session tells of its transaction. All are read at any time, many times a second: keep them cheap. */
export interface DistributedTransactionHandle {
  /**
   * Since when, in ms of the monotonic clock, it waits for what it has asked for last: answers of nodes, or a backend
   * connection. undefined: it waits for its client. A new value for each new wait.
   */
  readonly waitingSinceMs: number | undefined;
  /** The node in whose pool it stands in line for a backend connection now. */
  readonly awaitedPoolNodeId: number | undefined;
  /**
   * It has waited for a while, and will be looked for: what has not been registered so far (registration.ts) is now. A second call
   * does nothing. Never throws.
   */
  announce(): void;
  /**
   * It is the victim of a deadlock: its running statements are canceled, or its place in a pool's line is given up; what the
   * client hears is `error`, and the transaction has failed. Does nothing when it may not be canceled any more: from the
   * decision on. Never throws.
   */
  cancelAsVictim(error: PosternError): void;
}

export class DistributedTransactions {
  readonly #handles = new Map<number, DistributedTransactionHandle>();

  get size(): number {
    return this.#handles.size;
  }

  /** `key`: transactionKeyOf(transaction id). */
  begin(key: number, handle: DistributedTransactionHandle): void {
    assert(!this.#handles.has(key), 'a transaction begins once');
    this.#handles.set(key, handle);
  }

  /** A second call does nothing. */
  end(key: number): void {
    this.#handles.delete(key);
  }

  get(key: number): DistributedTransactionHandle | undefined {
    return this.#handles.get(key);
  }

  entries(): IterableIterator<[number, DistributedTransactionHandle]> {
    return this.#handles.entries();
  }
}
