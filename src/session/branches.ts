/**
 * The client's transaction over several nodes. `lease.connection` is its current branch; the others are set aside here, in
 * their transaction blocks, with nothing pending. A transaction of one node never comes this way.
 *
 *   one node ──a statement for another: join()──▶ several ──COMMIT, or Sync of an implicit one: commit()──▶ over
 *   no node ───a statement for several: enlist()──▶ several ──ROLLBACK, or a failed implicit one: rollback()──▶ over
 *                                                     │ └─ SAVEPOINT, RELEASE, ROLLBACK TO: control(), on all branches
 *                                                     └─ a branch is lost: abandon(): all others are rolled back
 *
 * `implicit`: no BEGIN of the client's, but a statement (or a pipeline up to its Sync) that is one transaction over several
 * nodes. The router has begun it, and ends it before the client hears that it is done.
 *
 * Invariant: a branch that is set aside has the settings and savepoints of the transaction by the time it is used again.
 * Invariant: of a failed transaction one branch has failed, and that is the current one: whatever the client sends goes there, or is
 * refused here.
 * Invariant: every branch of a transaction over two or more nodes bears its registration (txn/registration.ts), but for the first
 * one while it is set aside: it gets its own when the transaction has waited for a while, or commits.
 */
import { randomUUID } from 'node:crypto';
import { type BackendConnection, TransactionStatus } from '../backend/connection.ts';
import { ask } from '../backend/internal-query.ts';
import { connectionLost, inFailedTransaction, type PosternError } from '../base/errors.ts';
import { quoteIdentifier } from '../pg/identifier.ts';
import type { CommitBranch, CommitResult } from '../txn/coordinator.ts';
import { Exchange } from '../txn/exchange.ts';
import {
  BRANCH_REGISTRATION,
  registrationText,
  registrationValues,
  transactionKeyOf,
} from '../txn/registration.ts';
import { type Branch, type BranchHost, type ControlEffect, clientGone } from './branch.ts';
import { asksForOneMoment, BranchOpening } from './branch-opening.ts';
import { CommitListener } from './commit-listener.ts';
import { TransactionWaits } from './transaction-waits.ts';
import { checkWhatWasWritten } from './written-branches.ts';

/** A message of the pipeline has failed: what follows up to the client's Sync is skipped, and nothing more is told. */
export class PipelineFailed extends Error {}

export class Branches {
  /** See above. */
  implicit = false;
  /** What the deadlock detector sees of it. */
  readonly waits: TransactionWaits;
  readonly #opening: BranchOpening;
  #failureNoted = false;
  /** A statement is running on several branches: losses are told to whoever runs it. */
  #running = false;
  readonly #host: BranchHost;
  readonly #aside = new Map<number, Branch>();
  /** Set while there are several. */
  #transactionId: string | undefined;
  #currentSeen = 0;
  #currentHasXid = false;
  /** The router ends it, whatever the number of its branches. */
  #isTaken = false;
  /** The branch that has yet to be registered. */
  #unregistered: BackendConnection | undefined;

  constructor(host: BranchHost) {
    this.#host = host;
    this.waits = new TransactionWaits({
      backends: () => host.backends,
      busy: () => this.busy,
      announce: () => this.#announce(),
    });
    this.#opening = new BranchOpening(host, this.waits);
  }

  /** Has the open transaction more branches than the current one, or is it one that the router ends? */
  get areMany(): boolean {
    return this.#aside.size > 0 || this.implicit || this.#isTaken;
  }

  /** From here on the open transaction is ended by the router, whether it has several branches or one. */
  takeOver(): void {
    this.#isTaken = true;
  }

