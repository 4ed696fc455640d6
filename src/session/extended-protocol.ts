/**
 * The extended protocol of one client: named and unnamed statements and portals, pipelined, up to Sync.
 *
 * A client's statement is a name for a text. On backends the text is prepared under a name of the router's, wherever it is
 * needed, so that a statement outlives the transaction that prepared it. A keyed statement is checked and described on the
 * home node against the face, and executed against the leaf that its Bind chooses.
 *
 * After an error of the router's own, what follows up to Sync is skipped here (#skipping); after one of the server's, the
 * server skips it, and pending.ts with it.
 */

import type { BackendConnection } from '../backend/connection.ts';
import type { SharedStatement } from '../backend/prepared.ts';
import { BOUNDS } from '../base/bounds.ts';
import { inFailedTransaction, notSupported, objectError, PosternError } from '../base/errors.ts';
import { type Choice, choose, chooseNow } from '../execute/choose.ts';
import { describeStatement } from '../execute/describe.ts';
import type { CachedQuery, Described } from '../execute/plan-cache.ts';
import { OID } from '../pg/oid.ts';
import type { StatementPlan } from '../plan/plan.ts';
import { rewriteQuery } from '../plan/rewrite.ts';
import {
  encodeBindComplete,
  encodeCloseComplete,
  encodeCommandComplete,
  encodeNoData,
  encodeParameterDescription,
  encodeParseComplete,
  encodeReadyForQuery,
} from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { BindView, readClose, readDescribe, readExecute, readParse } from '../wire/frontend.ts';
import type { Conversation } from './conversation.ts';
import { ErrorInPlace, InjectedParse, type RequestTag } from './responses.ts';
import { FAILING_TEXT } from './simple-protocol.ts';

interface ClientStatement {
  readonly name: string;
  readonly text: string;
  readonly oids: readonly number[];
  /** Made again when the map has changed. */
  cached: CachedQuery;
  described: Described | undefined;
}

interface ClientPortal {
  readonly statement: ClientStatement;
  /** Answered without a backend (BEGIN, COMMIT of a transaction that no node knows of, …). */
  readonly local: boolean;
  readonly tag: RequestTag | undefined;
}

export class ExtendedProtocol {
  readonly #c: Conversation;
  readonly #statements = new Map<string, ClientStatement>();
  readonly #portals = new Map<string, ClientPortal>();
  readonly #bind = new BindView();
  readonly #injected: InjectedParse;
  #skipping = false;

  constructor(conversation: Conversation) {
    this.#c = conversation;
    this.#injected = new InjectedParse(conversation.responses);
    conversation.deallocate = (name) => this.#deallocate(name);
  }

  onParse(reader: FrameReader): void | Promise<void> {
    return this.#guarded(() => this.#parse(reader));
  }

  onBind(reader: FrameReader): void | Promise<void> {
    return this.#guarded(() => this.#bindPortal(reader));
  }

  onDescribe(reader: FrameReader): void | Promise<void> {
    return this.#guarded(() => this.#describe(reader));
  }

  onExecute(reader: FrameReader): void | Promise<void> {
    return this.#guarded(() => this.#execute(reader));
  }

  onClose(reader: FrameReader): void | Promise<void> {
    return this.#guarded(() => this.#close(reader));
  }

