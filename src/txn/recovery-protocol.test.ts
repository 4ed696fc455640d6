/** Recovery as a transition table: every state meets every event; what is not in the table is an assertion. */
import { describe, expect, it } from 'vitest';
import {
  type ForeignTransaction,
  judgeDecision,
  mayDeleteAbortRow,
  mayDeleteMark,
  type ParticipantSeen,
  type RecoveryEvent,
  type RecoveryState,
  type RecoveryStep,
  startRecovery,
  stepRecovery,
} from './recovery-protocol.ts';

const OLD: ForeignTransaction = {
  purpose: 'recover',
  ageMs: 1_000,
  recoveryAfterMs: 1_000,
  decisionsKeptMs: 5_000,
};
const YOUNG: ForeignTransaction = { ...OLD, ageMs: 999 };
const SETTLED: ForeignTransaction = { ...OLD, purpose: 'settle' };
const EXPIRED: ForeignTransaction = { ...SETTLED, ageMs: 5_000 };

const asked = (
  decision: 'commit' | 'abort' | 'none' | 'unreachable',
  backend: 'inTransaction' | 'gone' = 'gone',
): RecoveryEvent => ({ kind: 'decisionAsked', decision, backend });

const EVENTS: Readonly<Record<string, RecoveryEvent>> = {
  commit: asked('commit'),
  abort: asked('abort'),
  'none, open': asked('none', 'inTransaction'),
  'none, gone': asked('none'),
  unreachable: asked('unreachable'),
  'marks visible': { kind: 'marksAsked', visible: true },
  'no marks': { kind: 'marksAsked', visible: false },
  'still prepared': { kind: 'preparedAsked', prepared: 'there' },
  'not prepared': { kind: 'preparedAsked', prepared: 'gone' },
  'prepared unreachable': { kind: 'preparedAsked', prepared: 'unreachable' },
  inserted: { kind: 'abortRowInserted', result: 'inserted' },
  exists: { kind: 'abortRowInserted', result: 'exists' },
  locked: { kind: 'abortRowInserted', result: 'locked' },
  'insert unreachable': { kind: 'abortRowInserted', result: 'unreachable' },
  ended: { kind: 'terminated', result: 'gone' },
  'not ended': { kind: 'terminated', result: 'stillThere' },
  'end unreachable': { kind: 'terminated', result: 'unreachable' },
  finished: { kind: 'finished', result: 'done' },
  'not there': { kind: 'finished', result: 'notThere' },
  failed: { kind: 'finished', result: 'failed' },
};

const STATES: Readonly<Record<string, RecoveryState>> = {
  asking: { kind: 'asking', attempts: 1 },
  askingMarks: { kind: 'askingMarks', attempts: 1 },
  askingAgain: { kind: 'askingAgain', attempts: 1 },
  askingPrepared: { kind: 'askingPrepared' },
  inserting: { kind: 'inserting', attempts: 1 },
  'inserting, last': { kind: 'inserting', attempts: 4 },
  terminating: { kind: 'terminating', attempts: 1 },
  'terminating, last': { kind: 'terminating', attempts: 4 },
  freeing: { kind: 'freeing' },
  finishing: { kind: 'finishing', outcome: 'committed' },
  done: { kind: 'done', result: { kind: 'gone' } },
};

function shown({ state, effects }: RecoveryStep): string {
  const texts = effects.map((effect) =>
    effect.kind === 'finish' ? `finish(${effect.outcome})` : effect.kind,
  );
  if (state.kind !== 'done') return [`${state.kind}:`, ...texts].join(' ');
  const { result } = state;
  return [
    ...texts,
    result.kind,
    result.kind === 'settled' ? result.outcome : '',
    result.kind === 'stays' ? result.why : '',
  ]
    .filter((text) => text !== '')
    .join(' ');
}

type Table = Readonly<Record<string, Readonly<Record<string, string>>>>;

const RECOVERING: Table = {
  asking: {
    commit: 'finishing: finish(commit)',
    abort: 'finishing: finish(abort)',
    'none, open': 'askingMarks: askMarks',
    'none, gone': 'askingMarks: askMarks',
    unreachable: 'stays unreachable',
  },
  askingMarks: {
    'marks visible': 'askingAgain: askDecision',
    'no marks': 'inserting: insertAbortRow',
  },
  askingAgain: {
    commit: 'finishing: finish(commit)',
    abort: 'finishing: finish(abort)',
    'none, open': 'askingPrepared: askPrepared',
    'none, gone': 'askingPrepared: askPrepared',
    unreachable: 'stays unreachable',
  },
  askingPrepared: {
    'still prepared': 'finishing: reportLoss finish(commit)',
    'not prepared': 'gone',
    'prepared unreachable': 'stays unreachable',
  },
  inserting: {
    inserted: 'freeing: terminate',
    exists: 'asking: askDecision',
    locked: 'terminating: terminate',
    'insert unreachable': 'stays unreachable',
  },
  'inserting, last': {
    inserted: 'freeing: terminate',
    exists: 'stays busy',
    locked: 'terminating: terminate',
    'insert unreachable': 'stays unreachable',
  },
  terminating: {
    ended: 'inserting: insertAbortRow',
    'not ended': 'stays busy',
    'end unreachable': 'stays unreachable',
  },
  'terminating, last': {
    ended: 'stays busy',
    'not ended': 'stays busy',
    'end unreachable': 'stays unreachable',
  },
  freeing: {
    ended: 'finishing: finish(abort)',
    'not ended': 'finishing: finish(abort)',
    'end unreachable': 'finishing: finish(abort)',
  },
  finishing: { finished: 'settled committed', 'not there': 'gone', failed: 'stays unreachable' },
  done: {},
};

