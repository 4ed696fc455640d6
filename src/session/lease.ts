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
 * keyed statement names another node. One that has done more goes on there as well: branches.ts.
 *
 * Invariant: a statement is sent only on a backend whose settings equal the client's; the switch is answered before.
 * Invariant: a backend is given back only idle, with nothing pending, and with what it holds of settings known. One on
 * which a statement ran that may have left anything else in the session is never given back: pin() names it.
 */
import { type BackendConnection, TransactionStatus } from '../backend/connection.ts';
import { ask, askUnsynced, switchSettings } from '../backend/internal-query.ts';
import { assert } from '../base/assert.ts';
import { connectionLost, inFailedTransaction, objectError, type PosternError } from '../base/errors.ts';
import type { SessionEffect } from '../plan/plan.ts';
import type { BranchHost } from './branch.ts';
import { Branches } from './branches.ts';
import { ChangedSettings } from './changed-settings.ts';
import { type BranchBegin, HeldBegin } from './held-begin.ts';
import type { Responses } from './responses.ts';
import { SessionBackends } from './session-backends.ts';
import { readBack } from './settings-readback.ts';
import type { ClientState } from './state.ts';
import { TransactionSteps } from './transaction-steps.ts';
import { Unheard } from './unheard.ts';

export class Lease implements BranchHost {
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
  /** The open transaction has changed what names mean, which nobody else can see yet. */
  ddlUncommitted = false;
  /** What its commit has to do first, on branches that have nothing pending. */
  beforeCommit: (() => Promise<void>) | undefined;
  readonly changed: ChangedSettings;
  /** The open transaction may have written where it is. */
  wrote = false;
  /** What it has done to the session. */
  readonly steps = new TransactionSteps();
  /** It has done nothing else, and may move. */
  isFloating = false;
  /** Its branches on other nodes. */
  readonly branches: Branches = new Branches(this);
  /** Sent and not yet answered: something that ends a failed transaction, or goes back before the failure. */
  #endSent = false;
  /** Sent and not yet answered: COMMIT or ROLLBACK, so that what follows may commit by itself. */
  #blockEndSent = false;
  #drained: (() => void)[] = [];
  #reading = false;
  /** The client is gone. */
  ended = false;
  readonly state: ClientState;
  readonly backends: SessionBackends;
  responses!: Responses;
  /** Told when the session can't go on (its own backend is gone). */
  onFatal!: (error: PosternError) => void;

  constructor(state: ClientState) {
    this.state = state;
    this.backends = new SessionBackends(state);
    this.changed = new ChangedSettings(state);
  }

  /** Is a transaction block open on the backend, as far as is known now? */
  get inBlock(): boolean {
    return this.connection !== undefined && this.connection.transactionStatus !== TransactionStatus.idle;
  }

  /** Has this connection anything of the session's? */
  has(connection: BackendConnection): boolean {
    return (
      connection === this.connection ||
      this.branches.has(connection) ||
      this.backends.own.includes(connection)
    );
  }

