/**
 * The simple protocol: one Query message, one text of any number of statements, answers up to ReadyForQuery.
 *
 * Path of a write: session.ts → here → execute/choose.ts (bucket, node) → lease.ts (a backend there) →
 * backend/connection.ts → PostgreSQL; and back through responses.ts.
 */

import { type BackendConnection, TransactionStatus } from '../backend/connection.ts';
import { inFailedTransaction, notSupported, PosternError } from '../base/errors.ts';
import { type Choice, choose, chooseNow, SCATTERED, SeveralNodes } from '../execute/choose.ts';
import type { CachedQuery } from '../execute/plan-cache.ts';
import type { QueryPlan, StatementPlan } from '../plan/plan.ts';
import { positionsWithoutLeaves, rewriteQuery } from '../plan/rewrite.ts';
import { keywordOf, nextToken } from '../sql/scanner.ts';
import { encodeCommandComplete, encodeEmptyQueryResponse, encodeReadyForQuery } from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { readQueryText } from '../wire/frontend.ts';
import { PipelineFailed } from './branches.ts';
import type { Conversation, PARKED } from './conversation.ts';
import { runDdlChange } from './ddl-change.ts';
import { LiftedQueries } from './lifted-queries.ts';
import { measure } from './measurement.ts';
import { noSavepoint } from './missing-names.ts';
import type { PreparedExecution } from './prepared-execution.ts';
import { QueryScript } from './query-script.ts';
import { ErrorInPlace, type RequestTag } from './responses.ts';
import { hashPasswords } from './role-passwords.ts';
import { ScatteredStatements } from './scattered.ts';
import { type ReadValues, withReads } from './sequences.ts';
import { isStep } from './transaction-steps.ts';

/** A text that fails in any server: sent where a transaction has to fail for a reason of the router's. */
export const FAILING_TEXT = 'refused_by_postern';

export class SimpleProtocol {
  readonly #c: Conversation;
  readonly #lifted: LiftedQueries;
  readonly #script: QueryScript;
  readonly #scattered: ScatteredStatements;

