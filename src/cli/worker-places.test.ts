import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type PlacesEffect,
  type PlacesEvent,
  type PlacesState,
  placesStart,
  placesStep,
  processesOf,
  READY_MAX_MS,
  SWITCH_MAX_MS,
} from './worker-places.ts';

/** Events as words: what is not said of them is as usual. */
type Said =
  | readonly ['due' | 'ready' | 'readyOtherForm' | 'leaving' | 'ended', number]
  | readonly ['roll' | 'stop']
  | readonly ['tick', number];

function eventOf(said: Said): PlacesEvent {
  switch (said[0]) {
    case 'due':
      return { kind: 'due', place: said[1], atMs: 0 };
    case 'ready':
    case 'readyOtherForm':
      return { kind: 'ready', process: said[1], form: said[0] === 'ready' ? 1 : 2, atMs: 0 };
    case 'leaving':
      return { kind: 'leaving', process: said[1], atMs: 0 };
    case 'ended':
      return { kind: 'ended', process: said[1], status: 'status 1', atMs: 0 };
    case 'tick':
      return { kind: 'tick', atMs: said[1] };
    case 'roll':
      return { kind: 'roll', atMs: 0 };
    case 'stop':
      return { kind: 'stop' };
  }
}

function run(count: number, all: readonly Said[]): { state: PlacesState; last: readonly string[] } {
  let state = placesStart(count);
  let last: readonly PlacesEffect[] = [];
  for (const said of all) ({ state, effects: last } = placesStep(state, eventOf(said)));
  return { state, last: last.map(wordsOf) };
}

function wordsOf(effect: PlacesEffect): string {
  switch (effect.kind) {
    case 'start':
      return `start ${effect.process} at ${effect.place}${effect.replaces ? ' beside the old one' : ''}`;
    case 'startLater':
      return `start later at ${effect.place}`;
    case 'handOver':
      return `${effect.from} hands ${effect.moves ? 'sessions' : 'nothing'} over to ${effect.to}`;
    case 'switch':
      return `clients of ${effect.place} to ${effect.to}`;
    case 'kill':
      return `kill ${effect.process}`;
    case 'rolled':
      return effect.failure === undefined ? 'rolled' : 'rolled in part';
    case 'notNow':
      return `not now: ${effect.why}`;
    default:
      return effect.kind;
  }
}

const ONE_SERVES: readonly Said[] = [
  ['due', 0],
  ['ready', 1],
];
const TWO_SERVE: readonly Said[] = [
  ['due', 0],
  ['due', 1],
  ['ready', 1],
  ['ready', 2],
];

