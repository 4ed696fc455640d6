/**
 * Holds back decisions for the instant in which snapshots are opened (CONSISTENT-READS.md). The gate is an empty table on each
 * node: decide() locks it in ROW EXCLUSIVE mode until its transaction is over, and this in SHARE mode, on all nodes. So
 * neither those who decide nor those who read wait for their like.
 *
 *   resting ──held()──► locking ──all nodes──► settling ──no decided one is prepared──► held: the work of all who wait
 *      ▲  ▲                │ (lock_timeout, a node away)   │ (deadline)                      │ unlocking
 *      │  └────────────────┴───────────────────────────────┘ all get an error ◄──(lost)──────┤
 *      └──────────────────────────────────────────────────────────────────────────────(well)─┘
 *
 * One hold at a time for a router; who comes while there is one shares the next, so that those who decide come in between.
 * Invariant: while work runs, every distributed transaction is either visible on all its nodes to new snapshots, or on none.
 * Invariant: what work has returned is given on only when all locks have turned out to be still held after it.
 * Invariant: a hold ends by itself: in time in this router, and if this router is frozen, by each server.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { BOUNDS } from '../base/bounds.ts';
import { consistentReadFailed } from '../base/errors.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import { type ControlConnection, ServerError } from '../platform/control-connection.ts';
import { parseGid } from './gid.ts';

const FIRST_PAUSE_MS = 2;
const PAUSE_MS_MAX = 50;

const LOCK = `BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL idle_in_transaction_session_timeout = ${BOUNDS.decisionsHeldMs};
SET LOCAL lock_timeout = ${BOUNDS.decisionGateLockMs};
LOCK TABLE ${INTERNAL_SCHEMA}.decision_gate IN SHARE MODE`;

export interface DecisionGateOptions {
  readonly clusterId: string;
  /** All nodes of the cluster: each may be the commit point of a transaction that others are part of. */
  readonly nodeIds: readonly number[];
  readonly open: (nodeId: number) => Promise<ControlConnection>;
  /** Monotonic ms. */
  readonly now: () => number;
  /** For tests, which show that each step is needed. */
  readonly faults?: { readonly skipLock?: boolean; readonly skipSettle?: boolean };
}

/** What work may know while decisions are held. */
export interface Hold {
  /** By node: pg_current_snapshot() of when all that had been decided was committed there. */
  readonly snapshots: ReadonlyMap<number, string>;
}

interface Request {
  readonly work: (hold: Hold) => Promise<unknown>;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** A hold from its start to its end; what goes on of one that was given up does nothing more. */
interface Round {
  readonly deadlineMs: number;
  /** By node. A lock that was lost is not taken again: one that is open now says nothing of what was before. */
  readonly connections: Map<number, ControlConnection>;
  isOver: boolean;
}

interface PreparedRow {
  readonly gid: string;
  readonly owner: string;
}

export class DecisionGate {
  readonly #options: DecisionGateOptions;
  readonly #connections = new Map<number, ControlConnection>();
  #waiting: Request[] = [];
  #running: Promise<void> | undefined;
  #closed = false;
  /** For metrics: how often decisions were held, and for how many readers. */
  holds = 0;
  readers = 0;

  constructor(options: DecisionGateOptions) {
    this.#options = options;
  }

  /**
   * Runs `work`, which only opens what it needs (snapshots, cursors), while decisions are held. Rejects with what it
   * throws; with 40001 if decisions could not be held, or not to its end; with 08001 while a node is away.
   */
  held<T>(work: (hold: Hold) => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push({ work, resolve: resolve as (result: unknown) => void, reject });
      this.#running ??= this.#run();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#running;
    await Promise.all([...this.#connections.values()].map((connection) => connection.close()));
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0) {
      const requests = this.#waiting;
      this.#waiting = [];
      const deadlineMs = this.#options.now() + BOUNDS.decisionGateTimeoutMs;
      const round: Round = { deadlineMs, connections: new Map(), isOver: false };
      try {
        await this.#serve(round, requests);
      } catch (error) {
        this.#giveUp();
        for (const { reject } of requests) reject(error);
      }
      round.isOver = true;
    }
    // In the same turn as the look at the line: nobody comes between.
    this.#running = undefined;
  }

  async #serve(round: Round, requests: readonly Request[]): Promise<void> {
    if (this.#closed) throw consistentReadFailed('the router is shutting down');
    await this.#within(round.deadlineMs, this.#connect(round));
    const hold = await this.#within(round.deadlineMs, this.#hold(round));
    this.holds++;
    this.readers += requests.length;
    const endMs = this.#options.now() + BOUNDS.decisionsHeldMs;
    const results = await Promise.allSettled(requests.map(({ work }) => this.#within(endMs, work(hold))));
    const unlocked = this.#onEach(round, (connection) => connection.query('COMMIT')).catch(() => {
      throw consistentReadFailed('a node let go of its lock too early');
    });
    await this.#within(endMs + BOUNDS.decisionsHeldMs, unlocked);
    for (const [at, result] of results.entries()) {
      if (result.status === 'fulfilled') requests[at]!.resolve(result.value);
      else requests[at]!.reject(result.reason);
    }
  }

  /** All gates at once: readers don't exclude one another, and who decides waits for no second gate. */
  async #lock(round: Round): Promise<void> {
    for (;;) {
      try {
        await this.#onEach(round, (connection) => connection.query(LOCK));
        return;
      } catch (error) {
        if (!(error instanceof ServerError) || error.sqlState !== '55P03') throw error;
      }
      // A commit takes long on one node (deferred constraints, a slow standby): others go on meanwhile.
      await this.#onEach(round, (connection) => connection.query('ROLLBACK'));
      await delay(PAUSE_MS_MAX);
    }
  }

