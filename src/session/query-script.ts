/**
 * A query string of several statements that belong to several nodes: they are carried out one by one, in one transaction as
 * PostgreSQL has it: what stands outside of BEGIN and COMMIT is one, up to the end of the string.
 *
 * Previous hop: simple-protocol.ts, which also carries out each of them.
 */
import { notSupported } from '../base/errors.ts';
import type { QueryPlan, SessionEffect } from '../plan/plan.ts';
import { encodeCommandComplete } from '../wire/backend.ts';
import type { Conversation } from './conversation.ts';
import { checkOutsideOfBlock } from './transaction-control.ts';

const PLAIN_BEGIN = /^\s*(begin|start)(\s+(work|transaction))?\s*$/i;

export class QueryScript {
  readonly #c: Conversation;
  /** One statement, as a Query of its own would be: errors are answered. */
  readonly #carryOut: (text: string) => void | Promise<void>;
  /** The transaction is the string's, and not one that its client has begun. */
  #isImplicit = false;

  constructor(conversation: Conversation, carryOut: (text: string) => void | Promise<void>) {
    this.#c = conversation;
    this.#carryOut = carryOut;
  }

  /** All of the answer but ReadyForQuery. */
  async run(plan: QueryPlan): Promise<void> {
    const { responses } = this.#c;
    if (plan.statements.some(({ copy }) => copy !== undefined)) {
      throw notSupported('COPY in a query string whose statements belong to several nodes', 'Send it alone.');
    }
    await responses.settled();
    const bytes = Buffer.from(plan.text);
    responses.holdsReady = true;
    try {
      this.#begin();
      let failed = false;
      for (const { start, end, effects } of plan.statements) {
        failed = !(await this.#one(bytes.toString('utf8', start, end), effects[0]));
        if (failed) break;
      }
      await this.#end(failed);
    } catch (error) {
      await this.#end(true);
      throw error;
    } finally {
      responses.holdsReady = false;
    }
  }

  /** false: it has failed, and the rest of the string is not looked at. */
  async #one(text: string, effect: SessionEffect | undefined): Promise<boolean> {
    const { responses, lease, state } = this.#c;
    const { errorsTold } = responses;
    if (this.#isImplicit && effect?.kind === 'begin') {
      this.#makeExplicit(text);
      return true;
    }
    const ends = effect?.kind === 'commit' || effect?.kind === 'rollback';
    if (this.#isImplicit && effect) checkOutsideOfBlock(effect, state.output.writer);
    await this.#carryOut(text);
    await responses.settled();
    await lease.drained();
    if (responses.errorsTold !== errorsTold || state.transaction === 'failed') return false;
    if (ends && !effect.chain) this.#begin();
    return true;
  }

  #begin(): void {
    const { state, lease } = this.#c;
    this.#isImplicit = state.transaction === 'none' && !lease.inBlock;
    if (!this.#isImplicit) return;
    state.transaction = 'virtual';
    state.beginText = 'BEGIN';
  }

  /** BEGIN: what came before it in the string is part of the client's transaction. */
  #makeExplicit(text: string): void {
    const { state } = this.#c;
    if (state.transaction !== 'virtual' && !PLAIN_BEGIN.test(text)) {
      throw notSupported(
        'BEGIN with options behind other statements of one query string',
        'Send it first, or alone.',
      );
    }
    this.#isImplicit = false;
    state.beginText = text;
    encodeCommandComplete(state.output.writer, /^\s*start\b/i.test(text) ? 'START TRANSACTION' : 'BEGIN');
  }

  /** Of an implicit transaction; it is over even if this rejects, with what the client hears. */
  async #end(failed: boolean): Promise<void> {
    const { state, lease, control } = this.#c;
    if (!this.#isImplicit) return;
    this.#isImplicit = false;
    if (state.transaction !== 'none') {
      // No node knows of it, or one was lost.
      state.transaction = 'none';
      lease.onFree?.();
      return;
    }
    if (!lease.inBlock) return;
    if (failed) await lease.branches.rollback();
    else await control.endImplicit();
  }
}