  onFlush(): void {
    if (this.#c.lease.connection && !this.#skipping) this.#c.lease.connection.flushMessage();
  }

  onSync(): void {
    const { lease, responses } = this.#c;
    this.#skipping = false;
    const { connection } = lease;
    if (connection && !connection.closed) {
      lease.unsynced = false;
      responses.owedReady++;
      connection.sync(responses, undefined);
      return;
    }
    const status = this.#c.currentStatus();
    this.#c.inTurn({ write: (writer) => encodeReadyForQuery(writer, status) });
    // Portals live as long as their transaction.
    if (status === 'I') this.#portals.clear();
  }

  /** The backend was lost: an implicit transaction on it is void, up to the next Sync. */
  onVoid(error: PosternError | undefined): void {
    this.#portals.clear();
    if (!error) return;
    this.#skipping = true;
    this.#c.responses.writeError(error);
  }

  /** Runs a handler unless messages are being skipped, and answers its error. */
  #guarded(handle: () => void | Promise<void>): void | Promise<void> {
    if (this.#skipping) return;
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
    if (lease.searchPathStale)
      return lease.readSearchPath().then(() => this.#parseText(name, text, parameterOids));
    return this.#parseText(name, text, parameterOids);
  }

  #parseText(name: string, text: string, oids: readonly number[]): void | Promise<void> {
    if (name !== '' && this.#statements.has(name))
      throw objectError('42P05', `prepared statement "${name}" already exists`);
    if (this.#statements.size >= BOUNDS.clientStatementsMax)
      throw objectError(
        '53400',
        `a session may have ${BOUNDS.clientStatementsMax} prepared statements at most`,
      );
    const cached = this.#c.plan(text);
    const statement: ClientStatement = { name, text, oids, cached, described: undefined };
    const { plan } = cached;
    if (plan.statements.length > 1)
      throw objectError('42601', 'cannot insert multiple commands into a prepared statement');
    const [only] = plan.statements;
    if (only?.refusal) throw only.refusal;
    this.#c.checkSessionState(only);
    if (this.#c.state.transaction === 'failed' && !endsTransaction(only)) throw inFailedTransaction();
    if (only?.placement.kind === 'keyed') {
      const described = this.#describeKeyed(statement);
      if (described) return described.then(() => this.#define(statement));
      return this.#define(statement);
    }
    const shared = this.#c.state.context.statements.get(text, oids);
    if (shared.validated || this.#answeredHere(only)) return this.#define(statement);
    const connection = this.#c.lease.ensure(this.#nodeOf(only));
    if (connection instanceof Promise)
      return connection.then((acquired) => this.#parseOn(acquired, shared, statement));
    this.#parseOn(connection, shared, statement);
  }

  /** Has a server check the text: its ParseComplete or error is the client's answer. */
  #parseOn(connection: BackendConnection, shared: SharedStatement, statement: ClientStatement): void {
    this.#c.lease.unsynced = true;
    this.#statements.set(statement.name, statement);
    if (connection.prepared.nameOf(shared) !== undefined) {
      this.#define(statement);
      return;
    }
    const tag: RequestTag = {
      statement: shared,
      onFailed: () => {
        connection.prepared.remove(shared);
        this.#forget(statement);
      },
    };
    connection.parse(shared, this.#c.responses, tag);
  }

  #define(statement: ClientStatement): void {
    this.#statements.set(statement.name, statement);
    this.#c.inTurn({
      write: (writer) => encodeParseComplete(writer),
      onFailed: () => this.#forget(statement),
    });
  }

  #forget(statement: ClientStatement): void {
    if (this.#statements.get(statement.name) === statement) this.#statements.delete(statement.name);
  }

  #bindPortal(reader: FrameReader): void | Promise<void> {
    const view = this.#bind.read(reader);
    const statement = this.#statements.get(view.statement);
    if (!statement) {
      throw view.statement === ''
        ? objectError('26000', 'unnamed prepared statement does not exist')
        : objectError('26000', `prepared statement "${view.statement}" does not exist`);
    }
    const { context } = this.#c.state;
    if (statement.cached.map !== context.catalog.current) {
      statement.cached = this.#c.plan(statement.text);
      statement.described = undefined;
    }
    const [only] = statement.cached.plan.statements;
    if (only?.refusal) throw only.refusal;
    if (this.#c.state.transaction === 'failed' && !endsTransaction(only)) throw inFailedTransaction();
    if (this.#answeredHere(only)) return this.#bindLocal(statement, view.portal);
    const facts = this.#c.checkFunctions(statement.cached.plan);
    if (facts) return facts.then(() => this.#bindPlanned(statement, reader));
    return this.#bindPlanned(statement, reader);
  }

  #bindPlanned(statement: ClientStatement, reader: FrameReader): void | Promise<void> {
    const view = this.#bind;
    const { plan } = statement.cached;
    const [only] = plan.statements;
    if (only?.placement.kind !== 'keyed') {
      const shared = this.#c.state.context.statements.get(statement.text, statement.oids);
      const connection = this.#c.lease.ensure(this.#nodeOf(only));
      if (connection instanceof Promise)
        return connection.then((acquired) => this.#bindOn(acquired, statement, shared, reader));
      return this.#bindOn(connection, statement, shared, reader);
    }
    const described = this.#describeKeyed(statement);
    if (described) return described.then(() => this.#bindPlanned(statement, reader));
    const bind = { view, buffer: reader.buffer, oids: statement.described!.parameterOids };
    const choice = chooseNow(plan, bind, this.#c.chooseContext);
    if (choice) return this.#bindKeyed(statement, choice, reader);
    return choose(plan, bind, this.#c.chooseContext).then((chosen) =>
      this.#bindKeyed(statement, chosen, reader),
    );
  }

  #bindKeyed(statement: ClientStatement, choice: Choice, reader: FrameReader): void | Promise<void> {
    const [{ bucket, ids }] = choice.statements as [Choice['statements'][0]];
    const described = statement.described!;
    const shared = described.leaves[bucket] ?? this.#leafStatement(statement, described, choice);
    const { placement } = statement.cached.plan.statements[0]!;
    if (placement.kind !== 'keyed') return;
    const { plan } = statement.cached;
    const tag: RequestTag = {
      statement: shared,
      leaf: {
        table: placement.table,
        bucket,
        mapPosition: (position) => rewriteQuery(plan, choice.statements, 'parameter').mapPosition(position),
      },
    };
    const extra = ids.length === 0 ? undefined : ids.map(String);
    const connection = this.#c.lease.ensure(choice.nodeId);
    if (connection instanceof Promise)
      return connection.then((acquired) => this.#bindOn(acquired, statement, shared, reader, tag, extra));
    this.#bindOn(connection, statement, shared, reader, tag, extra);
  }

  #leafStatement(statement: ClientStatement, described: Described, choice: Choice): SharedStatement {
    const [only] = statement.cached.plan.statements;
    const { text } = rewriteQuery(statement.cached.plan, choice.statements, 'parameter');
    const oids = [...described.parameterOids];
    if (only?.placement.kind === 'keyed') {
      for (const { table, column } of only.placement.suppliedIds)
        oids.push(table.columns.find(({ name }) => name === column)?.typeOid ?? OID.int8);
    }
    const shared = this.#c.state.context.statements.get(text, oids);
    described.leaves[choice.statements[0]!.bucket] = shared;
    return shared;
  }

  #bindOn(
    connection: BackendConnection,
    statement: ClientStatement,
    shared: SharedStatement,
    reader: FrameReader,
    tag?: RequestTag,
    extra?: readonly string[],
  ): void {
    const view = this.#bind;
    const { lease, responses } = this.#c;
    lease.unsynced = true;
    const request: RequestTag = tag ?? { statement: shared };
    const serverName =
      connection.prepared.nameOf(shared) ??
      connection.parse(shared, this.#injected, {
        ...request,
        onFailed: () => connection.prepared.remove(shared),
      });
    connection.bindFrom(
      { portal: view.portal, statement: serverName, view, buffer: reader.buffer, ...(extra && { extra }) },
      responses,
      request,
    );
    this.#portals.set(view.portal, { statement, local: false, tag });
  }

  #bindLocal(statement: ClientStatement, name: string): void {
    this.#portals.set(name, { statement, local: true, tag: undefined });
    this.#c.inTurn({ write: (writer) => encodeBindComplete(writer) });
  }

  #describe(reader: FrameReader): void | Promise<void> {
    const { target, name } = readDescribe(reader);
    if (target === 'P') {
      const portal = this.#portals.get(name);
      const { connection } = this.#c.lease;
      if (!portal || (!portal.local && !connection)) throw noPortal(name);
      if (portal.local) this.#c.inTurn({ write: (writer) => encodeNoData(writer) });
      else connection!.describe('P', name, this.#c.responses, portal.tag);
      return;
    }
    const statement = this.#statements.get(name);
    if (!statement) throw objectError('26000', `prepared statement "${name}" does not exist`);
    return this.#describeStatement(statement);
  }

  #describeStatement(statement: ClientStatement): void | Promise<void> {
    const [only] = statement.cached.plan.statements;
    if (this.#answeredHere(only)) {
      this.#c.inTurn({
        write: (writer) => {
          encodeParameterDescription(writer, []);
          encodeNoData(writer);
        },
      });
      return;
    }
    if (only?.placement.kind === 'keyed') {
      const described = this.#describeKeyed(statement);
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
    const shared = this.#c.state.context.statements.get(statement.text, statement.oids);
    const connection = this.#c.lease.ensure(this.#nodeOf(only));
    if (connection instanceof Promise)
      return connection.then((acquired) => this.#describeOn(acquired, shared));
    this.#describeOn(connection, shared);
  }

  #describeOn(connection: BackendConnection, shared: SharedStatement): void {
    this.#c.lease.unsynced = true;
    const name =
      connection.prepared.nameOf(shared) ??
      connection.parse(shared, this.#injected, {
        statement: shared,
        onFailed: () => connection.prepared.remove(shared),
      });
    connection.describe('S', name, this.#c.responses, undefined);
  }

  #execute(reader: FrameReader): void | Promise<void> {
    const { portal: name, maxRows } = readExecute(reader);
    const portal = this.#portals.get(name);
    if (!portal) throw noPortal(name);
    if (portal.local) return this.#executeLocal(portal);
    const { lease, responses } = this.#c;
    const { connection } = lease;
    if (!connection) throw noPortal(name);
    const { plan } = portal.statement.cached;
    let tag = portal.tag;
    const afterwards = this.#c.noteSending(plan, connection);
    if (afterwards) tag = { ...tag, onDone: afterwards };
    lease.unsynced = true;
    connection.execute(name, maxRows, responses, tag);
    this.#c.noteSent(plan, connection);
  }

  /** BEGIN, COMMIT and ROLLBACK of a transaction that no node knows of, and what Conversation answers by itself. */
  #executeLocal(portal: ClientPortal): void | Promise<void> {
    const { state } = this.#c;
    const [statement] = portal.statement.cached.plan.statements;
    const [effect] = statement!.effects;
    if (statement!.command) {
      throw notSupported(
        'this statement is carried out by the router and cannot be prepared',
        'Send it in the simple query protocol, without parameters.',
      );
    }
    if (effect?.kind === 'begin') {
      state.transaction = 'virtual';
      state.beginText = portal.statement.text;
      return this.#complete('BEGIN');
    }
    if (effect?.kind === 'commit' || effect?.kind === 'rollback') {
      const failed = state.transaction === 'failed';
      if (failed || !effect.chain) state.transaction = 'none';
      return this.#complete(effect.kind === 'commit' && !failed ? 'COMMIT' : 'ROLLBACK');
    }
    const tag = this.#c.answerLocally(statement!, portal.statement.text);
    if (tag instanceof Promise) return tag.then((done) => this.#complete(done));
    return this.#complete(tag ?? 'SET');
  }

  #complete(tag: string): void {
    this.#c.inTurn({ write: (writer) => encodeCommandComplete(writer, tag) });
  }

