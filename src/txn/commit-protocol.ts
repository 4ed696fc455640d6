/**
 * The decisions of one commit over the branches of a client's transaction, without any I/O. SPEC.md has the invariants
 * (I1, I2, …), the order of effects, and what each crash between them leads to. The shell carries out effects and reports
 * what came of them.
 *
 *   start ─no or one participant─▶ onePhase ──▶ readers ──▶ done
 *     │ more                          │ not committed
 *     ├──▶ assigning ──has xid──┐     └──▶ rollingBack ──▶ done
 *     │                         ▼
 *     └──────────────────▶ preparing ──all prepared──▶ deciding ──COMMIT──▶ phaseTwo ──▶ done
 *                               │ any failure             │ │ lost            ▲
 *                               ▼                  failed │ └──▶ resolving ───┤ committed
 *                          rollingBack ◀──────────────────┴──rolled back──┘ └─▶ readers ──▶ done (unknown)
 *
 * Invariant: `decide` is sent only when every other participant has answered PREPARE TRANSACTION (I1).
 * Invariant: after `decide` was sent, nothing is rolled back before the commit point or its recovery has said so (I6).
 */
import { assert, unreachable } from '../base/assert.ts';
import {
  abandon,
  awaited,
  before,
  causeOf,
  done,
  enterPhaseTwo,
  perhapsPrepared,
  rollBack,
  stay,
  stepPhaseTwo,
  stepRollingBack,
  task,
  timer,
  without,
} from './commit-endings.ts';

export interface Branch {
  readonly nodeId: number;
  /** It may have written. */
  readonly wrote: boolean;
  /** Its transaction surely has a transaction id. */
  readonly hasXid: boolean;
  /** Holds what PREPARE TRANSACTION refuses (temporary tables, NOTIFY, WITH HOLD …). */
  readonly unpreparable: boolean;
}

/** Broken orders that the tests must catch. Never set outside of tests. */
export interface ProtocolFaults {
  readonly decisionBeforePrepare?: boolean;
  readonly cleanAbortRowsEarly?: boolean;
  readonly ignoreTags?: boolean;
  readonly skipMark?: boolean;
  readonly okBeforePhaseTwo?: boolean;
}

export interface CommitTimes {
  /** For assignXid and the prepares together. Not above recoveryAfterMs, from when on recovery may end it anyway. */
  readonly prepareMs: number;
  readonly decideMs: number;
  readonly resolveMs: number;
  readonly phaseTwoMs: number;
  readonly rollbackMs: number;
  /** Pause before the next attempt at a node that could not be reached. */
  readonly retryMs: number;
  /** How long marks stay at least, if their own coordinator doesn't delete them. */
  readonly marksKeptMs: number;
}

/** `own`: the branch's connection. `fresh`: a control connection (the owner's role, or a superuser). */
export type Via = 'own' | 'fresh';
export type CommitTimer = 'prepare' | 'decide' | 'resolve' | 'phaseTwo' | 'rollback';

/** What has to happen, in this order; those of one step may be under way at the same time. */
export type CommitEffect =
  | { readonly kind: 'commit'; readonly nodeId: number }
  | { readonly kind: 'rollback'; readonly nodeId: number }
  /** SELECT pg_current_xact_id() on its own connection. */
  | { readonly kind: 'assignXid'; readonly nodeId: number }
  /** `SELECT postern_commit.mark(id, commitPoint, participants)` (unless `mark` is false), and PREPARE TRANSACTION, in one write. */
  | {
      readonly kind: 'prepare';
      readonly nodeId: number;
      readonly commitPoint: number;
      readonly participants: readonly number[];
      readonly mark: boolean;
    }
  /** `SELECT postern_commit.decide(id, participants, owner)` and COMMIT, in one write. */
  | {
      readonly kind: 'decide';
      readonly nodeId: number;
      readonly participants: readonly number[];
      readonly owner: string | undefined;
    }
  /** Run recovery's protocol (purpose `settle`) for this transaction, without an end of its own before the timer's. */
  | { readonly kind: 'resolve'; readonly nodeId: number }
  | { readonly kind: 'commitPrepared'; readonly nodeId: number; readonly via: Via; readonly afterMs: number }
  | {
      readonly kind: 'rollbackPrepared';
      readonly nodeId: number;
      readonly via: Via;
      readonly afterMs: number;
    }
  /** Is the mark of (id, owner) visible there? On a fresh connection. */
  | { readonly kind: 'askMark'; readonly nodeId: number; readonly afterMs: number }
  /** Its own connection has not answered in time: close it; nothing of it is reported any more. */
  | { readonly kind: 'abandon'; readonly nodeId: number }
  /** There is one timer; setting it replaces the one before. */
  | { readonly kind: 'setTimer'; readonly timer: CommitTimer; readonly afterMs: number }
  /** The node has lost its committed part. Log loudly, count, show in postern.prepared as `lost`. */
  | { readonly kind: 'reportLoss'; readonly nodeId: number }
  | { readonly kind: 'answer'; readonly result: CommitResult }
  /** Every participant is confirmed: hand its rows to the cleaner. */
  | { readonly kind: 'clean'; readonly commitPoint: number; readonly participants: readonly number[] };

