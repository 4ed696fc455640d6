/**
 * The extended protocol of one client: named and unnamed statements and portals, pipelined, up to Sync.
 *
 * A client's statement is a name for a text. On backends the text is prepared under a name of the router's, wherever it is
 * needed, so that a statement outlives the transaction that prepared it. A keyed statement is checked and described on the
 * home node against the face, and executed against the leaf that its Bind chooses.
 *
 * After an error of the router's own, what follows up to Sync is skipped here (skipping); after one of the server's, the
 * server skips it, and pending.ts with it.
 */

import type { BackendConnection } from '../backend/connection.ts';
import type { SharedStatement } from '../backend/prepared.ts';
import { BOUNDS } from '../base/bounds.ts';
import { inFailedTransaction, objectError, PosternError } from '../base/errors.ts';
import {
  encodeBindComplete,
  encodeCloseComplete,
  encodeParameterDescription,
  encodeReadyForQuery,
} from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { BindView, readClose, readDescribe, readExecute, readParse } from '../wire/frontend.ts';
import { PipelineFailed } from './branches.ts';
import { type ClientPortal, ClientPortals } from './client-portals.ts';
import { ClientStatements } from './client-statements.ts';
import { type Conversation, deallocated, type PARKED, together } from './conversation.ts';
import { HeldWrite } from './held-write.ts';
import { LocalAnswers } from './local-answers.ts';
import { measure } from './measurement.ts';
import { noPortal, noStatement } from './missing-names.ts';
import {
  type BoundStatement,
  type ClientStatement,
  isOfLeaves,
  type PreparedExecution,
} from './prepared-execution.ts';
import { ErrorInPlace, type RequestTag } from './responses.ts';
import { hashPasswords } from './role-passwords.ts';
import { columnsOfPortal, ScatteredStatements } from './scattered.ts';
import { FAILING_TEXT } from './simple-protocol.ts';
import { endsTransaction } from './transaction-control.ts';

export class ExtendedProtocol {
  readonly #c: Conversation;
  readonly #statements: ClientStatements;
  readonly #portals = new ClientPortals();
  readonly #bind = new BindView();
  readonly #execution: PreparedExecution;
  readonly #local: LocalAnswers;
  readonly #scattered: ScatteredStatements;
  #held: HeldWrite | undefined;

