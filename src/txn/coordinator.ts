/**
 * Commits a client's transaction over its branches, one or many, by SPEC.md. The decisions are commit-protocol.ts's; this
 * gives them the branches' connections, the clock and the nodes, and puts what comes of them into the client's words.
 *
 * Invariant: nobody waits without a bound but for a server's own COMMIT of a transaction that wrote on one node.
 */
import { randomUUID } from 'node:crypto';
import type { BackendConnection } from '../backend/connection.ts';
import { assert, unreachable } from '../base/assert.ts';
import { BOUNDS } from '../base/bounds.ts';
import type { PosternError } from '../base/errors.ts';
import type { FrameReader } from '../wire/frame-reader.ts';
import { askBounded, BackendFactsCache } from './backend-facts.ts';
import type { Cleaner } from './cleaner.ts';
import {
  lossError,
  type NamesOfNodes,
  rolledBackError,
  unconfirmedWarning,
  unknownError,
} from './commit-errors.ts';
import {
  type Branch,
  type CommitTimes,
  type ProtocolFaults,
  type CommitResult as ProtocolResult,
  type RollbackCause,
  startCommit,
} from './commit-protocol.ts';
import { CommitRun, type CommitWorld, type FreshResult, type ResolveRequest } from './commit-run.ts';
import type { TransactionLog } from './losses.ts';
import type { TransactionMetrics } from './metrics.ts';
import type { NodeControls } from './node-controls.ts';
import { finishFailure, finishPrepared, ownerOfPrepared, readMark } from './settle.ts';
import { formatToken } from './token.ts';

export interface CommitBranch {
  readonly connection: BackendConnection;
  /** It may have written. */
  readonly wrote: boolean;
  /** Its transaction surely has a transaction id: it has changed a row. */
  readonly hasXid: boolean;
  /** What its session holds that PREPARE TRANSACTION refuses (temporary tables, NOTIFY, WITH HOLD …), in words for the client. */
  readonly unpreparable: string | undefined;
}

export type CommitResult =
  | {
      readonly kind: 'committed';
      readonly warnings: readonly {
        readonly sqlState: string;
        readonly message: string;
        readonly hint?: string;
      }[];
    }
  /** PosternError or ServerError. */
  | { readonly kind: 'rolledBack'; readonly error: unknown }
  /** 08007: DETAIL and HINT carry the token. XX001: it is committed, and some node has lost its part. */
  | { readonly kind: 'unknown'; readonly error: PosternError };

export interface CommitCallOptions {
  /** A notice or warning of a server while it prepares or commits. */
  readonly onNotice?: ((reader: FrameReader) => void) | undefined;
  /** The id under which the branches are registered already (registration.ts). Default: a new one, registered here. */
  readonly transactionId?: string | undefined;
  /** The node of the one branch that is not registered. Default: the commit point if there is no id, else none. */
  readonly unregistered?: number | undefined;
}

export interface TransactionCoordinator {
  /**
   * `branches`: one for each node, in the order of their last writes, each inside a transaction block that has not failed, with
   * nothing pending. Never rejects; afterwards each connection is idle or closed.
   */
  commit(branches: readonly CommitBranch[], options?: CommitCallOptions): Promise<CommitResult>;
}

/** For tests alone. */
export interface CoordinatorFaults extends ProtocolFaults {
  /** Before each effect of commit-protocol.ts, by its kind. */
  readonly beforeEffect?: (name: string, nodeId: number) => Promise<void> | void;
}

export interface CoordinatorOptions {
  readonly clusterId: string;
  readonly tokenKey: Buffer;
  readonly controls: NodeControls;
  readonly cleaner: Cleaner;
  readonly metrics: TransactionMetrics;
  /** Settles a transaction as recovery would (resolve.ts). */
  readonly resolve: CommitWorld['resolve'];
  /** Remembers a loss, in the log and in postern.prepared. */
  readonly onLoss: CommitWorld['reportLoss'];
  readonly log: TransactionLog;
  /** ms of the monotonic clock. */
  readonly now: () => number;
  readonly times?: Partial<CommitTimes> | undefined;
  readonly faults?: CoordinatorFaults | undefined;
}

const DEADLINE_TICK_MS = 50;

export function createCoordinator(options: CoordinatorOptions): Coordinator {
  return new Coordinator(options);
}