  /** May any branch that is set aside have written? */
  get hasWritten(): boolean {
    return [...this.#aside.values()].some(({ wrote }) => wrote);
  }

  has(connection: BackendConnection): boolean {
    for (const branch of this.#aside.values()) if (branch.connection === connection) return true;
    return false;
  }

  /** Connections that something is pending on. */
  get busy(): BackendConnection[] {
    const { connection } = this.#host;
    const all = [...this.#aside.values()].map((branch) => branch.connection);
    if (connection) all.push(connection);
    return all.filter(({ pendingCount }) => pendingCount > 0);
  }

  /** Makes the branch of `nodeId` the current one; it is begun there if there is none. Another one is current. */
  async join(nodeId: number): Promise<BackendConnection> {
    if (!(await this.#host.settle())) throw new PipelineFailed();
    const from = this.#current();
    if (from.connection.transactionStatus === TransactionStatus.failed) throw inFailedTransaction();
    if (from.connection.address.nodeId === nodeId) return from.connection;
    let to = this.#aside.get(nodeId);
    if (!to) {
      this.#distribute();
      if (this.#opening.mayBeginAhead(from.connection, this.implicit))
        return await this.#joinAhead(from, nodeId);
      to = await this.#beginBeside(from, nodeId);
    } else await this.#bring(from, to);
    this.#announce();
    this.#makeCurrent(from, to);
    return to.connection;
  }

  /** The branch is not begun yet when this resolves, but will be ahead of what is sent next. */
  async #joinAhead(from: Branch, nodeId: number): Promise<BackendConnection> {
    const host = this.#host;
    if (this.#aside.size === 0) this.#noteFirst(from);
    const connection = await this.#opening.open(nodeId, true);
    this.#checkStill(from, connection);
    // Registering gives it its transaction id. If that fails, nothing of the transaction is ever committed.
    const branch = { connection, wrote: false, hasXid: true, tainted: false, seen: host.steps.last };
    this.#makeCurrent(from, branch);
    const registration = registrationValues(transactionKeyOf(this.#transactionId!));
    host.beginAhead(connection, { registrationValues: registration, onFailed: () => this.abandon() });
    return connection;
  }

  /**
   * A branch on each of these nodes, in the client's transaction or an implicit one, with nothing pending. After work on them
   * noteWrite() tells what it has done, and if any of it has failed, failed().
   */
  async enlist(nodeIds: readonly number[]): Promise<ReadonlyMap<number, BackendConnection>> {
    const host = this.#host;
    if (!(await host.settle())) throw new PipelineFailed();
    if (host.state.transaction === 'failed') throw inFailedTransaction();
    if (!host.connection) {
      await this.#beginOn(this.agrees ? this.#allNodes(nodeIds) : nodeIds, this.agrees);
      return this.#connections(nodeIds);
    }
    const current = this.#current();
    if (current.connection.transactionStatus === TransactionStatus.failed) throw inFailedTransaction();
    const many = this.#aside.size > 0 || nodeIds.some((id) => id !== current.connection.address.nodeId);
    if (many) this.#distribute();
    this.#announce();
    for (const nodeId of nodeIds) {
      const aside = this.#aside.get(nodeId);
      if (aside) await this.#bring(current, aside);
      else if (nodeId !== current.connection.address.nodeId)
        this.#aside.set(nodeId, await this.#beginBeside(current, nodeId));
    }
    return this.#connections(nodeIds);
  }

  /**
   * As enlist(), outside of a transaction, for reading alone: in an implicit one whose snapshots agree. The caller ends it when it
   * has read.
   */
  async enlistToRead(nodeIds: readonly number[]): Promise<ReadonlyMap<number, BackendConnection>> {
    await this.#beginOn(nodeIds, true);
    return this.#connections(nodeIds);
  }

  /**
   * Must the snapshots of the transaction agree that is about to begin? Then it begins on all nodes at once: a snapshot that is
   * opened later would be a later one.
   */
  get agrees(): boolean {
    const { state } = this.#host;
    return (
      state.transaction === 'virtual' && state.context.decisionGate !== undefined && asksForOneMoment(state)
    );
  }

  /** A statement that ran on an enlisted branch may have written; `rows`: so many, as far as its command tag says. */
  noteWrite(nodeId: number, rows: number): void {
    if (this.#host.connection?.address.nodeId === nodeId) {
      this.#host.wrote = true;
      if (rows > 0) this.#currentHasXid = true;
      return;
    }
    const branch = this.#aside.get(nodeId);
    if (!branch) return;
    branch.wrote = true;
    if (rows > 0) branch.hasXid = true;
  }

  /** Runs `work` on enlisted branches. If it fails, the transaction has failed, or is no more. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    this.#running = true;
    this.waits.noteAsked();
    try {
      const result = await work();
      this.#running = false;
      return result;
    } catch (error) {
      this.#running = false;
      // Before a rollback, which forgets why.
      const told = this.waits.toldError(error);
      await this.#afterFailure();
      throw told;
    }
  }

  /** SAVEPOINT and its kin, on all branches. */
  async control(effect: ControlEffect, text: string): Promise<void> {
    const { kind } = effect;
    const host = this.#host;
    if (!(await host.settle())) throw new PipelineFailed();
    const current = this.#current();
    const others = [...this.#aside.values()];
    const hasFailed = current.connection.transactionStatus === TransactionStatus.failed;
    if (hasFailed && kind !== 'rollbackToSavepoint') throw inFailedTransaction();
    if (kind === 'savepoint') for (const branch of others) await this.#bring(current, branch);
    // A lock taken behind the savepoint is gone with it.
    const registration = kind === 'rollbackToSavepoint' && this.#transactionId ? this.#registration() : '';
    const results = await this.run(() =>
      Promise.allSettled(
        [current, ...others].map(({ connection }) => ask(connection, `${text}\n;${registration}`)),
      ),
    );
    const failure = results.find((result) => result.status === 'rejected');
    if (failure) {
      // The same everywhere, as a rule: there is no such savepoint.
      await this.#afterFailure();
      throw failure.reason;
    }
    host.steps.note(effect, current.connection.address.nodeId);
    this.#failureNoted = false;
    for (const branch of [...others]) branch.seen = Math.min(branch.seen, host.steps.last);
  }

  /**
   * The current branch has failed, and its client knows. A server lets go of a failed transaction's locks at once; on other
   * nodes that has to be asked for: all of it, or what came after the last savepoint.
   */
  onFailed(): void {
    if (this.#failureNoted || this.implicit) return;
    const savepoint = this.#host.steps.lastSavepoint;
    if (savepoint === undefined) {
      this.#end('failed');
      return;
    }
    this.#failureNoted = true;
    const text = `ROLLBACK TO SAVEPOINT ${quoteIdentifier(savepoint)};${this.#registration()}`;
    for (const { connection } of this.#aside.values()) void ask(connection, text).catch(() => {});
  }

  /** Commits on all branches. The transaction is over then, whatever the result; undefined: it had failed, and was rolled back. */
  async commit(): Promise<CommitResult | undefined> {
    const host = this.#host;
    const isWhole = await host.settle();
    if (!isWhole || !host.connection || host.connection.transactionStatus === TransactionStatus.failed) {
      await this.rollback();
      return undefined;
    }
    const current = this.#current();
    const branches = [current, ...this.#aside.values()];
    try {
      await this.#bringAll(current);
      await host.beforeCommit?.();
      await checkWhatWasWritten(branches, host);
    } catch (error) {
      const told = this.waits.toldError(error);
      await this.rollback();
      return { kind: 'rolledBack', error: told };
    }
    const transactionId = this.#transactionId;
    const unregistered = this.#unregistered?.address.nodeId;
    this.#release(branches);
    const inOrder = [...branches.slice(1), current].sort(
      (a, b) => Number(this.#isHome(a)) - Number(this.#isHome(b)),
    );
    const result = await host.state.context.transactions.commit(this.#commitBranches(inOrder), {
      transactionId,
      unregistered,
      onNotice: (reader) => host.responses.onNotice(reader),
    });
    this.#finish(branches);
    return result;
  }

  /** Rolls back on all branches. */
  async rollback(): Promise<void> {
    const host = this.#host;
    await host.settle().catch(() => false);
    if (!host.connection) {
      this.implicit = false;
      return;
    }
    const branches = [this.#current(), ...this.#aside.values()];
    this.#release(branches);
    await Promise.allSettled(branches.map(({ connection }) => ask(connection, 'ROLLBACK')));
    this.#finish(branches);
  }

  /** BEGIN in an implicit transaction: from here on it is the client's own. */
  makeExplicit(): void {
    this.implicit = false;
  }

  /**
   * The connection of a branch has been lost. true: that is all there is to do; false: it is the current one's, with nothing but
   * the client's own messages on it.
   */
  onLost(connection: BackendConnection, cause: PosternError): boolean {
    const host = this.#host;
    if (this.#running) return true;
    if (connection === host.connection) return false;
    const { nodeId } = connection.address;
    if (this.#aside.get(nodeId)?.connection !== connection) return false;
    this.#aside.delete(nodeId);
    const current = host.connection;
    // What runs on another branch is void as well, and its client hears why.
    if (current && !current.closed && current.pendingCount > 0) {
      void current.cancel();
      current.destroy(cause);
      return true;
    }
    const { implicit } = this;
    this.#end('failed');
    if (implicit) host.responses.onVoid(cause);
    return true;
  }

  /** The transaction is over, or the current branch was lost: others are rolled back, in the background. Nothing of it is kept. */
  abandon(): void {
    for (const branch of this.#aside.values()) this.#host.abandon(branch.connection);
    this.#forget();
  }

  /** All branches are rolled back, in the background; an explicit transaction of the client's is a failed one then. */
  #end(state: 'failed' | 'none'): void {
    const host = this.#host;
    const { connection } = host;
    const { implicit } = this;
    this.abandon();
    host.connection = undefined;
    if (connection && !connection.closed) host.abandon(connection);
    if (state === 'failed' && !implicit) host.state.transaction = 'failed';
    host.onTransactionEnd();
  }

  #current(): Branch {
    const { connection, wrote, tainted } = this.#host;
    if (!connection || connection.closed) throw inFailedTransaction();
    return {
      ...{ connection, wrote, tainted, hasXid: this.#currentHasXid },
      seen: this.#aside.size > 0 ? this.#currentSeen : this.#host.steps.last,
    };
  }

  /** Those of the cluster, `first` ahead. */
  #allNodes(first: readonly number[]): readonly number[] {
    const { nodes } = this.#host.state.context.catalog.current;
    return [...new Set([...first, ...nodes.map(({ id }) => id)])];
  }

  #connections(nodeIds: readonly number[]): ReadonlyMap<number, BackendConnection> {
    const connections = new Map<number, BackendConnection>();
    const { connection } = this.#host;
    for (const nodeId of nodeIds) {
      const branch = connection?.address.nodeId === nodeId ? connection : this.#aside.get(nodeId)?.connection;
      if (branch) connections.set(nodeId, branch);
    }
    return connections;
  }

  #makeCurrent(from: Branch, to: Branch): void {
    const host = this.#host;
    this.#aside.delete(to.connection.address.nodeId);
    this.#aside.set(from.connection.address.nodeId, { ...from, seen: host.steps.last });
    host.connection = to.connection;
    host.wrote = to.wrote;
    host.tainted = to.tainted;
    this.#currentHasXid = to.hasXid;
    this.#currentSeen = host.steps.last;
  }

  /** Sees to it that `to` has the settings that `from` has. */
  async #bring(from: Branch, to: Branch): Promise<void> {
    const { steps } = this.#host;
    if (to.seen === steps.last && !steps.isUnknown) return;
    const question = steps.question(to.seen);
    if (question !== undefined) {
      const [values = []] = await ask(from.connection, question);
      const replay = steps.replay(values, to.seen);
      if (replay.length > 0) await ask(to.connection, replay.join(';'));
    }
    this.#checkOpen(from, to);
    to.seen = steps.last;
  }

  /** Deferred triggers find the same settings everywhere, and the decision is found under one role. */
  async #bringAll(from: Branch): Promise<void> {
    if (this.#host.steps.isBlocked) return;
    for (const branch of this.#aside.values()) if (branch.wrote) await this.#bring(from, branch);
  }

  /**
   * What is known of the first branch without a question. One that writes on the home node had better be the commit point, as what
   * can't be prepared (NOTIFY, also in a trigger) is there as a rule: so it gets a transaction id if it may have none.
   */
  #noteFirst(first: Branch): void {
    const { connection, wrote } = first;
    first.hasXid ||= this.#host.responses.changedRowsOn === connection;
    if (first.hasXid || !wrote || !this.#isHome(first)) {
      this.#unregistered = connection;
      return;
    }
    first.hasXid = true;
    // If it fails, so will all that follows there, to the end of the transaction.
    new Exchange({ connection, onAnswer: () => {}, onNotice: undefined }).send([
      { prepared: BRANCH_REGISTRATION, values: registrationValues(transactionKeyOf(this.#transactionId!)) },
    ]);
  }

  #isHome({ connection }: Branch): boolean {
    return connection.address.nodeId === this.#host.state.context.catalog.current.homeNodeId;
  }

  /** The transaction's branch on a node where it has none yet. */
  async #beginBeside(from: Branch, nodeId: number): Promise<Branch> {
    const { steps } = this.#host;
    const { connection, firstHasXid } = await this.#opening.beside(from.connection, {
      nodeId,
      implicit: this.implicit,
      registration: this.#registration(),
      isFirst: this.#aside.size === 0,
    });
    if (firstHasXid !== undefined) {
      this.#currentHasXid = firstHasXid;
      from.hasXid = firstHasXid;
    }
    this.#checkStill(from, connection);
    const branch = { connection, wrote: false, hasXid: false, tainted: false, seen: steps.last };
    this.#aside.set(nodeId, branch);
    this.#checkOpen(branch);
    return branch;
  }

  /** A connection has come for a new branch: throws, and lets it go, if there is no such transaction any more. */
  #checkStill(from: Branch, connection: BackendConnection): void {
    const host = this.#host;
    if (!host.ended && host.connection === from.connection && !from.connection.closed) return;
    host.abandon(connection);
    throw host.ended ? clientGone() : connectionLost(from.connection.address.nodeName);
  }

  /** Begins the transaction, the client's own that no node knows of yet or an implicit one, on all of these. */
  async #beginOn(nodeIds: readonly number[], agree: boolean): Promise<void> {
    const host = this.#host;
    const { state } = host;
    const isOwn = state.transaction === 'virtual';
    if (nodeIds.length > 1) this.#distribute();
    const registration = nodeIds.length > 1 ? this.#registration() : undefined;
    const begin = isOwn ? state.beginText : undefined;
    const opened = await this.#opening
      .all(nodeIds, { begin, agree, registration })
      .catch((error: unknown) => {
        this.#forget();
        throw error;
      });
    if (host.ended) {
      for (const connection of opened) host.abandon(connection);
      this.#forget();
      throw clientGone();
    }
    if (isOwn) state.transaction = 'none';
    else this.implicit = true;
    host.steps.clear();
    const { last } = host.steps;
    const [first, ...rest] = opened;
    host.connection = first;
    host.wrote = false;
    this.#currentHasXid = false;
    this.#currentSeen = last;
    for (const connection of rest) {
      const branch = { connection, wrote: false, hasXid: false, tainted: false, seen: last };
      this.#aside.set(connection.address.nodeId, branch);
    }
    if (opened.some(({ closed }) => closed)) {
      await this.#afterFailure();
      throw connectionLost(opened.find(({ closed }) => closed)!.address.nodeName);
    }
  }

  /** Of what has failed on some branches: one that has failed becomes the current one; a lost one takes all with it. */
  async #afterFailure(): Promise<void> {
    const host = this.#host;
    const { connection } = host;
    const isLost =
      !connection ||
      connection.closed ||
      [...this.#aside.values()].some((branch) => branch.connection.closed);
    if (isLost) {
      this.#end('failed');
      return;
    }
    if (this.implicit) {
      await this.rollback();
      return;
    }
    if (connection.transactionStatus === TransactionStatus.failed) return;
    for (const branch of this.#aside.values()) {
      if (branch.connection.transactionStatus !== TransactionStatus.failed) continue;
      this.#makeCurrent(this.#current(), branch);
      return;
    }
  }

  /** What can't be prepared for sure is the commit point's; else what perhaps can't, if that is one node's. Of several, servers say. */
  #commitBranches(branches: readonly Branch[]): CommitBranch[] {
    const { pinReason, backends, steps } = this.#host;
    const sure = branches.map(({ connection }) => steps.unpreparableOn(connection.address.nodeId));
    const own = branches.filter(({ wrote, connection }) => wrote && backends.isOwn(connection));
    const perhaps = own.length === 1 && sure.every((reason) => reason === undefined) ? own[0] : undefined;
    return branches.map((branch, i) => {
      const { connection, wrote, hasXid } = branch;
      const unpreparable = sure[i] ?? (branch === perhaps ? pinReason : undefined);
      return { connection, wrote, hasXid, unpreparable };
    });
  }

  #registration(): string {
    return registrationText(transactionKeyOf(this.#transactionId!));
  }

  #checkOpen(...branches: readonly Branch[]): void {
    if (this.#host.ended) throw clientGone();
    for (const { connection } of branches)
      if (connection.closed) throw connectionLost(connection.address.nodeName);
  }

  /** From here on the branches are nobody's but the caller's: no loss is the session's, and no cancel comes through. */
  #release(branches: readonly Branch[]): void {
    const listener = new CommitListener(this.#host.responses);
    for (const { connection } of branches) connection.lessee = listener;
    this.#host.connection = undefined;
    this.#forget();
  }

  #announce(): void {
    const connection = this.#unregistered;
    this.#unregistered = undefined;
    if (connection && !connection.closed) void ask(connection, this.#registration()).catch(() => {});
  }

  /** There will be several branches: others have to know whose they are. */
  #distribute(): void {
    if (this.#transactionId !== undefined) return;
    this.#transactionId = randomUUID();
    this.#host.state.context.distributed.begin(transactionKeyOf(this.#transactionId), this.waits);
    this.waits.noteAsked();
  }

  #forget(): void {
    this.#aside.clear();
    if (this.#transactionId !== undefined)
      this.#host.state.context.distributed.end(transactionKeyOf(this.#transactionId));
    this.#transactionId = undefined;
    this.#unregistered = undefined;
    this.implicit = false;
    this.#isTaken = false;
    this.#currentHasXid = false;
    this.waits.clear();
    this.#failureNoted = false;
  }

  /** All are idle or closed: the one that was current is the session's again, until its settings have been read back. */
  #finish(branches: readonly Branch[]): void {
    const host = this.#host;
    const [current, ...others] = branches;
    const discard = host.steps.hasSessionSet();
    for (const { connection } of branches) {
      if (!host.backends.isOwn(connection)) continue;
      connection.lessee = host.responses;
      // The client hears of its transaction first.
      if (connection.closed) host.responses.endSession(host.backends.loseOwn(connection));
    }
    for (const { connection, tainted } of others) {
      if (!connection.closed) host.backends.giveBack(connection, { discard: discard || tainted });
    }
    if (host.ended) {
      if (!current!.connection.closed)
        host.backends.giveBack(current!.connection, { discard: discard || current!.tainted });
      return;
    }
    if (!current!.connection.closed) {
      host.connection = current!.connection;
      current!.connection.lessee = host.responses;
      host.tainted = current!.tainted;
      host.responses.onBranchesEnded(current!.connection);
    }
    host.onTransactionEnd();
  }
}
