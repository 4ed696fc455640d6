/**
 * Runs pieces on connections that the caller holds: all of a node's in one pipeline up to one Sync, the nodes side by side.
 * Rows are handed on as they come, whole frames.
 *
 * When one fails, what still runs on other nodes is canceled soon: its result is not wanted any more.
 *
 * Invariant: when the promise settles, nothing is pending on any of the connections, and no cancel request is on its way to
 * one: what is sent next is answered for itself.
 */
import type { BackendConnection } from '../backend/connection.ts';
import { ask } from '../backend/internal-query.ts';
import { Pending, type PendingKind, type ResponseSink } from '../backend/pending.ts';
import type { SharedStatement } from '../backend/prepared.ts';
import { assert } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';
import { connectionLost, type PosternError } from '../base/errors.ts';
import { ServerError } from '../platform/control-connection.ts';
import { readCommandTag, readErrorFields } from '../wire/backend.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { Backend } from '../wire/message-types.ts';
import { inUsersNames, isMissingLeaf, type LeafTarget } from './leaf-errors.ts';

/** One statement with its values, for one node. */
export interface BoundPiece {
  readonly nodeId: number;
  /** Kept prepared; else `text` is prepared for this once. */
  readonly shared: SharedStatement | undefined;
  readonly text: string;
  readonly parameterOids: readonly number[];
  /** A Bind message behind its two names. */
  readonly tail: Buffer;
  /** Errors are told in the user's names. */
  readonly leaf: LeafTarget | undefined;
  /** It is read in portions, through a portal of this name; undefined: all at once. */
  readonly portion?: Portion;
}

export interface Portion {
  readonly portal: string;
  /** `open`: prepares and binds first, and so takes the snapshot of a query. `close`: nothing but that. */
  readonly step: 'open' | 'go on' | 'close';
  /** So many rows at most; 0: it is not executed yet. A write is carried out whole by the first. */
  readonly maxRows: number;
}

export interface PiecesListener {
  /** Consecutive DataRow frames of the piece with this index; the buffer is good for this call alone. */
  onRows(index: number, buffer: Buffer, start: number, end: number): void;
  onNotice(reader: FrameReader): void;
  /** The map is stale: a leaf is not where it was. */
  onMissingLeaf(): void;
}

export class RunningPieces {
  /** The command tags, one for each piece. Rejects with the error of the first piece that has one, or of a lost node. */
  readonly done: Promise<readonly string[]>;
  readonly #connections: readonly BackendConnection[];
  readonly #cancels: Promise<void>[] = [];
  readonly #canceled = new Set<BackendConnection>();
  /** By the client, and not for a failure elsewhere. */
  #isByClient = false;
  #siblingTimer: NodeJS.Timeout | undefined;

  constructor(
    connections: ReadonlyMap<number, BackendConnection>,
    pieces: readonly BoundPiece[],
    listener: PiecesListener,
  ) {
    const byNode = new Map<number, number[]>();
    for (const [index, { nodeId }] of pieces.entries()) {
      const indexes = byNode.get(nodeId);
      if (indexes) indexes.push(index);
      else byNode.set(nodeId, [index]);
    }
    const runs: Promise<NodeResult>[] = [];
    const used: BackendConnection[] = [];
    for (const [nodeId, indexes] of byNode) {
      const connection = connections.get(nodeId);
      assert(connection, 'each piece has a connection');
      used.push(connection);
      const { result } = new NodeRun(connection, pieces, indexes, listener);
      runs.push(result);
      void result.then(({ failure }) => {
        if (failure) this.#siblingTimer ??= setTimeout(() => this.#cancelAll(), BOUNDS.siblingCancelAfterMs);
      });
    }
    this.#connections = used;
    this.done = this.#finish(Promise.all(runs), pieces.length);
  }

  /** Cancels what runs, for the client. */
  cancel(): void {
    this.#isByClient = true;
    this.#cancelAll();
  }

