/**
 * What the first process does about its workers' processes: which one takes the clients of a place, when one is started, replaced,
 * given up. Pure: events in, effects out (workers.ts carries them out, in their order).
 *
 * A place:
 *
 *   starting ──ready──▶ serving ──ended──▶ empty ──RESTART_DELAY_MS──▶ starting
 *                         │  ▲
 *                    roll │  │ the replacement has ended, or is not ready in READY_MAX_MS: the roll is over, and has failed
 *                         ▼  │
 *                    replacing: the old process serves, its replacement starts
 *                         │ ready
 *                         ▼
 *                    switching: the old one has been told to hand its sessions over, and says which ids it has
 *                         │ it has said so, or has ended, or SWITCH_MAX_MS
 *                         ▼
 *                    serving by the new one; the old one is `leaving` until it has ended ──▶ the roll goes on with the next place
 *
 * Invariant: a place that has a ready process never has none by a roll: the old one is told to leave when the new one is ready.
 * Invariant: no more than one place is being replaced, so that there is one process more than there are places, at most.
 * Invariant: once it stops, nothing is started any more.
 */
import { unreachable } from '../base/assert.ts';

export interface WorkerProcess {
  /** Of this first process's alone; never used again. */
  readonly id: number;
  readonly generation: number;
  readonly ready: boolean;
  /** What form of sessions it gives and takes. */
  readonly form: number;
  readonly sinceMs: number;
}

export interface Place {
  readonly current: WorkerProcess | undefined;
  readonly next: WorkerProcess | undefined;
  readonly leaving: WorkerProcess | undefined;
  /** The current one has been told to leave. */
  readonly switchingSinceMs: number | undefined;
  /** Of the process that is started next. */
  readonly generation: number;
}

export interface PlacesState {
  readonly phase: 'starting' | 'serving' | 'stopping';
  readonly places: readonly Place[];
  /** Places that are to be replaced, the first of them now; empty: there is no roll. */
  readonly rolling: readonly number[];
  readonly lastId: number;
}

export type PlacesEvent =
  /** Time to start a process there. */
  | { readonly kind: 'due'; readonly place: number; readonly atMs: number }
  | { readonly kind: 'ready'; readonly process: number; readonly form: number; readonly atMs: number }
  /** It has begun to hand over its sessions. */
  | { readonly kind: 'leaving'; readonly process: number; readonly atMs: number }
  | { readonly kind: 'ended'; readonly process: number; readonly status: string; readonly atMs: number }
  | { readonly kind: 'roll'; readonly atMs: number }
  | { readonly kind: 'tick'; readonly atMs: number }
  | { readonly kind: 'stop' };

export type PlacesEffect =
  | {
      readonly kind: 'start';
      readonly place: number;
      readonly process: number;
      readonly generation: number;
      readonly replaces: boolean;
    }
  | { readonly kind: 'startLater'; readonly place: number; readonly status: string }
  /** All are ready for the first time. */
  | { readonly kind: 'open' }
  /** One could not start when the router did. */
  | { readonly kind: 'fail'; readonly status: string }
  /** `from` hands its sessions over to `to` (`moves`), or ends them between their transactions. */
  | {
      readonly kind: 'handOver';
      readonly place: number;
      readonly from: number;
      readonly to: number;
      readonly moves: boolean;
    }
  /** From here on clients go to `to`. */
  | { readonly kind: 'switch'; readonly place: number; readonly to: number }
  | { readonly kind: 'kill'; readonly process: number }
  | { readonly kind: 'rolling' }
  | { readonly kind: 'rolled'; readonly failure: string | undefined }
  /** A roll was asked for and can't begin. */
  | { readonly kind: 'notNow'; readonly why: string };

export const READY_MAX_MS = 60_000;
export const SWITCH_MAX_MS = 3_000;

export interface Stepped {
  readonly state: PlacesState;
  readonly effects: readonly PlacesEffect[];
}

const EMPTY: Place = {
  current: undefined,
  next: undefined,
  leaving: undefined,
  switchingSinceMs: undefined,
  generation: 0,
};