  /** What decides the meaning of a text that is prepared now, see StatementRegistry. */
  get scope(): string {
    return this.changed.scope;
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
      !this.changed.inTransaction &&
      !this.ddlUncommitted &&
      !this.changed.searchPathStale &&
      !this.isFloating &&
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

  /** The transaction before is over for the client, and what it has left of settings is being read. Its portals end with that. */
  get isReadingSettings(): boolean {
    // Of a client that has gone, nobody waits for it: drained() would not.
    return this.#reading && this.connection !== undefined;
  }

  get searchPathStale(): boolean {
    return this.changed.searchPathStale;
  }

  /**
   * A backend of `nodeId` (undefined: any), with the client's settings, inside its transaction. Synchronous when one is held
   * or idle, which is the usual case. `bucket`: of the shard key, for a fair turn. Throws or rejects with PosternError or ServerError.
   */
  ensure(nodeId: number | undefined, bucket?: number): BackendConnection | Promise<BackendConnection> {
    if (this.ended) throw objectError('57P01', 'the client has gone');
    this.backends.bucket = bucket;
    const held = this.connection;
    if (!held && this.branches.agrees)
      return this.branches.enlist([]).then(() => this.ensure(nodeId, bucket));
    if (!held)
      return this.#acquire(nodeId ?? this.state.context.catalog.current.homeNodeId, nodeId === undefined);
    if (this.#reading) return this.drained().then(() => this.ensure(nodeId, bucket));
    if (nodeId === undefined || held.address.nodeId === nodeId) {
      if (nodeId !== undefined) this.isFloating = false;
      if (this.state.transaction === 'virtual') return this.#begin(held, nodeId === undefined);
      return held;
    }
    if (held.pendingCount > 0 && !this.unsynced)
      return this.drained().then(() => this.ensure(nodeId, bucket));
    if (this.unsynced || held.transactionStatus !== TransactionStatus.idle) {
      if (held.transactionStatus === TransactionStatus.failed && held.pendingCount === 0)
        throw inFailedTransaction();
      if (this.isFloating && !this.unsynced && held.transactionStatus === TransactionStatus.inBlock)
        return this.#move(held, nodeId);
      return this.branches.join(nodeId);
    }
    // Idle, nothing pending: the transaction that began here was taken back, to be tried elsewhere. To wait for answers would
    // be to wait for ever, without even letting go of the thread.
    this.onReady();
    assert(this.connection !== held || this.#reading, 'an idle backend is given back');
    return this.ensure(nodeId, bucket);
  }

  /** What a statement does to the session. To be called when it is sent. */
  noteEffects(effects: readonly SessionEffect[]): void {
    for (const effect of effects) {
      switch (effect.kind) {
        case 'set':
          this.changed.noteSet(effect);
          break;
        case 'setMany':
          this.steps.block('settings whose names are computed', { isUnknown: true });
          this.changed.noteSetMany();
          this.pin('settings that the router cannot follow');
          break;
        case 'resetAll':
          this.steps.block('RESET ALL');
          this.changed.noteResetAll();
          this.isFloating = false;
          break;
        case 'pin':
          this.pin(effect.reason);
          break;
        case 'listen':
          this.pin('LISTEN');
          break;
        case 'sqlPrepare':
          this.pin('PREPARE');
          break;
        case 'releaseSavepoint':
          this.#endSent = true;
          break;
        case 'rollbackToSavepoint':
          this.#endSent = true;
          this.isFloating = false;
          this.changed.noteRollbackToSavepoint();
          break;
        case 'begin':
          // A second BEGIN in a transaction changes nothing.
          if (!this.mayBeInBlock) this.state.beginText = '';
          this.beginSent = true;
          this.#blockEndSent = false;
          break;
        case 'commit':
        case 'rollback':
          this.#endSent = true;
          this.#blockEndSent = !effect.chain;
          break;
        case 'savepoint':
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
    this.backends.keep(connection);
    this.isFloating = false;
  }

  /** DISCARD ALL: nothing of the session's own backends is needed any more. */
  unpin(): void {
    this.pinReason = undefined;
    const { own } = this.backends;
    this.backends.forgetOwn();
    for (const connection of own) this.backends.discard(connection);
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
      if (this.branches.areMany && connection.transactionStatus === TransactionStatus.failed)
        this.branches.onFailed();
      this.#wakeDrained();
      return;
    }
    this.onTransactionEnd();
  }

  /** The transaction is over; what it leaves of settings is read back, and the backend given to others. */
  onTransactionEnd(): void {
    const { connection } = this;
    this.#endTransaction();
    if (!connection) {
      this.changed.forget();
      this.onFree?.();
      this.#wakeDrained();
      return;
    }
    if (this.changed.mustBeRead) {
      void this.#readSettings(connection);
      return;
    }
    this.changed.endScope();
    this.#giveBack(connection);
    this.#wakeDrained();
  }

  #endTransaction(): void {
    this.branches.abandon();
    this.isFloating = false;
    this.steps.clear();
    this.wrote = false;
    this.ddlUncommitted = false;
    this.beforeCommit = undefined;
    this.state.overlay = undefined;
    this.changed.inTransaction = false;
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
      if (!connection || !this.changed.searchPathStale || this.failed) return;
      [row] = await ask(connection, text);
    }
    this.state.setSearchPath(row?.[0] ?? '');
    if (this.inBlock) return;
    this.changed.searchPathStale = false;
  }

  /** Resolves when everything sent so far has been answered (or the connection is gone). */
  drained(): Promise<void> {
    const { connection } = this;
    if (!connection || (connection.pendingCount === 0 && !this.#reading)) return Promise.resolve();
    return new Promise((resolve) => this.#drained.push(resolve));
  }

  /** The connection is gone; the caller has told the client. Gives whether the session can go on. */
  onLost(connection: BackendConnection): boolean {
    const wasOwn = this.backends.forget(connection);
    if (connection === this.connection) {
      this.connection = undefined;
      this.unsynced = false;
      this.outcomeAtStake = false;
      this.beginSent = false;
      this.#heldBegin = undefined;
      this.#blockEndSent = false;
      this.tainted = false;
      this.#endTransaction();
      this.changed.forget();
      this.#wakeDrained();
    }
    return !wasOwn;
  }

  /** Cancels what runs, or what waits for a backend. */
  async cancel(): Promise<void> {
    if (this.backends.giveUpWaiting()) return;
    const { busy } = this.branches;
    if (busy.length === 0) return;
    await Promise.all(busy.map((connection) => this.#cancelOn(connection)));
    this.onReady();
  }

  async #cancelOn(connection: BackendConnection): Promise<void> {
    await connection.cancel();
    if (!connection.closed && connection.pendingCount === 0) {
      // The signal may still be on its way to a server that has finished: an exchange takes it up.
      await ask(connection, '').catch(() => {});
    }
    if (this.ended) this.abandon(connection);
  }

  /** The client is gone. What it left running is canceled, its transaction rolled back, its own backend closed. */
  end(): void {
    if (this.ended) return;
    this.ended = true;
    this.backends.end();
    const { connection } = this;
    const { own } = this.backends;
    const isOwn = connection !== undefined && own.includes(connection);
    this.branches.abandon();
    this.connection = undefined;
    this.backends.forgetOwn();
    for (const aside of own) if (aside !== connection) this.backends.discard(aside);
    this.#wakeDrained();
    if (!connection || connection.closed) return;
    connection.resumeReading();
    if (this.state.copyIn) {
      // A server that reads COPY data heeds no cancel, but sees that they have ended.
      this.backends.discard(connection);
      return;
    }
    if (isOwn || this.unsynced || this.changed.touched.size > 0) {
      if (connection.pendingCount > 0)
        void connection.cancel().finally(() => this.backends.discard(connection));
      else this.backends.discard(connection);
      return;
    }
    this.abandon(connection);
  }

  beginAhead(connection: BackendConnection, branch: BranchBegin): void {
    const { state, responses } = this;
    this.beginSent = true;
    this.#heldBegin = new HeldBegin({ state, responses, connection, branch });
    this.#heldBegin.send();
  }

  /** In whatever state: rolled back and given back, in the background. */
  abandon(connection: BackendConnection): void {
    if (this.backends.isOwn(connection)) {
      // It stays the session's, and its transaction ends before anything else is sent there.
      void ask(connection, 'ROLLBACK').catch(() => {});
      return;
    }
    this.backends.abandon(connection, { mayBeInBlock: this.beginSent });
  }

  /** A connection for another branch: with the session's settings, and no transaction yet. */
  async open(nodeId: number, options: { beside: boolean }): Promise<BackendConnection> {
    const connection = await this.backends.obtain(nodeId, options);
    connection.lessee = this.responses;
    try {
      if (connection.settings.key !== this.state.settings.key)
        await switchSettings(connection, this.state.settings);
    } catch (error) {
      if (!connection.closed) this.backends.giveBack(connection, { discard: false });
      throw error;
    }
    if (this.ended) {
      this.abandon(connection);
      throw objectError('57P01', 'the client has gone');
    }
    return connection;
  }

  /**
   * Has all that was sent answered. A pipeline is interrupted by a Sync that the client doesn't hear of, and what it has done so
   * far becomes a transaction that Branches end (`implicit`) unless it is in the client's own. false: it has failed.
   */
  async settle(): Promise<boolean> {
    const { connection } = this;
    // Whoever settles it has other nodes in mind: from here on the transaction is on this one to stay.
    this.isFloating = false;
    if (!connection) return true;
    if (!this.unsynced) {
      await this.drained();
      return true;
    }
    const isImplicit = !this.mayBeInBlock || this.#blockEndSent;
    if (isImplicit) {
      const begin = this.state.context.statements.get('BEGIN', [], '');
      connection.executeAhead('BEGIN', begin, new Unheard(() => {}));
    }
    await new Promise<void>((resolve) => connection.sync(new Unheard(resolve), undefined));
    if (this.connection !== connection) return false;
    this.unsynced = false;
    const { pipelineFailed } = this.responses;
    if (isImplicit && !pipelineFailed) this.branches.implicit = true;
    this.onReady();
    return !pipelineFailed;
  }

  #acquire(nodeId: number, floating: boolean): BackendConnection | Promise<BackendConnection> {
    const obtained = this.backends.obtain(nodeId, { beside: false });
    if (obtained instanceof Promise) return obtained.then((connection) => this.#adopt(connection, floating));
    return this.#adopt(obtained, floating);
  }

  #adopt(connection: BackendConnection, floating: boolean): BackendConnection | Promise<BackendConnection> {
    this.connection = connection;
    connection.lessee = this.responses;
    if (connection.settings.key !== this.state.settings.key) return this.#switch(connection, floating);
    if (this.state.transaction === 'virtual') return this.#begin(connection, floating);
    return connection;
  }

  async #switch(connection: BackendConnection, floating: boolean): Promise<BackendConnection> {
    try {
      await switchSettings(connection, this.state.settings);
    } catch (error) {
      this.#dropUnswitched(connection);
      throw error;
    }
    this.#checkHeld(connection);
    if (this.state.transaction === 'virtual') return this.#begin(connection, floating);
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
    const state = this.state;
    state.transaction = 'none';
    this.beginSent = true;
    this.#heldBegin = new HeldBegin({ state, responses: this.responses, connection });
    this.#heldBegin.send();
    this.steps.clear();
    this.wrote = false;
    this.isFloating = floating;
    return connection;
  }

  /** The first statement of a transaction has failed, and is to be tried in another way: as if it had not been sent yet. */
  async beginAgain(): Promise<void> {
    const { connection } = this;
    // Lost, or begun nowhere.
    if (!connection || connection.transactionStatus !== TransactionStatus.failed) return;
    await ask(connection, 'ROLLBACK');
    this.#checkHeld(connection);
    this.state.transaction = 'virtual';
  }

  /** Moves a transaction that has only made settings and savepoints to the node that its first real statement needs. */
  async #move(from: BackendConnection, nodeId: number): Promise<BackendConnection> {
    this.isFloating = false;
    const question = this.steps.question();
    const [values = []] = question === undefined ? [] : await ask(from, question);
    const replay = this.steps.replay(values);
    await ask(from, 'ROLLBACK');
    this.#checkHeld(from);
    this.#giveBack(from);
    const to = await this.#beginAnew(nodeId);
    for (const text of replay) await ask(to, text);
    this.#checkHeld(to);
    return to;
  }

  /** Begins a transaction that was rolled back elsewhere. Answered before anything follows, which is not the client's own. */
  async #beginAnew(nodeId: number): Promise<BackendConnection> {
    try {
      const connection = await this.#acquire(nodeId, false);
      await ask(connection, this.state.beginText);
      this.#checkHeld(connection);
      return connection;
    } catch (error) {
      this.state.transaction = 'failed';
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
    this.#reading = true;
    const left = await readBack(connection, this.changed.touched).catch(() => undefined);
    this.#reading = false;
    if (!left) {
      if (!connection.closed) this.backends.discard(connection);
      this.onFatal(connectionLost(connection.address.nodeName));
      return;
    }
    if (this.connection !== connection) return;
    this.changed.noteRead();
    connection.settings = connection.settings.with(left.changes);
    this.state.settings = this.state.settings.with(left.changes);
    this.state.setSearchPath(left.searchPath);
    this.onReady();
    this.#wakeDrained();
  }

  #giveBack(connection: BackendConnection): void {
    const { tainted } = this;
    this.connection = undefined;
    this.tainted = false;
    this.onFree?.();
    this.backends.giveBack(connection, { discard: tainted });
  }

  #wakeDrained(): void {
    const waiting = this.#drained;
    this.#drained = [];
    for (const wake of waiting) wake();
  }
}
