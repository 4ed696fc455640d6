/**
 * One commit as a transition table: every state meets every event. What is not in the table must not happen, and is an
 * assertion. The invariants of SPEC.md over whole runs are tested by the simulation in test/txn.
 */
import { describe, expect, it } from 'vitest';
import {
  type Branch,
  type CommitEffect,
  type CommitEvent,
  type CommitOptions,
  type CommitState,
  type CommitStep,
  type Reply,
  startCommit,
  stepCommit,
} from './commit-protocol.ts';

const OPTIONS: CommitOptions = {
  times: {
    prepareMs: 1,
    decideMs: 2,
    resolveMs: 3,
    phaseTwoMs: 4,
    rollbackMs: 5,
    retryMs: 7,
    marksKeptMs: 100,
  },
};

/** Node 1 and 2 have written, 2 last; node 3 has only read. */
const BRANCHES: readonly Branch[] = [branch(3, { wrote: false, hasXid: false }), branch(1), branch(2)];

function branch(nodeId: number, fields: Partial<Branch> = {}): Branch {
  return { nodeId, wrote: true, hasXid: true, unpreparable: false, ...fields };
}

const error: Reply = { kind: 'error', error: 'deferred constraint' };
const lost: Reply = { kind: 'lost', error: 'reset' };
const tag = (text: string): Reply => ({ kind: 'tag', tag: text, owner: 'app' });
const answered = (
  nodeId: number,
  to: Extract<CommitEvent, { kind: 'answered' }>['to'],
  reply: Reply,
): CommitEvent => ({ kind: 'answered', nodeId, to, reply });
const finished = (
  to: 'commitPrepared' | 'rollbackPrepared',
  result: 'done' | 'notThere' | 'failed',
): CommitEvent => ({ kind: 'finished', nodeId: 1, to, result });
const marked = (mark: 'visible' | 'missing' | 'unreachable', elapsedMs = 0): CommitEvent => ({
  kind: 'markAsked',
  nodeId: 1,
  mark,
  elapsedMs,
});

const EVENTS: Readonly<Record<string, CommitEvent>> = {
  'COMMIT by 2': answered(2, 'commit', tag('COMMIT')),
  'ROLLBACK by 2 for COMMIT': answered(2, 'commit', tag('ROLLBACK')),
  'error by 2 for COMMIT': answered(2, 'commit', error),
  'loss of 2 at COMMIT': answered(2, 'commit', lost),
  'COMMIT by reader': answered(3, 'commit', tag('COMMIT')),
  'loss of reader at COMMIT': answered(3, 'commit', lost),
  'reader rolled back': answered(3, 'rollback', tag('ROLLBACK')),
  '2 rolled back': answered(2, 'rollback', tag('ROLLBACK')),
  'xid of 2': answered(2, 'assignXid', tag('SELECT 1')),
  'error by 2 for xid': answered(2, 'assignXid', error),
  'loss of 2 at xid': answered(2, 'assignXid', lost),
  '1 prepared': answered(1, 'prepare', tag('PREPARE TRANSACTION')),
  'ROLLBACK by 1 for PREPARE': answered(1, 'prepare', tag('ROLLBACK')),
  'error by 1 for PREPARE': answered(1, 'prepare', error),
  'loss of 1 at PREPARE': answered(1, 'prepare', lost),
  'error by 4 for PREPARE': answered(4, 'prepare', error),
  '2 decided': answered(2, 'decide', tag('COMMIT')),
  'ROLLBACK by 2 for decision': answered(2, 'decide', tag('ROLLBACK')),
  'error by 2 for decision': answered(2, 'decide', error),
  'loss of 2 at decision': answered(2, 'decide', lost),
  'resolved committed': { kind: 'resolved', outcome: 'committed' },
  'resolved rolledBack': { kind: 'resolved', outcome: 'rolledBack' },
  'resolved lost': { kind: 'resolved', outcome: 'lost' },
  'resolved expired': { kind: 'resolved', outcome: 'expired' },
  '1 committed': finished('commitPrepared', 'done'),
  '1 not there to commit': finished('commitPrepared', 'notThere'),
  '1 failed to commit': finished('commitPrepared', 'failed'),
  '1 finished rollback': finished('rollbackPrepared', 'done'),
  '1 not there to roll back': finished('rollbackPrepared', 'notThere'),
  '1 failed to roll back': finished('rollbackPrepared', 'failed'),
  'mark visible': marked('visible'),
  'mark missing': marked('missing'),
  'mark missing, late': marked('missing', 100),
  'mark unreachable': marked('unreachable'),
  'timeout prepare': { kind: 'timeout', timer: 'prepare' },
  'timeout decide': { kind: 'timeout', timer: 'decide' },
  'timeout resolve': { kind: 'timeout', timer: 'resolve' },
  'timeout phaseTwo': { kind: 'timeout', timer: 'phaseTwo' },
  'timeout rollback': { kind: 'timeout', timer: 'rollback' },
};

