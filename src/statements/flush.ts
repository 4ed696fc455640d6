/**
 * Writes what was counted to home, every few seconds, on a connection of its own: a home node that is slow or away delays
 * counts and nothing else.
 */
import { BOUNDS } from '../base/bounds.ts';
import {
  evictStatements,
  resetStatements,
  type StatementRow,
  writeStatements,
} from '../catalog/statement-objects.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import type { StatementCounters, StatementDelta } from './counters.ts';

/** So many flushes lie between two looks at what is too much. */
const FLUSHES_PER_EVICTION = 12;

export class StatementFlusher {
  readonly #counters: StatementCounters;
  readonly #open: () => Promise<ControlConnection>;
  readonly #schema: string;
  readonly #everyMs: number;
  readonly #onFailure: (error: Error) => void;
  #connection: ControlConnection | undefined;
  #line: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #flushes = 0;
  #failing = false;

  constructor(options: {
    counters: StatementCounters;
    /** To the home node. */
    open: () => Promise<ControlConnection>;
    /** The schema of the catalog's tables. */
    schema: string;
    everyMs: number;
    /** Once, until it succeeds again. */
    onFailure: (error: Error) => void;
  }) {
    this.#counters = options.counters;
    this.#open = options.open;
    this.#schema = options.schema;
    this.#everyMs = options.everyMs;
    this.#onFailure = options.onFailure;
  }

  start(): void {
    this.#timer = setInterval(() => void this.flush(), this.#everyMs);
    this.#timer.unref();
  }

  /** Never rejects. What can't be written is kept for the next time. */
  flush(): Promise<void> {
    return this.#inLine(async () => {
      const deltas = this.#counters.take();
      if (deltas.length === 0) return;
      try {
        await this.#write(deltas);
        this.#failing = false;
      } catch (error) {
        this.#counters.putBack(deltas);
        if (!this.#failing) this.#onFailure(error as Error);
        this.#failing = true;
      }
    });
  }

  /** postern.reset_statements(): what is counted of `role`, or of all roles if it may see them, begins anew. */
  reset(role: string): Promise<void> {
    return this.#inLine(async () => {
      const home = await this.#home();
      const [row] = await home.query<{ everything: boolean }>(resetStatements(this.#schema), [role]);
      this.#counters.reset(row?.everything ? undefined : role);
    });
  }

  /** What was counted so far is written first, if that takes no time. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, BOUNDS.statementStopMs);
    });
    await Promise.race([this.flush(), late]);
    clearTimeout(timer);
    this.#connection?.destroy();
  }

  /** One after the other. */
  #inLine<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#line.then(work);
    this.#line = done.catch(() => {});
    return done;
  }

  async #write(deltas: readonly StatementDelta[]): Promise<void> {
    const now = this.#counters.now();
    const home = await this.#home();
    const rows = deltas.map((delta) => rowOf(delta, now));
    await home.query(writeStatements(this.#schema), [JSON.stringify(rows)]);
    if (this.#flushes++ % FLUSHES_PER_EVICTION === 0)
      await home.query(evictStatements(this.#schema), [BOUNDS.statementsKeptMax]);
  }

  async #home(): Promise<ControlConnection> {
    if (!this.#connection || this.#connection.lost) this.#connection = await this.#open();
    return this.#connection;
  }
}

function rowOf(delta: StatementDelta, nowMs: number): StatementRow {
  const { role, query, calls, errors, rows, totalMs, minMs, maxMs, beganMs } = delta;
  return {
    ...{ role, query, calls, errors, row_count: rows, total_ms: totalMs, min_ms: minMs, max_ms: maxMs },
    ...{ age_ms: nowMs - beganMs, node_ids: [...delta.nodeIds], placements: [...delta.placements] },
  };
}
