/**
 * The ends of a commit (commit-protocol.ts, SPEC.md): phase two after the decision, the rollback before it, and what both
 * end in. Pure, as the rest of the protocol.
 *
 * Invariant: a participant is confirmed by its server, or by its mark; never by 42704 alone (I7).
 * Invariant: both ends are bounded by one timer each; what is left then is recovery's (I10).
 */
import { assert, unreachable } from '../base/assert.ts';
import type {
  CommitEffect,
  CommitEvent,
  CommitOptions,
  CommitResult,
  CommitState,
  CommitStep,
  CommitTimer,
  Plan,
  Reply,
  RollbackCause,
  Task,
} from './commit-protocol.ts';

type In<K extends CommitState['kind']> = Extract<CommitState, { kind: K }>;

/** Decided: the others commit what they have prepared, and the readers end. `lost`: nodes known to have lost their part. */
export function enterPhaseTwo(plan: Plan, lost: readonly number[], options: CommitOptions): CommitStep {
  const tasks = [
    ...plan.others.map((nodeId) => task(nodeId, 'commitPrepared')),
    ...plan.readers.map((nodeId) => task(nodeId, 'commit')),
  ];
  const early: CommitEffect[] = options.faults?.okBeforePhaseTwo
    ? [{ kind: 'answer', result: { kind: 'committed', unconfirmed: [] } }]
    : [];
  return {
    state: { kind: 'phaseTwo', plan, tasks, lost, unconfirmed: [] },
    effects: [...early, ...tasks.map((one) => effectOf(one, 0)), timer('phaseTwo', options)],
  };
}

export function stepPhaseTwo(state: In<'phaseTwo'>, event: CommitEvent, options: CommitOptions): CommitStep {
  const { tasks } = state;
  switch (event.kind) {
    case 'timeout': {
      if (event.timer !== 'phaseTwo') return stay(state);
      const unconfirmed = tasks.filter(({ doing }) => doing !== 'commit').map(({ nodeId }) => nodeId);
      return endPhaseTwo({ ...state, unconfirmed: [...state.unconfirmed, ...unconfirmed] }, tasks, options);
    }
    case 'answered':
      assert(awaited(tasks, event), `phaseTwo awaits no answer to ${event.to}`);
      return proceed(state, without(tasks, event.nodeId), options);
    case 'finished':
      assert(awaited(tasks, event), `phaseTwo awaits no ${event.to}`);
      if (event.result === 'done') return proceed(state, without(tasks, event.nodeId), options);
      if (event.result === 'failed') {
        return again(state, { nodeId: event.nodeId, doing: 'commitPrepared', via: 'fresh' }, options);
      }
      // Without a mark, 42704 would have to be taken for a commit by somebody else.
      if (options.faults?.skipMark) return proceed(state, without(tasks, event.nodeId), options);
      return again(state, { nodeId: event.nodeId, doing: 'askMark', via: 'fresh' }, options, 0);
    case 'markAsked': {
      const { nodeId, mark, elapsedMs } = event;
      assert(awaited(tasks, { nodeId, to: 'askMark' }), 'phaseTwo awaits no mark of that node');
      if (mark === 'unreachable') return again(state, { nodeId, doing: 'askMark', via: 'fresh' }, options);
      const left = without(tasks, nodeId);
      if (mark === 'visible') return proceed(state, left, options);
      if (elapsedMs >= options.times.marksKeptMs) {
        // Recovery and cleaning may both have been here: a mark that is missing proves nothing any more.
        return proceed({ ...state, unconfirmed: [...state.unconfirmed, nodeId] }, left, options);
      }
      const step = proceed({ ...state, lost: [...state.lost, nodeId] }, left, options);
      return before([{ kind: 'reportLoss', nodeId }], step);
    }
    case 'resolved':
      return assert(false, 'phaseTwo has its decision') as never;
    default:
      return unreachable(event);
  }
}

function proceed(state: In<'phaseTwo'>, tasks: readonly Task[], options: CommitOptions): CommitStep {
  if (tasks.length > 0) return { state: { ...state, tasks }, effects: [] };
  return endPhaseTwo(state, [], options);
}

function endPhaseTwo(state: In<'phaseTwo'>, late: readonly Task[], options: CommitOptions): CommitStep {
  const { plan, lost, unconfirmed } = state;
  const result: CommitResult =
    lost.length > 0 ? { kind: 'lost', nodeIds: lost } : { kind: 'committed', unconfirmed };
  const ended = done(result, abandon(late));
  const told = options.faults?.okBeforePhaseTwo
    ? ended.effects.filter(({ kind }) => kind !== 'answer')
    : ended.effects;
  // What is not confirmed everywhere keeps its decision: recovery has yet to read it (I9).
  const clean: CommitEffect[] =
    lost.length + unconfirmed.length > 0
      ? []
      : [{ kind: 'clean', commitPoint: plan.commitPoint, participants: plan.others }];
  return { state: ended.state, effects: [...told, ...clean] };
}

/**
 * Ends every part without a commit. Tasks: `rollback` of an open transaction, `rollbackPrepared`, and `prepare` for one that
 * is still being prepared and has to be awaited first.
 */