function after(branches: readonly Branch[], ...events: (keyof typeof EVENTS)[]): CommitState {
  let { state } = startCommit(branches, OPTIONS);
  for (const name of events) ({ state } = stepCommit(state, EVENTS[name]!, OPTIONS));
  return state;
}

const UNSURE = BRANCHES.map((one) => ({ ...one, hasXid: false }));
const STATES: Readonly<Record<string, CommitState>> = {
  onePhase: after([branch(3, { wrote: false }), branch(2)]),
  'readers, after a participant': after([branch(3, { wrote: false }), branch(2)], 'COMMIT by 2'),
  'readers, alone': after([branch(3, { wrote: false })]),
  'readers, unknown': after(BRANCHES, '1 prepared', 'loss of 2 at decision', 'timeout resolve'),
  assigning: after(UNSURE),
  preparing: after(BRANCHES),
  deciding: after(BRANCHES, '1 prepared'),
  resolving: after(BRANCHES, '1 prepared', 'loss of 2 at decision'),
  'phaseTwo, reader over': after(BRANCHES, '1 prepared', '2 decided', 'COMMIT by reader'),
  'phaseTwo, mark asked': after(
    BRANCHES,
    '1 prepared',
    '2 decided',
    'COMMIT by reader',
    '1 not there to commit',
  ),
  'phaseTwo, 1 over': after(BRANCHES, '1 prepared', '2 decided', '1 committed'),
  'rollingBack, prepared': after([branch(1), branch(2)], '1 prepared', 'error by 2 for decision'),
  'rollingBack, in flight': after(
    [branch(4), branch(1), branch(2)],
    'error by 4 for PREPARE',
    '2 rolled back',
  ),
  'rollingBack, open': after(UNSURE.slice(1), 'error by 2 for xid', '2 rolled back'),
  done: { kind: 'done' },
};

/** Next state, and the effects in their order. */
function shown({ state, effects }: CommitStep): string {
  return [`${state.kind}:`, ...effects.map(shownEffect)].join(' ');
}

function shownEffect(effect: CommitEffect): string {
  switch (effect.kind) {
    case 'setTimer':
      return `timer(${effect.timer})`;
    case 'clean':
      return `clean(${effect.commitPoint}; ${effect.participants})`;
    case 'commitPrepared':
    case 'rollbackPrepared':
      return `${effect.kind}(${effect.nodeId} ${effect.via}${effect.afterMs > 0 ? ' later' : ''})`;
    case 'askMark':
      return `askMark(${effect.nodeId}${effect.afterMs > 0 ? ' later' : ''})`;
    case 'answer': {
      const { result } = effect;
      switch (result.kind) {
        case 'committed':
          return `answer(committed${result.unconfirmed.map((id) => ` but ${id}`).join('')})`;
        case 'rolledBack':
          return `answer(rolledBack: ${result.cause.kind})`;
        case 'unknown':
          return `answer(unknown${result.twoPhase ? ', token' : ''})`;
        default:
          return `answer(lost ${result.nodeIds})`;
      }
    }
    default:
      return `${effect.kind}(${effect.nodeId})`;
  }
}

