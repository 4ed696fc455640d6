/** All that a router's process has for transactions over several nodes, put together and started. */

import { BOUNDS } from '../base/bounds.ts';
import type { NodeInfo } from '../catalog/map.ts';
import type { ControlConnection } from '../platform/control-connection.ts';
import { Cleaner } from './cleaner.ts';
import type { CommitTimes } from './commit-protocol.ts';
import type { ResolveRequest } from './commit-run.ts';
import { type Coordinator, type CoordinatorFaults, createCoordinator } from './coordinator.ts';
import { Losses, type TransactionLog } from './losses.ts';
import { TransactionMetrics } from './metrics.ts';
import { NodeControls } from './node-controls.ts';
import { answerOutcome } from './outcome.ts';
import { Recovery, type RecoveryTimes } from './recovery.ts';
import { type ResolveWorld, resolveTransaction } from './resolve.ts';

export interface TransactionsOptions {
  readonly clusterId: string;
  readonly tokenKey: Buffer;
  readonly nodes: readonly NodeInfo[];
  readonly homeNodeId: number;
  /** A control connection by the bounds of CONTROL_LIMITS. */
  readonly connect: (nodeId: number) => Promise<ControlConnection>;
  readonly log: TransactionLog;
  /** One process of a router recovers and sweeps. */
  readonly recovers: boolean;
  /** ms of the monotonic clock. */
  readonly now: () => number;
  readonly times?: (Partial<CommitTimes> & TransactionTimes) | undefined;
  /** For tests alone. */
  readonly faults?: CoordinatorFaults | undefined;
}

export interface TransactionTimes extends RecoveryTimes {
  readonly cleaningDelayMs?: number;
  readonly recoveryAfterMs?: number;
}

/**
 * For ControlConnection.open(): the server sets no limit to a statement, since one that waits for a standby would end with a
 * mere warning; the router gives the connection up instead, five seconds later.
 */
export const CONTROL_LIMITS = {
  applicationName: 'postern transactions',
  connectTimeoutMs: 3_000,
  statementTimeoutMs: 0,
  lockTimeoutMs: BOUNDS.settleTimeoutMs,
} as const;

export interface Transactions {
  readonly coordinator: Coordinator;
  readonly metrics: TransactionMetrics;
  readonly recovery: Recovery;
  readonly cleaner: Cleaner;
  /** 'committed', 'rolled back' or 'in doubt'; throws PosternError 22023 for what is no token, or an expired one. */
  outcome(token: string): Promise<string>;
  stop(): Promise<void>;
}

export function startTransactions(options: TransactionsOptions): Transactions {
  const { clusterId, tokenKey, nodes, homeNodeId, log, now, times, faults } = options;
  const metrics = new TransactionMetrics();
  const controls = new NodeControls({ open: options.connect, now });
  const names = new Map(nodes.map(({ id, name }) => [id, name]));
  const nodeName = (nodeId: number): string => names.get(nodeId) ?? String(nodeId);
  const losses = new Losses({ controls, homeNodeId, nodeName, metrics, log });
  const refusals = new Repeated(log, now);
  const cleaner = new Cleaner({ controls, metrics, now, delayMs: times?.cleaningDelayMs });
  const world: ResolveWorld = {
    controls,
    nodeIds: nodes.map(({ id }) => id),
    reportLoss: (loss) => losses.report(loss),
    reportRefusal: (message) => refusals.say(message),
  };
  const recoveryAfterMs = times?.recoveryAfterMs ?? BOUNDS.recoveryAfterMs;
  const coordinator = createCoordinator({
    clusterId,
    tokenKey,
    controls,
    cleaner,
    metrics,
    now,
    log,
    times,
    faults,
    onLoss: (loss) => losses.report(loss),
    resolve: (request) => settleForCoordinator(world, request, recoveryAfterMs),
  });
  const recovery = new Recovery({
    clusterId,
    world,
    homeNodeId,
    metrics,
    losses,
    log,
    nodeName,
    recoveryAfterMs,
    times,
    faults,
  });
  cleaner.start();
  // What one node alone has is never prepared.
  if (options.recovers && nodes.length > 1) recovery.start();
  return {
    coordinator,
    metrics,
    recovery,
    cleaner,
    outcome: (token) => answerOutcome({ world, tokenKey, recoveryAfterMs }, token),
    stop: async () => {
      recovery.stop();
      cleaner.stop();
      coordinator.abandon();
      await controls.close();
    },
  };
}

/** Says each text once in ten minutes. */
class Repeated {
  readonly #log: TransactionLog;
  readonly #now: () => number;
  readonly #saidAtMs = new Map<string, number>();

  constructor(log: TransactionLog, now: () => number) {
    this.#log = log;
    this.#now = now;
  }

  say(message: string): void {
    if (this.#now() - (this.#saidAtMs.get(message) ?? Number.NEGATIVE_INFINITY) < REPEATED_MS) return;
    if (this.#saidAtMs.size > TEXTS_MAX) this.#saidAtMs.clear();
    this.#saidAtMs.set(message, this.#now());
    this.#log.warn(message);
  }
}

const REPEATED_MS = 600_000;
const TEXTS_MAX = 1_000;

/** Until it is settled or nobody wants to know any more. */
async function settleForCoordinator(
  world: ResolveWorld,
  request: ResolveRequest,
  recoveryAfterMs: number,
): Promise<'committed' | 'rolledBack' | 'lost' | undefined> {
  const { transactionId, owner, commitPoint, backend } = request;
  while (request.isWanted()) {
    const result = await resolveTransaction(world, {
      transactionId,
      owner,
      commitPoint,
      backend: backend.identity,
      foreign: {
        purpose: 'settle',
        ageMs: request.ageMs(),
        recoveryAfterMs,
        decisionsKeptMs: BOUNDS.outcomeRetentionMs,
      },
      found: undefined,
    });
    if (result.kind === 'settled') return result.outcome;
    await new Promise((resolve) => setTimeout(resolve, BOUNDS.transactionRetryMs));
  }
  return undefined;
}
