/**
 * COMMIT, ROLLBACK, SAVEPOINT and their kin in a transaction that has branches on several nodes: carried out here, on all of
 * them, and answered by the router. For both protocols.
 *
 * Next hop: branches.ts, and txn/coordinator.ts for a COMMIT.
 */
import { objectError, type PosternError } from '../base/errors.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import type { QueryPlan, SessionEffect, StatementPlan } from '../plan/plan.ts';
import { encodeNoticeResponse } from '../wire/backend.ts';
import type { FrameWriter } from '../wire/frame-writer.ts';
import { PipelineFailed } from './branches.ts';
import type { Conversation } from './conversation.ts';
import { readOverlay } from './ddl-overlay.ts';

type Control = Extract<
  SessionEffect,
  {
    kind:
      | 'begin'
      | 'commit'
      | 'rollback'
      | 'savepoint'
      | 'releaseSavepoint'
      | 'rollbackToSavepoint'
      | 'constraints'
      | 'resetAll';
  }
>;

/** In PostgreSQL's words. */
const NEEDS_BLOCK: Partial<Record<Control['kind'], string>> = {
  savepoint: 'SAVEPOINT',
  releaseSavepoint: 'RELEASE SAVEPOINT',
  rollbackToSavepoint: 'ROLLBACK TO SAVEPOINT',
};

export class TransactionControl {
  readonly #c: Conversation;

  constructor(conversation: Conversation) {
    this.#c = conversation;
  }

  /** Is the statement one to be carried out here, as things stand? */
  answers(statement: StatementPlan | undefined): boolean {
    return this.#controlOf(statement) !== undefined;
  }

  /** Would one of the statements of a query string end the transaction, or go back in it, on another node than those it is on? */
  concerns(plan: QueryPlan, nodeId: number | undefined): boolean {
    const { lease } = this.#c;
    const held = lease.connection?.address.nodeId;
    if (held === undefined || (!lease.branches.areMany && (nodeId === undefined || nodeId === held)))
      return false;
    return plan.statements.some(({ effects: [effect] }) => effect !== undefined && isControl(effect));
  }

  /** Throws the refusal. One that ends its transaction by failing (PREPARE TRANSACTION) has ended it before. */
  refuse({ statements }: QueryPlan, refusal: PosternError): Promise<never> {
    const { state, lease } = this.#c;
    const [only] = statements;
    if (statements.length > 1 || only?.effects[0]?.kind !== 'rollback') throw refusal;
    if (state.transaction !== 'none') state.endTransaction(false);
    if (!lease.mayBeInBlock) throw refusal;
    return lease.branches.rollback().then(() => {
      throw refusal;
    });
  }

  /** Carries it out, and gives its command tag. Rejects with what the client hears; after COMMIT the transaction is over even so. */
  async execute(statement: StatementPlan, text: string): Promise<string> {
    const control = this.#controlOf(statement)!;
    const { lease, state } = this.#c;
    const { branches } = lease;
    if (!(await lease.settle())) throw new PipelineFailed();
    if (branches.implicit) checkOutsideOfBlock(control, state.output.writer);
    switch (control.kind) {
      case 'begin':
        branches.makeExplicit();
        state.beginText = text;
        return /^\s*start\b/i.test(text) ? 'START TRANSACTION' : 'BEGIN';
      case 'commit': {
        const committed = await this.#commit();
        state.endTransaction(control.chain);
        return committed ? 'COMMIT' : 'ROLLBACK';
      }
      case 'rollback':
        await branches.rollback();
        state.endTransaction(control.chain);
        return 'ROLLBACK';
      case 'savepoint':
        await branches.control(control, text);
        return 'SAVEPOINT';
      case 'releaseSavepoint':
        await branches.control(control, text);
        return 'RELEASE';
      case 'rollbackToSavepoint':
        await branches.control(control, text);
        if (state.overlay) state.overlay = await readOverlay(lease, state.overlay.home);
        return 'ROLLBACK';
      case 'constraints':
        await branches.control(control, text);
        return 'SET CONSTRAINTS';
      case 'resetAll':
        await branches.control(control, [text, ...this.#startUpValues()].join('\n;'));
        lease.noteEffects([control]);
        return 'RESET';
    }
  }

  /** What RESET ALL goes back to is the client's own start-up values, of which servers know nothing. */
  #startUpValues(): string[] {
    const values = [...this.#c.state.defaults.values].filter(([name]) => name !== 'role');
    return values.map(
      ([name, value]) => `SELECT pg_catalog.set_config(${quoteLiteral(name)}, ${quoteLiteral(value)}, false)`,
    );
  }

  /** The end of an implicit transaction that has not failed so far. Rejects with what the client hears; it is over even so. */
  async endImplicit(): Promise<void> {
    await this.#commit();
  }

  /** False: it had failed before, and was rolled back. */
  async #commit(): Promise<boolean> {
    const { lease, state } = this.#c;
    const { ddlUncommitted, beforeCommit } = lease;
    const onCommitted = this.#c.notifications.committing();
    const result = await lease.branches.commit();
    if (!result) return false;
    if (result.kind !== 'committed') throw result.error;
    onCommitted();
    if (ddlUncommitted) await this.#c.afterDdl(beforeCommit !== undefined);
    for (const { sqlState, message, hint } of result.warnings)
      encodeNoticeResponse(state.output.writer, 'WARNING', sqlState, hint ? `${message} (${hint})` : message);
    return true;
  }

  #controlOf(statement: StatementPlan | undefined): Control | undefined {
    const { branches } = this.#c.lease;
    if (!branches.areMany) return undefined;
    const [effect] = statement?.effects ?? [];
    if (!effect || !isControl(effect)) return undefined;
    return effect.kind === 'begin' && !branches.implicit ? undefined : effect;
  }
}

function isControl(effect: SessionEffect): effect is Control {
  switch (effect.kind) {
    case 'begin':
    case 'commit':
    case 'rollback':
    case 'savepoint':
    case 'releaseSavepoint':
    case 'rollbackToSavepoint':
    case 'constraints':
    case 'resetAll':
      return true;
    default:
      return false;
  }
}

/** Is it taken in a transaction that has failed? */
export function endsTransaction(statement: StatementPlan | undefined): boolean {
  const kind = statement?.effects[0]?.kind;
  return kind === 'commit' || kind === 'rollback' || kind === 'rollbackToSavepoint';
}

/** Of a statement where there is no BEGIN of the client's: an error or a warning, as PostgreSQL has it. */
export function checkOutsideOfBlock(effect: SessionEffect, writer: FrameWriter): void {
  if (!isControl(effect)) return;
  let name = NEEDS_BLOCK[effect.kind];
  if (effect.kind === 'commit' || effect.kind === 'rollback') {
    if (effect.chain) name = `${effect.kind.toUpperCase()} AND CHAIN`;
    else encodeNoticeResponse(writer, 'WARNING', '25P01', 'there is no transaction in progress');
  }
  if (name !== undefined) throw objectError('25P01', `${name} can only be used in transaction blocks`);
}
