/**
 * The backend that one client holds: taken when a statement needs a node, given back when the transaction is over.
 *
 *   free ──ensure(node)──▶ held ──ReadyForQuery 'I', nothing pending──▶ (settings read back) ──▶ free
 *                           │ └─ a backend that holds something of the session's is its own (`#own`) until it ends
 *                           └──lost──▶ free, the client is told
 *
 * A BEGIN is held back (state.transaction = 'virtual') until a statement says which node it is for, and goes out ahead of that
 * statement, in one write (held-begin.ts). If the first statements have no place of their own (SET LOCAL, SELECT
 * set_config(…)), the transaction begins on the home node and is `floating`: it moves, with the settings it has made, when a
 * keyed statement names another node.
 *
 * Invariant: a statement is sent only on a backend whose settings equal the client's; the switch is answered before.
 * Invariant: a backend is given back only idle, with nothing pending, and with what it holds of settings known. One on
 * which a statement ran that may have left anything else in the session is never given back: pin() names it.
 */

import { type BackendConnection, TransactionStatus } from '../backend/connection.ts';
import { ask, askUnsynced, switchSettings } from '../backend/internal-query.ts';
import type { AcquireTicket, NodePool } from '../backend/pool.ts';
import { decidesReading } from '../backend/settings.ts';
import { assert } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';
import {
  connectionLost,
  inFailedTransaction,
  notSupported,
  objectError,
  type PosternError,
} from '../base/errors.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import type { SessionEffect } from '../plan/plan.ts';
import { type FloatingStep, isSessionSet, replayOf, settingsOf } from './floating.ts';
import { HeldBegin } from './held-begin.ts';
import type { Responses } from './responses.ts';
import type { ClientState } from './state.ts';

/** How many scopes were made for transactions that have changed settings. */
let transactionScopes = 0;

export class Lease {
  connection: BackendConnection | undefined;
  /** Extended-protocol messages were sent since the last Sync: an implicit transaction is open. */
  unsynced = false;
  /** Sent and not yet answered: something whose loss leaves the outcome unknown. */
  outcomeAtStake = false;
  /** A BEGIN was sent, the client's own or the one held back, and its answer is not there yet. */
  beginSent = false;
  /** The one that the client has been answered long ago. */
  #heldBegin: HeldBegin | undefined;
  /** The backend is not to be used by anybody else. */
  tainted = false;
  /** The backend has been given back: no portal lives on. */
  onFree: (() => void) | undefined;
  /** Why this session keeps a backend for itself. */
  pinReason: string | undefined;
  /** Its own backends, held or set aside, by node. */
  readonly #own = new Map<number, BackendConnection>();
  /** The open transaction has changed what names mean, which nobody else can see yet. */
  ddlUncommitted = false;
  /** Session-level settings that may have changed since the connection was taken. */
  readonly #touched = new Set<string>();
  /** Settings and savepoints made while floating, in order. */
  #floating: FloatingStep[] | undefined;
  #searchPathStale = false;
  #scopeInTransaction: string | undefined;
  /** Sent and not yet answered: something that ends a failed transaction, or goes back before the failure. */
  #endSent = false;
  /** Sent and not yet answered: COMMIT or ROLLBACK, so that what follows may commit by itself. */
  #blockEndSent = false;
  #drained: (() => void)[] = [];
  #ticket: AcquireTicket = { giveUp: undefined };
  #reading = false;
  #ended = false;
  /** The open transaction or pipeline has changed settings, maybe for itself only. */
  settingsChanged = false;
  readonly #state: ClientState;
  responses!: Responses;
  /** Told when the session can't go on (its own backend is gone). */
  onFatal!: (error: PosternError) => void;

  constructor(state: ClientState) {
    this.#state = state;
  }

  /** Is a transaction block open on the backend, as far as is known now? */
  get inBlock(): boolean {
    return this.connection !== undefined && this.connection.transactionStatus !== TransactionStatus.idle;
  }

