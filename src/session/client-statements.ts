/**
 * The prepared statements of one client's extended protocol, by name. What a message does to a name counts from when it is
 * sent, and is taken back if the server skips it (named-changes.ts).
 */

import type { BackendConnection } from '../backend/connection.ts';
import type { SharedStatement } from '../backend/prepared.ts';
import { BOUNDS } from '../base/bounds.ts';
import { objectError } from '../base/errors.ts';
import { positionsWithoutLeaves } from '../plan/rewrite.ts';
import { encodeCloseComplete, encodeParseComplete } from '../wire/backend.ts';
import type { Conversation, Deallocation } from './conversation.ts';
import { type NamedChange, NamedChanges } from './named-changes.ts';
import type { ClientStatement } from './prepared-execution.ts';
import type { RequestTag } from './responses.ts';

type Settling = Pick<RequestTag, 'onDone' | 'onFailed'>;

export class ClientStatements {
  readonly #c: Conversation;
  readonly #named = new NamedChanges<ClientStatement>();
  /** A Parse of the unnamed statement is being handled: whether it succeeds or not, the one before is gone. */
  #parsingUnnamed = false;
  /** Since the last Sync, a write may have stopped at its row limit. */
  writeSuspended = false;

  constructor(conversation: Conversation) {
    this.#c = conversation;
  }

  get(name: string): ClientStatement | undefined {
    return this.#named.get(name);
  }

  /** All of them; undefined: what a name stands for may still be taken back. */
  all(): readonly ClientStatement[] | undefined {
    if (this.#named.isOpen || this.writeSuspended) return undefined;
    return this.#named.names().map((name) => this.#named.get(name)!);
  }

  /** As the session had them in another process. */
  restore(statements: readonly ClientStatement[]): void {
    for (const statement of statements) this.#named.put(statement.name, statement);
  }

  nextBatch(): void {
    this.#named.nextBatch();
  }

  undoAll(): void {
    this.#named.undoAll();
  }

  /** A Query takes the unnamed statement with it. */
  beforeQuery(): void {
    this.#named.nextBatch();
    if (this.#named.get('') || this.#named.isOpen) this.#c.inTurn({ write() {}, ...this.#dropUnnamed() });
  }

  /** A Parse of this name begins. */
  begin(name: string): void {
    this.#parsingUnnamed = name === '';
  }

  /** Throws what PostgreSQL says of a name that is taken. */
  checkFree(name: string): void {
    if (name !== '' && this.#named.get(name))
      throw objectError('42P05', `prepared statement "${name}" already exists`);
  }

  checkBound(): void {
    if (this.#named.size < BOUNDS.clientStatementsMax) return;
    throw objectError(
      '53400',
      `a session may have ${BOUNDS.clientStatementsMax} prepared statements at most`,
    );
  }

  /** What the name stands for may still be taken back by an error before the last Sync. */
  whenSettled(name: string): Promise<void> | undefined {
    const settled = this.#named.unsettled(name);
    if (settled) this.#c.lease.connection?.flushMessage();
    return settled;
  }

  /** Answered here. */
  define(statement: ClientStatement): void {
    this.#parsingUnnamed = false;
    const change = this.#named.set(statement.name, statement);
    const { connection } = this.#c.lease;
    if (this.writeSuspended && connection) {
      // PostgreSQL makes the rows of a suspended write visible to what follows when it is sent a Parse, any Parse.
      connection.parseUnnamed('', this.#c.responses, this.#settling(change));
      return;
    }
    this.#c.inTurn({ write: (writer) => encodeParseComplete(writer), ...this.#settling(change) });
  }

  /** Has a server check the text: its ParseComplete or error is the client's answer. */
  defineOn(connection: BackendConnection, shared: SharedStatement, statement: ClientStatement): void {
    this.#c.lease.unsynced = true;
    if (connection.prepared.nameOf(shared) !== undefined) {
      this.define(statement);
      return;
    }
    this.#parsingUnnamed = false;
    const change = this.#named.set(statement.name, statement);
    const tag: RequestTag = {
      statement: shared,
      mapPosition: positionsWithoutLeaves(statement.cached.plan),
      onDone: () => this.#named.done(change),
      onFailed: (skipped) => {
        // A Parse that fails by itself has taken the unnamed statement before it away.
        if (!skipped) change.before = undefined;
        this.#named.undo(change);
      },
    };
    connection.parse(shared, this.#c.responses, tag);
  }

  close(name: string): void {
    const change = this.#named.set(name, undefined);
    this.#c.inTurn({ write: (writer) => encodeCloseComplete(writer), ...this.#settling(change) });
  }

  /** undefined: there is none of that name. `name` undefined: all of them. */
  deallocate(name: string | undefined): Deallocation | undefined {
    if (name !== undefined && !this.#named.get(name)) return undefined;
    // The unnamed one stays: it is not among those of the session.
    return this.#named.removeAll((one) => (name === undefined ? one !== '' : one === name));
  }

  /** A message has failed; what that does to the unnamed statement, for the message that tells it. */
  onFailure(): Settling | undefined {
    const dropped = this.#parsingUnnamed ? this.#dropUnnamed() : undefined;
    this.#parsingUnnamed = false;
    return dropped;
  }

  #dropUnnamed(): Settling {
    return this.#settling(this.#named.set('', undefined));
  }

  /** Settles a change with the answer to its message. */
  #settling(change: NamedChange<ClientStatement>): Settling {
    return {
      onDone: () => this.#named.done(change),
      onFailed: () => this.#named.undo(change),
    };
  }
}