/** What is left out is an assertion; a timeout of another wait is no event at all. */
const TABLE: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  onePhase: {
    'COMMIT by 2': 'readers: commit(3) timer(phaseTwo)',
    'ROLLBACK by 2 for COMMIT': 'rollingBack: rollback(3) timer(rollback)',
    'error by 2 for COMMIT': 'rollingBack: rollback(3) timer(rollback)',
    'loss of 2 at COMMIT': 'readers: commit(3) timer(phaseTwo)',
  },
  'readers, after a participant': {
    'COMMIT by reader': 'done: answer(committed)',
    'loss of reader at COMMIT': 'done: answer(committed)',
    'timeout phaseTwo': 'done: abandon(3) answer(committed)',
  },
  'readers, alone': {
    'COMMIT by reader': 'done: answer(committed)',
    'loss of reader at COMMIT': 'done: answer(rolledBack: lost)',
    'timeout phaseTwo': 'done: abandon(3) answer(rolledBack: lost)',
  },
  'readers, unknown': {
    'COMMIT by reader': 'done: answer(unknown, token)',
    'loss of reader at COMMIT': 'done: answer(unknown, token)',
    'resolved committed': 'stay',
    'resolved rolledBack': 'stay',
    'resolved lost': 'stay',
    'resolved expired': 'stay',
    'timeout phaseTwo': 'done: abandon(3) answer(unknown, token)',
  },
  assigning: {
    'xid of 2': 'preparing: prepare(1) timer(prepare)',
    'error by 2 for xid': 'rollingBack: rollback(2) rollback(1) rollback(3) timer(rollback)',
    'loss of 2 at xid': 'rollingBack: rollback(1) rollback(3) timer(rollback)',
    'timeout prepare': 'rollingBack: abandon(2) rollback(1) rollback(3) timer(rollback)',
  },
  preparing: {
    '1 prepared': 'deciding: decide(2) timer(decide)',
    'ROLLBACK by 1 for PREPARE': 'rollingBack: rollback(2) rollback(3) timer(rollback)',
    'error by 1 for PREPARE': 'rollingBack: rollback(2) rollback(3) timer(rollback)',
    'loss of 1 at PREPARE': 'rollingBack: rollback(2) rollback(3) rollbackPrepared(1 fresh) timer(rollback)',
    'timeout prepare':
      'rollingBack: abandon(1) rollback(2) rollback(3) rollbackPrepared(1 fresh) timer(rollback)',
  },
  deciding: {
    '2 decided': 'phaseTwo: commitPrepared(1 own) commit(3) timer(phaseTwo)',
    'ROLLBACK by 2 for decision': 'rollingBack: rollbackPrepared(1 own) rollback(3) timer(rollback)',
    'error by 2 for decision': 'rollingBack: rollbackPrepared(1 own) rollback(3) timer(rollback)',
    'loss of 2 at decision': 'resolving: resolve(2) timer(resolve)',
    'timeout decide': 'resolving: abandon(2) resolve(2) timer(resolve)',
  },
  resolving: {
    'resolved committed': 'phaseTwo: commitPrepared(1 own) commit(3) timer(phaseTwo)',
    'resolved rolledBack': 'rollingBack: rollbackPrepared(1 own) rollback(3) timer(rollback)',
    'resolved lost': 'phaseTwo: reportLoss(2) commitPrepared(1 own) commit(3) timer(phaseTwo)',
    'resolved expired': 'readers: commit(3) timer(phaseTwo)',
    'timeout resolve': 'readers: commit(3) timer(phaseTwo)',
  },
  'phaseTwo, reader over': {
    '1 committed': 'done: answer(committed) clean(2; 1)',
    '1 not there to commit': 'phaseTwo: askMark(1)',
    '1 failed to commit': 'phaseTwo: commitPrepared(1 fresh later)',
    'timeout phaseTwo': 'done: abandon(1) answer(committed but 1)',
  },
  'phaseTwo, mark asked': {
    'mark visible': 'done: answer(committed) clean(2; 1)',
    'mark missing': 'done: reportLoss(1) answer(lost 1)',
    'mark missing, late': 'done: answer(committed but 1)',
    'mark unreachable': 'phaseTwo: askMark(1 later)',
    'timeout phaseTwo': 'done: answer(committed but 1)',
  },
  'phaseTwo, 1 over': {
    'COMMIT by reader': 'done: answer(committed) clean(2; 1)',
    'loss of reader at COMMIT': 'done: answer(committed) clean(2; 1)',
    'timeout phaseTwo': 'done: abandon(3) answer(committed) clean(2; 1)',
  },
  'rollingBack, prepared': {
    '1 finished rollback': 'done: answer(rolledBack: error)',
    '1 not there to roll back': 'done: answer(rolledBack: error)',
    '1 failed to roll back': 'rollingBack: rollbackPrepared(1 fresh later)',
    'timeout rollback': 'done: abandon(1) answer(rolledBack: error)',
  },
  'rollingBack, in flight': {
    '1 prepared': 'rollingBack: rollbackPrepared(1 own)',
    'ROLLBACK by 1 for PREPARE': 'done: answer(rolledBack: error)',
    'error by 1 for PREPARE': 'done: answer(rolledBack: error)',
    'loss of 1 at PREPARE': 'rollingBack: rollbackPrepared(1 fresh)',
    'timeout rollback': 'done: abandon(1) answer(rolledBack: error)',
  },
  'rollingBack, open': {
    'timeout rollback': 'done: abandon(1) answer(rolledBack: error)',
  },
  done: {
    'resolved committed': 'stay',
    'resolved rolledBack': 'stay',
    'resolved lost': 'stay',
    'resolved expired': 'stay',
    '1 committed': 'stay',
    '1 not there to commit': 'stay',
    '1 failed to commit': 'stay',
    '1 finished rollback': 'stay',
    '1 not there to roll back': 'stay',
    '1 failed to roll back': 'stay',
    'mark visible': 'stay',
    'mark missing': 'stay',
    'mark missing, late': 'stay',
    'mark unreachable': 'stay',
  },
};

