/**
 * The BEGIN that was held back, and answered to the client by the router, on its way to a server: it goes out ahead of the
 * statement that it was held back for, in the same write and before the same Sync.
 *
 *   client          Query UPDATE …                          Parse, Bind, Execute, Sync
 *   server   Bind BEGIN, Execute, Query UPDATE …     Bind BEGIN, Execute, Parse, Bind, Execute, Sync
 *
 *   sent ──CommandComplete──▶ the server has the transaction; nothing of this reaches the client
 *     └────ErrorResponse────▶ state.transaction = 'failed'; the client hears it as the error of its statement
 *
 * Invariant: what follows a BEGIN that failed is not carried out. The server skips all up to the next Sync, a Query too; and
 * the session holds back what comes behind that Sync until its ReadyForQuery (Lease.mayBeInBlock).
 * A Query is its own Sync: when it was skipped, one is sent in its place.
 */
import type { BackendConnection } from '../backend/connection.ts';
import type { PendingKind, ResponseSink } from '../backend/pending.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { Backend } from '../wire/message-types.ts';
import type { Responses } from './responses.ts';
import type { ClientState } from './state.ts';

/** Longer ones, and those with a comment (which may be different each time), are not kept prepared. */
const PREPARED_LENGTH_MAX = 100;

export class HeldBegin implements ResponseSink {
  readonly #state: ClientState;
  readonly #responses: Responses;
  readonly #connection: BackendConnection;

  constructor(options: { state: ClientState; responses: Responses; connection: BackendConnection }) {
    this.#state = options.state;
    this.#responses = options.responses;
    this.#connection = options.connection;
  }

  /** Writes it; it goes out with what is written next. */
  send(): void {
    const { beginText, context } = this.#state;
    const isPlain =
      beginText.length <= PREPARED_LENGTH_MAX && !beginText.includes('--') && !beginText.includes('/*');
    // What BEGIN means depends on no setting, so that one scope is enough.
    const statement = isPlain ? context.statements.get(beginText, [], '') : undefined;
    this.#connection.executeAhead(beginText, statement, this);
  }

  /** The client waits for ReadyForQuery, and the Query that would have brought it was skipped. */
  readonly syncAfterSkippedQuery = (): void => {
    this.#responses.owe(1);
    this.#connection.sync(this.#responses, undefined);
  };

  onMessage(type: number, reader: FrameReader, kind: PendingKind): void {
    if (type !== Backend.ErrorResponse) return;
    this.#state.transaction = 'failed';
    this.#responses.onMessage(type, reader, kind, undefined);
  }

  onRows(): void {}
  onNotice(): void {}
  onLocal(): void {}
  onDiscarded(): void {}
  /** The session is told as the connection's lessee. */
  onLost(): void {}
}