/**
 * The answer of a branch's own connection. `error`: the server said ERROR, and its transaction is over (the shell has seen
 * ReadyForQuery, idle; after a failed assignXid it need not be). An error without ReadyForQuery (FATAL, terminated) is
 * `lost`: a COMMIT that waited for a standby may have happened all the same.
 */
export type Reply =
  | { readonly kind: 'tag'; readonly tag: string /** What mark() returned. */; readonly owner?: string }
  | { readonly kind: 'error'; readonly error: unknown }
  | { readonly kind: 'lost'; readonly error: unknown };

export type CommitEvent =
  | {
      readonly kind: 'answered';
      readonly nodeId: number;
      readonly to: 'commit' | 'rollback' | 'assignXid' | 'prepare' | 'decide';
      readonly reply: Reply;
    }
  /** `expired`: too late to tell (recovery-protocol.ts). */
  | { readonly kind: 'resolved'; readonly outcome: 'committed' | 'rolledBack' | 'lost' | 'expired' }
  /** `notThere`: 42704. `failed`: any other error, busy (55000), no connection, or a lost one. */
  | {
      readonly kind: 'finished';
      readonly nodeId: number;
      readonly to: 'commitPrepared' | 'rollbackPrepared';
      readonly result: 'done' | 'notThere' | 'failed';
    }
  | {
      readonly kind: 'markAsked';
      readonly nodeId: number;
      readonly mark: 'visible' | 'missing' | 'unreachable' /** Since the decision. */;
      readonly elapsedMs: number;
    }
  | { readonly kind: 'timeout'; readonly timer: CommitTimer };

export type RollbackCause =
  | { readonly kind: 'error'; readonly nodeId: number; readonly error: unknown }
  /** The connection was lost, or did not answer in time (error undefined), before the decision. 08006: a retry is safe. */
  | { readonly kind: 'lost'; readonly nodeId: number; readonly error: unknown }
  /** COMMIT or PREPARE answered ROLLBACK without an error. */
  | { readonly kind: 'failedTransaction'; readonly nodeId: number }
  /** Two nodes hold what can't be prepared. 0A000. */
  | { readonly kind: 'unpreparable'; readonly nodeIds: readonly number[] }
  /** The branches have different roles set, so the decision would not be found. 0A000. */
  | { readonly kind: 'ownersDiffer'; readonly nodeId: number };

export type CommitResult =
  /** `unconfirmed`: nodes that could not be reached in phase two: a WARNING each; recovery commits there. */
  | { readonly kind: 'committed'; readonly unconfirmed: readonly number[] }
  | { readonly kind: 'rolledBack'; readonly cause: RollbackCause }
  /** 08007; with a token if `twoPhase`. */
  | { readonly kind: 'unknown'; readonly nodeId: number; readonly twoPhase: boolean }
  /** Committed, but these nodes have lost their part. XX001. */
  | { readonly kind: 'lost'; readonly nodeIds: readonly number[] };

export interface CommitOptions {
  readonly times: CommitTimes;
  readonly faults?: ProtocolFaults;
}

export interface Plan {
  readonly commitPoint: number;
  /** The participants that prepare. */
  readonly others: readonly number[];
  readonly readers: readonly number[];
}

/** What is under way at a node, or is to come at the end of a pause. */
export interface Task {
  readonly nodeId: number;
  readonly doing: 'commit' | 'rollback' | 'prepare' | 'commitPrepared' | 'rollbackPrepared' | 'askMark';
  readonly via: Via;
}

