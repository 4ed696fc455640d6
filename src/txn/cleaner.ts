/**
 * Takes away decisions and marks that have done their work: in the background, many at once, and not before every
 * participant has confirmed and `cleaningDelayMs` has passed (reads over several nodes look at marks).
 *
 * Order, for each transaction: what each participant has confirmed is durable there, as far as it waits for standbys at
 * all; then the decision goes; then the marks. What a crash leaves of this is swept by recovery.
 */
import { BOUNDS } from '../base/bounds.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import type { TransactionMetrics } from './metrics.ts';
import type { NodeControls } from './node-controls.ts';
import type { TransactionKey } from './settle.ts';

interface Confirmed extends TransactionKey {
  readonly commitPoint: number;
  readonly participants: readonly number[];
  readonly dueAtMs: number;
}

/** Of one statement. */
const BATCH_MAX = 5_000;
const TICK_MS = 1_000;
/** A node that can't be reached is tried again after this. */
const RETRY_MS = 10_000;

export class Cleaner {
  readonly #controls: NodeControls;
  readonly #metrics: TransactionMetrics;
  readonly #now: () => number;
  readonly #delayMs: number;
  #queue: Confirmed[] = [];
  #running: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: {
    controls: NodeControls;
    metrics: TransactionMetrics;
    now: () => number;
    delayMs?: number | undefined;
  }) {
    this.#controls = options.controls;
    this.#metrics = options.metrics;
    this.#now = options.now;
    this.#delayMs = options.delayMs ?? BOUNDS.cleaningDelayMs;
  }

  start(): void {
    this.#timer ??= setInterval(() => {
      this.#running ??= this.#cleanDue(this.#now()).finally(() => {
        this.#running = undefined;
      });
    }, TICK_MS).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** Every participant has confirmed it, and its client has been told. */
  add(done: TransactionKey & { commitPoint: number; participants: readonly number[] }): void {
    // Beyond the bound recovery's sweep finds what is left.
    if (this.#queue.length >= BOUNDS.cleaningQueueMax) return;
    this.#queue.push({ ...done, dueAtMs: this.#now() + this.#delayMs });
    this.#metrics.cleaningQueued = this.#queue.length;
  }

  /** All that is queued, without its delay. */
  async drain(): Promise<void> {
    await this.#running;
    await this.#cleanDue(Number.POSITIVE_INFINITY);
  }

  async #cleanDue(untilMs: number): Promise<void> {
    const due: Confirmed[] = [];
    const later: Confirmed[] = [];
    for (const one of this.#queue) (one.dueAtMs <= untilMs && due.length < BATCH_MAX ? due : later).push(one);
    if (due.length === 0) return;
    this.#queue = later;
    const failed = await this.#clean(due);
    const dueAtMs = this.#now() + RETRY_MS;
    for (const one of failed) this.#queue.push({ ...one, dueAtMs });
    this.#metrics.cleaned += due.length - failed.size;
    this.#metrics.cleaningQueued = this.#queue.length;
  }

  /** Those that could not be cleaned wholly, for another time. */
  async #clean(due: readonly Confirmed[]): Promise<Set<Confirmed>> {
    const failed = new Set<Confirmed>();
    const left = new Set<Confirmed>();
    const onEach = async (
      nodesOf: (one: Confirmed) => readonly number[],
      work: (nodeId: number, ones: readonly Confirmed[]) => Promise<void>,
    ): Promise<void> => {
      const byNode = new Map<number, Confirmed[]>();
      for (const one of due) {
        if (failed.has(one) || left.has(one)) continue;
        for (const nodeId of nodesOf(one)) {
          const list = byNode.get(nodeId);
          if (list) list.push(one);
          else byNode.set(nodeId, [one]);
        }
      }
      await Promise.all(
        [...byNode].map(([nodeId, ones]) =>
          work(nodeId, ones).catch(() => {
            for (const one of ones) failed.add(one);
          }),
        ),
      );
    };
    const participants = (one: Confirmed) => one.participants;
    await onEach(participants, async (nodeId, ones) => {
      for (const one of await this.#confirm(nodeId, ones)) left.add(one);
    });
    await onEach(
      (one) => [one.commitPoint],
      (nodeId, ones) => this.#delete(nodeId, 'decisions', ones),
    );
    await onEach(participants, (nodeId, ones) => this.#delete(nodeId, 'transaction_marks', ones));
    return failed;
  }

  /**
   * A client may have COMMIT PREPARED wait for no standby, and a failover since then has brought the prepared transaction back,
   * which needs its decision. So the marks are looked for, and on the same connection WAL is written behind them and waited for:
   * no standby that becomes primary has it still prepared when the decision is gone. Returns those without a mark: what
   * has become of them is for the sweep to judge.
   */
  async #confirm(nodeId: number, ones: readonly Confirmed[]): Promise<readonly Confirmed[]> {
    return await this.#controls.use(nodeId, async (control) => {
      const rows = await control.query<{ transaction_id: string; owner: string }>(
        `SELECT transaction_id::text, owner::text FROM ${INTERNAL_SCHEMA}.transaction_marks
         WHERE transaction_id = ANY ($1::uuid[])`,
        [ones.map((one) => one.transactionId)],
      );
      await control.query(`SELECT pg_logical_emit_message(true, 'postern', '')`);
      const marked = new Set(rows.map((row) => `${row.transaction_id} ${row.owner}`));
      return ones.filter((one) => !marked.has(`${one.transactionId} ${one.owner}`));
    });
  }

  async #delete(
    nodeId: number,
    table: 'decisions' | 'transaction_marks',
    ones: readonly Confirmed[],
  ): Promise<void> {
    await this.#controls.use(nodeId, (control) =>
      control.query(
        `DELETE FROM ${INTERNAL_SCHEMA}.${table} d USING unnest($1::uuid[], $2::name[]) AS done (id, owner)
         WHERE d.transaction_id = done.id AND d.owner = done.owner${table === 'decisions' ? ` AND d.outcome = 'commit'` : ''}`,
        [ones.map((one) => one.transactionId), ones.map((one) => one.owner)],
      ),
    );
  }
}
