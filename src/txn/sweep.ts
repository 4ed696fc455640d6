/**
 * What is left of transactions whose coordinator didn't clean up (it died, or its client was told 08007): looked through about
 * once a minute, by the rules of recovery-protocol.ts (mayDeleteAbortRow, judgeDecision, mayDeleteMark).
 */
import { BOUNDS } from '../base/bounds.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import type { ProtocolFaults } from './commit-protocol.ts';
import type { Losses } from './losses.ts';
import type { PreparedTransaction } from './prepared-list.ts';
import {
  judgeDecision,
  mayDeleteAbortRow,
  mayDeleteMark,
  type ParticipantSeen,
  type PreparedLeft,
} from './recovery-protocol.ts';
import type { ResolveWorld } from './resolve.ts';
import type { TransactionKey } from './settle.ts';

/** Rows of one node that one sweep looks at. */
const ROWS_MAX = 1_000;
/** A decision of this age should have been cleaned by its coordinator. */
const LEFT_BEHIND_MS = 60_000;
/** Clocks that jump, and tokens that were issued a little later than the decision was made. */
const RETENTION_SLACK_MS = 3_600_000;

interface DecisionRow extends TransactionKey {
  readonly participants: readonly number[];
  readonly outcome: 'commit' | 'abort';
  readonly below: boolean;
  readonly decidedAt: string;
  readonly ageMs: number;
}

export class Sweep {
  readonly #world: ResolveWorld;
  readonly #losses: Losses;
  readonly #faults: ProtocolFaults | undefined;
  readonly #prepared: (nodeId: number) => Promise<PreparedTransaction[]>;
  /** By node, where the next sweep goes on when there were more decisions than one looks at. */
  readonly #lookedUpTo = new Map<number, readonly [string, string]>();
  /** By node, the marks of the last sweep: one that is still there was not cleaned by its coordinator. */
  readonly #marksSeen = new Map<number, Set<string>>();

  constructor(options: {
    world: ResolveWorld;
    losses: Losses;
    faults: ProtocolFaults | undefined;
    /** Lists them; rejects if the node can't be asked. */
    prepared: (nodeId: number) => Promise<PreparedTransaction[]>;
  }) {
    this.#world = options.world;
    this.#losses = options.losses;
    this.#faults = options.faults;
    this.#prepared = options.prepared;
  }

  async run(): Promise<void> {
    for (const nodeId of this.#world.nodeIds) {
      await this.#sweepDecisions(nodeId).catch(() => {});
      await this.#sweepMarks(nodeId).catch(() => {});
    }
  }

  async #sweepDecisions(nodeId: number): Promise<void> {
    const { controls } = this.#world;
    const rows = await controls.use(nodeId, (control) =>
      control.query<DecisionRow>(
        `SELECT transaction_id AS "transactionId", owner::text AS owner, participants, outcome,
           xid < pg_snapshot_xmin(pg_current_snapshot()) AS below,
           decided_at::text AS "decidedAt", (extract(epoch FROM clock_timestamp() - decided_at) * 1000)::float8 AS "ageMs"
         FROM ${INTERNAL_SCHEMA}.decisions
         WHERE (outcome = 'abort' OR decided_at < clock_timestamp() - make_interval(secs => ${LEFT_BEHIND_MS / 1000}))
           AND (decided_at, transaction_id) > ($1, $2)
         ORDER BY decided_at, transaction_id LIMIT ${ROWS_MAX}`,
        this.#lookedUpTo.get(nodeId) ?? ['-infinity', '00000000-0000-0000-0000-000000000000'],
      ),
    );
    const last = rows.length === ROWS_MAX ? rows.at(-1) : undefined;
    if (last) this.#lookedUpTo.set(nodeId, [last.decidedAt, last.transactionId]);
    else this.#lookedUpTo.delete(nodeId);
    if (rows.length === 0) return;
    const aborts = rows.filter(({ outcome }) => outcome === 'abort');
    const commits = rows.filter(({ outcome }) => outcome === 'commit');
    const prepared = await this.#preparedNow();
    const over = aborts.filter((row) =>
      mayDeleteAbortRow({ xidBelowXmin: row.below, preparedLeft: prepared.left(row) }, this.#faults),
    );
    await this.#delete(nodeId, 'decisions', over);
    if (commits.length > 0) await this.#judge(nodeId, commits, prepared);
  }