export function rollBack(tasks: readonly Task[], cause: RollbackCause, options: CommitOptions): CommitStep {
  if (tasks.length === 0) return done({ kind: 'rolledBack', cause });
  const effects = tasks.filter(({ doing }) => doing !== 'prepare').map((one) => effectOf(one, 0));
  return { state: { kind: 'rollingBack', tasks, cause }, effects: [...effects, timer('rollback', options)] };
}

export function stepRollingBack(
  state: In<'rollingBack'>,
  event: CommitEvent,
  options: CommitOptions,
): CommitStep {
  const { tasks, cause } = state;
  if (event.kind === 'timeout') {
    if (event.timer !== 'rollback') return stay(state);
    return done({ kind: 'rolledBack', cause }, abandon(tasks));
  }
  assert(event.kind === 'answered' || event.kind === 'finished', `rollingBack awaits no ${event.kind}`);
  assert(awaited(tasks, event), `rollingBack awaits no answer to ${event.to}`);
  const { nodeId } = event;
  const next = afterAnswer(event);
  if (next)
    return again(state, { nodeId, doing: 'rollbackPrepared', via: next }, options, delayOf(event, options));
  const left = without(tasks, nodeId);
  return left.length === 0
    ? done({ kind: 'rolledBack', cause })
    : { state: { ...state, tasks: left }, effects: [] };
}

/** Over which connection it has to be (tried to be) rolled back now; undefined: its part is over. */
function afterAnswer(
  event: Extract<CommitEvent, { kind: 'answered' | 'finished' }>,
): Task['via'] | undefined {
  if (event.kind === 'finished') return event.result === 'failed' ? 'fresh' : undefined;
  // A connection that is lost takes an open transaction with it, but not one that may have been prepared.
  if (event.to !== 'prepare') return undefined;
  if (event.reply.kind === 'lost') return 'fresh';
  return event.reply.kind === 'tag' && event.reply.tag === 'PREPARE TRANSACTION' ? 'own' : undefined;
}

function delayOf(event: CommitEvent, options: CommitOptions): number {
  return event.kind === 'finished' ? options.times.retryMs : 0;
}

function again<S extends In<'phaseTwo'> | In<'rollingBack'>>(
  state: S,
  next: Task,
  options: CommitOptions,
  afterMs = options.times.retryMs,
): CommitStep {
  const tasks = state.tasks.map((one) => (one.nodeId === next.nodeId ? next : one));
  return { state: { ...state, tasks }, effects: [effectOf(next, afterMs)] };
}

/** What to do at a node, on the branch's own connection. */
export function task(nodeId: number, doing: Task['doing']): Task {
  return { nodeId, doing, via: 'own' };
}

/** Its connection was lost, or has to be: whether it has prepared is to be found out on another one. */
export function perhapsPrepared({ nodeId }: Task): Task {
  return { nodeId, doing: 'rollbackPrepared', via: 'fresh' };
}

function effectOf({ nodeId, doing, via }: Task, afterMs: number): CommitEffect {
  switch (doing) {
    case 'commit':
    case 'rollback':
      return { kind: doing, nodeId };
    case 'commitPrepared':
    case 'rollbackPrepared':
      return { kind: doing, nodeId, via, afterMs };
    case 'askMark':
      return { kind: 'askMark', nodeId, afterMs };
    case 'prepare':
      return assert(false, 'a prepare is sent with its mark') as never;
    default:
      return unreachable(doing);
  }
}

export function timer(name: CommitTimer, { times }: CommitOptions): CommitEffect {
  const afterMs = {
    prepare: times.prepareMs,
    decide: times.decideMs,
    resolve: times.resolveMs,
    phaseTwo: times.phaseTwoMs,
    rollback: times.rollbackMs,
  }[name];
  return { kind: 'setTimer', timer: name, afterMs };
}

export function abandon(tasks: readonly Task[]): CommitEffect[] {
  return tasks.filter(({ via }) => via === 'own').map(({ nodeId }) => ({ kind: 'abandon', nodeId }));
}

export function stay(state: CommitState): CommitStep {
  return { state, effects: [] };
}

export function done(result: CommitResult, effects: readonly CommitEffect[] = []): CommitStep {
  return { state: { kind: 'done' }, effects: [...effects, { kind: 'answer', result }] };
}

export function before(effects: readonly CommitEffect[], step: CommitStep): CommitStep {
  return { state: step.state, effects: [...effects, ...step.effects] };
}

export function awaited(tasks: readonly Task[], { nodeId, to }: { nodeId: number; to: string }): boolean {
  return tasks.some((one) => one.nodeId === nodeId && one.doing === to);
}

export function without(tasks: readonly Task[], nodeId: number): readonly Task[] {
  return tasks.filter((one) => one.nodeId !== nodeId);
}

/** Why this answer is no success; undefined: it is one. `tag` undefined: any will do. */
export function causeOf(
  nodeId: number,
  reply: Reply,
  tag: 'COMMIT' | 'PREPARE TRANSACTION' | undefined,
): RollbackCause | undefined {
  switch (reply.kind) {
    case 'lost':
    case 'error':
      return { kind: reply.kind, nodeId, error: reply.error };
    case 'tag':
      return tag === undefined || reply.tag === tag ? undefined : { kind: 'failedTransaction', nodeId };
    default:
      return unreachable(reply);
  }
}
