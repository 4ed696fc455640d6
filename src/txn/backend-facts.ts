/** What a commit must know of the server process behind a branch: asked once in a connection's life, and kept. */
import type { BackendConnection } from '../backend/connection.ts';
import { BOUNDS } from '../base/bounds.ts';
import { type Answer, Exchange } from './exchange.ts';
import type { BackendIdentity } from './gid.ts';

export interface BackendFacts {
  readonly identity: BackendIdentity;
  readonly preparedTransactionsMax: number;
  /** What to add to the monotonic clock's µs to have the server's, in µs since 1970. */
  readonly clockOffsetUs: number;
}

/** No operator and no name that a search_path could lead astray. A role that was set may hide the start: 0. */
const QUESTION = `SELECT pg_catalog.concat_ws(':', coalesce(extract(epoch FROM a.backend_start), 0),
  extract(epoch FROM pg_catalog.clock_timestamp()), pg_catalog.current_setting('max_prepared_transactions'))
FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a`;

export class BackendFactsCache {
  readonly #known = new WeakMap<BackendConnection, BackendFacts>();
  readonly #now: () => number;

  /** `now`: ms of the monotonic clock. */
  constructor(now: () => number) {
    this.#now = now;
  }

  get(connection: BackendConnection): BackendFacts | undefined {
    return this.#known.get(connection);
  }

  /** Gives what went wrong, if something did. The connection may be inside a transaction. */
  async ask(connection: BackendConnection): Promise<Answer | undefined> {
    const answer = await askBounded(connection, QUESTION);
    if (answer.kind !== 'answered') return answer;
    const [start = '', clock = '', preparedMax] = (answer.value ?? '').split(':');
    this.#known.set(connection, {
      identity: { processId: connection.processId, startedAtUs: microseconds(start) },
      preparedTransactionsMax: Number(preparedMax),
      clockOffsetUs: microseconds(clock) - Math.round(this.#now() * 1000),
    });
    return undefined;
  }
}

/** One text in the simple protocol; a connection that doesn't answer in time is closed. */
export async function askBounded(connection: BackendConnection, text: string): Promise<Answer> {
  const timer = setTimeout(() => connection.destroy(), BOUNDS.internalQueryTimeoutMs);
  try {
    return await new Promise((onAnswer) =>
      new Exchange({ connection, onAnswer, onNotice: undefined }).query(text),
    );
  } finally {
    clearTimeout(timer);
  }
}

/** '1763856000.123456' → 1763856000123456, exactly. */
function microseconds(seconds: string): number {
  const [whole = '0', fraction = ''] = seconds.split('.');
  return Number(whole + fraction.padEnd(6, '0').slice(0, 6));
}