/** A `due` event for each place starts it. */
export function placesStart(count: number): PlacesState {
  return { phase: 'starting', places: Array.from({ length: count }, () => EMPTY), rolling: [], lastId: 0 };
}

export function placesStep(state: PlacesState, event: PlacesEvent): Stepped {
  switch (event.kind) {
    case 'due':
      return onDue(state, event.place, event.atMs);
    case 'ready':
      return onReady(state, event);
    case 'leaving': {
      const index = state.places.findIndex((place) => place.current?.id === event.process);
      return index >= 0 && state.places[index]!.switchingSinceMs !== undefined
        ? switchOver(state, index, event.atMs)
        : same(state);
    }
    case 'ended':
      return onEnded(state, event);
    case 'roll': {
      const why = whyNot(state);
      if (why !== undefined) return { state, effects: [{ kind: 'notNow', why }] };
      const { state: begun, effects } = replaceFirst(
        { ...state, rolling: state.places.map((_, i) => i) },
        event.atMs,
      );
      return { state: begun, effects: [{ kind: 'rolling' }, ...effects] };
    }
    case 'tick':
      return onTick(state, event.atMs);
    case 'stop':
      return same({ ...state, phase: 'stopping', rolling: [] });
    default:
      return unreachable(event);
  }
}

/** Which place a process has; undefined: it has ended. */
function placeOf(state: PlacesState, id: number): number | undefined {
  const index = state.places.findIndex((place) => processesOf(place).some((one) => one.id === id));
  return index < 0 ? undefined : index;
}

export function processesOf({ current, next, leaving }: Place): readonly WorkerProcess[] {
  return [current, next, leaving].filter((one) => one !== undefined);
}

function whyNot(state: PlacesState): string | undefined {
  if (state.phase !== 'serving') return `the router is ${state.phase}`;
  if (state.rolling.length > 0) return 'a restart is under way';
  return state.places.some(({ leaving }) => leaving)
    ? 'a worker of the restart before is still there'
    : undefined;
}

function onDue(state: PlacesState, index: number, atMs: number): Stepped {
  const place = state.places[index]!;
  if (state.phase === 'stopping' || place.current) return same(state);
  // Its replacement is on its way already.
  if (place.next) return same(state);
  return start(state, { index, atMs, replaces: false });
}

function start(
  state: PlacesState,
  { index, atMs, replaces }: { index: number; atMs: number; replaces: boolean },
): Stepped {
  const place = state.places[index]!;
  const generation = nextGeneration(place);
  const id = state.lastId + 1;
  const process: WorkerProcess = { id, generation, ready: false, form: 0, sinceMs: atMs };
  const changed = { ...place, ...(replaces ? { next: process } : { current: process }) };
  return {
    state: { ...withPlace(state, index, { ...changed, generation: generation + 1 }), lastId: id },
    effects: [{ kind: 'start', place: index, process: id, generation, replaces }],
  };
}

/** Odd and even ones give out different ids of sessions (session/session-ids.ts); some may have ended since the one that is there. */
function nextGeneration(place: Place): number {
  const { generation } = place;
  const isAlike = processesOf(place).some((one) => (generation - one.generation) % 2 === 0);
  return isAlike ? generation + 1 : generation;
}

function onReady(state: PlacesState, event: Extract<PlacesEvent, { kind: 'ready' }>): Stepped {
  const index = placeOf(state, event.process);
  if (index === undefined || state.phase === 'stopping') return same(state);
  const place = state.places[index]!;
  if (place.current?.id === event.process) {
    const current = { ...place.current, ready: true, form: event.form };
    const ready = withPlace(state, index, { ...place, current });
    const opens = state.phase === 'starting' && ready.places.every((one) => one.current?.ready);
    const effects: PlacesEffect[] = [{ kind: 'switch', place: index, to: event.process }];
    if (!opens) return { state: ready, effects };
    return { state: { ...ready, phase: 'serving' }, effects: [...effects, { kind: 'open' }] };
  }
  if (place.next?.id !== event.process) return same(state);
  const next = { ...place.next, ready: true, form: event.form };
  const { current } = place;
  if (!current?.ready) return switchOver(withPlace(state, index, { ...place, next }), index, event.atMs);
  const moves = current.form === event.form;
  return {
    state: withPlace(state, index, { ...place, next, switchingSinceMs: event.atMs }),
    effects: [{ kind: 'handOver', place: index, from: current.id, to: next.id, moves }],
  };
}

