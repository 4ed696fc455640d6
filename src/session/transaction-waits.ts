/**
 * What the deadlock detector (txn/deadlock-detector.ts) sees of one session's transaction over several nodes, and what becomes
 * of it as a victim: its wait is canceled, and its client hears 40P01 where the server says 57014.
 */
import type { BackendConnection } from '../backend/connection.ts';
import { PosternError } from '../base/errors.ts';
import { ServerError } from '../platform/control-connection.ts';
import type { DistributedTransactionHandle } from '../txn/registry.ts';
import { readErrorFields } from '../wire/backend.ts';
import type { Frame } from '../wire/frame-reader.ts';
import type { SessionBackends } from './session-backends.ts';

const QUERY_CANCELED = '57014';

export class TransactionWaits implements DistributedTransactionHandle {
  readonly #backends: () => SessionBackends;
  readonly #busy: () => readonly BackendConnection[];
  readonly announce: () => void;
  /** What its client hears instead of the cancel. */
  #victimOf: PosternError | undefined;
  #askedAtMs = 0;

  constructor(options: {
    backends: () => SessionBackends;
    busy: () => readonly BackendConnection[];
    announce: () => void;
  }) {
    this.announce = options.announce;
    this.#backends = options.backends;
    this.#busy = options.busy;
  }

  get waitingSinceMs(): number | undefined {
    const waits = this.#backends().awaitedNodeId !== undefined || this.#busy().length > 0;
    return waits ? this.#askedAtMs : undefined;
  }

  get awaitedPoolNodeId(): number | undefined {
    return this.#backends().awaitedNodeId;
  }

  cancelAsVictim(error: PosternError): void {
    if (this.waitingSinceMs === undefined) return;
    this.#victimOf = error;
    if (this.#backends().giveUpWaiting()) return;
    for (const connection of this.#busy()) void connection.cancel();
  }

  /** Something of the client's is about to be sent. */
  noteAsked(): void {
    this.#askedAtMs = performance.now();
  }

  /** The transaction is over. */
  clear(): void {
    this.#victimOf = undefined;
  }

  /** What the client hears of a statement that has failed. */
  toldError(error: unknown): unknown {
    const code =
      error instanceof PosternError
        ? error.sqlState
        : error instanceof ServerError
          ? error.fields.get('C')
          : undefined;
    return this.#take(code) ?? error;
  }

  /** The same for an ErrorResponse as it came; undefined: it is passed on. */
  victimOf(frame: Frame): PosternError | undefined {
    return this.#victimOf && this.#take(readErrorFields(frame).get('C'));
  }

  /** Once. */
  #take(code: string | undefined): PosternError | undefined {
    if (code !== QUERY_CANCELED) return undefined;
    const victimOf = this.#victimOf;
    this.#victimOf = undefined;
    return victimOf;
  }
}
