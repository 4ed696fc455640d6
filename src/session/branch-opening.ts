/**
 * How a branch of a transaction over several nodes comes to be: a connection with the session's settings, a transaction of
 * the client's kind, its registration, and the settings and savepoints that the transaction has made before.
 *
 * Invariant: what fails leaves no connection behind in a transaction.
 */
import type { BackendConnection } from '../backend/connection.ts';
import { ask } from '../backend/internal-query.ts';
import { notSupported } from '../base/errors.ts';
import { openConsistent } from '../txn/consistent-snapshot.ts';
import type { ClientState } from './state.ts';
import type { TransactionSteps } from './transaction-steps.ts';
import type { TransactionWaits } from './transaction-waits.ts';

/** For how long a server's default isolation is believed to be what it was. */
const DEFAULT_BELIEVED_MS = 10_000;
/** Backends on which a BEGIN that names no isolation was found to mean READ COMMITTED, under these settings. */
const readCommitted = new WeakMap<BackendConnection, { settingsKey: string; untilMs: number }>();

export interface OpeningHost {
  readonly state: ClientState;
  readonly steps: TransactionSteps;
  open(nodeId: number, options: { beside: boolean }): Promise<BackendConnection>;
  abandon(connection: BackendConnection): void;
}

export class BranchOpening {
  readonly #host: OpeningHost;
  readonly #waits: TransactionWaits;

  constructor(host: OpeningHost, waits: TransactionWaits) {
    this.#host = host;
    this.#waits = waits;
  }

  /**
   * May a branch beside `from` begin without a question to `from`, in the write of the statement that it is for? Where nothing
   * has to be made again there, and the transaction surely is READ COMMITTED. Throws 0A000.
   */
  mayBeginAhead(from: BackendConnection, implicit: boolean): boolean {
    const { steps, state } = this.#host;
    if (steps.question() !== undefined || steps.hasMoreThanSettings) return false;
    if (implicit || !namesNoIsolation(state)) return false;
    const known = readCommitted.get(from);
    return known?.settingsKey === from.settings.key && performance.now() < known.untilMs;
  }

  /**
   * One beside `from`, which is settled. `isFirst`: `from` is the only branch so far, and learns that there are others; what it is,
   * decides whether there may be.
   */
  async beside(
    from: BackendConnection,
    what: { nodeId: number; implicit: boolean; registration: string; isFirst: boolean },
  ): Promise<{ connection: BackendConnection; firstHasXid: boolean | undefined }> {
    const { steps, state, abandon } = this.#host;
    const question = steps.question();
    const [values = []] = question === undefined ? [] : await ask(from, question);
    const begin = state.beginText === '' || what.implicit ? 'BEGIN' : state.beginText;
    const text = [`${begin}\n`, what.registration, ...steps.replay(values)].join(';');
    const [registered, begun] = await Promise.allSettled([
      what.isFirst ? registerFirst(from, what.registration) : undefined,
      this.#begin(what.nodeId, text),
    ]);
    if (begun.status === 'rejected') throw begun.reason;
    if (registered.status === 'rejected') {
      abandon.call(this.#host, begun.value);
      throw registered.reason;
    }
    if (what.isFirst && question === undefined && !what.implicit && namesNoIsolation(state)) {
      const untilMs = performance.now() + DEFAULT_BELIEVED_MS;
      readCommitted.set(from, { settingsKey: from.settings.key, untilMs });
    }
    return { connection: begun.value, firstHasXid: registered.value };
  }

  /**
   * On each of these nodes, before anything else of the transaction. `begin`: the client's own; undefined: it is implicit.
   * `agree`: their snapshots are opened together. `registration`: undefined for a single one.
   */
  async all(
    nodeIds: readonly number[],
    what: { begin: string | undefined; agree: boolean; registration: string | undefined },
  ): Promise<BackendConnection[]> {
    const { state } = this.#host;
    const opened: BackendConnection[] = [];
    try {
      for (const nodeId of nodeIds) opened.push(await this.open(nodeId, opened.length > 0));
      const { agree, registration } = what;
      const begin = what.begin ?? (agree ? 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY' : 'BEGIN');
      if (agree) {
        // Not one query before the snapshots are opened together.
        await Promise.all(opened.map((connection) => ask(connection, begin)));
        const connections = new Map(opened.map((connection) => [connection.address.nodeId, connection]));
        await openConsistent(state.context.decisionGate!, {
          connections,
          ...(registration !== undefined && { thenText: registration }),
        });
        return opened;
      }
      const text = `${begin}\n;SELECT pg_catalog.current_setting('transaction_isolation');${registration ?? ''}`;
      const answers = await Promise.all(opened.map((connection) => ask(connection, text)));
      if (nodeIds.length > 1) refuseIsolation(answers[0]?.[0]?.[0] ?? '');
      return opened;
    } catch (error) {
      for (const connection of opened) this.#host.abandon(connection);
      throw error;
    }
  }

  async #begin(nodeId: number, text: string): Promise<BackendConnection> {
    const connection = await this.open(nodeId, true);
    try {
      await ask(connection, text);
      return connection;
    } catch (error) {
      this.#host.abandon(connection);
      throw error;
    }
  }

  /** A connection without a transaction. `beside`: there is one to another node. */
  async open(nodeId: number, beside: boolean): Promise<BackendConnection> {
    this.#waits.noteAsked();
    try {
      return await this.#host.open(nodeId, { beside });
    } catch (error) {
      throw this.#waits.toldError(error);
    }
  }
}

/** Gives whether the branch has a transaction id of its server's. */
async function registerFirst(connection: BackendConnection, registration: string): Promise<boolean> {
  const [row] = await ask(
    connection,
    `SELECT pg_catalog.current_setting('transaction_isolation'),
       pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL;${registration}`,
  );
  refuseIsolation(row?.[0] ?? '');
  return row?.[1] === 't';
}

/**
 * REPEATABLE READ over all nodes, as far as it is known before the transaction is on any: asked for by postern.consistent_reads, or
 * by a transaction that is also READ ONLY and without a search_path. That is pg_dump's, and what it writes down has to be of one
 * moment on all nodes.
 */
export function asksForOneMoment(state: ClientState): boolean {
  const isDump = /read\s+only/i.test(state.beginText) && state.searchPath.schemas.length === 0;
  return (state.wantsConsistentReads || isDump) && asksForRepeatableRead(state);
}

export function asksForRepeatableRead({ beginText, settings }: ClientState): boolean {
  const [, own] = /isolation\s+level\s+(\w+)/i.exec(beginText) ?? [];
  const level = own ?? settings.values.get('default_transaction_isolation') ?? 'read committed';
  return level.toLowerCase().startsWith('repeatable');
}

/** BEGIN was the client's own text, held back, and leaves it to the server's default. */
function namesNoIsolation({ beginText }: ClientState): boolean {
  return beginText !== '' && !/isolation/i.test(beginText);
}

/** What several nodes can't give. */
function refuseIsolation(level: string): void {
  if (level === 'serializable')
    throw notSupported(
      'SERIALIZABLE transactions stay on one node',
      'Use READ COMMITTED, with SELECT … FOR UPDATE where rows must not change meanwhile.',
    );
  if (level === 'repeatable read')
    throw notSupported(
      'REPEATABLE READ over several nodes needs snapshots that agree',
      'SET postern.consistent_reads = on, and BEGIN ISOLATION LEVEL REPEATABLE READ.',
    );
}