export class Coordinator implements TransactionCoordinator {
  readonly #options: CoordinatorOptions;
  readonly #facts: BackendFactsCache;
  readonly #world: CommitWorld;
  readonly #runs = new Set<CommitRun>();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: CoordinatorOptions) {
    this.#options = options;
    this.#facts = new BackendFactsCache(options.now);
    const { faults } = options;
    this.#world = {
      clusterId: options.clusterId,
      options: { times: { ...TIMES, ...options.times }, ...(faults ? { faults } : {}) },
      now: options.now,
      factsOf: (connection) => {
        const facts = this.#facts.get(connection);
        assert(facts, 'a commit point was asked before anything is prepared');
        return facts;
      },
      finishPrepared: (request) => this.#finishPrepared(request),
      askMark: (nodeId, key) =>
        options.controls
          .use(nodeId, async (control) => ((await readMark(control, key)) ? 'visible' : 'missing'))
          .catch(() => 'unreachable'),
      resolve: (request: ResolveRequest) => options.resolve(request),
      reportLoss: options.onLoss,
      clean: (done) => options.cleaner.add(done),
      beforeEffect: faults?.beforeEffect,
    };
  }

  async commit(branches: readonly CommitBranch[], options: CommitCallOptions = {}): Promise<CommitResult> {
    const writers = branches.filter(({ wrote }) => wrote);
    if (writers.length > 1) {
      const failure = await this.#askFacts(writers);
      if (failure) return await this.#rollBackAll(branches, failure);
    }
    return await new Promise((resolve) => this.#start(branches, options, resolve));
  }

  /** As if the process had died: nothing that is under way is carried on. */
  abandon(): void {
    for (const run of this.#runs) run.stop();
    this.#runs.clear();
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #start(
    branches: readonly CommitBranch[],
    call: CommitCallOptions,
    resolve: (result: CommitResult) => void,
  ): void {
    const writerName =
      (branches.find(({ wrote }) => wrote) ?? branches[0])?.connection.address.nodeName ?? '';
    const facts = branches.map((branch): Branch => {
      const { connection, wrote, hasXid } = branch;
      return {
        nodeId: connection.address.nodeId,
        wrote,
        hasXid,
        unpreparable: reasonOf(branch, this.#facts) !== undefined,
      };
    });
    const start = startCommit(facts, this.#world.options);
    const run = new CommitRun({
      transactionId: call.transactionId ?? randomUUID(),
      unregistered: call.transactionId === undefined ? 'commitPoint' : call.unregistered,
      world: this.#world,
      branches: new Map(branches.map(({ connection }) => [connection.address.nodeId, connection])),
      start,
      onNotice: call.onNotice,
      onAnswer: (result) => resolve(this.#told(result, run, branches)),
      onEnd: () => this.#end(run),
      onFailure: (error) => {
        this.#options.log.error(`commit of transaction ${run.transactionId}: ${String(error)}`);
        resolve({ kind: 'unknown', error: unknownError(writerName, this.#tokenOf(run, branches)) });
      },
    });
    this.#runs.add(run);
    this.#options.metrics.underWay = this.#runs.size;
    this.#timer ??= setInterval(() => this.#tick(), DEADLINE_TICK_MS).unref();
    run.start(start.effects);
  }

  /** One timer for all that is under way. */
  #tick(): void {
    const now = this.#options.now();
    for (const run of this.#runs) if (run.deadlineMs <= now) run.onDeadline();
    if (this.#runs.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #end(run: CommitRun): void {
    this.#runs.delete(run);
    this.#options.metrics.underWay = this.#runs.size;
  }

  /** Gives the failure of the first branch that can't be asked, with that branch. */
  async #askFacts(writers: readonly CommitBranch[]): Promise<RollbackCause | undefined> {
    const unknown = writers.filter(({ connection }) => !this.#facts.get(connection));
    if (unknown.length === 0) return undefined;
    const answers = await Promise.all(unknown.map(({ connection }) => this.#facts.ask(connection)));
    const at = answers.findIndex((answer) => answer !== undefined);
    const answer = answers[at];
    if (!answer || answer.kind === 'answered') return undefined;
    const { nodeId } = unknown[at]!.connection.address;
    return answer.kind === 'refused'
      ? { kind: 'error', nodeId, error: answer.error }
      : { kind: 'lost', nodeId, error: answer.cause };
  }

  async #rollBackAll(branches: readonly CommitBranch[], cause: RollbackCause): Promise<CommitResult> {
    await Promise.all(
      branches.map(async ({ connection }) => {
        const answer = await askBounded(connection, 'ROLLBACK');
        if (answer.kind === 'refused') connection.destroy();
      }),
    );
    this.#options.metrics.rolledBack++;
    return { kind: 'rolledBack', error: rolledBackError(cause, namesOf(branches, this.#facts)) };
  }

  #told(result: ProtocolResult, run: CommitRun, branches: readonly CommitBranch[]): CommitResult {
    const { metrics } = this.#options;
    const names = namesOf(branches, this.#facts);
    switch (result.kind) {
      case 'committed': {
        if (run.isTwoPhase) metrics.committedTwoPhase++;
        else metrics.committedOnePhase++;
        metrics.unconfirmed += result.unconfirmed.length;
        return {
          kind: 'committed',
          warnings: result.unconfirmed.map((id) => unconfirmedWarning(names.nameOf(id))),
        };
      }
      case 'rolledBack':
        metrics.rolledBack++;
        return { kind: 'rolledBack', error: rolledBackError(result.cause, names) };
      case 'unknown': {
        metrics.outcomeUnknown++;
        const token = this.#tokenOf(run, branches);
        return { kind: 'unknown', error: unknownError(names.nameOf(result.nodeId), token) };
      }
      case 'lost':
        metrics.committedTwoPhase++;
        return {
          kind: 'unknown',
          error: lossError(
            result.nodeIds.map((id) => names.nameOf(id)),
            run.transactionId,
          ),
        };
      default:
        return unreachable(result);
    }
  }

  /** undefined: it has not come so far that anything is prepared. */
  #tokenOf(run: CommitRun, branches: readonly CommitBranch[]): string | undefined {
    const { commitPoint, transactionId, owner } = run;
    if (!run.isTwoPhase || owner === '') return undefined;
    const branch = branches.find(({ connection }) => connection.address.nodeId === commitPoint);
    assert(branch, 'the commit point is a branch');
    const facts = this.#world.factsOf(branch.connection);
    return formatToken(
      {
        transactionId,
        commitPointNodeId: commitPoint,
        commitPointBackend: facts.identity,
        owner,
        issuedAtUs: facts.clockOffsetUs + Math.round((run.decideSentAtMs ?? this.#options.now()) * 1000),
      },
      this.#options.tokenKey,
    );
  }

  async #finishPrepared(request: {
    nodeId: number;
    gid: string;
    verb: 'COMMIT' | 'ROLLBACK';
  }): Promise<FreshResult> {
    const { nodeId, gid, verb } = request;
    try {
      return await this.#options.controls.use(nodeId, async (control) => {
        const owner = await ownerOfPrepared(control, gid);
        if (owner === undefined) return 'notThere';
        await finishPrepared(control, { gid, owner, verb });
        return 'done';
      });
    } catch (error) {
      return finishFailure(error);
    }
  }
}

function namesOf(branches: readonly CommitBranch[], facts: BackendFactsCache): NamesOfNodes {
  const branchOf = (nodeId: number): CommitBranch | undefined =>
    branches.find(({ connection }) => connection.address.nodeId === nodeId);
  return {
    nameOf: (nodeId) => branchOf(nodeId)?.connection.address.nodeName ?? String(nodeId),
    unpreparableBy: (nodeId) => {
      const branch = branchOf(nodeId);
      return branch && reasonOf(branch, facts);
    },
  };
}

/** Why the node's part can't be prepared, in words for the client. */
function reasonOf(branch: CommitBranch, facts: BackendFactsCache): string | undefined {
  if (branch.unpreparable !== undefined) return branch.unpreparable;
  return facts.get(branch.connection)?.preparedTransactionsMax === 0
    ? 'max_prepared_transactions is 0'
    : undefined;
}

const TIMES: CommitTimes = {
  prepareMs: BOUNDS.prepareTimeoutMs,
  decideMs: BOUNDS.decideTimeoutMs,
  resolveMs: BOUNDS.resolveTimeoutMs,
  phaseTwoMs: BOUNDS.phaseTwoTimeoutMs,
  rollbackMs: BOUNDS.phaseTwoTimeoutMs,
  retryMs: BOUNDS.transactionRetryMs,
  marksKeptMs: BOUNDS.outcomeRetentionMs,
};