export type CommitState =
  | { readonly kind: 'onePhase'; readonly participant: number; readonly readers: readonly number[] }
  /** `judged`: nobody has written, so what becomes of the readers is the result. */
  | {
      readonly kind: 'readers';
      readonly tasks: readonly Task[];
      readonly result: CommitResult;
      readonly judged: boolean;
    }
  | { readonly kind: 'assigning'; readonly plan: Plan }
  | {
      readonly kind: 'preparing';
      readonly plan: Plan;
      readonly tasks: readonly Task[];
      readonly owner: string | undefined;
    }
  | { readonly kind: 'deciding'; readonly plan: Plan }
  | { readonly kind: 'resolving'; readonly plan: Plan; readonly error: unknown }
  | {
      readonly kind: 'phaseTwo';
      readonly plan: Plan;
      readonly tasks: readonly Task[];
      readonly lost: readonly number[];
      readonly unconfirmed: readonly number[];
    }
  | { readonly kind: 'rollingBack'; readonly tasks: readonly Task[]; readonly cause: RollbackCause }
  | { readonly kind: 'done' };

export interface CommitStep {
  readonly state: CommitState;
  readonly effects: readonly CommitEffect[];
}

/** `branches` in the order of their last writes, the latest last. */
export function startCommit(branches: readonly Branch[], options: CommitOptions): CommitStep {
  assert(branches.length > 0, 'a commit has a branch');
  const participants = branches.filter(({ wrote }) => wrote);
  const readers = branches.filter(({ wrote }) => !wrote).map(({ nodeId }) => nodeId);
  const last = participants.at(-1);
  if (!last) return endReaders(readers, { kind: 'committed', unconfirmed: [] }, options, true);
  if (participants.length === 1) {
    const state: CommitState = { kind: 'onePhase', participant: last.nodeId, readers };
    return { state, effects: [{ kind: 'commit', nodeId: last.nodeId }] };
  }
  const unpreparable = participants.filter((branch) => branch.unpreparable);
  if (unpreparable.length > 1) {
    const cause = { kind: 'unpreparable', nodeIds: unpreparable.map(({ nodeId }) => nodeId) } as const;
    return rollBack(
      branches.map(({ nodeId }) => task(nodeId, 'rollback')),
      cause,
      options,
    );
  }
  const commitPoint = unpreparable[0] ?? participants.findLast(({ hasXid }) => hasXid) ?? last;
  const others = participants.filter((branch) => branch !== commitPoint).map(({ nodeId }) => nodeId);
  const plan = { commitPoint: commitPoint.nodeId, others, readers };
  if (commitPoint.hasXid) return prepare(plan, options);
  return {
    state: { kind: 'assigning', plan },
    effects: [{ kind: 'assignXid', nodeId: plan.commitPoint }, timer('prepare', options)],
  };
}

export function stepCommit(state: CommitState, event: CommitEvent, options: CommitOptions): CommitStep {
  switch (state.kind) {
    case 'onePhase':
      return stepOnePhase(state, event, options);
    case 'readers':
      return stepReaders(state, event);
    case 'assigning':
      return stepAssigning(state, event, options);
    case 'preparing':
      return stepPreparing(state, event, options);
    case 'deciding':
      return stepDeciding(state, event, options);
    case 'resolving':
      return stepResolving(state, event, options);
    case 'phaseTwo':
      return stepPhaseTwo(state, event, options);
    case 'rollingBack':
      return stepRollingBack(state, event, options);
    case 'done':
      // What was asked on fresh connections may still be answered; of its own ones, none is awaited.
      assert(event.kind !== 'answered', 'no branch answers after the end');
      return stay(state);
    default:
      return unreachable(state);
  }
}

type In<K extends CommitState['kind']> = Extract<CommitState, { kind: K }>;

function stepOnePhase(state: In<'onePhase'>, event: CommitEvent, options: CommitOptions): CommitStep {
  if (event.kind === 'timeout') return stay(state);
  const { participant, readers } = state;
  assert(isAnswer(event, participant, 'commit'), `onePhase awaits its COMMIT, not ${event.kind}`);
  if (event.reply.kind === 'lost') {
    return endReaders(readers, { kind: 'unknown', nodeId: participant, twoPhase: false }, options, false);
  }
  const cause = failureOf(event.nodeId, event.reply, 'COMMIT', options);
  if (cause)
    return rollBack(
      readers.map((nodeId) => task(nodeId, 'rollback')),
      cause,
      options,
    );
  return endReaders(readers, { kind: 'committed', unconfirmed: [] }, options, false);
}

/** COMMIT on those that have only read: nothing depends on it, but the client's next transaction needs them free. */
function endReaders(
  readers: readonly number[],
  result: CommitResult,
  options: CommitOptions,
  judged: boolean,
): CommitStep {
  if (readers.length === 0) return done(result);
  const state: CommitState = {
    kind: 'readers',
    tasks: readers.map((nodeId) => task(nodeId, 'commit')),
    result,
    judged,
  };
  const commits = readers.map((nodeId) => ({ kind: 'commit', nodeId }) as const);
  // A client's only branch is committed as it would be without Postern: its wait is the server's own matter.
  const effects = judged && readers.length === 1 ? commits : [...commits, timer('phaseTwo', options)];
  return { state, effects };
}

