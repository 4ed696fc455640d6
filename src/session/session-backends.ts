/**
 * Where a session's backend connections come from and go to: its own ones, which it keeps (pinned), and those that pools lend
 * it. lease.ts and branches.ts say when.
 *
 * Invariant: a connection goes back to its pool only idle, with nothing pending and no cancel on its way; else it is closed.
 */

import type { AcquireTicket } from '../backend/acquire.ts';
import { type BackendConnection, TransactionStatus } from '../backend/connection.ts';
import { ask } from '../backend/internal-query.ts';
import type { NodePool } from '../backend/pool.ts';
import { assert } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';
import { objectError, ownBackendLost, type PosternError } from '../base/errors.ts';
import type { ClientState } from './state.ts';

export class SessionBackends {
  readonly #state: ClientState;
  /** Its own backends, held or set aside, by node. */
  readonly #own = new Map<number, BackendConnection>();
  #ticket: AcquireTicket = { giveUp: undefined };
  /** Of the shard key of the statement that asks next; undefined: none. */
  bucket: number | undefined;
  #awaitedNodeId: number | undefined;
  #ended = false;
  /** Its own one is gone, and with it what the session had there: nothing can go on elsewhere. */
  #lost: PosternError | undefined;

  constructor(state: ClientState) {
    this.#state = state;
  }

  get own(): readonly BackendConnection[] {
    return [...this.#own.values()];
  }

  /** In whose pool it stands in line now. */
  get awaitedNodeId(): number | undefined {
    return this.#awaitedNodeId;
  }

  keep(connection: BackendConnection): void {
    this.#own.set(connection.address.nodeId, connection);
  }

  ownOf(nodeId: number): BackendConnection | undefined {
    return this.#own.get(nodeId);
  }

  isOwn(connection: BackendConnection): boolean {
    return this.#own.get(connection.address.nodeId) === connection;
  }

  /** Lost: gives whether it was the session's own. */
  forget(connection: BackendConnection): boolean {
    return this.isOwn(connection) && this.#own.delete(connection.address.nodeId);
  }

  /** As it ended its transaction. Gives what the client has to hear after the outcome. */
  loseOwn(connection: BackendConnection): PosternError {
    this.forget(connection);
    this.#lost = ownBackendLost(connection.address.nodeName);
    return this.#lost;
  }

  forgetOwn(): void {
    this.#own.clear();
  }

  /**
   * At once where one is there, which is the usual case. `beside`: the session holds a connection to another node, in the same
   * transaction.
   */
  obtain(nodeId: number, options: { beside: boolean }): BackendConnection | Promise<BackendConnection> {
    if (this.#lost) throw this.#lost;
    const own = this.#own.get(nodeId);
    if (own) return own;
    const { settings, user, context } = this.#state;
    const pool = context.pools.get(nodeId);
    assert(pool, `no pool for node ${nodeId}`);
    const ticket: AcquireTicket = { giveUp: undefined };
    const asked = { ticket, beside: options.beside, tenant: this.#state.tenant ?? this.bucket };
    const idle = pool.tryAcquire(user, settings, asked);
    if (idle) return idle;
    this.#ticket = ticket;
    this.#awaitedNodeId = nodeId;
    const done = (): void => {
      ticket.giveUp = undefined;
      this.#awaitedNodeId = undefined;
    };
    return pool.acquire(user, settings, asked).then(
      (connection) => {
        done();
        if (!this.#ended) return connection;
        pool.release(connection);
        throw objectError('57P01', 'the client has gone');
      },
      (error) => {
        done();
        throw error;
      },
    );
  }

  /** Leaves the line for a connection; false: it stands in none. */
  giveUpWaiting(): boolean {
    if (!this.#ticket.giveUp) return false;
    this.#ticket.giveUp();
    return true;
  }

  /** The client is gone: what is still waited for is given back at once. */
  end(): void {
    this.#ended = true;
    this.giveUpWaiting();
  }

  /** Idle. To its pool; one of the session's own is kept. */
  giveBack(connection: BackendConnection, { discard }: { discard: boolean }): void {
    if (this.isOwn(connection)) {
      // A client that did not read may have stopped it.
      connection.resumeReading();
      return;
    }
    if (discard) this.discard(connection);
    else if (connection.quiet) this.poolOf(connection).release(connection);
    else if (connection.cancelsInFlight > 0) this.rollBack(connection, { mayBeInBlock: false });
    else this.poolOf(connection).discard(connection);
  }

  /** Rolled back and given back, in the background; what runs there is canceled first. */
  abandon(connection: BackendConnection, options: { mayBeInBlock: boolean }): void {
    if (connection.closed) return;
    connection.resumeReading();
    if (connection.pendingCount === 0) {
      this.rollBack(connection, options);
      return;
    }
    const timer = setTimeout(() => this.discard(connection), BOUNDS.abandonedStatementMs);
    void connection.cancel().then(() => {
      clearTimeout(timer);
      this.rollBack(connection, options);
    });
  }

  /** As abandon(), of one with nothing pending that matters. */
  rollBack(connection: BackendConnection, { mayBeInBlock }: { mayBeInBlock: boolean }): void {
    if (connection.closed) return;
    const timer = setTimeout(() => this.discard(connection), BOUNDS.abandonedStatementMs);
    const inBlock = mayBeInBlock || connection.transactionStatus !== TransactionStatus.idle;
    ask(connection, inBlock ? 'ROLLBACK' : '')
      .catch(() => {})
      .finally(() => {
        clearTimeout(timer);
        const pool = this.poolOf(connection);
        if (connection.quiet) pool.release(connection);
        else pool.discard(connection);
      });
  }

  discard(connection: BackendConnection): void {
    if (!connection.closed) this.poolOf(connection).discard(connection);
  }

  poolOf(connection: BackendConnection): NodePool {
    const pool = this.#state.context.pools.get(connection.address.nodeId);
    assert(pool, 'a connection has a pool');
    return pool;
  }
}