describe('the places of the workers', () => {
  const cases: readonly { of: number; when: readonly Said[]; event: Said; effects: readonly string[] }[] = [
    { of: 1, when: [], event: ['due', 0], effects: ['start 1 at 0'] },
    {
      of: 2,
      when: [
        ['due', 0],
        ['due', 1],
      ],
      event: ['ready', 2],
      effects: ['clients of 1 to 2'],
    },
    { of: 1, when: [['due', 0]], event: ['ready', 1], effects: ['clients of 0 to 1', 'open'] },
    {
      of: 2,
      when: [
        ['due', 0],
        ['due', 1],
      ],
      event: ['ended', 2],
      effects: ['fail'],
    },
    { of: 1, when: ONE_SERVES, event: ['ended', 1], effects: ['start later at 0'] },
    { of: 1, when: [...ONE_SERVES, ['ended', 1]], event: ['due', 0], effects: ['start 2 at 0'] },
    { of: 1, when: ONE_SERVES, event: ['due', 0], effects: [] },
    // A roll.
    { of: 1, when: [], event: ['roll'], effects: ['not now: the router is starting'] },
    { of: 2, when: TWO_SERVE, event: ['roll'], effects: ['rolling', 'start 3 at 0 beside the old one'] },
    { of: 2, when: [...TWO_SERVE, ['roll']], event: ['roll'], effects: ['not now: a restart is under way'] },
    { of: 2, when: [...TWO_SERVE, ['roll']], event: ['ready', 3], effects: ['1 hands sessions over to 3'] },
    {
      of: 2,
      when: [...TWO_SERVE, ['roll']],
      event: ['readyOtherForm', 3],
      effects: ['1 hands nothing over to 3'],
    },
    {
      ...{ of: 2, when: [...TWO_SERVE, ['roll'], ['ready', 3]], event: ['leaving', 1] },
      effects: ['clients of 0 to 3'],
    },
    { of: 2, when: [...TWO_SERVE, ['roll']], event: ['leaving', 1], effects: [] },
    {
      ...{ of: 2, when: [...TWO_SERVE, ['roll'], ['ready', 3], ['leaving', 1]], event: ['ended', 1] },
      effects: ['start 4 at 1 beside the old one'],
    },
    {
      ...{ of: 1, when: [...ONE_SERVES, ['roll'], ['ready', 2], ['leaving', 1]], event: ['ended', 1] },
      effects: ['rolled'],
    },
    // The old one says nothing.
    {
      ...{ of: 1, when: [...ONE_SERVES, ['roll'], ['ready', 2]], event: ['tick', SWITCH_MAX_MS] },
      effects: ['clients of 0 to 2'],
    },
    { of: 1, when: [...ONE_SERVES, ['roll'], ['ready', 2]], event: ['tick', SWITCH_MAX_MS - 1], effects: [] },
    // The old one dies: before the new one is ready, and when it has been told to leave.
    { of: 1, when: [...ONE_SERVES, ['roll']], event: ['ended', 1], effects: [] },
    {
      ...{ of: 1, when: [...ONE_SERVES, ['roll'], ['ended', 1]], event: ['ready', 2] },
      effects: ['clients of 0 to 2', 'rolled'],
    },
    {
      ...{ of: 1, when: [...ONE_SERVES, ['roll'], ['ready', 2]], event: ['ended', 1] },
      effects: ['clients of 0 to 2', 'rolled'],
    },
    // The new one can't start, or not in time, or dies.
    { of: 1, when: [...ONE_SERVES, ['roll']], event: ['ended', 2], effects: ['rolled in part'] },
    { of: 1, when: [...ONE_SERVES, ['roll']], event: ['tick', READY_MAX_MS], effects: ['kill 2'] },
    {
      ...{ of: 1, when: [...ONE_SERVES, ['roll'], ['ended', 1]], event: ['ended', 2] },
      effects: ['rolled in part', 'start later at 0'],
    },
    {
      ...{ of: 1, when: [...ONE_SERVES, ['roll'], ['ready', 2], ['leaving', 1]], event: ['ended', 2] },
      effects: ['start later at 0'],
    },
    // The end.
    { of: 1, when: [...ONE_SERVES, ['stop']], event: ['ended', 1], effects: [] },
    { of: 1, when: [...ONE_SERVES, ['stop']], event: ['roll'], effects: ['not now: the router is stopping'] },
    { of: 1, when: [...ONE_SERVES, ['roll'], ['stop']], event: ['ready', 2], effects: [] },
  ];
  it.each(cases)('$when, then $event: $effects', ({ of, when, event, effects }) => {
    expect(run(of, [...when, event]).last).toEqual(effects);
  });

  it('are each served all the time, whatever dies of those that replace, and all in the end', () => {
    const PLACES = 3;
    const step = fc.record({
      what: fc.constantFrom('ready', 'leaving', 'endNew', 'endLeaving', 'due', 'roll', 'tick', 'wait'),
      pick: fc.nat(10),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
        let state = placesStart(PLACES);
        let atMs = 0;
        const send = (event: PlacesEvent): void => {
          ({ state } = placesStep(state, event));
        };
        for (let place = 0; place < PLACES; place++) send({ kind: 'due', place, atMs });
        for (let process = 1; process <= PLACES; process++) send({ kind: 'ready', process, form: 1, atMs });
        const hit = (of: readonly ({ id: number } | undefined)[], pick: number): number | undefined => {
          const there = of.filter((one) => one !== undefined);
          return there[pick % Math.max(1, there.length)]?.id;
        };
        for (const { what, pick } of steps) {
          atMs += what === 'wait' ? READY_MAX_MS : 10;
          const next = hit(
            state.places.map((place) => place.next),
            pick,
          );
          const leaving = hit(
            state.places.map((place) => place.leaving),
            pick,
          );
          if (what === 'ready' && next) send({ kind: 'ready', process: next, form: 1 + (pick & 1), atMs });
          if (what === 'leaving')
            send({ kind: 'leaving', process: state.places[pick % PLACES]!.current!.id, atMs });
          if (what === 'endNew' && next) send({ kind: 'ended', process: next, status: 'SIGKILL', atMs });
          if (what === 'endLeaving' && leaving)
            send({ kind: 'ended', process: leaving, status: 'status 0', atMs });
          if (what === 'due') send({ kind: 'due', place: pick % PLACES, atMs });
          if (what === 'roll') send({ kind: 'roll', atMs });
          if (what === 'tick' || what === 'wait') send({ kind: 'tick', atMs });
          for (const place of state.places) {
            expect(place.current?.ready).toBe(true);
            const halves = processesOf(place).map(({ generation }) => generation % 2);
            expect(new Set(halves).size).toBe(halves.length);
          }
          expect(state.places.flatMap(processesOf).length).toBeLessThanOrEqual(PLACES + 1);
        }
        // Left alone, a roll comes to its end.
        for (let round = 0; state.rolling.length > 0; round++) {
          expect(round).toBeLessThan(20);
          const [index] = state.rolling;
          const { next, leaving, current } = state.places[index!]!;
          if (leaving) send({ kind: 'ended', process: leaving.id, status: 'status 0', atMs });
          else if (next?.ready) send({ kind: 'leaving', process: current!.id, atMs });
          else if (next) send({ kind: 'ready', process: next.id, form: 1, atMs });
        }
        for (const { current, next } of state.places)
          expect([current?.ready, next]).toEqual([true, undefined]);
      }),
    );
  });
});
