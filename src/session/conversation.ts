/**
 * What both protocols of one client have in common: its plans, the router's own answers in their turn, statements that
 * the router answers without a backend, and the notes to take when a statement is sent.
 */

import type { BackendConnection } from '../backend/connection.ts';
import { notSupported, objectError } from '../base/errors.ts';
import type { ChooseContext } from '../execute/choose.ts';
import type { CommandResult } from '../execute/context.ts';
import { ask, borrow, type Rows } from '../execute/internal-query.ts';
import type { CachedQuery } from '../execute/plan-cache.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import type { QueryPlan, StatementPlan } from '../plan/plan.ts';
import type { Lease } from './lease.ts';
import type { LocalAnswer, Responses } from './responses.ts';
import type { ClientState } from './state.ts';

/** DEALLOCATE [PREPARE] { name | ALL }, which drivers also send for statements of the extended protocol. */
const DEALLOCATE = /^\s*deallocate\s+(?:prepare\s+)?(?:(all)|"((?:[^"]|"")+)"|([a-z_][\w$]*))\s*;?\s*$/i;

export class Conversation {
  readonly state: ClientState;
  readonly lease: Lease;
  readonly responses: Responses;
  /** Named statements of the extended protocol: forget one (or, undefined, all); false if there is none of that name. */
  deallocate!: (name: string | undefined) => boolean;

  constructor(state: ClientState, lease: Lease, responses: Responses) {
    this.state = state;
    this.lease = lease;
    this.responses = responses;
  }

  get homeNodeId(): number {
    return this.state.context.catalog.current.homeNodeId;
  }

  get chooseContext(): ChooseContext {
    const { context } = this.state;
    return { map: context.catalog.current, ids: context.ids, ask: (text) => this.askHome(text) };
  }

  plan(text: string): CachedQuery {
    const { context, searchPath } = this.state;
    return context.plans.get(text, context.catalog.current, searchPath);
  }

  /** A question of the router's, with the client's role and settings, outside of its transaction. */
  askHome(text: string): Promise<Rows> {
    return this.onHome((connection) => ask(connection, text));
  }

  onHome<T>(work: (connection: BackendConnection) => Promise<T>): Promise<T> {
    const { context, user, settings } = this.state;
    return borrow(context.pools.get(this.homeNodeId)!, { user, settings }, work);
  }

  /** Writes an answer of the router's own: now, or after what is still to come from the backend. */
  inTurn(answer: LocalAnswer): void {
    const { connection } = this.lease;
    if (connection && !connection.closed) connection.local(this.responses, answer);
    else this.responses.onLocal(answer);
  }

  /** What ReadyForQuery says if it is the router that says it. */
  currentStatus(): 'I' | 'T' | 'E' {
    const { connection } = this.lease;
    if (this.state.transaction === 'none' && connection)
      return String.fromCharCode(connection.transactionStatus) as 'I' | 'T' | 'E';
    return this.responses.ownStatus();
  }

  /** Functions that may leave state in the session make it keep its backend. A promise while that is being looked up. */
  checkFunctions(plan: QueryPlan): Promise<void> | undefined {
    const { functions } = this.state.context;
    for (const { unknownFunctions } of plan.statements) {
      if (unknownFunctions.length === 0) continue;
      const known = functions.mayLeaveState(unknownFunctions);
      if (known === undefined) {
        return functions.load(unknownFunctions).then(() => this.checkFunctions(plan));
      }
      if (known)
        this.lease.pin(`a function that may leave state in the session (${unknownFunctions.join(', ')})`);
    }
    return undefined;
  }

  /** currval() and lastval() mean something only in a session that has had one backend all along. */
  checkSessionState(statement: StatementPlan | undefined): void {
    if (!statement?.needsPinBefore || this.lease.pinReason !== undefined) return;
    throw notSupported(
      'currval() and lastval() need a session that keeps its backend',
      'Use INSERT … RETURNING. Or take a session advisory lock first: the session then keeps one backend.',
    );
  }