  #cancelAll(): void {
    for (const connection of this.#connections) {
      if (connection.closed || connection.pendingCount === 0) continue;
      this.#canceled.add(connection);
      this.#cancels.push(connection.cancel());
    }
  }

  /** Back-pressure: the client does not read, or does again. */
  pause(): void {
    for (const connection of this.#connections) connection.pauseReading();
  }

  resume(): void {
    for (const connection of this.#connections) connection.resumeReading();
  }

  async #finish(results: Promise<readonly NodeResult[]>, count: number): Promise<readonly string[]> {
    const nodes = await results;
    clearTimeout(this.#siblingTimer);
    this.resume();
    const failures = nodes.flatMap(({ failure }) => failure ?? []);
    await Promise.all(this.#cancels);
    for (const connection of this.#canceled) {
      // The signal may have missed the statement: an exchange takes it up, before it can strike what comes next.
      const struck = connection.closed ? undefined : await ask(connection, '').catch((error: Error) => error);
      if (struck instanceof Error) failures.push({ index: count, error: struck });
    }
    failures.sort((a, b) => a.index - b.index);
    const first = failures.find(({ error }) => this.#isByClient || !isCancel(error)) ?? failures[0];
    if (first) throw first.error;
    const tags: string[] = new Array(count).fill('');
    for (const node of nodes) for (const [index, tag] of node.tags) tags[index] = tag;
    return tags;
  }
}

function isCancel(error: Error): boolean {
  return error instanceof ServerError && error.sqlState === '57014';
}

interface NodeResult {
  readonly tags: ReadonlyMap<number, string>;
  /** `index`: of the piece that has failed. */
  readonly failure: { readonly index: number; readonly error: Error } | undefined;
}

class NodeRun implements ResponseSink {
  readonly result: Promise<NodeResult>;
  readonly #connection: BackendConnection;
  readonly #pieces: readonly BoundPiece[];
  readonly #listener: PiecesListener;
  readonly #tags = new Map<number, string>();
  #failure: NodeResult['failure'];
  #resolve!: (result: NodeResult) => void;

  constructor(
    connection: BackendConnection,
    pieces: readonly BoundPiece[],
    indexes: readonly number[],
    listener: PiecesListener,
  ) {
    this.#connection = connection;
    this.#pieces = pieces;
    this.#listener = listener;
    this.result = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    if (connection.closed) {
      this.#lose(indexes[0] ?? 0, connectionLost(connection.address.nodeName));
      return;
    }
    for (const index of indexes) this.#send(index);
    connection.sync(this, indexes[0]);
  }

  #send(index: number): void {
    const connection = this.#connection;
    const { shared, text, parameterOids, tail, portion } = this.#pieces[index]!;
    if (portion?.step === 'close') {
      connection.close('P', portion.portal, this, index);
      return;
    }
    if (portion?.step === 'go on') {
      connection.execute(portion.portal, portion.maxRows, this, index);
      return;
    }
    let name = '';
    if (shared) name = connection.prepared.nameOf(shared) ?? connection.parse(shared, this, index);
    else connection.parseUnnamed(text, this, index, parameterOids);
    connection.bindTail(name, tail, this, index, portion?.portal);
    if (!portion) connection.execute('', 0, this, index);
    else if (portion.maxRows > 0) connection.execute(portion.portal, portion.maxRows, this, index);
  }

  onMessage(type: number, reader: FrameReader, kind: PendingKind, tag: unknown): void {
    const index = tag as number;
    switch (type) {
      case Backend.ParseComplete: {
        const { shared } = this.#pieces[index]!;
        if (shared) shared.validated = true;
        return;
      }
      case Backend.CommandComplete:
        this.#tags.set(index, readCommandTag(reader));
        return;
      case Backend.ErrorResponse:
        this.#onError(reader, kind, index);
        return;
      case Backend.ReadyForQuery:
        this.#resolve({ tags: this.#tags, failure: this.#failure });
        return;
    }
  }

  onRows(buffer: Buffer, start: number, end: number, tag: unknown): void {
    this.#listener.onRows(tag as number, buffer, start, end);
  }

  onNotice(reader: FrameReader): void {
    this.#listener.onNotice(reader);
  }

  onLocal(): void {}
  onDiscarded(): void {}

  onLost(connection: BackendConnection, cause: PosternError): void {
    const index = [...this.#pieces.keys()].find(
      (one) => this.#pieces[one]!.nodeId === connection.address.nodeId && !this.#tags.has(one),
    );
    this.#lose(index ?? 0, cause);
  }

  #lose(index: number, error: Error): void {
    this.#failure ??= { index, error };
    this.#resolve({ tags: this.#tags, failure: this.#failure });
  }

  #onError(reader: FrameReader, kind: PendingKind, index: number): void {
    const fields = readErrorFields(reader);
    const { shared, leaf } = this.#pieces[index]!;
    const { prepared, address } = this.#connection;
    if (shared && kind === Pending.parse) prepared.remove(shared);
    // The table has changed under a statement that was prepared before ("cached plan must not change result type").
    else if (shared && fields.get('C') === '0A000') prepared.drop(shared);
    if (leaf && isMissingLeaf(fields, leaf)) this.#listener.onMissingLeaf();
    const told = leaf ? inUsersNames(fields, leaf) : fields;
    this.#failure ??= { index, error: new ServerError(address.nodeName, told) };
  }
}