  #close(reader: FrameReader): void {
    const { target, name } = readClose(reader);
    if (target === 'S') {
      this.#statements.delete(name);
    } else {
      const portal = this.#portals.get(name);
      this.#portals.delete(name);
      const { connection } = this.#c.lease;
      if (portal && !portal.local && connection) {
        connection.close('P', name, this.#c.responses, undefined);
        return;
      }
    }
    this.#c.inTurn({ write: (writer) => encodeCloseComplete(writer) });
  }

  /** Will this statement be answered without a backend, as things stand? */
  #answeredHere(statement: StatementPlan | undefined): boolean {
    if (!statement) return false;
    if (statement.command) return true;
    const { state, lease } = this.#c;
    const [effect] = statement.effects;
    const busy = lease.connection !== undefined;
    switch (effect?.kind) {
      case 'begin':
        return !busy && state.transaction === 'none';
      case 'commit':
      case 'rollback':
        return !busy && state.transaction !== 'none';
      case 'discardAll':
      case 'resetAll':
        return !lease.inBlock && !lease.unsynced && state.transaction === 'none';
      case 'set':
        return (
          effect.reset &&
          !effect.local &&
          !lease.inBlock &&
          !lease.unsynced &&
          state.transaction === 'none' &&
          effect.names.some((name) => state.defaults.values.has(name))
        );
      default:
        return false;
    }
  }

  /** undefined: any node. */
  #nodeOf(statement: StatementPlan | undefined): number | undefined {
    if (!statement) return this.#c.lease.connection ? undefined : this.#c.homeNodeId;
    return statement.placement.kind === 'anywhere' ? undefined : this.#c.homeNodeId;
  }

  /** Has the home node check and describe a keyed statement, once per text and epoch. undefined: it is known. */
  #describeKeyed(statement: ClientStatement): Promise<void> | undefined {
    if (statement.described) return undefined;
    const key = statement.oids.join(',');
    const known = statement.cached.described.get(key);
    if (known) {
      statement.described = known;
      return undefined;
    }
    const { cached } = statement;
    return this.#c
      .onHome((connection) => describeStatement(connection, statement.text, statement.oids))
      .then((described) => {
        cached.described.set(key, described);
        statement.described = described;
      });
  }

  #deallocate(name: string | undefined): boolean {
    if (name !== undefined) return this.#statements.delete(name);
    this.#statements.clear();
    return true;
  }

  /** An error of the router's own. Where a backend has the transaction, it has to fail there as well. */
  #fail(error: unknown): void {
    const { lease, responses, state } = this.#c;
    this.#skipping = true;
    const { connection } = lease;
    if (connection && !connection.closed) {
      lease.unsynced = true;
      connection.parseUnnamed(FAILING_TEXT, new ErrorInPlace(responses, error), undefined);
      connection.flushMessage();
      return;
    }
    if (state.transaction === 'virtual') state.transaction = 'failed';
    this.#c.inTurn({ write: () => responses.writeError(error) });
  }
}

function endsTransaction(statement: StatementPlan | undefined): boolean {
  const kind = statement?.effects[0]?.kind;
  return kind === 'commit' || kind === 'rollback';
}

function noPortal(name: string): PosternError {
  return objectError('34000', `portal "${name}" does not exist`);
}