/** Only what differs. */
const SETTLING: Table = {
  asking: { ...RECOVERING.asking!, commit: 'settled committed', abort: 'settled rolledBack' },
  askingPrepared: {},
  askingAgain: {
    commit: 'settled committed',
    abort: 'settled rolledBack',
    'none, open': 'reportLoss settled lost',
    'none, gone': 'reportLoss settled lost',
    unreachable: 'stays unreachable',
  },
  freeing: {
    ended: 'settled rolledBack',
    'not ended': 'settled rolledBack',
    'end unreachable': 'settled rolledBack',
  },
};

const TOO_LATE: Table = {
  asking: {
    commit: 'settled committed',
    abort: 'stays expired',
    'none, open': 'stays expired',
    'none, gone': 'stays expired',
    unreachable: 'stays unreachable',
  },
  askingAgain: { ...SETTLING.askingAgain!, abort: 'stays expired' },
  askingPrepared: {},
  freeing: { ended: 'stays expired', 'not ended': 'stays expired', 'end unreachable': 'stays expired' },
};

describe.each<[string, ForeignTransaction, Table]>([
  ['recovering', OLD, RECOVERING],
  ['recovering a young one', YOUNG, { asking: { ...RECOVERING.asking!, 'none, open': 'stays younger' } }],
  ['settling an outcome', SETTLED, SETTLING],
  ['I14: settling too late', EXPIRED, TOO_LATE],
])('the transition table of %s', (_, transaction, table) => {
  const pairs = Object.keys(STATES).flatMap((state) =>
    Object.keys(EVENTS).map((event) => [state, event] as const),
  );
  it.each(pairs)('%s × %s', (stateName, eventName) => {
    const expected = (table[stateName] ?? RECOVERING[stateName]!)[eventName];
    const step = () => stepRecovery(STATES[stateName]!, EVENTS[eventName]!, transaction);
    if (expected === undefined) expect(step).toThrow('a bug in Postern');
    else expect(shown(step())).toBe(expected);
  });
});

describe('recovery', () => {
  it('asks for the decision first', () => {
    expect(shown(startRecovery())).toBe('asking: askDecision');
  });

  it('I10: ends, whatever it is told', () => {
    for (const [first, second] of [
      ['exists', 'none, gone'],
      ['locked', 'ended'],
    ] as const) {
      let { state } = startRecovery();
      let steps = 0;
      while (state.kind !== 'done' && steps++ < 100) {
        const name = { asking: 'none, gone', askingMarks: 'no marks', inserting: first, terminating: second }[
          state.kind as string
        ]!;
        ({ state } = stepRecovery(state, EVENTS[name]!, OLD));
      }
      expect(state).toEqual({ kind: 'done', result: { kind: 'stays', why: 'busy' } });
    }
  });
});

describe('what commits have left', () => {
  it('I11: an abort row goes when no transaction is left that could still decide, and nothing is prepared', () => {
    const may = (xidBelowXmin: boolean, preparedLeft: 'no' | 'yes' | 'unknown') =>
      mayDeleteAbortRow({ xidBelowXmin, preparedLeft });
    expect(may(true, 'no')).toBe(true);
    expect(may(false, 'no')).toBe(false);
    expect(may(true, 'yes')).toBe(false);
    expect(may(true, 'unknown')).toBe(false);
  });

  it('I9: a mark goes after its decision, and when nothing is prepared', () => {
    expect(mayDeleteMark({ decision: 'none', preparedLeft: 'no' })).toBe(true);
    expect(mayDeleteMark({ decision: 'abort', preparedLeft: 'no' })).toBe(true);
    expect(mayDeleteMark({ decision: 'commit', preparedLeft: 'no' })).toBe(false);
    expect(mayDeleteMark({ decision: 'unreachable', preparedLeft: 'no' })).toBe(false);
    expect(mayDeleteMark({ decision: 'none', preparedLeft: 'yes' })).toBe(false);
    expect(mayDeleteMark({ decision: 'none', preparedLeft: 'unknown' })).toBe(false);
  });

  const over: ParticipantSeen = { nodeId: 1, prepared: 'gone', mark: 'visible' };
  it.each<[string, Partial<Parameters<typeof judgeDecision>[0]>, boolean, number[]]>([
    ['is kept as long as tokens may ask for it', { ageMs: 99 }, false, []],
    ['goes then', {}, true, []],
    [
      'waits for a prepared transaction',
      { participants: [{ ...over, prepared: 'there', mark: 'missing' }] },
      false,
      [],
    ],
    ['waits for a node', { participants: [over, { ...over, prepared: 'unreachable' }] }, false, []],
    ['waits for an answer about the mark', { participants: [{ ...over, mark: 'unreachable' }] }, false, []],
    ['names a loss at once', { ageMs: 1, participants: [{ ...over, mark: 'missing' }] }, false, [1]],
    ['goes with its loss, in the end', { participants: [{ ...over, mark: 'missing' }] }, true, [1]],
    [
      'proves nothing when it has gone',
      { participants: [{ ...over, mark: 'missing' }], stillThere: false },
      false,
      [],
    ],
  ])('I9: a decision %s', (_, fields, mayDelete, lost) => {
    const row = { ageMs: 100, keptMs: 100, participants: [over], stillThere: true, ...fields };
    expect(judgeDecision(row)).toEqual({ mayDelete, lost });
  });
});
