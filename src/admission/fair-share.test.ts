/** Shares against the plainest way to make them, and what they promise. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fairShare, goByArrival, type Sharer } from './fair-share.ts';

/** One place after the other: the kind of whoever is there in the queue; within it whoever has had the fewest, and came first. */
function dumbShare<T extends Sharer>(waiting: readonly T[], size: number): Set<T> {
  const chosen = new Set<T>();
  const kindOf = (one: Sharer) => typeof one.tenant;
  for (const place of waiting.slice(0, size)) {
    const candidates = waiting.filter((one) => kindOf(one) === kindOf(place) && !chosen.has(one));
    const had = (one: T) =>
      one.tenant === undefined ? 0 : [...chosen].filter(({ tenant }) => tenant === one.tenant).length;
    const cameAt = (one: T) => waiting.findIndex(({ tenant }) => tenant === one.tenant);
    candidates.sort(
      (a, b) => had(a) - had(b) || cameAt(a) - cameAt(b) || waiting.indexOf(a) - waiting.indexOf(b),
    );
    chosen.add(candidates[0]!);
  }
  return chosen;
}

describe('a fair share', () => {
  it('gives one who waits behind a crowd its place', () => {
    const crowd = Array.from({ length: 1_000 }, (_, i) => ({ tenant: 7, i }));
    const other = { tenant: 3, i: 1_000 };
    const chosen = fairShare([...crowd, other], 64);
    expect(chosen.size).toBe(64);
    expect(chosen.has(other)).toBe(true);
    expect(chosen.has(crowd[62]!)).toBe(true);
  });

  it('is what the plainest way gives', () => {
    const sharer = fc.record({ tenant: fc.constantFrom(undefined, 'acme', 'other', 1, 2, 3) });
    fc.assert(
      fc.property(fc.array(sharer, { minLength: 2, maxLength: 30 }), fc.nat(), (waiting, given) => {
        const size = 1 + (given % (waiting.length - 1));
        expect([...fairShare(waiting, size)].map((one) => waiting.indexOf(one)).sort()).toEqual(
          [...dumbShare(waiting, size)].map((one) => waiting.indexOf(one)).sort(),
        );
        const first = waiting.slice(0, size);
        expect(goByArrival(waiting, size)).toBe(first.every(({ tenant }) => tenant === undefined));
        if (goByArrival(waiting, size)) expect([...fairShare(waiting, size)]).toEqual(first);
      }),
      { seed: 11, numRuns: 300 },
    );
  });
});