  /** Has this connection anything of the session's? */
  has(connection: BackendConnection): boolean {
    return connection === this.connection || [...this.#own.values()].includes(connection);
  }

  /** What decides the meaning of a text that is prepared now, see StatementRegistry. */
  get scope(): string {
    return this.#scopeInTransaction ?? this.#state.scope;
  }

  /** Is the backend's transaction known to have failed, and nothing sent that would end it? */
  get failed(): boolean {
    return this.connection?.transactionStatus === TransactionStatus.failed && !this.#endSent;
  }

  /** Could the transaction be in a block, or in a failed one, when what was sent has been answered? */
  get mayBeInBlock(): boolean {
    return this.inBlock || this.beginSent;
  }

  /** Will what is sent now be undone, whatever happens to the connection, unless a COMMIT follows? */
  get isProvisional(): boolean {
    return this.mayBeInBlock && !this.#blockEndSent;
  }

  /** Does the client believe itself in a transaction that this backend has, or is about to have? */
  get clientInBlock(): boolean {
    return this.inBlock || this.#heldBegin !== undefined;
  }

  /** Inside of a transaction that is on its node to stay, where texts mean what they mean outside of it. */
  get isPlainBlock(): boolean {
    const { connection } = this;
    return (
      connection !== undefined &&
      connection.transactionStatus === TransactionStatus.inBlock &&
      connection.pendingCount === 0 &&
      !this.unsynced &&
      !this.settingsChanged &&
      !this.ddlUncommitted &&
      !this.#searchPathStale &&
      this.#floating === undefined &&
      this.pinReason === undefined
    );
  }

  /**
   * To be called when the server has skipped a Query since the held BEGIN before it failed: the Query would have been its own
   * Sync. undefined: no BEGIN is under way.
   */
  get afterFailedBegin(): (() => void) | undefined {
    return this.#heldBegin?.syncAfterSkippedQuery;
  }

  get searchPathStale(): boolean {
    return this.#searchPathStale;
  }

  /**
   * A backend of `nodeId` (undefined: any), with the client's settings, inside its transaction. Synchronous when one is held
   * or idle, which is the usual case. Throws or rejects with PosternError or ServerError.
   */
  ensure(nodeId: number | undefined): BackendConnection | Promise<BackendConnection> {
    if (this.#ended) throw objectError('57P01', 'the client has gone');
    const held = this.connection;
    if (!held)
      return this.#acquire(nodeId ?? this.#state.context.catalog.current.homeNodeId, nodeId === undefined);
    if (this.#reading) return this.drained().then(() => this.ensure(nodeId));
    if (nodeId === undefined || held.address.nodeId === nodeId) {
      if (nodeId !== undefined) this.#floating = undefined;
      if (this.#state.transaction === 'virtual') return this.#begin(held, nodeId === undefined);
      return held;
    }
    if (held.pendingCount > 0 && !this.unsynced) return this.drained().then(() => this.ensure(nodeId));
    if (this.unsynced || held.transactionStatus !== TransactionStatus.idle) {
      if (held.transactionStatus === TransactionStatus.failed && held.pendingCount === 0)
        throw inFailedTransaction();
      if (this.#floating && !this.unsynced && held.transactionStatus === TransactionStatus.inBlock)
        return this.#move(held, nodeId);
      throw notSupported(
        `the transaction is on node "${held.address.nodeName}" and this statement belongs to another node`,
        'Transactions over several nodes are not there yet: keep to one value of the shard key in a transaction.',
      );
    }
    // Idle with nothing pending, and not given back: its settings are just being read.
    return this.drained().then(() => this.ensure(nodeId));
  }

  /** What a statement does to the session. To be called when it is sent. */
  noteEffects(effects: readonly SessionEffect[]): void {
    for (const effect of effects) {
      switch (effect.kind) {
        case 'set':
          this.settingsChanged = true;
          for (const name of effect.names) {
            if (name === 'search_path' || name === 'role') this.#searchPathStale = true;
            // What is prepared from here to the end of the transaction is for this transaction alone.
            if (name === 'search_path' || decidesReading(name))
              this.#scopeInTransaction = `transaction ${++transactionScopes}`;
            if (!effect.local) this.#touched.add(name);
            // Under a SET LOCAL, the session's own new value can't be read: such a transaction stays where it is.
            if (effect.local && this.#floating?.some((step) => step.name === name && isSessionSet(step)))
              this.#floating = undefined;
            this.#floating?.push({ kind: 'set', name, local: effect.local });
          }
          break;
        case 'setMany':
          this.#scopeInTransaction = `transaction ${++transactionScopes}`;
          this.settingsChanged = true;
          this.pin('settings that the router cannot follow');
          break;
        case 'resetAll':
          this.settingsChanged = true;
          for (const name of this.#state.settings.values.keys()) if (name !== 'role') this.#touched.add(name);
          for (const name of this.#state.defaults.values.keys()) if (name !== 'role') this.#touched.add(name);
          this.#searchPathStale = true;
          this.#floating = undefined;
          break;
        case 'pin':
          this.pin(effect.reason);
          break;
        case 'sqlPrepare':
          this.pin('PREPARE');
          break;
        case 'savepoint':
          this.#floating?.push({ kind: 'savepoint', name: effect.name });
          break;
        case 'releaseSavepoint':
        case 'rollbackToSavepoint':
          this.#endSent = true;
          // What this leaves of the steps so far is not followed: the transaction stays where it is.
          this.#floating = undefined;
          if (this.#touched.size > 0) this.#searchPathStale = true;
          break;
        case 'begin':
          // A second BEGIN in a transaction changes nothing.
          if (!this.mayBeInBlock) this.#state.beginText = '';
          this.beginSent = true;
          this.#blockEndSent = false;
          break;
        case 'commit':
        case 'rollback':
          this.#endSent = true;
          this.#blockEndSent = true;
          break;
        case 'discardAll':
          break;
        case 'ddl':
          this.ddlUncommitted = true;
          break;
      }
    }
  }

  /** The backend that is held is the session's own from now on. */
  pin(reason: string): void {
    const { connection } = this;
    assert(connection, 'a session is pinned to the backend that it holds');
    this.pinReason ??= reason;
    this.#own.set(connection.address.nodeId, connection);
    this.#floating = undefined;
  }

  /** Has the session had one backend on this node since it was pinned there? */
  isPinnedTo(nodeId: number): boolean {
    return this.#own.has(nodeId);
  }

  /** DISCARD ALL: nothing of the session's own backends is needed any more. */
  unpin(): void {
    this.pinReason = undefined;
    const own = [...this.#own.values()];
    this.#own.clear();
    for (const connection of own) this.#discard(connection);
  }

  /** ReadyForQuery has been passed on. */
  onReady(): void {
    const connection = this.connection;
    this.#endSent = false;
    this.#blockEndSent = false;
    // While settings are being read back, who reads them goes on from there.
    if (!connection || this.#reading || this.unsynced || connection.pendingCount > 0) return;
    this.outcomeAtStake = false;
    this.beginSent = false;
    this.#heldBegin = undefined;
    if (connection.transactionStatus !== TransactionStatus.idle) {
      this.#wakeDrained();
      return;
    }
    this.#floating = undefined;
    this.ddlUncommitted = false;
    this.settingsChanged = false;
    if (this.#touched.size > 0 || this.#searchPathStale) {
      void this.#readSettings(connection);
      return;
    }
    this.#scopeInTransaction = undefined;
    this.#giveBack(connection);
    this.#wakeDrained();
  }

  /** The value of search_path inside the transaction, when a statement may have changed it. */
  async readSearchPath(): Promise<void> {
    const text = `SELECT pg_catalog.current_setting('search_path')`;
    let row: (string | null)[] | undefined;
    if (this.failed) return;
    if (this.connection && this.unsynced) {
      // The server keeps its answers back until a Sync or Flush, and a Sync would end the client's implicit transaction.
      // After an error in the pipeline there is no answer, and no matter: what follows is skipped.
      [row] = await askUnsynced(this.connection, text).catch(() => []);
      if (!row) return;
    } else {
      await this.drained();
      const { connection } = this;
      if (!connection || !this.#searchPathStale || this.failed) return;
      [row] = await ask(connection, text);
    }
    this.#state.setSearchPath(row?.[0] ?? '');
    if (this.inBlock) return;
    this.#searchPathStale = false;
  }

  /** Resolves when everything sent so far has been answered (or the connection is gone). */
  drained(): Promise<void> {
    const { connection } = this;
    if (!connection || (connection.pendingCount === 0 && !this.#reading)) return Promise.resolve();
    return new Promise((resolve) => this.#drained.push(resolve));
  }

  /** The connection is gone; the caller has told the client. Gives whether the session can go on. */
  onLost(connection: BackendConnection): boolean {
    const wasOwn = this.#own.get(connection.address.nodeId) === connection;
    if (wasOwn) this.#own.delete(connection.address.nodeId);
    if (connection === this.connection) {
      this.connection = undefined;
      this.unsynced = false;
      this.outcomeAtStake = false;
      this.beginSent = false;
      this.#heldBegin = undefined;
      this.#blockEndSent = false;
      this.tainted = false;
      this.#scopeInTransaction = undefined;
      this.#floating = undefined;
      this.ddlUncommitted = false;
      this.settingsChanged = false;
      // What a lost SET would have changed is not known: the settings before it stay.
      this.#touched.clear();
      this.#searchPathStale = false;
      this.#state.setSearchPath(
        this.#state.settings.values.get('search_path') ?? this.#state.loginSearchPath,
      );
      this.#wakeDrained();
    }
    return !wasOwn;
  }

  /** Cancels what runs, or what waits for a backend. */
  async cancel(): Promise<void> {
    if (this.#ticket.giveUp) {
      this.#ticket.giveUp();
      return;
    }
    const connection = this.connection;
    if (!connection || connection.pendingCount === 0) return;
    await connection.cancel();
    if (!connection.closed && connection.pendingCount === 0) {
      // The signal may still be on its way to a server that has finished: an exchange takes it up.
      await ask(connection, '').catch(() => {});
    }
    this.onReady();
    if (this.#ended) this.#settleAbandoned(connection);
  }

  /** The client is gone. What it left running is canceled, its transaction rolled back, its own backend closed. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#ticket.giveUp?.();
    const { connection } = this;
    this.connection = undefined;
    const own = [...this.#own.values()];
    const isOwn = connection !== undefined && own.includes(connection);
    this.#own.clear();
    for (const aside of own) if (aside !== connection) this.#discard(aside);
    this.#wakeDrained();
    if (!connection || connection.closed) return;
    connection.resumeReading();
    if (this.#state.copyIn) {
      // A server that reads COPY data heeds no cancel, but sees that they have ended.
      this.#discard(connection);
      return;
    }
    if (isOwn || this.unsynced || this.#touched.size > 0) {
      if (connection.pendingCount > 0) void connection.cancel().finally(() => this.#discard(connection));
      else this.#discard(connection);
      return;
    }
    if (connection.pendingCount > 0) {
      const timer = setTimeout(() => this.#discard(connection), BOUNDS.abandonedStatementMs);
      void connection.cancel().then(() => {
        clearTimeout(timer);
        this.#settleAbandoned(connection);
      });
      return;
    }
    this.#settleAbandoned(connection);
  }

  #settleAbandoned(connection: BackendConnection): void {
    if (connection.closed) return;
    const timer = setTimeout(() => this.#discard(connection), BOUNDS.abandonedStatementMs);
    const mayBeInBlock = this.beginSent || connection.transactionStatus !== TransactionStatus.idle;
    const text = mayBeInBlock ? 'ROLLBACK' : '';
    ask(connection, text)
      .catch(() => {})
      .finally(() => {
        clearTimeout(timer);
        const pool = this.#poolOf(connection);
        if (connection.quiet) pool.release(connection);
        else pool.discard(connection);
      });
  }

  #discard(connection: BackendConnection): void {
    if (!connection.closed) this.#poolOf(connection).discard(connection);
  }

  #acquire(nodeId: number, floating: boolean): BackendConnection | Promise<BackendConnection> {
    const { settings, user } = this.#state;
    const own = this.#own.get(nodeId);
    if (own) return this.#adopt(own, floating);
    const pool = this.#state.context.pools.get(nodeId);
    assert(pool, `no pool for node ${nodeId}`);
    const idle = pool.tryAcquire(user, settings);
    if (idle) return this.#adopt(idle, floating);
    const ticket: AcquireTicket = { giveUp: undefined };
    this.#ticket = ticket;
    return pool.acquire(user, settings, ticket).then(
      (connection) => {
        ticket.giveUp = undefined;
        if (this.#ended) {
          pool.release(connection);
          throw objectError('57P01', 'the client has gone');
        }
        return this.#adopt(connection, floating);
      },
      (error) => {
        ticket.giveUp = undefined;
        throw error;
      },
    );
  }

  #adopt(connection: BackendConnection, floating: boolean): BackendConnection | Promise<BackendConnection> {
    this.connection = connection;
    connection.lessee = this.responses;
    if (connection.settings.key !== this.#state.settings.key) return this.#switch(connection, floating);
    if (this.#state.transaction === 'virtual') return this.#begin(connection, floating);
    return connection;
  }

  async #switch(connection: BackendConnection, floating: boolean): Promise<BackendConnection> {
    try {
      await switchSettings(connection, this.#state.settings);
    } catch (error) {
      this.#dropUnswitched(connection);
      throw error;
    }
    this.#checkHeld(connection);
    if (this.#state.transaction === 'virtual') return this.#begin(connection, floating);
    return connection;
  }

  /** Settings could not be made here, and nothing has changed: it goes back as it was. */
  #dropUnswitched(connection: BackendConnection): void {
    if (this.connection !== connection) return;
    if (connection.closed) this.connection = undefined;
    else this.#giveBack(connection);
    this.#wakeDrained();
  }

  /** Begins the client's transaction here, in the write of the statement that follows. */
  #begin(connection: BackendConnection, floating: boolean): BackendConnection {
    const state = this.#state;
    state.transaction = 'none';
    this.beginSent = true;
    this.#heldBegin = new HeldBegin({ state, responses: this.responses, connection });
    this.#heldBegin.send();
    this.#floating = floating ? [] : undefined;
    return connection;
  }

  /** The first statement of a transaction has failed, and is to be tried in another way: as if it had not been sent yet. */
  async beginAgain(): Promise<void> {
    const { connection } = this;
    // Lost, or begun nowhere.
    if (!connection || connection.transactionStatus !== TransactionStatus.failed) return;
    await ask(connection, 'ROLLBACK');
    this.#checkHeld(connection);
    this.#state.transaction = 'virtual';
  }

  /** Moves a transaction that has only made settings and savepoints to the node that its first real statement needs. */
  async #move(from: BackendConnection, nodeId: number): Promise<BackendConnection> {
    const steps = this.#floating ?? [];
    this.#floating = undefined;
    const question = settingsOf(steps);
    const [values = []] = question === undefined ? [] : await ask(from, question);
    await ask(from, 'ROLLBACK');
    this.#checkHeld(from);
    this.#giveBack(from);
    const to = await this.#beginAnew(nodeId);
    for (const text of replayOf(steps, values)) await ask(to, text);
    this.#checkHeld(to);
    return to;
  }

  /** Begins a transaction that was rolled back elsewhere. Answered before anything follows, which is not the client's own. */
  async #beginAnew(nodeId: number): Promise<BackendConnection> {
    try {
      const connection = await this.#acquire(nodeId, false);
      await ask(connection, this.#state.beginText);
      this.#checkHeld(connection);
      return connection;
    } catch (error) {
      this.#state.transaction = 'failed';
      this.onReady();
      throw error;
    }
  }

  /** After an await: is the connection still this session's, and alive? */
  #checkHeld(connection: BackendConnection): void {
    if (this.connection !== connection || connection.closed)
      throw connectionLost(connection.address.nodeName);
  }

  async #readSettings(connection: BackendConnection): Promise<void> {
    const names = [...this.#touched];
    if (!names.includes('search_path')) names.push('search_path');
    this.#reading = true;
    let values: (string | null)[];
    try {
      const list = names.map((name) => `pg_catalog.current_setting(${quoteLiteral(name)}, true)`);
      [values = []] = await ask(connection, `SELECT ${list.join(', ')}`);
    } catch {
      this.#reading = false;
      if (!connection.closed) this.#poolOf(connection).discard(connection);
      this.onFatal(connectionLost(connection.address.nodeName));
      return;
    }
    this.#reading = false;
    if (this.connection !== connection) return;
    const changes = new Map<string, string | undefined>();
    names.forEach((name, i) => {
      if (this.#touched.has(name)) changes.set(name, values[i] ?? undefined);
    });
    this.#touched.clear();
    this.#searchPathStale = false;
    const settings = this.#state.settings.with(changes);
    connection.settings = connection.settings.with(changes);
    this.#state.settings = settings;
    this.#state.setSearchPath(values[names.indexOf('search_path')] ?? '');
    this.onReady();
    this.#wakeDrained();
  }

  #giveBack(connection: BackendConnection): void {
    this.connection = undefined;
    this.#floating = undefined;
    this.onFree?.();
    if (this.#own.get(connection.address.nodeId) === connection) {
      // A client that did not read may have stopped it.
      connection.resumeReading();
      return;
    }
    if (this.tainted) {
      this.tainted = false;
      this.#discard(connection);
    } else if (connection.quiet) this.#poolOf(connection).release(connection);
    else if (connection.cancelsInFlight > 0) this.#settleAbandoned(connection);
    else this.#poolOf(connection).discard(connection);
  }

  #poolOf(connection: BackendConnection): NodePool {
    const pool = this.#state.context.pools.get(connection.address.nodeId);
    assert(pool, 'a connection has a pool');
    return pool;
  }

  #wakeDrained(): void {
    const waiting = this.#drained;
    this.#drained = [];
    for (const wake of waiting) wake();
  }
}
