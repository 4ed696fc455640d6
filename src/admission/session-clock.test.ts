/** Time-outs of one session: what is seen at each look, and what follows from it. */
import { describe, expect, it } from 'vitest';
import { type ClockLimits, clockStart, type Look, look } from './session-clock.ts';

const LIMITS: ClockLimits = { idle: 1_000, idleInTransaction: 500, statement: 2_000, stalled: 5_000 };
const NONE = { idle: 0, idleInTransaction: 0, statement: 0 };
const seen = (changed: Partial<Look>): Look => ({
  ...{ doing: 'idle', mark: 1, unsentBytes: 0, own: NONE, waitsHere: false },
  ...changed,
});

/** The looks at which something was over, of looks every 100 ms until `untilMs`. */
function looks(at: (atMs: number) => Partial<Look>, limits: ClockLimits, untilMs: number): string[] {
  const clock = clockStart(0);
  const found: string[] = [];
  for (let atMs = 0; atMs <= untilMs; atMs += 100) {
    const expiry = look(clock, seen(at(atMs)), limits, atMs);
    if (expiry) found.push(`${atMs} ${expiry}`);
  }
  return found;
}

describe('a session', () => {
  it.each<[string, Partial<Look>, Partial<ClockLimits>, string[]]>([
    ['idle', { doing: 'idle' }, {}, ['1000 idle', '1100 idle']],
    ['idle without a limit', { doing: 'idle' }, { idle: 0 }, []],
    ['idle with its own limit', { doing: 'idle', own: { ...NONE, idle: 1_100 } }, { idle: 0 }, ['1100 idle']],
    [
      'idle with a longer one',
      { doing: 'idle', own: { ...NONE, idle: 9_000 } },
      {},
      ['1000 idle', '1100 idle'],
    ],
    [
      'idle in a transaction',
      { doing: 'inTransaction' },
      { idleInTransaction: 1_100 },
      ['1100 idleInTransaction'],
    ],
    [
      'idle in one, with a shorter limit of its own',
      { doing: 'inTransaction', own: { ...NONE, idleInTransaction: 1_000 } },
      { idleInTransaction: 9_000 },
      ['1000 idleInTransaction', '1100 idleInTransaction'],
    ],
    ['busy', { doing: 'busy' }, { statement: 500 }, ['500 statement', '1000 statement']],
    ['busy without a limit', { doing: 'busy' }, { statement: 0 }, []],
    [
      'busy in the router, with a limit of its own',
      { doing: 'busy', own: { ...NONE, statement: 600 }, waitsHere: true },
      {},
      ['600 statement'],
    ],
    ['busy on a server, which has that limit', { doing: 'busy', own: { ...NONE, statement: 600 } }, {}, []],
    [
      'busy on a server that does not keep it',
      { doing: 'busy', own: { ...NONE, statement: 50 } },
      {},
      ['1100 statement'],
    ],
    ['sending, to a client that reads', { doing: 'sending', unsentBytes: 5 }, {}, []],
    [
      'sending to one that does not',
      { doing: 'sending', unsentBytes: 5 },
      { stalled: 1_100 },
      ['1100 stalled'],
    ],
    ['busy for one that does not', { doing: 'busy', unsentBytes: 5 }, { stalled: 1_100 }, ['1100 stalled']],
  ])('that is %s', (_, what, changed, expected) => {
    expect(looks(() => what, { ...LIMITS, ...changed }, 1_100)).toEqual(expected);
  });

  it('begins anew with each statement, transaction and answer', () => {
    expect(looks((atMs) => ({ doing: 'busy', mark: Math.floor(atMs / 1_900) }), LIMITS, 60_000)).toEqual([]);
    expect(
      looks((atMs) => ({ doing: atMs % 900 === 0 ? 'busy' : 'idle', mark: atMs % 900 }), LIMITS, 60_000),
    ).toEqual([]);
    expect(
      looks((atMs) => ({ doing: atMs < 400 ? 'inTransaction' : 'idle', mark: 1 }), LIMITS, 1_400),
    ).toEqual(['1400 idle']);
  });

  it('that takes a little of its output now and then is not stalled', () => {
    const at = (atMs: number) => ({
      doing: 'sending' as const,
      unsentBytes: 1_000_000 - Math.floor(atMs / 4_000),
    });
    expect(looks(at, LIMITS, 60_000)).toEqual([]);
  });
});
