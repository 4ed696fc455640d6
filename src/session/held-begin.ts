/**
 * The BEGIN that was held back, and answered to the client by the router, on its way to a server: it goes out ahead of the
 * statement that it was held back for, in the same write and before the same Sync.
 *
 * A branch of a transaction over several nodes begins in the same way (branches.ts), and is registered in the same write.
 *
 *   client          Query UPDATE …                          Parse, Bind, Execute, Sync
 *   server   Bind BEGIN, Execute, Query UPDATE …     Bind BEGIN, Execute, Parse, Bind, Execute, Sync
 *
 *   sent ──CommandComplete──▶ the server has the transaction; nothing of this reaches the client
 *     │                          └──the registration fails──▶ as if the client's statement had
 *     └────ErrorResponse────▶ state.transaction = 'failed'; the client hears it as the error of its statement
 *
 * Invariant: what follows a BEGIN that failed is not carried out. The server skips all up to the next Sync, a Query too; and
 * the session holds back what comes behind that Sync until its ReadyForQuery (Lease.mayBeInBlock).
 * A Query is its own Sync: when it was skipped, one is sent in its place.
 */
import type { BackendConnection } from '../backend/connection.ts';
import { Pending, type PendingKind, type ResponseSink } from '../backend/pending.ts';
import type { SharedStatement } from '../backend/prepared.ts';
import { BRANCH_REGISTRATION } from '../txn/registration.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { Backend } from '../wire/message-types.ts';
import type { Responses } from './responses.ts';
import type { ClientState } from './state.ts';

/** Longer ones, and those with a comment (which may be different each time), are not kept prepared. */
const PREPARED_LENGTH_MAX = 100;

/** Of a transaction that is on another node already. */
export interface BranchBegin {
  readonly registrationValues: readonly string[];
  /** There will be no transaction here. */
  onFailed(): void;
}

export class HeldBegin implements ResponseSink {
  readonly #state: ClientState;
  readonly #responses: Responses;
  readonly #connection: BackendConnection;
  readonly #branch: BranchBegin | undefined;
  #hasBegun = false;

  constructor(options: {
    state: ClientState;
    responses: Responses;
    connection: BackendConnection;
    branch?: BranchBegin;
  }) {
    this.#state = options.state;
    this.#responses = options.responses;
    this.#connection = options.connection;
    this.#branch = options.branch;
  }

  /** Writes it; it goes out with what is written next. */
  send(): void {
    const { beginText, context } = this.#state;
    const isPlain =
      beginText.length <= PREPARED_LENGTH_MAX && !beginText.includes('--') && !beginText.includes('/*');
    // What BEGIN means depends on no setting, so that one scope is enough.
    const statement = isPlain ? context.statements.get(beginText, [], '') : undefined;
    this.#connection.executeAhead(beginText, statement, this);
    if (this.#branch)
      this.#connection.executeAhead(
        BRANCH_REGISTRATION.text,
        BRANCH_REGISTRATION,
        this,
        this.#branch.registrationValues,
      );
  }

  /** The client waits for ReadyForQuery, and the Query that would have brought it was skipped. */
  readonly syncAfterSkippedQuery = (): void => {
    this.#responses.owe(1);
    this.#connection.sync(this.#responses, undefined);
  };

  onMessage(type: number, reader: FrameReader, kind: PendingKind, tag: unknown): void {
    if (type === Backend.CommandComplete) {
      this.#hasBegun = true;
      // What was answered before is of an earlier transaction.
      this.#responses.changedRowsOn = undefined;
    }
    if (type !== Backend.ErrorResponse) return;
    // The client has thrown it away behind the router's back (DEALLOCATE ALL in a function): the next one makes it anew.
    if (kind === Pending.bind && tag) this.#connection.prepared.remove(tag as SharedStatement);
    if (!this.#hasBegun) {
      this.#state.transaction = 'failed';
      this.#branch?.onFailed();
    }
    this.#responses.onMessage(type, reader, kind, undefined);
  }

  onRows(): void {}
  onNotice(): void {}
  onLocal(): void {}
  onDiscarded(): void {}
  /** The session is told as the connection's lessee. */
  onLost(): void {}
}