function stepReaders(state: In<'readers'>, event: CommitEvent): CommitStep {
  const { tasks, judged } = state;
  if (event.kind === 'timeout') {
    if (event.timer !== 'phaseTwo') return stay(state);
    const late = tasks[0]!.nodeId;
    const failed: CommitResult = {
      kind: 'rolledBack',
      cause: { kind: 'lost', nodeId: late, error: undefined },
    };
    return done(judged && state.result.kind === 'committed' ? failed : state.result, abandon(tasks));
  }
  // The answer of a resolve that was given up.
  if (event.kind === 'resolved' && state.result.kind === 'unknown') return stay(state);
  assert(event.kind === 'answered' && awaited(tasks, event), `readers await no ${event.kind}`);
  let result = state.result;
  if (judged && result.kind === 'committed') {
    const cause = causeOf(event.nodeId, event.reply, 'COMMIT');
    if (cause) result = { kind: 'rolledBack', cause };
  }
  const left = without(tasks, event.nodeId);
  return left.length === 0 ? done(result) : { state: { ...state, tasks: left, result }, effects: [] };
}

function stepAssigning(state: In<'assigning'>, event: CommitEvent, options: CommitOptions): CommitStep {
  const { plan } = state;
  const { commitPoint, others, readers } = plan;
  const open = [...others, ...readers].map((nodeId) => task(nodeId, 'rollback'));
  if (event.kind === 'timeout') {
    if (event.timer !== 'prepare') return stay(state);
    const cause = { kind: 'lost', nodeId: commitPoint, error: undefined } as const;
    return before([{ kind: 'abandon', nodeId: commitPoint }], rollBack(open, cause, options));
  }
  assert(isAnswer(event, commitPoint, 'assignXid'), `assigning awaits its answer, not ${event.kind}`);
  const cause = causeOf(commitPoint, event.reply, undefined);
  if (!cause) return prepare(plan, options);
  if (cause.kind === 'lost') return rollBack(open, cause, options);
  return rollBack([task(commitPoint, 'rollback'), ...open], cause, options);
}

function prepare(plan: Plan, options: CommitOptions): CommitStep {
  if (options.faults?.decisionBeforePrepare) return decide(plan, undefined, options);
  return sendPrepares(plan, options);
}

function sendPrepares(plan: Plan, options: CommitOptions): CommitStep {
  const { commitPoint, others } = plan;
  const mark = !options.faults?.skipMark;
  const effects = others.map(
    (nodeId) => ({ kind: 'prepare', nodeId, commitPoint, participants: others, mark }) as const,
  );
  const tasks = others.map((nodeId) => task(nodeId, 'prepare'));
  return {
    state: { kind: 'preparing', plan, tasks, owner: undefined },
    effects: [...effects, timer('prepare', options)],
  };
}

function stepPreparing(state: In<'preparing'>, event: CommitEvent, options: CommitOptions): CommitStep {
  const { plan, tasks } = state;
  if (event.kind === 'timeout') {
    if (event.timer !== 'prepare') return stay(state);
    const late = { kind: 'lost', nodeId: tasks[0]!.nodeId, error: undefined } as const;
    return before(abandon(tasks), rollBackPrepares(state, tasks.map(perhapsPrepared), late, options));
  }
  assert(event.kind === 'answered' && awaited(tasks, event), `preparing awaits no ${event.kind}`);
  const { nodeId, reply } = event;
  const left = without(tasks, nodeId);
  const cause = failureOf(nodeId, reply, 'PREPARE TRANSACTION', options);
  if (cause) {
    const own = cause.kind === 'lost' ? [perhapsPrepared(task(nodeId, 'prepare'))] : [];
    return rollBackPrepares({ ...state, tasks: left }, [...own, ...left], cause, options, nodeId);
  }
  const owner = reply.kind === 'tag' ? reply.owner : undefined;
  if (state.owner !== undefined && owner !== undefined && owner !== state.owner) {
    // The decision is found under the owner's name: with two of them it would hold for one part only.
    return rollBackPrepares({ ...state, tasks: left }, left, { kind: 'ownersDiffer', nodeId }, options);
  }
  if (left.length > 0) {
    return { state: { ...state, tasks: left, owner: state.owner ?? owner }, effects: [] };
  }
  if (options.faults?.decisionBeforePrepare) return enterPhaseTwo(plan, [], options);
  return decide(plan, state.owner ?? owner, options);
}

