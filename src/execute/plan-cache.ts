/**
 * Plans by text and search_path for one map, shared by all sessions and bounded in bytes: parsing costs tens of µs, a hit a
 * look-up. A new map empties it.
 */

import type { SharedStatement } from '../backend/prepared.ts';
import { BOUNDS } from '../base/bounds.ts';
import type { ClusterMap } from '../catalog/map.ts';
import type { QueryPlan } from '../plan/plan.ts';
import { rewriteQuery } from '../plan/rewrite.ts';
import type { StatementCounter } from '../statements/counters.ts';

/** What the home node says of a keyed statement: its answer to Describe. */
export interface Described {
  readonly parameterOids: readonly number[];
  /** The RowDescription or NoData frame, whole. */
  readonly rows: Buffer;
  /** The leaf statements by scope (backend/prepared.ts) and bucket, once one was needed. */
  readonly leaves: Map<string, (SharedStatement | undefined)[]>;
}

export interface CachedQuery {
  readonly plan: QueryPlan;
  /** What it was planned by. */
  readonly map: ClusterMap;
  /** What is sent unless a bucket is chosen: the client's text, without what only the router understands. */
  readonly text: string;
  /** By declared parameter types; filled when a keyed statement is first prepared. */
  readonly described: Map<string, Described>;
  /** If the text was lifted from others: what is known of it, by the literals' types. */
  readonly shapes: Map<string, unknown>;
  /** For postern.statements: what it is counted as, and its counters by role; undefined: it is not counted. */
  readonly counted: { readonly text: string; readonly byRole: Map<string, StatementCounter> } | undefined;
}

const CONTROL = new Set([
  'begin',
  'commit',
  'rollback',
  'savepoint',
  'releaseSavepoint',
  'rollbackToSavepoint',
]);

/** What only begins or ends something is not: much of it never comes to a server. */
function isCounted({ statements }: QueryPlan): boolean {
  const [effect] = statements[0]?.effects ?? [];
  return statements.length > 0 && !(effect && CONTROL.has(effect.kind));
}

/** Bytes that a plan is taken to need beside its text. */
const PLAN_OVERHEAD_BYTES = 1_000;

export class PlanCache {
  readonly #plan: (text: string, map: ClusterMap, searchPath: readonly string[]) => QueryPlan;
  readonly #byKey = new Map<string, CachedQuery>();
  #bytes = 0;
  #map: ClusterMap | undefined;

  constructor(plan: (text: string, map: ClusterMap, searchPath: readonly string[]) => QueryPlan) {
    this.#plan = plan;
  }

  /** An empty one with the same planner, for a transaction that sees a map of its own. */
  beside(): PlanCache {
    return new PlanCache(this.#plan);
  }

  get(
    text: string,
    map: ClusterMap,
    searchPath: { readonly key: string; readonly schemas: readonly string[] },
  ): CachedQuery {
    if (map !== this.#map) this.#clear(map);
    const key = searchPath.key === '' ? text : `${searchPath.key}\0${text}`;
    const hit = this.#byKey.get(key);
    if (hit) return hit;
    const plan = this.#plan(text, map, searchPath.schemas);
    const hasLeaves = plan.statements.some(
      ({ placement: { kind } }) => kind === 'keyed' || kind === 'scattered',
    );
    const cached: CachedQuery = {
      plan,
      map,
      text: hasLeaves ? text : rewriteQuery(plan, [], 'literal').text,
      described: new Map(),
      shapes: new Map(),
      counted: isCounted(plan) ? { text, byRole: new Map() } : undefined,
    };
    // A password is kept nowhere.
    if (plan.roles && plan.roles.passwords.length > 0) return cached;
    this.#bytes += key.length * 2 + PLAN_OVERHEAD_BYTES;
    if (this.#bytes > BOUNDS.planCacheBytesMax) this.#evict();
    this.#byKey.set(key, cached);
    return cached;
  }

  #clear(map: ClusterMap): void {
    this.#byKey.clear();
    this.#bytes = 0;
    this.#map = map;
  }

  /** The oldest half goes: cheap, and what is in use comes back at its next miss. */
  #evict(): void {
    for (const key of this.#byKey.keys()) {
      if (this.#bytes <= BOUNDS.planCacheBytesMax / 2) return;
      this.#byKey.delete(key);
      this.#bytes -= key.length * 2 + PLAN_OVERHEAD_BYTES;
    }
  }
}