  /** The command tag, if the statement needs no backend; it has then been carried out. */
  answerLocally(statement: StatementPlan, text: string): string | undefined | Promise<string> {
    const [effect] = statement.effects;
    if (!effect) return undefined;
    const { state, lease } = this;
    const outside = state.transaction === 'none' && !lease.inBlock && !lease.unsynced;
    switch (effect.kind) {
      case 'discardAll':
        if (!outside) throw objectError('25001', 'DISCARD ALL cannot run inside a transaction block');
        return lease.drained().then(() => {
          state.settings = state.defaults;
          lease.unpin();
          this.deallocate(undefined);
          return 'DISCARD ALL';
        });
      case 'resetAll': {
        if (!outside) return undefined;
        return lease.drained().then(() => {
          const role = state.settings.values.get('role');
          state.settings = state.defaults.with(role === undefined ? new Map() : new Map([['role', role]]));
          return 'RESET';
        });
      }
      case 'set': {
        const [name] = effect.names;
        if (!outside || !effect.reset || effect.local || name === undefined) return undefined;
        // What RESET goes back to is the client's own start-up value, of which the backend knows nothing.
        const value = state.defaults.values.get(name);
        if (value === undefined) return undefined;
        return lease.drained().then(() => {
          state.settings = state.settings.with(new Map([[name, value]]));
          return statement.effects.length === 1 && /^\s*reset/i.test(text) ? 'RESET' : 'SET';
        });
      }
      case 'sqlPrepare': {
        const match = DEALLOCATE.exec(text);
        if (!match) return undefined;
        const [, all, quoted, plain] = match;
        if (all !== undefined) {
          this.deallocate(undefined);
          return lease.pinReason === undefined ? 'DEALLOCATE ALL' : undefined;
        }
        const name = quoted?.replaceAll('""', '"') ?? plain!.toLowerCase();
        return this.deallocate(name) ? 'DEALLOCATE' : undefined;
      }
      default:
        return undefined;
    }
  }

  /** To be called when a query is about to be sent. Gives what is to be done when it has been carried out, if anything. */
  noteSending(plan: QueryPlan, connection: BackendConnection): (() => void) | undefined {
    let afterwards: (() => void) | undefined;
    for (const statement of plan.statements) {
      if (!statement.readOnly && !this.lease.inBlock) this.lease.outcomeAtStake = true;
      if (statement.effects.length === 0) continue;
      this.lease.noteEffects(statement.effects);
      for (const { kind } of statement.effects) {
        if (kind === 'commit') this.lease.outcomeAtStake = true;
        else if (kind === 'ddl') afterwards = () => this.#onDdl();
        else if (kind === 'discardAll' || (kind === 'sqlPrepare' && DEALLOCATE.exec(plan.text)?.[1])) {
          // They drop the router's own prepared statements as well.
          afterwards = () => connection.prepared.clear();
        }
      }
    }
    return afterwards;
  }

  /** To be called when it has been sent: a RESET in a transaction goes back to the client's own start-up value. */
  noteSent(plan: QueryPlan, connection: BackendConnection): void {
    for (const { effects } of plan.statements) {
      for (const effect of effects) {
        if (effect.kind !== 'set' || !effect.reset || effect.local) continue;
        for (const name of effect.names) {
          const value = this.state.defaults.values.get(name);
          if (value === undefined) continue;
          const text = `SELECT pg_catalog.set_config(${quoteLiteral(name)}, ${quoteLiteral(value)}, false)`;
          void ask(connection, text).catch(() => {});
        }
      }
    }
  }

  runCommand(statement: StatementPlan): Promise<CommandResult> {
    return this.state.context.runCommand(statement.command!, this.state.commandSession).then((result) => {
      this.#onDdl();
      return result;
    });
  }

  /** What names mean may have changed: plans, prepared statements and what is known of functions are made afresh. */
  #onDdl(): void {
    const { context } = this.state;
    context.statements.invalidate();
    context.functions.invalidate();
    void context.catalog.refresh().catch(() => {});
  }
}
