/**
 * Finds prepared transactions of this cluster whose coordinator has not ended them, and ends them: about every second, by
 * every router. Several may find the same one: the commit point's row decides, and whoever comes second finds it done.
 *
 * A round lists them on each node, starts recovery-protocol.ts for those of a second or older, and writes what it has seen
 * into postern.prepared. Rounds don't wait for one another's slow cases; a node that doesn't answer holds up itself alone.
 */
import { BOUNDS } from '../base/bounds.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import type { ProtocolFaults } from './commit-protocol.ts';
import type { Losses, TransactionLog } from './losses.ts';
import type { TransactionMetrics } from './metrics.ts';
import { listPrepared, type PreparedTransaction } from './prepared-list.ts';
import { type ResolveWorld, resolveTransaction } from './resolve.ts';
import { Sweep } from './sweep.ts';

/** A younger one is most likely just being committed. */
const LEFT_ALONE_MS = 1_000;
/** Recoveries at once. */
const AT_ONCE_MAX = 16;
const SWEEP_INTERVAL_MS = 60_000;

type ShownState = 'waiting' | 'committing' | 'rolling back' | 'unreachable';

export interface RecoveryTimes {
  readonly recoveryIntervalMs?: number;
  readonly sweepIntervalMs?: number;
  /** A younger prepared transaction is not looked at. */
  readonly leftAloneMs?: number;
}

export interface RecoveryOptions {
  readonly clusterId: string;
  readonly world: ResolveWorld;
  readonly homeNodeId: number;
  readonly metrics: TransactionMetrics;
  readonly losses: Losses;
  readonly log: TransactionLog;
  readonly nodeName: (nodeId: number) => string;
  readonly recoveryAfterMs: number;
  readonly times?: RecoveryTimes | undefined;
  readonly faults?: ProtocolFaults | undefined;
}

export class Recovery {
  readonly #options: RecoveryOptions;
  readonly #sweep: Sweep;
  readonly #underWay = new Map<string, Promise<void>>();
  readonly #states = new Map<string, ShownState>();
  #timer: NodeJS.Timeout | undefined;
  #sweepTimer: NodeJS.Timeout | undefined;
  #round: Promise<void> | undefined;
  #sweeping: Promise<void> | undefined;

