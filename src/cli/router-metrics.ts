/**
 * The figures of a router's process, read where they are counted when somebody asks for them. Nothing is counted for their sake
 * where clients wait. Names and meaning: observe/metric-names.ts.
 */
import type { NodePool } from '../backend/pool.ts';
import type { Coalescer } from '../coalesce/coalescer.ts';
import type { ClientLogs } from '../observe/client-log.ts';
import { type MetricFamily, MetricSamples } from '../observe/metric-samples.ts';
import type { Listener } from '../session/listener.ts';
import type { StatementCounters } from '../statements/counters.ts';
import type { DeadlockDetector } from '../txn/deadlock-detector.ts';
import type { DecisionGate } from '../txn/decision-gate.ts';
import type { TransactionMetrics } from '../txn/metrics.ts';
import type { DistributedTransactions } from '../txn/registry.ts';
import { addProcessMetrics } from './process-metrics.ts';
import type { RouterRegister } from './router-register.ts';
import { version } from './version.ts';

export interface MeteredParts {
  /** `0`, `1`, …: its place among the workers. */
  readonly worker: number;
  readonly listener: Listener;
  readonly clientLogs: ClientLogs;
  readonly pools: ReadonlyMap<number, NodePool>;
  readonly coalescer: Coalescer;
  readonly distributed: DistributedTransactions;
  readonly deadlocks: DeadlockDetector;
  readonly transactions?: TransactionMetrics | undefined;
  readonly gate?: DecisionGate | undefined;
  readonly statements?: StatementCounters | undefined;
  readonly register?: RouterRegister | undefined;
  /** Of the map; undefined: there is no catalog. */
  readonly map?: { readonly epoch: number; readonly ageMs: number } | undefined;
  /** Whatever else has figures of its own. */
  readonly others: readonly ({ addMetrics(samples: MetricSamples): void } | undefined)[];
}

export function routerMetrics(parts: MeteredParts): MetricFamily[] {
  const samples = new MetricSamples();
  samples.set('postern_build_info', 1, { version: version(), node_version: process.versions.node });
  addProcessMetrics(samples, String(parts.worker));
  addClients(samples, parts);
  for (const pool of parts.pools.values()) addPool(samples, pool);
  addStatements(samples, parts);
  addTransactions(samples, parts);
  samples.set('postern_map_epoch', parts.map?.epoch);
  samples.set('postern_map_age_seconds', parts.map && parts.map.ageMs / 1_000);
  for (const other of parts.others) other?.addMetrics(samples);
  return samples.families();
}

function addClients(samples: MetricSamples, { listener, clientLogs, register }: MeteredParts): void {
  const { loggedIn, refused, left } = clientLogs.counters;
  samples.set('postern_clients', listener.sessionCount);
  samples.set('postern_logins_under_way', listener.loginCount);
  samples.setEach('postern_logins_total', loggedIn);
  samples.setEach('postern_logins_refused_total', refused);
  samples.setEach('postern_sessions_ended_total', left);
  const { cancels, handedOver, adopted } = listener.counters;
  samples.setEach('postern_handovers_total', { sent: handedOver, taken: adopted });
  samples.set('postern_cancels_total', cancels, { result: 'own' });
  if (!register) return;
  samples.setEach('postern_cancels_total', register.cancels.counters);
  samples.set('postern_router_slot', register.registration.slot);
  samples.set('postern_register_silent_seconds', register.registration.silentMs / 1_000);
}

function addPool(samples: MetricSamples, pool: NodePool): void {
  const node = { node: pool.address.nodeName };
  const { counters } = pool;
  samples.setEach('postern_backends', pool.census, node);
  samples.set('postern_backends_max', pool.share, node);
  samples.set('postern_backend_waiters', pool.waiting, node);
  samples.setHistogram('postern_backend_wait_seconds', counters.waits, node);
  samples.set('postern_backends_opened_total', counters.opened, node);
  samples.set('postern_backend_failures_total', counters.failed, node);
}

function addStatements(samples: MetricSamples, { coalescer, statements }: MeteredParts): void {
  for (const [kind, { runs, members, alone }] of Object.entries(coalescer.counters)) {
    samples.set('postern_batches_total', runs, { kind });
    samples.set('postern_batch_members_total', members, { kind });
    samples.set('postern_batch_retries_total', alone, { kind });
  }
  statements?.fold();
  for (const [placement, { calls, errors, totalMs }] of statements?.totals ?? []) {
    samples.set('postern_statements_total', calls, { placement });
    samples.set('postern_statement_errors_total', errors, { placement });
    samples.set('postern_statement_seconds_total', totalMs / 1_000, { placement });
  }
}

function addTransactions(samples: MetricSamples, parts: MeteredParts): void {
  const { transactions: t, distributed, deadlocks, gate } = parts;
  samples.set('postern_distributed_transactions', distributed.size);
  samples.set('postern_deadlock_victims_total', deadlocks.victims);
  samples.set('postern_consistent_reads_total', gate?.readers);
  samples.set('postern_decision_holds_total', gate?.holds);
  if (!t) return;
  samples.set('postern_commits_one_phase_total', t.committedOnePhase);
  samples.set('postern_commits_two_phase_total', t.committedTwoPhase);
  samples.set('postern_commits_rolled_back_total', t.rolledBack);
  samples.set('postern_commits_unknown_total', t.outcomeUnknown);
  samples.set('postern_commits_unconfirmed_total', t.unconfirmed);
  samples.set('postern_lost_parts_total', t.lostParts);
  samples.set('postern_recovered_commits_total', t.recoveredCommit);
  samples.set('postern_recovered_rollbacks_total', t.recoveredRollback);
  samples.set('postern_cleaning_queue', t.cleaningQueued);
  samples.set('postern_prepared_transactions', t.preparedFound);
  if (t.preparedFound !== undefined)
    samples.set('postern_prepared_oldest_seconds', t.preparedOldestMs / 1_000);
  samples.set('postern_nodes_unreachable', t.nodesUnreachable);
}
