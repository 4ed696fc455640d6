/**
 * May clients be sent to this router? What a load balancer asks by /readyz, decided from what the processes say of themselves.
 *
 *   starting ──a worker serves, its map is known──▶ ready ◀──▶ not ready (no worker, a map that is too old)
 *                                                     └──drain──▶ not ready, to the end
 *
 * A node that is away makes no router unready, home neither: all routers see the same node, and to take them all out of service would
 * end what goes on without it. It is told in `nodes`.
 */
import type { NodeStatus, RouterStatus } from './router-status.ts';

export type ServingState = 'starting' | 'serving' | 'draining';

/** A router that has not heard of the catalog for so long may plan by what is no more; others may do better. */
const MAP_AGE_MS_MAX = 300_000;

export interface Readiness {
  readonly ready: boolean;
  readonly state: ServingState;
  /** Why it is not ready, or not whole. */
  readonly reasons: readonly string[];
  readonly version?: string | undefined;
  readonly slot?: number | undefined;
  readonly workers: { readonly expected: number; readonly serving: number };
  readonly clients: number;
  readonly map?: { readonly epoch: number | undefined; readonly age_ms: number } | undefined;
  readonly nodes: readonly NodeStatus[];
}

/** `statuses`: of all processes that have answered. */
export function readiness(
  state: ServingState,
  expected: number,
  statuses: readonly RouterStatus[],
): Readiness {
  const serving = statuses.filter(({ isDraining }) => !isDraining);
  const current = serving.filter(({ mapAgeMs = 0 }) => mapAgeMs <= MAP_AGE_MS_MAX);
  const places = new Set(serving.map(({ worker }) => worker)).size;
  const reasons: string[] = [];
  if (state !== 'serving') reasons.push(state);
  if (places < expected) reasons.push(`${places} of ${expected} workers serve`);
  if (current.length < serving.length) reasons.push('the catalog has been away for more than 5 minutes');
  const nodes = worstOf(serving);
  for (const node of nodes) if (!node.usable) reasons.push(`node "${node.node}" is ${node.state}`);
  const oldest = serving.toSorted((a, b) => (b.mapAgeMs ?? 0) - (a.mapAgeMs ?? 0))[0];
  return {
    ready: state === 'serving' && current.length > 0,
    ...{ state, reasons, version: statuses[0]?.version, slot: statuses[0]?.slot },
    workers: { expected, serving: places },
    clients: statuses.reduce((sum, { clients }) => sum + clients, 0),
    map:
      oldest?.mapAgeMs === undefined
        ? undefined
        : { epoch: oldest.epoch, age_ms: Math.round(oldest.mapAgeMs) },
    nodes,
  };
}

/** Of each node what the process says that thinks the least of it. */
function worstOf(statuses: readonly RouterStatus[]): NodeStatus[] {
  const byName = new Map<string, NodeStatus>();
  for (const { nodes } of statuses)
    for (const node of nodes) {
      const known = byName.get(node.node);
      if (!known || (known.usable && !node.usable)) byName.set(node.node, node);
    }
  return [...byName.values()];
}