  constructor(conversation: Conversation, execution: PreparedExecution) {
    this.#c = conversation;
    this.#scattered = new ScatteredStatements(conversation, execution);
    this.#script = new QueryScript(conversation, (text) => this.#guarded(() => this.#planned(text)));
    this.#lifted = new LiftedQueries({
      conversation,
      execution,
      asItCame: (text) => this.#guarded(() => this.#planned(text)),
    });
  }

  /** Handles one Query message; a promise when something has to be waited for. Errors are answered; only a broken protocol throws. */
  onQuery(reader: FrameReader): void | Promise<void> | typeof PARKED {
    return this.#guarded(() => this.#route(readQueryText(reader)));
  }

  /** No transaction is open any more. */
  onFree(): void {
    this.#lifted.onFree();
  }

  #guarded<T extends void | Promise<void> | typeof PARKED>(handle: () => T): T | void | Promise<void> {
    try {
      const done = handle();
      return done instanceof Promise ? done.catch((error) => this.#answerError(error)) : done;
    } catch (error) {
      if (error instanceof PosternError && error.severity === 'FATAL') throw error;
      this.#answerError(error);
    }
  }

  #route(text: string): void | Promise<void> | typeof PARKED {
    const { lease } = this.#c;
    if (lease.searchPathStale) return lease.readSearchPath().then(() => this.#planned(text));
    const lifted = this.#lifted.run(text);
    if (lifted) return lifted.outcome;
    return this.#planned(text);
  }

  #planned(text: string): void | Promise<void> {
    const { state, lease } = this.#c;
    const cached = this.#c.plan(text);
    const { plan } = cached;
    const hashed = plan.roles && hashPasswords(this.#c, plan);
    if (hashed) return hashed.then((text) => this.#planned(text));
    if (plan.unparsed) {
      if (state.transaction === 'failed') throw inFailedTransaction();
      if (lease.branches.areMany && text.includes(';')) throw unparsedScript();
      return this.#send(cached, {
        nodeId: lease.connection ? undefined : this.#c.homeNodeId,
        statements: [],
      });
    }
    if (this.#mustSettle(plan)) return this.#c.responses.settled().then(() => this.#planned(text));
    for (const statement of plan.statements) {
      if (statement.refusal) return this.#c.control.refuse(plan, statement.refusal);
    }
    if (plan.statements.length === 0) {
      this.#c.inTurn({ write: (writer) => encodeEmptyQueryResponse(writer) });
      this.#ready();
      return;
    }
    if (state.transaction === 'failed') {
      if (plan.statements.length > 1) return this.#script.run(plan).then(() => this.#ready());
      return this.#inFailed(plan);
    }
    if (plan.statements.some(({ needsPinBefore }) => needsPinBefore)) return this.#readingSequences(cached);
    return this.#checked(cached);
  }

  #checked(cached: CachedQuery): void | Promise<void> {
    const facts = this.#c.checkFunctions(cached.plan);
    if (facts) return facts.then(() => this.#dispatch(cached));
    return this.#dispatch(cached);
  }

  /** With the values of currval() and lastval() in their places, or as it is. */
  #readingSequences(cached: CachedQuery): void | Promise<void> {
    const { plan } = cached;
    if (plan.statements.length > 1) return this.#script.run(plan).then(() => this.#ready());
    const [only] = plan.statements;
    const go = (values: ReadValues): void | Promise<void> => {
      if (values === 'asItIs') return this.#checked(cached);
      return this.#planned(rewriteQuery(withReads(plan), [{ bucket: -1, ids: values }], 'literal').text);
    };
    const values = this.#c.sequences.read(only!);
    return values instanceof Promise ? values.then(go) : go(values);
  }

  #dispatch(cached: CachedQuery): void | Promise<void> {
    const { state, lease } = this.#c;
    const { plan } = cached;
    const [first] = plan.statements;
    if (lease.branches.implicit) {
      return lease.branches.rollback().then(() => {
        throw notSupported(
          'a Query message inside a pipeline that has reached several nodes',
          'Send Sync before it.',
        );
      });
    }
    if (plan.statements.length === 1 && first) {
      if (this.#c.control.answers(first))
        return this.#c.control.execute(first, plan.text).then((tag) => this.#answer(tag));
      if (first.command) return this.#command(first);
      if (first.placement.kind === 'everywhere') return this.#everywhere(first, plan.text);
      const effect = first.effects[0];
      if (effect && !lease.connection) {
        if (effect.kind === 'begin' && state.transaction === 'none') {
          state.transaction = 'virtual';
          state.beginText = plan.text;
          return this.#answer(beginTag(plan.text));
        }
        if (state.transaction === 'virtual' && (effect.kind === 'commit' || effect.kind === 'rollback')) {
          state.endTransaction(effect.chain);
          lease.onFree?.();
          return this.#answer(effect.kind === 'commit' ? 'COMMIT' : 'ROLLBACK');
        }
      }
      if (
        effect?.kind === 'begin' &&
        lease.connection &&
        !lease.inBlock &&
        !lease.unsynced &&
        lease.connection.pendingCount > 0
      )
        return lease.drained().then(() => this.#dispatch(cached));
      const local = this.#c.answerLocally(first, plan.text);
      if (local) {
        if (local instanceof Promise) return local.then(({ tag }) => this.#answer(tag));
        local.deallocation?.done();
        return this.#answer(local.tag);
      }
    }
    if (plan.statements.some(({ command }) => command))
      return this.#script.run(plan).then(() => this.#ready());
    if (plan.statements.length > 1) return this.#several(cached);
    const choice = chooseNow(plan, undefined, this.#c.chooseContext);
    if (choice) return this.#send(cached, choice);
    return choose(plan, undefined, this.#c.chooseContext).then((chosen) => this.#send(cached, chosen));
  }

  get #hasOtherNodes(): boolean {
    return this.#c.state.context.pools.size > 1;
  }

  /** Statements of one node go there together, others one by one. */
  async #several(cached: CachedQuery): Promise<void> {
    const { plan } = cached;
    let choice: Choice;
    try {
      const { chooseContext, control } = this.#c;
      choice = chooseNow(plan, undefined, chooseContext) ?? (await choose(plan, undefined, chooseContext));
      // What a server says of a leaf can be told in the user's names if it is clear which leaf that is; and what a string has
      // done to its transaction is known only if it is clear where it has failed.
      const areApart = namesSeveralLeaves(plan, choice) || (this.#hasOtherNodes && hasSteps(plan));
      if (areApart || control.concerns(plan, choice.nodeId)) throw new SeveralNodes();
    } catch (error) {
      if (!(error instanceof SeveralNodes)) throw error;
      await this.#script.run(plan);
      this.#ready();
      return;
    }
    await this.#send(cached, choice);
  }

  #send(cached: CachedQuery, choice: Choice): void | Promise<void> {
    if (choice === SCATTERED) {
      const { text } = cached.plan;
      const statement = { name: '', text, oids: [], cached, described: undefined };
      return this.#scattered.query(statement).then(() => this.#ready());
    }
    const bucket = choice.statements[0]?.bucket ?? -1;
    const connection = this.#c.lease.ensure(choice.nodeId, bucket < 0 ? undefined : bucket);
    if (connection instanceof Promise)
      return connection.then((acquired) => this.#sendOn(acquired, cached, choice));
    this.#sendOn(connection, cached, choice);
  }

  #sendOn(connection: BackendConnection, cached: CachedQuery, choice: Choice): void {
    const { responses } = this.#c;
    const { plan } = cached;
    let { text } = cached;
    let tag: RequestTag | undefined;
    const leafAt = choice.statements.findIndex((statement) => statement.bucket >= 0);
    if (leafAt >= 0) {
      const rewritten = rewriteQuery(plan, choice.statements, 'literal');
      text = rewritten.text;
      const { placement } = plan.statements[leafAt]!;
      if (placement.kind === 'keyed') {
        tag = {
          leaf: {
            table: placement.table,
            bucket: choice.statements[leafAt]!.bucket,
            mapPosition: rewritten.mapPosition,
          },
        };
      }
    }
    const mapPosition = leafAt < 0 ? positionsWithoutLeaves(plan) : undefined;
    if (mapPosition) tag = { ...tag, mapPosition };
    const afterwards = this.#c.noteSending(plan, connection);
    const onRows = this.#c.sequences.listenerOf(plan);
    if (onRows) tag = { ...tag, onRows };
    const onDone = this.#whenDone(plan, afterwards);
    if (onDone) tag = { ...tag, onDone };
    const measurement = measure(this.#c.state, cached, connection.address.nodeId);
    if (measurement) tag = { ...tag, measurement };
    const onFailed = this.#c.lease.unsynced ? undefined : this.#c.lease.afterFailedBegin;
    if (onFailed) tag = { ...tag, onFailed };
    // PostgreSQL (18 at least) may end a Query inside a pipeline with its transaction half open: "unexpected state STARTED"
    // is what the next statement would hear.
    if (this.#c.lease.unsynced) this.#c.lease.tainted = true;
    responses.owe(1);
    connection.query(text, responses, tag);
    this.#c.noteSent(plan, connection);
  }

  /** At ReadyForQuery: one statement has been carried out unless its transaction has failed by now. */
  #whenDone(plan: QueryPlan, afterwards: (() => void) | undefined): (() => void) | undefined {
    const steps = this.#c.stepsOf(plan);
    if (!steps) return afterwards;
    return () => {
      afterwards?.();
      if (this.#c.lease.connection?.transactionStatus !== TransactionStatus.failed) steps();
    };
  }

  /** In a transaction that failed here, only its end is taken. */
  #inFailed(plan: QueryPlan): void {
    const effect = plan.statements.length === 1 ? plan.statements[0]!.effects[0] : undefined;
    if (effect?.kind === 'rollbackToSavepoint') throw noSavepoint(effect.name);
    if (effect?.kind !== 'commit' && effect?.kind !== 'rollback') throw inFailedTransaction();
    this.#c.state.endTransaction(effect.chain);
    this.#c.lease.onFree?.();
    this.#answer('ROLLBACK');
  }

  async #command(statement: StatementPlan): Promise<void> {
    const { branches } = this.#c.lease;
    const write = await this.#c.runCommand(statement).catch(async (error: unknown) => {
      if (branches.implicit) await branches.rollback();
      throw error;
    });
    if (branches.implicit) await this.#c.control.endImplicit();
    this.#c.inTurn({
      write: (writer) => {
        this.#c.describeCommand(writer, statement.command!);
        write(writer);
      },
    });
    this.#ready();
  }

  /** DDL over all nodes; outside of a transaction it has committed when the client hears of it. */
  async #everywhere(statement: StatementPlan, text: string): Promise<void> {
    const { branches } = this.#c.lease;
    let tag: string;
    try {
      tag = await runDdlChange(this.#c, statement, text);
    } catch (error) {
      // What fails between its steps leaves the transaction open.
      if (branches.implicit) await branches.rollback();
      throw error;
    }
    if (branches.implicit) await this.#c.control.endImplicit();
    this.#answer(tag);
  }

  /** What this text does depends on what the messages before it have left, and they are not all answered. */
  #mustSettle(plan: QueryPlan): boolean {
    const { responses, lease } = this.#c;
    if (responses.owedReady === 0) return false;
    return (
      lease.mayBeInBlock ||
      plan.statements.some(
        ({ effects, command, refusal }) =>
          effects.length > 0 || command !== undefined || refusal !== undefined,
      )
    );
  }

  #answer(tag: string): void {
    this.#c.inTurn({ write: (writer) => encodeCommandComplete(writer, tag) });
    this.#ready();
  }

  #ready(): void {
    const { responses } = this.#c;
    this.#c.notifications.settle()?.();
    responses.owe(1);
    this.#c.inTurn({
      write: (writer) => {
        if (!responses.holdsReady) encodeReadyForQuery(writer, this.#c.currentStatus());
        responses.owe(-1);
      },
      onFailed: () => responses.owe(-1),
    });
  }

  /** The router's own error. Where a backend has the transaction, it has to fail there too. */
  #answerError(error: unknown): void {
    const { lease, responses, state } = this.#c;
    if (error instanceof PipelineFailed) {
      this.#c.skipping = true;
      return;
    }
    const { connection } = lease;
    if (
      connection &&
      !connection.closed &&
      (lease.inBlock || lease.unsynced || connection.pendingCount > 0)
    ) {
      responses.owe(1);
      const onFailed = lease.unsynced ? undefined : lease.afterFailedBegin;
      connection.query(FAILING_TEXT, new ErrorInPlace(responses, error), onFailed && { onFailed });
      return;
    }
    if (state.transaction === 'virtual') state.transaction = 'failed';
    this.#c.inTurn({ write: () => responses.writeError(error) });
    this.#ready();
    lease.onReady();
  }
}

/** A server of a newer version may take it; if it held a COMMIT, that would be one node's alone. */
function unparsedScript(): PosternError {
  return notSupported(
    'several statements that the router cannot parse, in a transaction over several nodes',
    'Send them one by one.',
  );
}

function hasSteps(plan: QueryPlan): boolean {
  return plan.statements.some(({ effects }) => effects.some(isStep));
}

function namesSeveralLeaves(plan: QueryPlan, { statements }: Choice): boolean {
  const leaves = new Set<string>();
  for (const [i, { bucket }] of statements.entries()) {
    const { placement } = plan.statements[i]!;
    if (bucket >= 0 && placement.kind === 'keyed') leaves.add(`${placement.table.id} ${bucket}`);
  }
  return leaves.size > 1;
}

/** Of a BEGIN that is answered here. */
export function beginTag(text: string): string {
  if (/^\s*begin\b/i.test(text)) return 'BEGIN';
  const bytes = Buffer.from(text);
  return keywordOf(bytes, nextToken(bytes, 0)) === 'start' ? 'START TRANSACTION' : 'BEGIN';
}