  constructor(options: RecoveryOptions) {
    this.#options = options;
    this.#sweep = new Sweep({
      world: options.world,
      losses: options.losses,
      faults: options.faults,
      prepared: (nodeId) => this.#list(nodeId),
    });
  }

  start(): void {
    const { times } = this.#options;
    void this.round();
    this.#timer = setInterval(
      () => void this.round(),
      times?.recoveryIntervalMs ?? BOUNDS.recoveryIntervalMs,
    );
    this.#sweepTimer = setInterval(() => void this.sweep(), times?.sweepIntervalMs ?? SWEEP_INTERVAL_MS);
    this.#timer.unref();
    this.#sweepTimer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
    clearInterval(this.#sweepTimer);
  }

  /** One look at all nodes; one at a time. Never rejects. Resolves when what it has started has ended as well. */
  async round(): Promise<void> {
    this.#round ??= this.#lookAround().finally(() => {
      this.#round = undefined;
    });
    await this.#round;
    await Promise.all(this.#underWay.values());
  }

  /** Decisions, abort rows and marks whose coordinator has not cleaned them. Never rejects. */
  async sweep(): Promise<void> {
    this.#sweeping ??= this.#sweep
      .run()
      .catch((error: Error) => this.#options.log.warn(`sweep of decisions: ${error.message}`))
      .finally(() => {
        this.#sweeping = undefined;
      });
    await this.#sweeping;
  }

  async #lookAround(): Promise<void> {
    const { world, metrics, losses, times } = this.#options;
    const leftAloneMs = times?.leftAloneMs ?? LEFT_ALONE_MS;
    const lists = await Promise.all(
      world.nodeIds.map(async (nodeId) => ({
        nodeId,
        found: await this.#list(nodeId).catch(() => undefined),
      })),
    );
    const asked = lists.filter(({ found }) => found !== undefined).map(({ nodeId }) => nodeId);
    const found = lists.flatMap((list) => list.found ?? []).filter(({ ageMs }) => ageMs >= leftAloneMs);
    metrics.nodesUnreachable = lists.length - asked.length;
    metrics.preparedFound = found.length;
    metrics.preparedOldestMs = Math.max(0, ...found.map(({ ageMs }) => ageMs));
    const present = new Set(found.map(keyOf));
    for (const key of this.#states.keys()) if (!present.has(key)) this.#states.delete(key);
    for (const one of found) {
      if (this.#underWay.size >= AT_ONCE_MAX) break;
      const key = keyOf(one);
      if (this.#underWay.has(key)) continue;
      this.#underWay.set(
        key,
        this.#recover(one).finally(() => this.#underWay.delete(key)),
      );
    }
    await losses.write();
    await this.#show(found, asked).catch(() => {});
    world.controls.closeIdle();
  }

  #list(nodeId: number): Promise<PreparedTransaction[]> {
    const { clusterId, world } = this.#options;
    return world.controls.use(nodeId, (control) => listPrepared(control, { clusterId, nodeId }));
  }

  async #recover(one: PreparedTransaction): Promise<void> {
    const { world, metrics, log, nodeName, recoveryAfterMs } = this.#options;
    const { nodeId, gid, transactionId, owner, ageMs } = one;
    const result = await resolveTransaction(world, {
      transactionId,
      owner,
      commitPoint: one.commitPointNodeId,
      backend: one.commitPointBackend,
      foreign: {
        purpose: 'recover',
        ageMs,
        recoveryAfterMs,
        decisionsKeptMs: BOUNDS.outcomeRetentionMs,
      },
      found: { nodeId, gid },
    });
    if (result.kind === 'stays') {
      this.#states.set(keyOf(one), result.why === 'unreachable' ? 'unreachable' : 'waiting');
      return;
    }
    if (result.kind === 'gone') return;
    const isRolledBack = result.outcome === 'rolledBack';
    this.#states.set(keyOf(one), isRolledBack ? 'rolling back' : 'committing');
    if (isRolledBack) metrics.recoveredRollback++;
    else metrics.recoveredCommit++;
    log.info(
      `recovered transaction ${transactionId}: its part on node "${nodeName(nodeId)}" was ${isRolledBack ? 'rolled back' : 'committed'}`,
    );
  }

  /** Home's table is brought to what was seen on the nodes that answered; mostly both are empty, and nothing is written. */
  async #show(found: readonly PreparedTransaction[], asked: readonly number[]): Promise<void> {
    const { world, homeNodeId } = this.#options;
    await world.controls.use(homeNodeId, async (home) => {
      const shown = await home.query<{ node_id: number; gid: string; state: string }>(
        `SELECT node_id, gid, state FROM ${INTERNAL_SCHEMA}.prepared_transactions WHERE state <> 'lost'`,
      );
      const stateOf = (one: PreparedTransaction): string => this.#states.get(keyOf(one)) ?? 'waiting';
      const known = new Map(shown.map((row) => [`${row.node_id}:${row.gid}`, row.state]));
      const present = new Set(found.map(keyOf));
      const gone = shown.filter(
        (row) => asked.includes(row.node_id) && !present.has(`${row.node_id}:${row.gid}`),
      );
      const changed = found.filter((one) => known.get(keyOf(one)) !== stateOf(one));
      if (gone.length > 0) {
        await home.query(
          `DELETE FROM ${INTERNAL_SCHEMA}.prepared_transactions p USING unnest($1::int[], $2::text[]) AS gone (node_id, gid)
           WHERE p.node_id = gone.node_id AND p.gid = gone.gid AND p.state <> 'lost'`,
          [gone.map(({ node_id }) => node_id), gone.map(({ gid }) => gid)],
        );
      }
      for (const one of changed) {
        await home.query(
          `INSERT INTO ${INTERNAL_SCHEMA}.prepared_transactions (node_id, gid, transaction_id, owner, commit_point, prepared_at, state)
           VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (node_id, gid) DO UPDATE SET state = excluded.state
             WHERE prepared_transactions.state <> 'lost'`,
          [
            one.nodeId,
            one.gid,
            one.transactionId,
            one.owner,
            one.commitPointNodeId,
            one.preparedAt,
            stateOf(one),
          ],
        );
      }
    });
  }
}

function keyOf(one: PreparedTransaction): string {
  return `${one.nodeId}:${one.gid}`;
}
