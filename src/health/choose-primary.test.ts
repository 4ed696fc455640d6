import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { choosePrimary, type HostAnswer, type KnownPrimary, NO_PRIMARY_YET } from './choose-primary.ts';

let started = 0;
/** Each a server of its own. */
const primary = (timeline: number, systemId = 'a', startedAt = String(started++)): HostAnswer => ({
  kind: 'primary',
  timeline,
  systemId,
  isReadOnly: false,
  startedAt,
});
const STANDBY: HostAnswer = { kind: 'standby' };
const AWAY: HostAnswer = { kind: 'away', cause: 'refused' };
const SILENT: HostAnswer = { kind: 'silent' };
const REFUSING: HostAnswer = { kind: 'refusing', cause: 'too many' };
const first: KnownPrimary = { place: 0, timeline: 3, systemId: 'a' };

describe('the primary among hosts', () => {
  it.each<
    [string, (HostAnswer | undefined)[], KnownPrimary, number | undefined, boolean, number[], number[]]
  >([
    ['the only host', [primary(1)], NO_PRIMARY_YET, 0, true, [], []],
    ['the only host, which lets nobody in', [REFUSING], NO_PRIMARY_YET, undefined, true, [], []],
    ['one that is not there yet', [undefined, primary(1)], NO_PRIMARY_YET, 1, true, [], []],
    ['standbys alone', [STANDBY, STANDBY], NO_PRIMARY_YET, undefined, false, [], []],
    ['a present one that answers', [primary(3), STANDBY], first, 0, true, [], []],
    ['a present one that is silent, and no other', [SILENT, STANDBY], first, 0, false, [], []],
    ['a present one that lets nobody in', [REFUSING, STANDBY], first, 0, true, [], []],
    ['a standby that lets nobody in', [AWAY, REFUSING], first, 0, false, [], []],
    ['a promotion', [AWAY, primary(4)], first, 1, true, [], []],
    ['a promotion beside the old primary', [primary(3), primary(4)], first, 1, true, [0], []],
    ['a promotion beside a frozen one', [SILENT, primary(4)], first, 1, true, [], []],
    ['the old primary coming back alone', [AWAY, primary(2)], first, 0, false, [1], []],
    ['two on the same timeline', [primary(3), primary(3)], first, 0, true, [1], []],
    ['one of another cluster, on a higher timeline', [AWAY, primary(9, 'b')], first, 0, false, [], [1]],
    ['two names of one server', [primary(3, 'a', 'then'), primary(3, 'a', 'then')], first, 0, true, [], []],
    ['an older server behind the same name', [primary(2)], first, 0, false, [0], []],
    ['one of another cluster behind the same name', [primary(4, 'b')], first, 0, false, [], [0]],
    ['one of another cluster beside it', [primary(3), primary(9, 'b')], first, 0, true, [], [1]],
  ])('%s', (_, answers, known, place, isThere, outdated, foreign) => {
    const choice = choosePrimary(answers, known);
    expect([choice.known.place, choice.isThere, choice.outdated, choice.foreign]).toEqual([
      place,
      isThere,
      outdated,
      foreign,
    ]);
  });

  it('follows the highest timeline, and never goes back', () => {
    const answer = fc.oneof(
      fc.constantFrom(STANDBY, AWAY, SILENT, REFUSING, undefined),
      fc.integer({ min: 1, max: 6 }).map((timeline) => primary(timeline)),
    );
    fc.assert(
      fc.property(fc.array(fc.array(answer, { minLength: 3, maxLength: 3 }), { maxLength: 20 }), (rounds) => {
        let known = NO_PRIMARY_YET;
        for (const answers of rounds) {
          const { known: next, isThere } = choosePrimary(answers, known);
          const claimed = answers.map((one) => (one?.kind === 'primary' ? one.timeline : 0));
          const highest = Math.max(...claimed);
          expect(next.timeline).toBe(Math.max(known.timeline, highest));
          if (isThere && answers[next.place!]?.kind === 'primary')
            expect(claimed[next.place!]).toBe(next.timeline);
          if (highest > 0 && highest >= known.timeline) expect(isThere).toBe(true);
          known = next;
        }
      }),
    );
  });
});
