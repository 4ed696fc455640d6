/** Figures of what stands between clients and statements: places, time-outs, the nodes' health. */
import type { MetricSamples } from '../observe/metric-samples.ts';
import type { ClientAdmission } from '../session/client-admission.ts';
import type { Listener } from '../session/listener.ts';
import type { SessionTimeouts } from '../session/timeouts.ts';
import type { RouterHealth } from './router-health.ts';

export function addDoorMetrics(
  samples: MetricSamples,
  parts: {
    readonly listener: Listener;
    readonly admission: ClientAdmission;
    readonly timeouts: SessionTimeouts;
  },
): void {
  const { listener, admission, timeouts } = parts;
  const { evictedLogins, refusedLogins } = listener.counters;
  samples.setEach('postern_logins_dropped_total', { evicted: evictedLogins, refused: refusedLogins });
  samples.set('postern_clients_queued', admission.waitingCount);
  const { admitted, refusedForClients, refusedForRole, refusedForDatabase, refusedForTenant } =
    admission.counters;
  samples.setEach('postern_admissions_total', {
    ...{ admitted, refused_clients: refusedForClients, refused_role: refusedForRole },
    ...{ refused_database: refusedForDatabase, refused_tenant: refusedForTenant },
  });
  const { idle, idleInTransaction, statement, stalled } = timeouts.counters;
  samples.setEach('postern_timeouts_total', {
    ...{ idle, idle_in_transaction: idleInTransaction, statement, stalled },
  });
}

export function addHealthMetrics(samples: MetricSamples, health: RouterHealth): void {
  for (const { node, state, usable } of health.nodes()) {
    samples.set('postern_node_usable', usable ? 1 : 0, { node });
    samples.set('postern_node_state', 1, { node, state });
  }
  for (const { node, prober } of health.probers()) {
    const { pingsFailed, cuts, promotions, pingMs } = prober.counters;
    samples.set('postern_node_ping_seconds', pingMs / 1_000, { node: node.name });
    samples.set('postern_node_pings_failed_total', pingsFailed, { node: node.name });
    samples.set('postern_node_cuts_total', cuts, { node: node.name });
    samples.set('postern_node_promotions_total', promotions, { node: node.name });
  }
}