  constructor(conversation: Conversation, execution: PreparedExecution) {
    this.#c = conversation;
    this.#statements = new ClientStatements(conversation);
    this.#execution = execution;
    this.#scattered = new ScatteredStatements(conversation, execution);
    this.#local = new LocalAnswers({
      conversation,
      hasStatement: (name) => this.#statements.get(name) !== undefined,
      forgetPortals: () => this.#portals.clear(),
    });
    conversation.deallocate = (name) => this.#statements.deallocate(name);
  }

  /** A Query takes the unnamed statement and portal with it, and is skipped after an error as all messages are. */
  beforeQuery<T>(handle: () => void | Promise<void> | T): void | Promise<void> | T {
    if (this.#c.skipping) return;
    if (this.#held) return this.#guarded(() => handle() as void | Promise<void>);
    this.#statements.beforeQuery();
    this.#c.notifications.settle()?.();
    this.#portals.put('', undefined);
    return handle();
  }

  /** The statements, for a session that goes on in another process; undefined: there is more than those now. */
  get statementsAtRest(): ClientStatements | undefined {
    return this.#held || this.#portals.size > 0 ? undefined : this.#statements;
  }

  /** Portals live as long as their transaction. */
  forgetPortals(): void {
    this.#portals.clear();
  }

  onParse(reader: FrameReader): void | Promise<void> {
    return this.#guarded(() => this.#parse(reader));
  }

  onBind(reader: FrameReader): void | Promise<void> {
    return this.#guarded(() => this.#bindPortal(reader));
  }

  onDescribe(reader: FrameReader): void | Promise<void> {
    const held = this.#held;
    if (held && !held.execute) {
      const { target, name } = readDescribe(reader);
      if (target === 'P' && name === '') {
        held.describe = true;
        return;
      }
    }
    return this.#guarded(() => this.#describe(reader));
  }

  onExecute(reader: FrameReader): void | Promise<void> {
    const held = this.#held;
    if (held && !held.execute) {
      const { portal, maxRows } = readExecute(reader);
      if (portal === '' && maxRows === 0) {
        held.execute = true;
        return;
      }
    }
    return this.#guarded(() => this.#execute(reader));
  }

  onClose(reader: FrameReader): void | Promise<void> {
    return this.#guarded(() => this.#close(reader));
  }

  onFlush(): void | Promise<void> {
    return this.#guarded(() => this.#c.lease.connection?.flushMessage());
  }

  onSync(): void | Promise<void> | typeof PARKED {
    const held = this.#held;
    if (held) {
      this.#held = undefined;
      if (held.execute) return this.#submit(held);
      const sent = this.#guarded(() => this.#sendHeld(held));
      if (sent) return sent.then(() => this.#sync());
    }
    return this.#sync();
  }

  /** A held write has come to its Sync: it is a batch's member. If it has to run alone, it does as if never held. */
  #submit(held: HeldWrite): typeof PARKED {
    const write = held.asMember(this.#c, () => {
      const sent = this.#guarded(() => this.#sendHeld(held));
      if (sent) return sent.then(() => this.#sync());
      return this.#sync();
    });
    return this.#c.submit(held.nodeId, write);
  }

  /** Sends what was held back, on a backend of the session's. */
  async #sendHeld(held: HeldWrite): Promise<void> {
    const connection = await this.#c.lease.ensure(held.nodeId, held.tag.leaf?.bucket);
    const { responses, lease } = this.#c;
    lease.unsynced = true;
    const name = this.#execution.prepareOn(connection, held.shared, held.tag);
    connection.bindTail(name, held.tail.bytes, responses, held.tag);
    const { nodeId } = connection.address;
    this.#portals.put('', { statement: held.statement, nodeId, local: false, tag: held.tag });
    if (held.describe) connection.describe('P', '', responses, held.tag);
    if (held.execute) this.#executeOn(connection, this.#portals.get('')!, '', 0);
  }

  #sync(): void | Promise<void> {
    const { lease, responses } = this.#c;
    if (lease.branches.implicit) return this.#endImplicit().then(() => this.#sync());
    this.#c.skipping = false;
    responses.pipelineFailed = false;
    this.#statements.writeSuspended = false;
    this.#statements.nextBatch();
    const { connection } = lease;
    const onDone = this.#c.notifications.settle();
    if (connection && !connection.closed) {
      lease.unsynced = false;
      // Portals live as long as their transaction.
      if (!lease.mayBeInBlock) this.#portals.clear();
      responses.owe(1);
      connection.sync(responses, onDone && { onDone });
      return;
    }
    const status = this.#c.currentStatus();
    responses.answered++;
    this.#c.inTurn({ write: (writer) => encodeReadyForQuery(writer, status), onDone });
    // Portals live as long as their transaction.
    if (status === 'I') this.#portals.clear();
  }

  /** The Sync of a pipeline that is a transaction over several nodes: its end. */
  async #endImplicit(): Promise<void> {
    const { lease, responses, control } = this.#c;
    try {
      if (this.#c.skipping) await lease.branches.rollback();
      else await control.endImplicit();
    } catch (error) {
      this.#c.inTurn({ write: () => responses.writeError(error) });
    }
    this.#portals.clear();
  }

  /** The backend was lost: an implicit transaction on it is void, up to the next Sync. */
  onVoid(error: PosternError | undefined): void {
    this.#portals.clear();
    this.#statements.undoAll();
    if (!error) return;
    this.#c.skipping = true;
    this.#c.responses.writeError(error);
  }

  /** Runs a handler unless messages are being skipped, and answers its error. */
  #guarded(handle: () => void | Promise<void>): void | Promise<void> {
    if (this.#c.skipping) return;
    const { lease, responses } = this.#c;
    // Whether the transaction has failed decides what is answered.
    if (responses.owedReady > 0 && lease.mayBeInBlock)
      return responses.settled().then(() => this.#guarded(handle));
    const held = this.#held;
    if (held) {
      // What follows is not the Sync that would have made it a batch's member.
      this.#held = undefined;
      return this.#sendHeld(held)
        .then(() => this.#guarded(handle))
        .catch((error) => this.#fail(error));
    }
    try {
      return handle()?.catch((error) => this.#fail(error));
    } catch (error) {
      if (error instanceof PosternError && error.severity === 'FATAL') throw error;
      this.#fail(error);
    }
  }

  #parse(reader: FrameReader): void | Promise<void> {
    const { name, text, parameterOids } = readParse(reader);
    const { lease } = this.#c;
    this.#statements.begin(name);
    const settled = name === '' ? undefined : this.#statements.whenSettled(name);
    if (settled) return settled.then(() => this.#parseText(name, text, parameterOids));
    if (lease.searchPathStale)
      return lease.readSearchPath().then(() => this.#parseText(name, text, parameterOids));
    return this.#parseText(name, text, parameterOids);
  }

  #parseText(name: string, text: string, oids: readonly number[]): void | Promise<void> {
    this.#statements.checkBound();
    const cached = this.#c.plan(text);
    const statement: ClientStatement = { name, text, oids, cached, described: undefined };
    const { plan } = cached;
    const hashed = plan.roles && hashPasswords(this.#c, plan);
    if (hashed) return hashed.then((withHashes) => this.#parseText(name, withHashes, oids));
    if (plan.statements.length > 1)
      throw objectError('42601', 'cannot insert multiple commands into a prepared statement');
    const [only] = plan.statements;
    const failed = this.#c.state.transaction === 'failed' || this.#c.lease.failed;
    if (failed && (plan.unparsed || (only && !endsTransaction(only)))) throw inFailedTransaction();
    if (only?.refusal) return this.#c.control.refuse(plan, only.refusal);
    this.#statements.checkFree(name);
    if (isOfLeaves(only)) {
      const described = this.#execution.describeKeyed(statement);
      if (described) return described.then(() => this.#statements.define(statement));
      return this.#statements.define(statement);
    }
    const shared = this.#c.state.context.statements.get(cached.text, oids, this.#c.lease.scope);
    if (shared.validated || this.#local.answers(only, text)) return this.#statements.define(statement);
    const connection = this.#c.lease.ensure(this.#execution.nodeOf(only));
    if (connection instanceof Promise)
      return connection.then((acquired) => this.#statements.defineOn(acquired, shared, statement));
    this.#statements.defineOn(connection, shared, statement);
  }

  #bindPortal(reader: FrameReader): void | Promise<void> {
    const view = this.#bind.read(reader);
    const settled = this.#statements.whenSettled(view.statement);
    if (settled) return settled.then(() => this.#bindPortal(reader));
    const { lease } = this.#c;
    // The end of the transaction before, which takes all portals along, comes after that.
    if (lease.isReadingSettings) return lease.drained().then(() => this.#bindFound(reader));
    return this.#bindFound(reader);
  }

  #bindFound(reader: FrameReader): void | Promise<void> {
    const { lease } = this.#c;
    if (lease.searchPathStale) return lease.readSearchPath().then(() => this.#bindSettled(reader));
    return this.#bindSettled(reader);
  }

  #bindSettled(reader: FrameReader): void | Promise<void> {
    const view = this.#bind;
    const statement = this.#statements.get(view.statement);
    if (!statement) throw noStatement(view.statement);
    if (!this.#portals.get(view.portal) && this.#portals.size >= BOUNDS.clientStatementsMax)
      throw objectError('53400', `a session may have ${BOUNDS.clientStatementsMax} portals at most`);
    if (view.portal !== '' && this.#portals.isOwn(view.portal))
      throw objectError('42P03', `cursor "${view.portal}" already exists`);
    this.#refresh(statement);
    const [only] = statement.cached.plan.statements;
    if (this.#c.state.transaction === 'failed' && !endsTransaction(only)) throw inFailedTransaction();
    if (only?.refusal) throw only.refusal;
    if (only?.effects[0]?.kind === 'sqlPrepare') {
      const named = deallocated(statement.text);
      const settled = typeof named === 'string' ? this.#statements.whenSettled(named) : undefined;
      if (settled) return settled.then(() => this.#bindSettled(reader));
    }
    if (this.#local.answers(only, statement.text))
      return this.#bindHere({ statement, local: true, tag: undefined }, view.portal);
    const facts = this.#c.checkFunctions(statement.cached.plan);
    if (facts) return facts.then(() => this.#bindPlanned(statement, reader));
    return this.#bindPlanned(statement, reader);
  }

  /** The plan by the map and the search_path of now. */
  #refresh(statement: ClientStatement): void {
    const cached = this.#c.plan(statement.text);
    if (cached === statement.cached) return;
    statement.cached = cached;
    statement.shown ??= statement.described?.rows;
    statement.described = undefined;
  }

  #bindPlanned(statement: ClientStatement, reader: FrameReader): void | Promise<void> {
    const bound = this.#execution.bind(statement, this.#bind, reader.buffer);
    if (bound instanceof Promise) return bound.then((done) => this.#bindTo(statement, done, reader));
    return this.#bindTo(statement, bound, reader);
  }

  /** `bound` undefined: it goes to several buckets. */
  #bindTo(
    statement: ClientStatement,
    bound: BoundStatement | undefined,
    reader: FrameReader,
  ): void | Promise<void> {
    if (!bound) {
      if (this.#c.lease.failed) throw inFailedTransaction();
      const scattered = this.#scattered.bind(statement, this.#bind, reader.buffer);
      return this.#bindHere({ statement, local: false, scattered, tag: undefined }, this.#bind.portal);
    }
    if (this.#bind.portal === '') {
      const write = this.#execution.mergeable(statement, bound);
      if (write) {
        this.#held = new HeldWrite({ statement, bound, write, view: this.#bind, buffer: reader.buffer });
        return;
      }
    }
    const connection = this.#c.lease.ensure(bound.nodeId, bound.tag.leaf?.bucket);
    if (connection instanceof Promise)
      return connection.then((acquired) => this.#bindOn(acquired, statement, bound, reader));
    this.#bindOn(connection, statement, bound, reader);
  }

  #bindOn(
    connection: BackendConnection,
    statement: ClientStatement,
    bound: BoundStatement,
    reader: FrameReader,
  ): void {
    const view = this.#bind;
    const { tag, extra } = bound;
    this.#c.lease.unsynced = true;
    // Planning, which Bind does, may call functions already.
    this.#c.noteFunctions(statement.cached.plan);
    const serverName = this.#execution.prepareOn(connection, bound.shared, tag);
    connection.bindFrom(
      { portal: view.portal, statement: serverName, view, buffer: reader.buffer, ...(extra && { extra }) },
      this.#c.responses,
      this.#changePortal(
        view.portal,
        { statement, nodeId: connection.address.nodeId, local: false, tag },
        tag,
      ),
    );
  }

  #changePortal(
    name: string,
    portal: ClientPortal | undefined,
    tag: RequestTag | undefined,
  ): RequestTag | undefined {
    return this.#portals.change(name, portal, { tag, mayBeInBlock: this.#c.lease.mayBeInBlock });
  }

  #bindHere(portal: ClientPortal, name: string): void {
    const settled = this.#changePortal(name, portal, undefined);
    this.#c.inTurn({ write: (writer) => encodeBindComplete(writer), ...settled });
  }

  #describe(reader: FrameReader): void | Promise<void> {
    const { target, name } = readDescribe(reader);
    if (target === 'P') {
      const portal = this.#portals.get(name);
      if (portal?.local) return this.#local.describe(portal.statement.cached.plan.statements[0], 'P');
      if (portal?.scattered) {
        const columns = columnsOfPortal(portal.scattered);
        return this.#c.inTurn({ write: (writer) => writer.raw(columns, 0, columns.length) });
      }
      const { connection, pinReason } = this.#c.lease;
      // One that is not known here may be a cursor that was declared in SQL.
      if (!connection || (!portal && !this.#c.lease.mayBeInBlock && pinReason === undefined))
        throw noPortal(name);
      const describe = (acquired: BackendConnection): void => {
        this.#c.lease.unsynced = true;
        acquired.describe('P', name, this.#c.responses, portal?.tag);
      };
      return this.#onItsNode(portal, connection, describe);
    }
    const settled = this.#statements.whenSettled(name);
    if (settled) return settled.then(() => this.#describeNamed(name));
    return this.#describeNamed(name);
  }

  #describeNamed(name: string): void | Promise<void> {
    const statement = this.#statements.get(name);
    if (!statement) throw noStatement(name);
    this.#refresh(statement);
    return this.#describeStatement(statement);
  }

  #describeStatement(statement: ClientStatement): void | Promise<void> {
    const [only] = statement.cached.plan.statements;
    if (this.#local.answers(only, statement.text)) return this.#local.describe(only, 'S');
    if (isOfLeaves(only)) {
      const described = this.#execution.describeKeyed(statement);
      if (described) return described.then(() => this.#describeStatement(statement));
      const { parameterOids, rows } = statement.described!;
      this.#c.inTurn({
        write: (writer) => {
          encodeParameterDescription(writer, parameterOids);
          writer.raw(rows, 0, rows.length);
        },
      });
      return;
    }
    const shared = this.#execution.sharedOf(statement);
    const connection = this.#c.lease.ensure(this.#execution.nodeOf(only));
    if (connection instanceof Promise)
      return connection.then((acquired) => this.#describeOn(acquired, shared));
    this.#describeOn(connection, shared);
  }

  #describeOn(connection: BackendConnection, shared: SharedStatement): void {
    this.#c.lease.unsynced = true;
    const name = this.#execution.prepareOn(connection, shared, { statement: shared });
    connection.describe('S', name, this.#c.responses, undefined);
  }

  #execute(reader: FrameReader): void | Promise<void> {
    const { portal: name, maxRows } = readExecute(reader);
    const portal = this.#portals.get(name);
    if (portal && this.#local.takes(portal)) {
      if (portal.done) throw objectError('55000', `portal "${name}" cannot be run`);
      portal.done = true;
      const { statement } = portal;
      const answered = this.#local.execute(statement.cached.plan.statements[0]!, statement.text);
      if (answered === true) return;
      if (answered === false) return this.#executeAfterAll(statement);
      return answered.then((done) => (done ? undefined : this.#executeAfterAll(statement)));
    }
    if (portal?.scattered) return this.#scattered.execute(portal.scattered, name, maxRows);
    const { lease, responses } = this.#c;
    const { connection } = lease;
    if (!connection) throw noPortal(name);
    if (!portal) {
      if (name === '' || (!lease.mayBeInBlock && lease.pinReason === undefined && !lease.unsynced))
        throw noPortal(name);
      // A cursor that was declared in SQL is a portal as well; if there is none, the server says so. (An unnamed one that a
      // refused Query has left behind crashes PostgreSQL 18.) What it does to the session can't be told: nobody else gets this
      // backend.
      lease.tainted = true;
      lease.unsynced = true;
      connection.execute(name, maxRows, responses, undefined);
      return;
    }
    return this.#onItsNode(portal, connection, (acquired) =>
      this.#executeOn(acquired, portal, name, maxRows),
    );
  }

  /** A portal lives on the branch that it was bound on, which may not be the current one any more. */
  #onItsNode(
    portal: ClientPortal | undefined,
    current: BackendConnection,
    work: (connection: BackendConnection) => void,
  ): void | Promise<void> {
    const nodeId = portal?.nodeId;
    if (nodeId === undefined || nodeId === current.address.nodeId) return work(current);
    const moved = this.#c.lease.ensure(nodeId);
    return moved instanceof Promise ? moved.then(work) : work(moved);
  }

  #executeOn(connection: BackendConnection, portal: ClientPortal, name: string, maxRows: number): void {
    const { lease, responses } = this.#c;
    const { plan } = portal.statement.cached;
    let tag = portal.tag;
    const afterwards = this.#c.noteSending(plan, connection);
    const steps = this.#c.stepsOf(plan);
    const onRows = this.#c.sequences.listenerOf(plan);
    if (onRows) tag = { ...tag, onRows };
    if (afterwards || steps) tag = { ...tag, onDone: together(afterwards, steps) };
    const measurement = measure(this.#c.state, portal.statement.cached, connection.address.nodeId);
    if (measurement) tag = { ...tag, measurement };
    const [effect] = plan.statements[0]?.effects ?? [];
    if (effect?.kind === 'sqlPrepare' && typeof deallocated(plan.text) === 'symbol') {
      const all = this.#statements.deallocate(undefined)!;
      tag = { ...tag, onDone: () => all.done(), onFailed: () => all.undo() };
    }
    lease.unsynced = true;
    if (maxRows > 0 && !plan.statements[0]?.readOnly) this.#statements.writeSuspended = true;
    connection.execute(name, maxRows, responses, tag);
    this.#c.noteSent(plan, connection);
    // The end of a transaction takes its portals with it, an implicit one's too.
    if (effect?.kind === 'commit' || effect?.kind === 'rollback') this.#portals.clear();
  }

  /** Has a server carry out what was bound to be answered here. */
  async #executeAfterAll(statement: ClientStatement): Promise<void> {
    const nodeId = this.#execution.nodeOf(statement.cached.plan.statements[0]);
    const connection = await this.#c.lease.ensure(nodeId);
    this.#c.lease.unsynced = true;
    const request = { statement: this.#execution.sharedOf(statement) };
    this.#execution.bindUnheard(connection, request);
    this.#executeOn(connection, { statement, local: false, tag: request }, '', 0);
  }

  #close(reader: FrameReader): void | Promise<void> {
    const { target, name } = readClose(reader);
    const { lease, responses } = this.#c;
    const { connection } = lease;
    if (target === 'S') {
      this.#statements.close(name);
      return;
    }
    const isOwn = this.#portals.isOwn(name);
    const portal = this.#portals.get(name);
    const settled = this.#changePortal(name, undefined, undefined);
    if (isOwn || !connection) {
      this.#c.inTurn({ write: (writer) => encodeCloseComplete(writer), ...settled });
      return;
    }
    return this.#onItsNode(portal, connection, (acquired) => {
      lease.unsynced = true;
      acquired.close('P', name, responses, settled);
    });
  }

  /** An error of the router's own. Where a backend has the transaction, it has to fail there as well. */
  #fail(error: unknown): void {
    const { lease, responses, state } = this.#c;
    const isTold = this.#c.skipping || error instanceof PipelineFailed;
    this.#c.skipping = true;
    if (isTold) return;
    const dropped = this.#statements.onFailure();
    const { connection } = lease;
    if (connection && !connection.closed) {
      lease.unsynced = true;
      connection.parseUnnamed(FAILING_TEXT, new ErrorInPlace(responses, error), dropped);
      connection.flushMessage();
      return;
    }
    if (state.transaction === 'virtual') state.transaction = 'failed';
    this.#c.inTurn({ write: () => responses.writeError(error), ...dropped });
  }
}
