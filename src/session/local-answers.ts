/**
 * Statements of the extended protocol that need no backend: BEGIN, COMMIT and ROLLBACK of a transaction that no node knows of
 * yet, router commands, and what Conversation answers by itself.
 */
import type { StatementPlan } from '../plan/plan.ts';
import { encodeCommandComplete, encodeNoData, encodeParameterDescription } from '../wire/backend.ts';
import type { FrameWriter } from '../wire/frame-writer.ts';
import type { ClientPortal } from './client-portals.ts';
import { type Conversation, type Deallocation, deallocated } from './conversation.ts';
import { runDdlChange } from './ddl-change.ts';
import { noSavepoint } from './missing-names.ts';
import { beginTag } from './simple-protocol.ts';
import { beginWithModes } from './transaction-modes.ts';

export class LocalAnswers {
  readonly #c: Conversation;
  readonly #hasStatement: (name: string) => boolean;
  readonly #forgetPortals: () => void;

  constructor(options: {
    conversation: Conversation;
    hasStatement: (name: string) => boolean;
    forgetPortals: () => void;
  }) {
    this.#c = options.conversation;
    this.#hasStatement = options.hasStatement;
    this.#forgetPortals = options.forgetPortals;
  }

  /**
   * Will this statement be answered without a backend, as things stand? A RESET is not: an error further on in its pipeline takes
   * it back.
   */
  answers(statement: StatementPlan | undefined, text: string): boolean {
    if (!statement) return false;
    if (statement.command || statement.placement.kind === 'everywhere') return true;
    if (this.#c.control.answers(statement)) return true;
    const { state, lease } = this.#c;
    const [effect] = statement.effects;
    const busy = lease.connection !== undefined;
    const outside = !lease.inBlock && !lease.unsynced && state.transaction === 'none';
    switch (effect?.kind) {
      case 'begin':
        return !busy && state.transaction === 'none';
      case 'commit':
      case 'rollback':
        return !busy && state.transaction !== 'none';
      case 'rollbackToSavepoint':
        return !busy && state.transaction === 'failed';
      case 'set':
        return !busy && beginWithModes(state, effect, text) !== undefined;
      case 'discardAll':
        return outside;
      case 'listen':
        return outside && this.#c.notifications.takesListen;
      case 'unlisten':
        return outside && this.#c.notifications.takesUnlisten;
      case 'sqlPrepare': {
        if (state.transaction === 'failed' || lease.failed) return false;
        const name = deallocated(text);
        // ALL of a session with a backend of its own are that backend's as well.
        if (typeof name === 'symbol') return lease.pinReason === undefined;
        return name !== undefined && this.#hasStatement(name);
      }
      default:
        return false;
    }
  }

  /** Is it executed here? Bound so, or the end of a transaction that has come to other nodes since it was bound. */
  takes(portal: ClientPortal): boolean {
    return portal.local || this.#c.control.answers(portal.statement.cached.plan.statements[0]);
  }

  /** Describe of the statement ('S') or of a portal of it ('P'). */
  describe(statement: StatementPlan | undefined, target: 'S' | 'P'): void {
    this.#c.inTurn({
      write: (writer: FrameWriter) => {
        if (target === 'S') encodeParameterDescription(writer, []);
        const command = statement?.command;
        if (!command || !this.#c.describeCommand(writer, command)) encodeNoData(writer);
      },
    });
  }

  /** Execute. false: what was sent since its Bind has changed who has to answer it. */
  execute(statement: StatementPlan, text: string): boolean | Promise<boolean> {
    const { state } = this.#c;
    if (!this.answers(statement, text)) return false;
    if (statement.command) {
      return this.#c.runCommand(statement).then((write) => {
        this.#c.inTurn({ write });
        return true;
      });
    }
    if (statement.placement.kind === 'everywhere')
      return runDdlChange(this.#c, statement, text).then((tag) => this.#complete(tag));
    if (this.#c.control.answers(statement)) {
      return this.#c.control.execute(statement, text).then((tag) => {
        if (!this.#c.lease.clientInBlock) this.#forgetPortals();
        return this.#complete(tag);
      });
    }
    const [effect] = statement.effects;
    if (effect?.kind === 'begin') {
      state.transaction = 'virtual';
      state.beginText = text;
      return this.#complete(beginTag(text));
    }
    if (effect?.kind === 'commit' || effect?.kind === 'rollback') {
      const failed = state.transaction === 'failed';
      state.endTransaction(effect.chain);
      this.#forgetPortals();
      return this.#complete(effect.kind === 'commit' && !failed ? 'COMMIT' : 'ROLLBACK');
    }
    if (effect?.kind === 'rollbackToSavepoint') throw noSavepoint(effect.name);
    const local = this.#c.answerLocally(statement, text);
    if (local instanceof Promise) return local.then(({ tag }) => this.#complete(tag));
    return local ? this.#complete(local.tag, local.deallocation) : false;
  }

  #complete(tag: string, deallocation?: Deallocation): true {
    this.#c.inTurn({
      write: (writer) => encodeCommandComplete(writer, tag),
      onDone: () => deallocation?.done(),
      onFailed: () => deallocation?.undo(),
    });
    return true;
  }
}
