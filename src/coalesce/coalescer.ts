/** All groups of one router: finds the group of a member, and lets idle groups go. */

import type { NodePool } from '../backend/pool.ts';
import type { SharedStatement } from '../backend/prepared.ts';
import { millisecondsOf, type Settings } from '../backend/settings.ts';
import { BOUNDS } from '../base/bounds.ts';
import { type GroupCounters, type GroupKind, WriteGroup } from './group.ts';

const REST_INTERVAL_MS = 500;
/** A slow statement is tried on a lane again after some seconds: it may have been the machine. */
const SLOW_RESTS = 6;

export class Coalescer {
  readonly #pools: ReadonlyMap<number, NodePool>;
  readonly #groups = new Map<string, WriteGroup>();
  readonly #scarce = new Set<NodePool>();
  /** Statements that have just held up others on their lane, and for how many rests they run alone. */
  readonly #slow = new Map<SharedStatement, number>();
  readonly #timer: NodeJS.Timeout;
  readonly counters: Readonly<Record<GroupKind, GroupCounters>> = {
    batch: { runs: 0, members: 0, alone: 0 },
    pipeline: { runs: 0, members: 0, alone: 0 },
  };

  /** Are commits merged, where a session doesn't say otherwise? */
  readonly merges: boolean;

  constructor(pools: ReadonlyMap<number, NodePool>, options: { merges: boolean }) {
    this.#pools = pools;
    this.merges = options.merges;
    for (const pool of pools.values()) {
      pool.onScarcity = () => this.#onScarcity(pool);
      pool.onShut = () => {
        for (const group of this.#groups.values()) group.onShut(pool);
      };
    }
    this.#timer = setInterval(() => this.#rest(), REST_INTERVAL_MS);
    this.#timer.unref();
  }

  group(kind: GroupKind, writer: { nodeId: number; user: string; settings: Settings }): WriteGroup {
    const { nodeId, user, settings } = writer;
    const key = `${kind}\0${nodeId}\0${user}\0${settings.key}`;
    let group = this.#groups.get(key);
    if (!group) {
      group = new WriteGroup({
        kind,
        pool: this.#pools.get(nodeId)!,
        user,
        settings: laneSettings(settings, kind),
        counters: this.counters[kind],
        onSlow: (statement) => this.#slow.set(statement, SLOW_RESTS),
      });
      this.#groups.set(key, group);
    }
    return group;
  }

  /** Has it lately run for so long that others should not wait for it? */
  isSlow(statement: SharedStatement): boolean {
    return this.#slow.size > 0 && this.#slow.has(statement);
  }

  /** Members queued or running, by node. */
  membersByNode(): ReadonlyMap<number, number> {
    const counts = new Map<number, number>();
    for (const { nodeId, memberCount } of this.#groups.values())
      counts.set(nodeId, (counts.get(nodeId) ?? 0) + memberCount);
    return counts;
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** Once a turn is enough, however many are in want. */
  #onScarcity(pool: NodePool): void {
    if (this.#scarce.has(pool)) return;
    this.#scarce.add(pool);
    setImmediate(() => {
      this.#scarce.delete(pool);
      for (const group of this.#groups.values()) group.giveWay(pool);
    });
  }

  #rest(): void {
    for (const [statement, rests] of this.#slow) {
      if (rests > 0) this.#slow.set(statement, rests - 1);
      else this.#slow.delete(statement);
    }
    for (const [key, group] of this.#groups) {
      group.rest();
      if (group.memberCount === 0 && group.connectionCount === 0) this.#groups.delete(key);
    }
  }
}

/**
 * Members read one table each. Where several UPDATEs are one, which joins their values, a plan that was made while the table
 * was small would read all of it when it has grown: the values have to be looked up one by one.
 */
const BATCH_PLANS: readonly (readonly [string, string])[] = [
  ['enable_hashjoin', 'off'],
  ['enable_mergejoin', 'off'],
];

/** The clients' settings with the lock_timeout and statement_timeout of a lane, unless theirs are shorter still. */
function laneSettings(settings: Settings, kind: GroupKind): Settings {
  const bounds = {
    lock_timeout: BOUNDS.coalescingLockTimeoutMs,
    statement_timeout: BOUNDS.coalescingStatementTimeoutMs,
  };
  const changes = new Map(kind === 'batch' ? BATCH_PLANS : []);
  for (const [name, boundMs] of Object.entries(bounds)) {
    const ownMs = millisecondsOf(settings.values.get(name) ?? '0');
    if (ownMs === 0 || ownMs > boundMs) changes.set(name, `${boundMs}ms`);
  }
  return settings.atRest.with(changes);
}
