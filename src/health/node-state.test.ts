import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type HealthTimes,
  initialNodeState,
  isShut,
  type NodeEffect,
  type NodeEvent,
  type NodeState,
  type NodeStateKind,
  stepNode,
} from './node-state.ts';

const TIMES: HealthTimes = { intervalMs: 1_000, unresponsiveAfterMs: 3_000, cutAfterMs: 15_000 };
/** All events happen then; it has answered one second before. */
const NOW = 100_000;

const KINDS: readonly NodeStateKind[] = ['up', 'doubtful', 'unresponsive', 'unreachable', 'noPrimary'];

function stateOf(kind: NodeStateKind, silentMs: number): NodeState {
  return {
    ...initialNodeState(NOW - 50_000),
    kind,
    answeredMs: NOW - silentMs,
    failures: kind === 'unreachable' ? 2 : 0,
  };
}

const ANSWERED: NodeEvent = { kind: 'answered', atMs: NOW };
const FAILED: NodeEvent = { kind: 'failed', atMs: NOW, cause: 'refused' };
const NO_PRIMARY: NodeEvent = { kind: 'noPrimary', atMs: NOW, cause: 'standbys' };
const LATE: NodeEvent = { kind: 'tick', atMs: NOW, owedMs: 1_000 };
const IN_TIME: NodeEvent = { kind: 'tick', atMs: NOW, owedMs: 999 };

describe('the state of a node', () => {
  it.each<[string, NodeEvent, number, Record<NodeStateKind, [NodeStateKind, NodeEffect[]]>]>([
    [
      'an answer',
      ANSWERED,
      20_000,
      {
        up: ['up', []],
        doubtful: ['up', ['changed']],
        unresponsive: ['up', ['open', 'changed']],
        unreachable: ['up', ['changed']],
        noPrimary: ['up', ['changed']],
      },
    ],
    [
      'a refusal',
      FAILED,
      1_000,
      {
        up: ['doubtful', ['changed']],
        doubtful: ['unreachable', ['changed']],
        unresponsive: ['unreachable', ['open', 'changed']],
        unreachable: ['unreachable', []],
        noPrimary: ['unreachable', ['changed']],
      },
    ],
    [
      'standbys alone',
      NO_PRIMARY,
      1_000,
      {
        up: ['noPrimary', ['changed']],
        doubtful: ['noPrimary', ['changed']],
        unresponsive: ['noPrimary', ['open', 'changed']],
        unreachable: ['noPrimary', ['changed']],
        noPrimary: ['noPrimary', []],
      },
    ],
    [
      'an answer that is late',
      LATE,
      2_999,
      {
        up: ['doubtful', ['changed']],
        doubtful: ['doubtful', []],
        unresponsive: ['unresponsive', []],
        unreachable: ['unreachable', []],
        noPrimary: ['noPrimary', []],
      },
    ],
    [
      'an answer that is late, after silence',
      LATE,
      3_000,
      {
        up: ['unresponsive', ['shut', 'changed']],
        doubtful: ['unresponsive', ['shut', 'changed']],
        unresponsive: ['unresponsive', []],
        unreachable: ['unresponsive', ['shut', 'changed']],
        noPrimary: ['unresponsive', ['shut', 'changed']],
      },
    ],
    [
      'an answer that is not late yet, after silence',
      IN_TIME,
      14_999,
      {
        up: ['up', []],
        doubtful: ['doubtful', []],
        unresponsive: ['unresponsive', []],
        unreachable: ['unreachable', []],
        noPrimary: ['noPrimary', []],
      },
    ],
    [
      'silence for so long that what waits is given up',
      IN_TIME,
      15_000,
      {
        up: ['up', []],
        doubtful: ['doubtful', ['cut']],
        unresponsive: ['unresponsive', ['cut']],
        unreachable: ['unreachable', ['cut']],
        noPrimary: ['noPrimary', ['cut']],
      },
    ],
    [
      'the process having stood still',
      { kind: 'paused', forMs: 20_000 },
      20_000,
      {
        up: ['up', []],
        doubtful: ['doubtful', []],
        unresponsive: ['unresponsive', []],
        unreachable: ['unreachable', []],
        noPrimary: ['noPrimary', []],
      },
    ],
  ])('by %s', (_, event, silentMs, expected) => {
    for (const kind of KINDS) {
      const { state, effects } = stepNode(stateOf(kind, silentMs), event, TIMES);
      expect([kind, state.kind, effects]).toEqual([kind, ...expected[kind]]);
      expect(state.sinceMs).toBe(state.kind === kind ? NOW - 50_000 : NOW);
    }
  });

  it('gives up what waits once, until something has answered', () => {
    const silent = stateOf('unreachable', 15_000);
    const first = stepNode(silent, FAILED, TIMES);
    expect(first.effects).toEqual(['cut']);
    expect(stepNode(first.state, FAILED, TIMES).effects).toEqual([]);
    const back = stepNode(first.state, ANSWERED, TIMES);
    const later = { ...FAILED, atMs: NOW + 20_000 };
    expect(stepNode(stepNode(back.state, later, TIMES).state, later, TIMES).effects).not.toContain('open');
    expect(stepNode(back.state, later, TIMES).effects).toContain('cut');
  });

  it('does not count time in which the process stood still', () => {
    const paused = stepNode(stateOf('up', 1_000), { kind: 'paused', forMs: 60_000 }, TIMES).state;
    expect(stepNode(paused, { kind: 'tick', atMs: NOW + 60_000, owedMs: 1_000 }, TIMES).state.kind).toBe(
      'doubtful',
    );
  });

  it('shuts and opens in turns, and cuts nobody that has answered lately, whatever comes', () => {
    const event = fc.oneof(
      fc.record({ kind: fc.constant('answered' as const) }),
      fc.record({ kind: fc.constant('failed' as const), cause: fc.constant('x') }),
      fc.record({ kind: fc.constant('noPrimary' as const), cause: fc.constant('x') }),
      fc.record({ kind: fc.constant('tick' as const), owedMs: fc.integer({ min: 0, max: 5_000 }) }),
    );
    const steps = fc.array(fc.tuple(fc.integer({ min: 1, max: 4_000 }), event), { maxLength: 60 });
    fc.assert(
      fc.property(steps, (list) => {
        let state = initialNodeState(0);
        let isOpen = true;
        let atMs = 0;
        let answeredMs = 0;
        let cuts = 0;
        for (const [afterMs, one] of list) {
          atMs += afterMs;
          const step = stepNode(state, { ...one, atMs } as NodeEvent, TIMES);
          state = step.state;
          if (one.kind === 'answered') {
            answeredMs = atMs;
            cuts = 0;
            expect(state.kind).toBe('up');
          }
          for (const effect of step.effects) {
            if (effect === 'shut') expect(isOpen).toBe(true);
            if (effect === 'open') expect(isOpen).toBe(false);
            if (effect === 'shut' || effect === 'open') isOpen = effect === 'open';
            if (effect === 'cut') {
              expect(atMs - answeredMs).toBeGreaterThanOrEqual(TIMES.cutAfterMs);
              expect(++cuts).toBe(1);
            }
          }
          expect(isShut(state)).toBe(!isOpen);
        }
      }),
    );
  });
});