/** `unsure`: the nodes that have not, or not surely, prepared; `failed` is the one that has not. */
function rollBackPrepares(
  state: In<'preparing'>,
  unsure: readonly Task[],
  cause: RollbackCause,
  options: CommitOptions,
  failed?: number,
): CommitStep {
  const { commitPoint, others, readers } = state.plan;
  const open = [commitPoint, ...readers].map((nodeId) => task(nodeId, 'rollback'));
  const isUnsure = (nodeId: number) => nodeId === failed || unsure.some((one) => one.nodeId === nodeId);
  const prepared = others.filter((nodeId) => !isUnsure(nodeId));
  const tasks = [...open, ...prepared.map((nodeId) => task(nodeId, 'rollbackPrepared')), ...unsure];
  return rollBack(tasks, cause, options);
}

function decide(plan: Plan, owner: string | undefined, options: CommitOptions): CommitStep {
  const effect = { kind: 'decide', nodeId: plan.commitPoint, participants: plan.others, owner } as const;
  return { state: { kind: 'deciding', plan }, effects: [effect, timer('decide', options)] };
}

function stepDeciding(state: In<'deciding'>, event: CommitEvent, options: CommitOptions): CommitStep {
  const { plan } = state;
  const { commitPoint } = plan;
  if (event.kind === 'timeout') {
    if (event.timer !== 'decide') return stay(state);
    return before([{ kind: 'abandon', nodeId: commitPoint }], resolve(plan, undefined, options));
  }
  assert(isAnswer(event, commitPoint, 'decide'), `deciding awaits its COMMIT, not ${event.kind}`);
  if (event.reply.kind === 'lost') return resolve(plan, event.reply.error, options);
  const cause = failureOf(commitPoint, event.reply, 'COMMIT', options);
  if (cause) return rollBackDecided(plan, cause, options);
  if (options.faults?.decisionBeforePrepare) return sendPrepares(plan, options);
  return enterPhaseTwo(plan, [], options);
}

/** Asks, through recovery's protocol, what became of the COMMIT, and makes sure that it stays so. */
function resolve(plan: Plan, error: unknown, options: CommitOptions): CommitStep {
  const effect = { kind: 'resolve', nodeId: plan.commitPoint } as const;
  return { state: { kind: 'resolving', plan, error }, effects: [effect, timer('resolve', options)] };
}

function stepResolving(state: In<'resolving'>, event: CommitEvent, options: CommitOptions): CommitStep {
  const { plan, error } = state;
  const { commitPoint, readers } = plan;
  const unknown = { kind: 'unknown', nodeId: commitPoint, twoPhase: true } as const;
  if (event.kind === 'timeout') {
    if (event.timer !== 'resolve') return stay(state);
    return endReaders(readers, unknown, options, false);
  }
  assert(event.kind === 'resolved', `resolving awaits the outcome, not ${event.kind}`);
  switch (event.outcome) {
    case 'committed':
      return enterPhaseTwo(plan, [], options);
    case 'lost':
      return before(
        [{ kind: 'reportLoss', nodeId: commitPoint }],
        enterPhaseTwo(plan, [commitPoint], options),
      );
    case 'expired':
      return endReaders(readers, unknown, options, false);
    case 'rolledBack':
      return rollBackDecided(plan, { kind: 'lost', nodeId: commitPoint, error }, options);
    default:
      return unreachable(event.outcome);
  }
}

/** All were prepared, and the commit point has rolled back. */
function rollBackDecided(plan: Plan, cause: RollbackCause, options: CommitOptions): CommitStep {
  const prepared = plan.others.map((nodeId) => task(nodeId, 'rollbackPrepared'));
  return rollBack([...prepared, ...plan.readers.map((nodeId) => task(nodeId, 'rollback'))], cause, options);
}

function isAnswer(
  event: CommitEvent,
  nodeId: number,
  to: Extract<CommitEvent, { kind: 'answered' }>['to'],
): event is Extract<CommitEvent, { kind: 'answered' }> {
  return event.kind === 'answered' && event.nodeId === nodeId && event.to === to;
}

function failureOf(
  nodeId: number,
  reply: Reply,
  tag: 'COMMIT' | 'PREPARE TRANSACTION',
  options: CommitOptions,
): RollbackCause | undefined {
  return causeOf(nodeId, reply, options.faults?.ignoreTags ? undefined : tag);
}
