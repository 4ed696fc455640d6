/**
 * What a router's process tells Prometheus: its transactions over several nodes, and the prepared ones of the cluster. Counters
 * are read when they are asked for; nothing is counted twice for it.
 */
import { Counter, Gauge, Registry } from 'prom-client';
import { MetricsServer } from '../platform/metrics-server.ts';
import type { DeadlockDetector } from '../txn/deadlock-detector.ts';
import type { DecisionGate } from '../txn/decision-gate.ts';
import type { TransactionMetrics } from '../txn/metrics.ts';
import type { DistributedTransactions } from '../txn/registry.ts';

export interface MeteredParts {
  readonly transactions: TransactionMetrics;
  readonly distributed: DistributedTransactions;
  readonly deadlocks: DeadlockDetector;
  readonly gate: DecisionGate;
  readonly clientCount: () => number;
}

export function routerMetrics(parts: MeteredParts): MetricsServer {
  const registry = new Registry();
  const { transactions: t, deadlocks, gate } = parts;
  const counter = (name: string, help: string, read: () => number): void => {
    new Counter({
      name: `postern_${name}`,
      help,
      registers: [registry],
      collect() {
        this.reset();
        this.inc(read());
      },
    });
  };
  /** NaN is how Prometheus writes "not known". */
  const gauge = (name: string, help: string, read: () => number | undefined): void => {
    new Gauge({
      name: `postern_${name}`,
      help,
      registers: [registry],
      collect() {
        this.set(read() ?? Number.NaN);
      },
    });
  };
  gauge('clients', 'Clients that are logged in.', parts.clientCount);
  gauge('distributed_transactions', 'Open transactions on several nodes.', () => parts.distributed.size);
  counter(
    'commits_one_phase_total',
    'Commits of transactions with branches that wrote on one node at most.',
    () => t.committedOnePhase,
  );
  counter('commits_two_phase_total', 'Commits over several nodes.', () => t.committedTwoPhase);
  counter(
    'commits_rolled_back_total',
    'COMMITs over several nodes that ended in a rollback.',
    () => t.rolledBack,
  );
  counter('commits_unknown_total', 'Clients that were told 08007.', () => t.outcomeUnknown);
  counter(
    'commits_unconfirmed_total',
    'COMMITs told with a warning, before a node had confirmed.',
    () => t.unconfirmed,
  );
  counter(
    'lost_parts_total',
    'Parts that were decided to commit and are gone: an operator’s matter.',
    () => t.lostParts,
  );
  counter(
    'recovered_commits_total',
    'Prepared transactions that recovery has committed.',
    () => t.recoveredCommit,
  );
  counter(
    'recovered_rollbacks_total',
    'Prepared transactions that recovery has rolled back.',
    () => t.recoveredRollback,
  );
  gauge(
    'cleaning_queue',
    'Decisions and marks of this process that wait for their cleaning.',
    () => t.cleaningQueued,
  );
  gauge(
    'prepared_transactions',
    'Prepared transactions of the cluster of a second or older; NaN: another process looks.',
    () => t.preparedFound,
  );
  gauge('prepared_oldest_seconds', 'Age of the oldest of them.', () =>
    t.preparedFound === undefined ? undefined : t.preparedOldestMs / 1000,
  );
  gauge('nodes_unreachable', 'Nodes that recovery could not ask at its last look.', () => t.nodesUnreachable);
  counter(
    'deadlock_victims_total',
    'Deadlocks over nodes that this process has ended.',
    () => deadlocks.victims,
  );
  counter('consistent_reads_total', 'Reads over nodes whose snapshots agree.', () => gate.readers);
  counter('decision_holds_total', 'How often decisions were held back for them.', () => gate.holds);
  return new MetricsServer(registry);
}