/** The replacement, which is ready, takes the place. */
function switchOver(state: PlacesState, index: number, atMs: number): Stepped {
  const place = state.places[index]!;
  const { current, next } = place;
  if (!next?.ready) return same(state);
  const switched = withPlace(state, index, {
    ...{ ...place, current: next, next: undefined, switchingSinceMs: undefined },
    leaving: current,
  });
  const effects: PlacesEffect[] = [{ kind: 'switch', place: index, to: next.id }];
  // One that never got ready has nothing to hand over.
  if (current && !current.ready) effects.push({ kind: 'kill', process: current.id });
  if (current) return { state: switched, effects };
  const rest = goOn(switched, index, atMs);
  return { state: rest.state, effects: [...effects, ...rest.effects] };
}

function onEnded(state: PlacesState, event: Extract<PlacesEvent, { kind: 'ended' }>): Stepped {
  const index = placeOf(state, event.process);
  if (index === undefined) return same(state);
  const place = state.places[index]!;
  const { process: id, status, atMs } = event;
  if (place.leaving?.id === id)
    return goOn(withPlace(state, index, { ...place, leaving: undefined }), index, atMs);
  if (place.next?.id === id) {
    const left = withPlace(state, index, { ...place, next: undefined, switchingSinceMs: undefined });
    const failed: Stepped = {
      state: { ...left, rolling: [] },
      effects: [{ kind: 'rolled', failure: `the replacement of worker ${index} ended with ${status}` }],
    };
    if (place.current || state.phase === 'stopping') return failed;
    return { ...failed, effects: [...failed.effects, { kind: 'startLater', place: index, status }] };
  }
  const empty = withPlace(state, index, { ...place, current: undefined });
  if (state.phase === 'stopping') return same(empty);
  if (state.phase === 'starting') return { state: empty, effects: [{ kind: 'fail', status }] };
  if (place.next?.ready) return switchOver(empty, index, atMs);
  // While its replacement starts, that takes the place as soon as it is ready.
  return place.next
    ? same(withPlace(empty, index, { ...empty.places[index]!, switchingSinceMs: undefined }))
    : { state: empty, effects: [{ kind: 'startLater', place: index, status }] };
}

/** A place of the roll has been replaced wholly: the next one. */
function goOn(state: PlacesState, index: number, atMs: number): Stepped {
  if (state.rolling[0] !== index) return same(state);
  const rest = { ...state, rolling: state.rolling.slice(1) };
  if (rest.rolling.length === 0) return { state: rest, effects: [{ kind: 'rolled', failure: undefined }] };
  return replaceFirst(rest, atMs);
}

function replaceFirst(state: PlacesState, atMs: number): Stepped {
  return start(state, { index: state.rolling[0]!, atMs, replaces: true });
}

function onTick(state: PlacesState, atMs: number): Stepped {
  const [index] = state.rolling;
  const place = index === undefined ? undefined : state.places[index]!;
  if (index === undefined || !place?.next) return same(state);
  if (!place.next.ready && atMs - place.next.sinceMs >= READY_MAX_MS)
    return { state, effects: [{ kind: 'kill', process: place.next.id }] };
  const since = place.switchingSinceMs;
  return since !== undefined && atMs - since >= SWITCH_MAX_MS ? switchOver(state, index, atMs) : same(state);
}

function withPlace(state: PlacesState, index: number, place: Place): PlacesState {
  return { ...state, places: state.places.map((old, i) => (i === index ? place : old)) };
}

function same(state: PlacesState): Stepped {
  return { state, effects: [] };
}