  async #hold(round: Round): Promise<Hold> {
    const { faults } = this.#options;
    for (;;) {
      if (!faults?.skipLock) await this.#lock(round);
      if (faults?.skipSettle) return { snapshots: new Map() };
      const settled = await this.#settle(round, this.#options.now() + BOUNDS.decisionGateSettleMs);
      if (settled.hold) return settled.hold;
      // One that a slow or lost router has to finish must not hold up everybody's commits: it is waited for without the gate.
      await this.#onEach(round, (connection) => connection.query('ROLLBACK'));
      await this.#finished(round, settled.unfinished);
    }
  }

  /** Until no transaction that has been decided is prepared anywhere, or those that are after `untilMs`. What is undecided stays so. */
  async #settle(
    round: Round,
    untilMs: number,
  ): Promise<{ hold: Hold } | { hold: undefined; unfinished: ReadonlySet<string> }> {
    const undecided = new Set<string>();
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, PAUSE_MS_MAX)) {
      const { snapshots, prepared } = await this.#look(round);
      const unknown = prepared.filter(({ gid }) => !undecided.has(gid));
      const decided = unknown.length === 0 ? new Set<string>() : await this.#decidedOf(round, unknown);
      if (decided.size === 0) return { hold: { snapshots } };
      if (this.#options.now() >= untilMs) return { hold: undefined, unfinished: decided };
      for (const { gid } of unknown) if (!decided.has(gid)) undecided.add(gid);
      await delay(pauseMs);
    }
  }

  /** Until none of these is prepared anywhere. */
  async #finished(round: Round, gids: ReadonlySet<string>): Promise<void> {
    while ((await this.#look(round)).prepared.some(({ gid }) => gids.has(gid))) await delay(PAUSE_MS_MAX);
  }

  async #look(round: Round): Promise<{ snapshots: Map<number, string>; prepared: PreparedRow[] }> {
    const ours = quoteLiteral(`postern:${this.#options.clusterId}:%`);
    const snapshots = new Map<number, string>();
    const prepared: PreparedRow[] = [];
    await this.#onEach(round, async (connection, nodeId) => {
      const [row] = await connection.query<{ snapshot: string; prepared: PreparedRow[] }>(
        `SELECT pg_current_snapshot()::text AS snapshot,
           (SELECT coalesce(json_agg(json_build_object('gid', gid, 'owner', owner)), '[]')
            FROM pg_prepared_xacts WHERE database = current_database() AND gid LIKE ${ours}) AS prepared`,
      );
      snapshots.set(nodeId, row!.snapshot);
      prepared.push(...row!.prepared);
    });
    return { snapshots, prepared };
  }

  async #decidedOf(round: Round, rows: readonly PreparedRow[]): Promise<Set<string>> {
    const byCommitPoint = new Map<number, { gid: string; id: string; owner: string }[]>();
    for (const { gid, owner } of rows) {
      const parsed = parseGid(this.#options.clusterId, gid);
      if (!parsed) continue;
      const one = { gid, id: parsed.transactionId, owner };
      const list = byCommitPoint.get(parsed.commitPointNodeId);
      if (list) list.push(one);
      else byCommitPoint.set(parsed.commitPointNodeId, [one]);
    }
    const decided = new Set<string>();
    await Promise.all(
      [...byCommitPoint].map(async ([nodeId, ones]) => {
        const connection = round.connections.get(nodeId);
        // A node that the catalog doesn't know any more: recovery says so; nothing can be decided there.
        if (!connection) return;
        const found = await connection.query<{ gid: string }>(
          `SELECT asked.gid FROM unnest($1::text[], $2::uuid[], $3::name[]) AS asked (gid, id, owner)
           JOIN ${INTERNAL_SCHEMA}.decisions d ON d.transaction_id = asked.id AND d.owner = asked.owner AND d.outcome = 'commit'`,
          [ones.map(({ gid }) => gid), ones.map(({ id }) => id), ones.map(({ owner }) => owner)],
        );
        for (const { gid } of found) decided.add(gid);
      }),
    );
    return decided;
  }

  /** All end before this does; then the first failure, if there was one. */
  async #onEach(
    round: Round,
    ask: (connection: ControlConnection, nodeId: number) => Promise<unknown>,
  ): Promise<void> {
    const results = await Promise.allSettled(
      [...round.connections].map(async ([nodeId, connection]) => {
        if (round.isOver) throw consistentReadFailed('it took too long');
        return await ask(connection, nodeId);
      }),
    );
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  async #connect(round: Round): Promise<void> {
    await Promise.all(
      this.#options.nodeIds.map(async (nodeId) => {
        let connection = this.#connections.get(nodeId);
        if (!connection || connection.lost) {
          connection = await this.#options.open(nodeId);
          if (round.isOver) {
            connection.destroy();
            return;
          }
          this.#connections.set(nodeId, connection);
        }
        round.connections.set(nodeId, connection);
      }),
    );
  }

  async #within<T>(deadlineMs: number, work: Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const waitMs = Math.max(0, deadlineMs - this.#options.now());
      timer = setTimeout(() => reject(consistentReadFailed('it took too long')), waitMs);
    });
    return await Promise.race([work, late]).finally(() => clearTimeout(timer));
  }

  /** In whatever state they are: what they hold ends with them. */
  #giveUp(): void {
    const connections = [...this.#connections.values()];
    this.#connections.clear();
    for (const connection of connections) connection.destroy();
  }
}
