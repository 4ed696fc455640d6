/**
 * Runs the search of search.ts: measures what it asks for, keeps to the budget of time, and gives what it has found.
 *
 * Invariant: with a budget, no point is begun that would not end within it, and the time to measure the chosen count afresh
 * is kept back.
 */
import {
  CONFIRM_POINTS,
  type Purpose,
  type SearchPoint,
  type SearchSettings,
  startSearch,
  step,
} from './search.ts';
import type { Wall } from './sweep.ts';

export interface FindWallOptions {
  readonly settings: SearchSettings;
  /** Undefined: the server has no connections for so many. */
  readonly measure: (clients: number, purpose: Purpose) => Promise<SearchPoint | undefined>;
  readonly budget?:
    | { readonly seconds: number; readonly pointSeconds: number; readonly now: () => number }
    | undefined;
}

export async function findWall(options: FindWallOptions): Promise<Wall> {
  const { budget } = options;
  const startedAtMs = budget?.now() ?? 0;
  /** How many more points there is time for. */
  const pointsLeft = (): number =>
    budget === undefined
      ? Number.POSITIVE_INFINITY
      : Math.floor((budget.seconds - (budget.now() - startedAtMs) / 1000) / budget.pointSeconds);
  let { state, effect } = startSearch(options.settings);
  while (effect.kind === 'measure') {
    const left = pointsLeft();
    if (left < 1) {
      ({ state, effect } = step(state, { kind: 'stop' }));
      continue;
    }
    if (effect.purpose !== 'confirm' && left <= CONFIRM_POINTS && state.points.length > 0) {
      ({ state, effect } = step(state, { kind: 'hurry' }));
      continue;
    }
    const point = await options.measure(effect.clients, effect.purpose);
    ({ state, effect } = step(
      state,
      point === undefined ? { kind: 'refused' } : { kind: 'measured', point },
    ));
  }
  return effect.outcome;
}