  async #judge(nodeId: number, commits: readonly DecisionRow[], prepared: PreparedNow): Promise<void> {
    const marks = await this.#marksOf(commits);
    const still = await this.#decisionsOf(nodeId, commits);
    const over: DecisionRow[] = [];
    for (const row of commits) {
      const participants = row.participants.map(
        (id): ParticipantSeen => ({ nodeId: id, prepared: prepared.at(id, row), mark: marks.at(id, row) }),
      );
      const stillThere = still?.get(keyOf(row)) === 'commit';
      const keptMs = BOUNDS.outcomeRetentionMs + RETENTION_SLACK_MS;
      const { mayDelete, lost } = judgeDecision({ ageMs: row.ageMs, keptMs, participants, stillThere });
      const { transactionId, owner } = row;
      for (const id of lost)
        this.#losses.report({ nodeId: id, commitPoint: nodeId, gid: '', transactionId, owner });
      if (mayDelete) over.push(row);
    }
    await this.#delete(nodeId, 'decisions', over);
  }

  async #sweepMarks(nodeId: number): Promise<void> {
    const rows = await this.#world.controls.use(nodeId, (control) =>
      control.query<TransactionKey & { commitPoint: number }>(
        `SELECT transaction_id AS "transactionId", owner::text AS owner, commit_point AS "commitPoint"
         FROM ${INTERNAL_SCHEMA}.transaction_marks LIMIT ${ROWS_MAX}`,
      ),
    );
    const before = this.#marksSeen.get(nodeId);
    this.#marksSeen.set(nodeId, new Set(rows.map(keyOf)));
    const left = rows.filter((row) => before?.has(keyOf(row)));
    const prepared = left.length > 0 ? await this.#preparedNow() : undefined;
    for (const commitPoint of new Set(left.map((row) => row.commitPoint))) {
      const ones = left.filter((row) => row.commitPoint === commitPoint);
      const decisions = await this.#decisionsOf(commitPoint, ones);
      const over = ones.filter((row) =>
        mayDeleteMark({
          decision: decisions ? (decisions.get(keyOf(row)) ?? 'none') : 'unreachable',
          preparedLeft: prepared!.left(row),
        }),
      );
      await this.#delete(nodeId, 'transaction_marks', over);
    }
  }

  /** undefined: that node can't be asked. */
  async #decisionsOf(
    nodeId: number,
    keys: readonly TransactionKey[],
  ): Promise<Map<string, 'commit' | 'abort'> | undefined> {
    const rows = await this.#world.controls
      .use(nodeId, (control) =>
        control.query<TransactionKey & { outcome: 'commit' | 'abort' }>(
          `SELECT transaction_id AS "transactionId", owner::text AS owner, outcome FROM ${INTERNAL_SCHEMA}.decisions
           WHERE transaction_id = ANY ($1::uuid[])`,
          [keys.map(({ transactionId }) => transactionId)],
        ),
      )
      .catch(() => undefined);
    return rows && new Map(rows.map((row) => [keyOf(row), row.outcome]));
  }

  async #preparedNow(): Promise<PreparedNow> {
    const byNode = new Map<number, Set<string> | undefined>();
    await Promise.all(
      this.#world.nodeIds.map(async (nodeId) => {
        const list = await this.#prepared(nodeId).catch(() => undefined);
        byNode.set(nodeId, list && new Set(list.map(keyOf)));
      }),
    );
    return new PreparedNow(byNode);
  }

  async #marksOf(rows: readonly DecisionRow[]): Promise<MarksNow> {
    const ids = rows.map(({ transactionId }) => transactionId);
    const byNode = new Map<number, Set<string> | undefined>();
    await Promise.all(
      [...new Set(rows.flatMap(({ participants }) => participants))].map(async (nodeId) => {
        const marks = await this.#world.controls
          .use(nodeId, (control) =>
            control.query<TransactionKey>(
              `SELECT transaction_id AS "transactionId", owner::text AS owner FROM ${INTERNAL_SCHEMA}.transaction_marks
               WHERE transaction_id = ANY ($1::uuid[])`,
              [ids],
            ),
          )
          .catch(() => undefined);
        byNode.set(nodeId, marks && new Set(marks.map(keyOf)));
      }),
    );
    return new MarksNow(byNode);
  }

  async #delete(
    nodeId: number,
    table: 'decisions' | 'transaction_marks',
    keys: readonly TransactionKey[],
  ): Promise<void> {
    if (keys.length === 0) return;
    await this.#world.controls.use(nodeId, (control) =>
      control.query(
        `DELETE FROM ${INTERNAL_SCHEMA}.${table} d USING unnest($1::uuid[], $2::name[]) AS over (id, owner)
         WHERE d.transaction_id = over.id AND d.owner = over.owner`,
        [keys.map(({ transactionId }) => transactionId), keys.map(({ owner }) => owner)],
      ),
    );
  }
}

/** What is prepared on each node; undefined: it could not be asked. */
class PreparedNow {
  readonly #byNode: ReadonlyMap<number, ReadonlySet<string> | undefined>;

  constructor(byNode: ReadonlyMap<number, ReadonlySet<string> | undefined>) {
    this.#byNode = byNode;
  }

  at(nodeId: number, key: TransactionKey): ParticipantSeen['prepared'] {
    const list = this.#byNode.get(nodeId);
    return list ? (list.has(keyOf(key)) ? 'there' : 'gone') : 'unreachable';
  }

  left(key: TransactionKey): PreparedLeft {
    const seen = [...this.#byNode.keys()].map((nodeId) => this.at(nodeId, key));
    return seen.includes('there') ? 'yes' : seen.includes('unreachable') ? 'unknown' : 'no';
  }
}

class MarksNow {
  readonly #byNode: ReadonlyMap<number, ReadonlySet<string> | undefined>;

  constructor(byNode: ReadonlyMap<number, ReadonlySet<string> | undefined>) {
    this.#byNode = byNode;
  }

  at(nodeId: number, key: TransactionKey): ParticipantSeen['mark'] {
    const marks = this.#byNode.get(nodeId);
    return marks ? (marks.has(keyOf(key)) ? 'visible' : 'missing') : 'unreachable';
  }
}

function keyOf({ transactionId, owner }: TransactionKey): string {
  return `${transactionId}:${owner}`;
}
