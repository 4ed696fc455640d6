import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { type BypassLogin, type BypassState, NOTHING_SEEN, step, unclaimed } from './bypass.ts';
import type { SessionFacts } from './server-facts.ts';

function session(processId: number, more: Partial<SessionFacts> = {}): SessionFacts {
  return {
    ...{
      processId,
      startedAt: 'noon',
      ageSeconds: 60,
      role: 'app',
      applicationName: 'psql',
      address: '10.0.0.5',
    },
    ...more,
  };
}

const RULES = {
  controlRole: 'postern',
  meshRole: 'postern_mesh_1',
  allowed: new Set<string>(),
  claimed: new Set<number>(),
};

test.each<[string, SessionFacts, Partial<typeof RULES>, boolean]>([
  ['anybody', session(1), {}, true],
  ["a router's backend", session(1), { claimed: new Set([1]) }, false],
  ['an allowed role', session(1), { allowed: new Set(['app']) }, false],
  ['the control path', session(1, { role: 'postern', applicationName: 'postern control' }), {}, false],
  [
    'the doctor of an operator',
    session(1, { role: 'postern', applicationName: 'postern doctor' }),
    {},
    false,
  ],
  ['the mesh', session(1, { role: 'postern_mesh_1', applicationName: 'postern mesh' }), {}, false],
  ['a name alone', session(1, { applicationName: 'postern control' }), {}, true],
  ['the role of the control path alone', session(1, { role: 'postern' }), {}, true],
  ['a name that only begins so', session(1, { role: 'postern', applicationName: 'posterns' }), {}, true],
])('%s', (_, one, rules, isUnclaimed) => {
  expect(unclaimed([one], { ...RULES, ...rules }).length).toBe(isUnclaimed ? 1 : 0);
});

describe('what is told, look by look', () => {
  const looks = (...all: readonly (readonly SessionFacts[])[]): (readonly [number, number])[] => {
    let state: BypassState = NOTHING_SEEN;
    return all.map((unknown) => {
      const result = step(state, { node: 'n1', unknown });
      state = result.state;
      return [result.tell.length, result.newSessions] as const;
    });
  };

  it.each<[string, readonly (readonly SessionFacts[])[], readonly (readonly [number, number])[]]>([
    [
      'the second look, and once',
      [[session(1)], [session(1)], [session(1)]],
      [
        [0, 0],
        [1, 1],
        [0, 0],
      ],
    ],
    [
      'not one that a router claims by then',
      [[session(1)], [], [session(1)]],
      [
        [0, 0],
        [0, 0],
        [0, 0],
      ],
    ],
    [
      'not another process with the same pid',
      [[session(1)], [session(1, { startedAt: 'one' })]],
      [
        [0, 0],
        [0, 0],
      ],
    ],
    [
      'two alike: told once, counted twice',
      [
        [session(1), session(2)],
        [session(1), session(2)],
      ],
      [
        [0, 0],
        [1, 2],
      ],
    ],
    [
      'the same again later: counted, and not told',
      [[session(1)], [session(1)], [session(2)], [session(2)]],
      [
        [0, 0],
        [1, 1],
        [0, 0],
        [0, 1],
      ],
    ],
    [
      'another application',
      [
        [session(1), session(2, { applicationName: 'cron' })],
        [session(1), session(2, { applicationName: 'cron' })],
      ],
      [
        [0, 0],
        [2, 2],
      ],
    ],
  ])('%s', (_, given, expected) => {
    expect(looks(...given)).toEqual(expected);
  });

  it('is what a reader of the whole history would say', () => {
    const world = fc.array(
      fc.record({ node: fc.constantFrom('n1', 'n2'), pids: fc.uniqueArray(fc.integer({ min: 1, max: 4 })) }),
      { maxLength: 20 },
    );
    fc.assert(
      fc.property(world, (history) => {
        let state: BypassState = NOTHING_SEEN;
        let counted = 0;
        const told: BypassLogin[] = [];
        for (const { node, pids } of history) {
          const unknown = pids.map((pid) => session(pid, { role: `r${pid % 2}` }));
          const result = step(state, { node, unknown });
          state = result.state;
          counted += result.newSessions;
          told.push(...result.tell);
        }
        // A run of looks of one node in which a pid is unknown counts once if it is two looks long or longer.
        let runs = 0;
        const kinds = new Set<string>();
        for (const node of ['n1', 'n2'])
          for (const pid of [1, 2, 3, 4]) {
            const seen = history.filter((look) => look.node === node).map(({ pids }) => pids.includes(pid));
            for (const [i, is] of seen.entries())
              if (is && seen[i - 1] && !seen[i - 2]) {
                runs++;
                kinds.add(`${node} r${pid % 2}`);
              }
          }
        expect(counted).toBe(runs);
        expect(told.map(({ node, role }) => `${node} ${role}`).sort()).toEqual([...kinds].sort());
      }),
    );
  });
});
