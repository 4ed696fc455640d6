/**
 * One execution of a statement for `postern.statements`: from when it is sent, or stands in line to be, to its answer. What is
 * never answered is not counted.
 */
import type { CachedQuery } from '../execute/plan-cache.ts';
import type { StatementCounter, StatementCounters } from '../statements/counters.ts';
import type { ClientState } from './state.ts';

export class Measurement {
  readonly #state: ClientState;
  readonly #counter: StatementCounter;
  readonly #counters: StatementCounters;
  readonly #startedMs: number;
  readonly #nodeId: number | undefined;
  #moreNodeIds: readonly number[] | undefined;
  #rows = 0;
  #failed = false;
  #ended = false;

  constructor(
    state: ClientState,
    {
      counter,
      counters,
      nodeId,
    }: { counter: StatementCounter; counters: StatementCounters; nodeId: number | undefined },
  ) {
    this.#state = state;
    this.#nodeId = nodeId;
    this.#counter = counter;
    this.#counters = counters;
    this.#startedMs = counters.now();
  }

  /** `end`: of a CommandComplete in `buffer`. */
  addRows(buffer: Buffer, end: number): void {
    this.#rows += rowsOfTag(buffer, end);
  }

  addCount(rows: number): void {
    this.#rows += rows;
  }

  /** Something was found out when its values were known. */
  notePlace(kind: string): void {
    this.#counter.placements.add(kind);
  }

  noteNodes(nodeIds: readonly number[]): void {
    this.#moreNodeIds = this.#moreNodeIds ? [...this.#moreNodeIds, ...nodeIds] : nodeIds;
  }

  fail(): void {
    if (this.#ended) return;
    this.#failed = true;
    this.end();
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    const { role, text, isLive } = this.#counter;
    // Meanwhile nobody has used it, and it was forgotten.
    const counter = isLive ? this.#counter : this.#counters.get(role, text);
    if (!isLive) for (const kind of this.#counter.placements) counter.placements.add(kind);
    if (this.#nodeId !== undefined) counter.nodeIds.add(this.#nodeId);
    if (this.#moreNodeIds) for (const id of this.#moreNodeIds) counter.nodeIds.add(id);
    const endedMs = this.#counters.now();
    counter.record(this.#startedMs, endedMs, { rows: this.#rows, failed: this.#failed });
    const durationMs = endedMs - this.#startedMs;
    const { log, context } = this.#state;
    if (durationMs >= context.clientLogs.statementsSlowerThanMs)
      log.slowStatement({ query: counter.query, durationMs, rows: this.#rows, failed: this.#failed });
  }
}

/** undefined: it is not counted. `nodeId`: where it goes, if that is known now. */
export function measure(
  state: ClientState,
  cached: CachedQuery,
  nodeId: number | undefined,
): Measurement | undefined {
  const { counters } = state.context;
  const { counted } = cached;
  if (!counters || !counted) return undefined;
  const { role } = state;
  let counter = counted.byRole.get(role);
  if (!counter?.isLive) {
    counter = counters.get(role, counted.text);
    for (const { placement } of cached.plan.statements) counter.placements.add(placement.kind);
    counted.byRole.set(role, counter);
  }
  return new Measurement(state, { counter, counters, nodeId });
}

/** The number at the end of a command tag: of INSERT, UPDATE, SELECT, COPY, …; 0 if there is none. */
function rowsOfTag(buffer: Buffer, end: number): number {
  let rows = 0;
  let power = 1;
  // The tag ends with a zero byte.
  for (let at = end - 2; at > 0; at--) {
    const digit = buffer[at]! - 0x30;
    if (digit < 0 || digit > 9) break;
    rows += digit * power;
    power *= 10;
  }
  return rows;
}