describe('the transition table of a commit', () => {
  it('has each state', () => {
    expect(Object.keys(TABLE)).toEqual(Object.keys(STATES));
    const kinds = new Set(Object.values(STATES).map(({ kind }) => kind));
    expect(kinds.size).toBe(9);
  });

  const pairs = Object.keys(STATES).flatMap((state) =>
    Object.keys(EVENTS).map((event) => [state, event] as const),
  );
  it.each(pairs)('%s × %s', (stateName, eventName) => {
    const state = STATES[stateName]!;
    const event = EVENTS[eventName]!;
    const expected = TABLE[stateName]![eventName] ?? (event.kind === 'timeout' ? 'stay' : undefined);
    if (expected === undefined) {
      expect(() => stepCommit(state, event, OPTIONS)).toThrow('a bug in Postern');
      return;
    }
    const step = stepCommit(state, event, OPTIONS);
    const isSame = step.state === state && step.effects.length === 0;
    expect(isSame ? 'stay' : shown(step)).toBe(expected);
  });
});

describe('the start of a commit', () => {
  const start = (branches: readonly Branch[]) => shown(startCommit(branches, OPTIONS));
  const temporary = { unpreparable: true };

  it.each<[string, readonly Branch[], string]>([
    [
      'I2: one that has only read: COMMIT, without a timer',
      [branch(3, { wrote: false })],
      'readers: commit(3)',
    ],
    [
      'I2: nobody has written: COMMIT on all',
      [branch(3, { wrote: false }), branch(4, { wrote: false })],
      'readers: commit(3) commit(4) timer(phaseTwo)',
    ],
    [
      'I2: one participant: COMMIT there first',
      [branch(3, { wrote: false }), branch(2)],
      'onePhase: commit(2)',
    ],
    [
      'I3: the last one written is the commit point',
      [branch(1), branch(2)],
      'preparing: prepare(1) timer(prepare)',
    ],
    [
      'I3: … that surely has an xid',
      [branch(1), branch(2), branch(4, { hasXid: false })],
      'preparing: prepare(1) prepare(4) timer(prepare)',
    ],
    [
      "I3: or the one with what can't be prepared",
      [branch(1, temporary), branch(2)],
      'preparing: prepare(2) timer(prepare)',
    ],
    [
      'I3: two such are refused before anything is prepared',
      [branch(1, temporary), branch(2, temporary), branch(4)],
      'rollingBack: rollback(1) rollback(2) rollback(4) timer(rollback)',
    ],
    [
      'I4: a commit point gets its xid before the first PREPARE',
      [branch(1, { ...temporary, hasXid: false }), branch(2)],
      'assigning: assignXid(1) timer(prepare)',
    ],
  ])('%s', (_, branches, expected) => {
    expect(start(branches)).toBe(expected);
  });

  it('I16: branches whose roles differ are rolled back', () => {
    const three = [branch(1), branch(4), branch(2)];
    const state = after(three, '1 prepared');
    const other: Reply = { kind: 'tag', tag: 'PREPARE TRANSACTION', owner: 'somebody' };
    const step = stepCommit(state, answered(4, 'prepare', other), OPTIONS);
    expect(shown(step)).toBe(
      'rollingBack: rollback(2) rollbackPrepared(1 own) rollbackPrepared(4 own) timer(rollback)',
    );
    expect(step.state).toMatchObject({ cause: { kind: 'ownersDiffer', nodeId: 4 } });
  });
});
