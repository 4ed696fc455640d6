/**
 * Finding the wall: which count of clients is measured next, and what the points say in the end. Pure: `step` takes what
 * has happened and gives what to do; find-wall.ts does it.
 *
 *     ramp ────────────> bisect ────────────> confirm ────────> done
 *      1, 2, 4, … until   the fewest clients   the chosen count
 *      two points gain    within 5% of the     and the knee
 *      nothing            best                 measured afresh
 *       │ clientsMax, no more connections, the generator's end, the budget: the wall is not reached
 *       └─────────────────────────────────────> confirm ──afresh, the most clients are far ahead──> ramp
 *
 * A point is void when it says nothing of the server (VoidReason): it is measured again, at most `voidRetries` times, then
 * left out. Invariants: at most one point is under way; every search ends, whatever the points say (each phase has a bound);
 * the figure that is reported comes from the confirming points alone, as the best of several is biased upwards.
 */
import { assert, unreachable } from '../../base/assert.ts';
import { combineRepeats, type Estimate, halfWidth } from './statistics.ts';

/**
 * 'client-bound': the load generator was at its end; 'steal': the hypervisor took the CPU for others; 'unsteady': the rate
 * drifted within the window; 'littles-law': clients, rate and latency don't fit together, so one of them is wrong.
 */
export type VoidReason = 'client-bound' | 'steal' | 'unsteady' | 'littles-law';
export type Purpose = 'ramp' | 'bisect' | 'confirm';
/** Why a ramp ended before its plateau. */
export type Limit = 'max-clients' | 'connections' | 'client-bound' | 'budget' | 'void-points';

/** `mean`: transactions a second. */
export interface SearchPoint extends Estimate {
  readonly clients: number;
  readonly voidReasons: readonly VoidReason[];
}

export interface SearchSettings {
  readonly clientsMax: number;
  /** What `clientsMax` is: the caller's wish, or all that the server has. */
  readonly clientsMaxIs: 'max-clients' | 'connections';
}

export type SearchEvent =
  | { readonly kind: 'measured'; readonly point: SearchPoint }
  /** The server has no connections for so many clients. */
  | { readonly kind: 'refused' }
  /** Time is left for the confirming points only. */
  | { readonly kind: 'hurry' }
  /** No time is left for another point. */
  | { readonly kind: 'stop' };

export type SearchEffect =
  | { readonly kind: 'measure'; readonly clients: number; readonly purpose: Purpose }
  | { readonly kind: 'finished'; readonly outcome: WallOutcome };

export interface MeasuredPoint extends SearchPoint {
  readonly purpose: Purpose;
}

export interface SearchState {
  readonly settings: SearchSettings;
  readonly phase: Purpose | 'done';
  /** Of the point under way. */
  readonly clients: number;
  /** How often the point under way has been void. */
  readonly voids: number;
  readonly points: readonly MeasuredPoint[];
  /** The last point that gained on all before it. */
  readonly champion: SearchPoint | undefined;
  /** Points since then. */
  readonly misses: number;
  /** Counts in a row that stayed void. */
  readonly voidCounts: number;
  readonly limit: Limit | undefined;
  readonly bisections: number;
  /** Counts still to be confirmed, in this order. */
  readonly queue: readonly number[];
}

/** X ± e; `plusMinus` is half of the 95% interval, undefined when the points were too few and short to know it. */
export interface Rate {
  readonly tps: number;
  readonly plusMinus: number | undefined;
}

export type WallOutcome =
  | {
      readonly kind: 'reached';
      readonly rate: Rate;
      /** The fewest clients within 5% of the rate. */
      readonly clients: number;
      /** Where the rate was measured afresh. */
      readonly chosenClients: number;
      /** The most clients that still held it to 5%. */
      readonly flatTo: number;
      /** More clients were measured and gave less; else nothing is known beyond `flatTo`. */
      readonly fallsAfter: boolean;
      readonly afresh: boolean;
    }
  | {
      readonly kind: 'not-reached';
      readonly rate: Rate;
      readonly clients: number;
      readonly because: Limit;
      readonly afresh: boolean;
    }
  | { readonly kind: 'void'; readonly reasons: readonly VoidReason[] };

/** A gain below this share is none, however small the noise: a plateau may rise by tenths of a percent for long. */
const GAIN_SHARE_MIN = 0.02;
const MISSES_FOR_PLATEAU = 2;
const KNEE_SHARE = 0.05;
const VOID_RETRIES = 2;
const VOID_COUNTS_MAX = 3;
const BISECTIONS_MAX = 4;
/** Counts that are closer than this are one. */
const BISECTION_RATIO_MIN = 1.15;
/** Confirming: the chosen count and the knee by turns, so that what changes slowly spreads over both. */
const CONFIRM_ORDER: readonly ('chosen' | 'knee')[] = [
  'chosen',
  'knee',
  'chosen',
  'chosen',
  'knee',
  'chosen',
];
/** How many points a confirmation takes at most without void ones: what is kept back of the budget. */
export const CONFIRM_POINTS = CONFIRM_ORDER.length;

interface Step {
  readonly state: SearchState;
  readonly effect: SearchEffect;
}

export function startSearch(settings: SearchSettings): Step {
  assert(settings.clientsMax >= 1, 'a search needs a client');
  const state: SearchState = {
    ...{ settings, phase: 'ramp', clients: 1, voids: 0, points: [], champion: undefined, misses: 0 },
    ...{ voidCounts: 0, limit: undefined, bisections: 0, queue: [] },
  };
  return measure(state, 1);
}

export function step(state: SearchState, event: SearchEvent): Step {
  assert(state.phase !== 'done', 'the search is over');
  switch (event.kind) {
    case 'measured':
      assert(event.point.clients === state.clients, 'a point that was not asked for');
      return measured(state, event.point);
    case 'refused':
      return state.phase === 'ramp' ? endRamp(state, 'connections') : confirmOrFinish(state);
    case 'hurry':
      if (state.phase === 'confirm') return finish(state);
      return state.phase === 'ramp' ? endRamp(state, 'budget') : confirm(state);
    case 'stop':
      return finish(state.phase === 'ramp' ? { ...state, limit: 'budget' } : state);
    default:
      return unreachable(event);
  }
}

function measured(before: SearchState, point: SearchPoint): Step {
  assert(before.phase !== 'done', 'the search is over');
  const state = { ...before, points: [...before.points, { ...point, purpose: before.phase }] };
  if (point.voidReasons.length > 0) return afterVoid(state, point);
  switch (before.phase) {
    case 'ramp':
      return ramped(state, point);
    case 'bisect':
      return bisect({ ...state, bisections: state.bisections + 1 });
    case 'confirm':
      return confirmNext({ ...state, queue: state.queue.slice(1) });
    default:
      return unreachable(before.phase);
  }
}

function afterVoid(state: SearchState, point: SearchPoint): Step {
  if (state.voids < VOID_RETRIES) return again({ ...state, voids: state.voids + 1 });
  switch (state.phase) {
    case 'ramp': {
      // More clients cost the generator no less.
      if (point.voidReasons.includes('client-bound')) return endRamp(state, 'client-bound');
      const voidCounts = state.voidCounts + 1;
      if (voidCounts >= VOID_COUNTS_MAX) return endRamp(state, 'void-points');
      return rampOn({ ...state, voidCounts });
    }
    case 'bisect':
      return confirm(state);
    default:
      return confirmNext({ ...state, queue: state.queue.slice(1) });
  }
}

function ramped(before: SearchState, point: SearchPoint): Step {
  const gained = before.champion === undefined || gains(point, before.champion);
  const state = {
    ...before,
    voidCounts: 0,
    champion: gained ? point : before.champion,
    misses: gained ? 0 : before.misses + 1,
  };
  return state.misses >= MISSES_FOR_PLATEAU ? bisect({ ...state, phase: 'bisect' }) : rampOn(state);
}

/** More than the noise of both, and more than a trifle. */
function gains(point: SearchPoint, over: SearchPoint): boolean {
  const noise = Math.hypot(widthOf(point), widthOf(over));
  return point.mean - over.mean > Math.max(noise, GAIN_SHARE_MIN * over.mean);
}

/** A point too short to know its error counts as exact: then only the least gain decides. */
function widthOf(point: Estimate): number {
  const width = halfWidth(point);
  return Number.isFinite(width) ? width : 0;
}

function rampOn(state: SearchState): Step {
  const { clientsMax, clientsMaxIs } = state.settings;
  const highest = highestOf(state);
  if (highest < clientsMax) return measure(state, Math.min(2 * highest, clientsMax));
  // All that may be had is measured. One point without gain is no plateau yet; a second may lie between.
  const between =
    state.champion === undefined ? undefined : gapBetween(state.points, state.champion.clients, clientsMax);
  if (state.misses === 0 || between === undefined) return endRamp(state, clientsMaxIs);
  return measure(state, between);
}

/** A count that is not measured yet, near the geometric middle of the two. */
function gapBetween(points: readonly SearchPoint[], low: number, high: number): number | undefined {
  const middle = Math.round(Math.sqrt(low * high));
  const isFree = middle > low && middle < high && !points.some((point) => point.clients === middle);
  return isFree ? middle : undefined;
}

function endRamp(state: SearchState, limit: Limit): Step {
  return confirm({ ...state, limit });
}

function bisect(state: SearchState): Step {
  const middle = state.bisections < BISECTIONS_MAX ? bisectionPoint(state.points) : undefined;
  return middle === undefined ? confirm(state) : measure({ ...state, phase: 'bisect' }, middle);
}

function bisectionPoint(points: readonly SearchPoint[]): number | undefined {
  const rates = ratesByClients(points);
  const best = bestOf(rates);
  if (best === undefined) return undefined;
  const high = kneeOf(rates, best.mean);
  const below = rates.filter(({ clients }) => clients < high);
  const low = below.at(-1)?.clients;
  if (low === undefined || high / low < BISECTION_RATIO_MIN) return undefined;
  return gapBetween(points, low, high);
}

function confirmOrFinish(state: SearchState): Step {
  return state.phase === 'bisect' ? confirm(state) : confirmNext({ ...state, queue: state.queue.slice(1) });
}

function confirm(state: SearchState): Step {
  const rates = ratesByClients(state.points);
  const best = bestOf(rates);
  if (best === undefined) return finish(state);
  const knee = state.limit === undefined ? kneeOf(rates, best.mean) : best.clients;
  const order = CONFIRM_ORDER.map((which) => (which === 'chosen' ? best.clients : knee));
  const queue = knee === best.clients ? order.slice(0, 4) : order;
  return confirmNext({ ...state, phase: 'confirm', queue });
}

function confirmNext(state: SearchState): Step {
  const [next] = state.queue;
  if (next !== undefined) return measure(state, next);
  const { clientsMax } = state.settings;
  const highest = highestOf(state);
  // Afresh, the most clients are far ahead of all others: what ended the ramp was noise, and it goes on.
  if (state.limit === undefined && highest < clientsMax && outcomeOf(state).kind === 'not-reached') {
    const rates = ratesByClients(state.points);
    const champion = { ...rates.at(-1)!, voidReasons: [] };
    return measure({ ...state, phase: 'ramp', champion, misses: 0 }, Math.min(2 * highest, clientsMax));
  }
  return finish(state);
}

/** Of all counts that were measured, void or not. */
function highestOf(state: SearchState): number {
  return Math.max(...state.points.map((point) => point.clients));
}

function measure(state: SearchState, clients: number): Step {
  return again({ ...state, clients, voids: 0 });
}

function again(state: SearchState): Step {
  assert(state.phase !== 'done', 'the search is over');
  return { state, effect: { kind: 'measure', clients: state.clients, purpose: state.phase } };
}

function finish(state: SearchState): Step {
  return { state: { ...state, phase: 'done' }, effect: { kind: 'finished', outcome: outcomeOf(state) } };
}

interface ClientsRate extends Estimate {
  readonly clients: number;
}

/** All valid points of a count together, in order of clients. */
function ratesByClients(points: readonly SearchPoint[]): ClientsRate[] {
  const valid = points.filter((point) => point.voidReasons.length === 0);
  const counts = [...new Set(valid.map((point) => point.clients))].sort((a, b) => a - b);
  return counts.map((clients) => ({
    clients,
    ...combineRepeats(valid.filter((point) => point.clients === clients)),
  }));
}

function bestOf(rates: readonly ClientsRate[]): ClientsRate | undefined {
  return rates.reduce<ClientsRate | undefined>(
    (best, rate) => (best === undefined || rate.mean > best.mean ? rate : best),
    undefined,
  );
}

function kneeOf(rates: readonly ClientsRate[], mean: number): number {
  const knee = rates.find((rate) => rate.mean >= (1 - KNEE_SHARE) * mean) ?? bestOf(rates);
  assert(knee !== undefined, 'a knee of no points');
  return knee.clients;
}

function outcomeOf(state: SearchState): WallOutcome {
  const confirming = state.points.filter(
    (point) => point.purpose === 'confirm' && point.voidReasons.length === 0,
  );
  const rates = ratesByClients(state.points);
  const fresh = bestOf(ratesByClients(confirming));
  const chosen = bestOf(ratesByClients(state.points.filter((point) => point.purpose !== 'confirm')));
  const atChosen = confirming.filter((point) => point.clients === chosen?.clients);
  const best =
    atChosen.length > 0 ? { clients: chosen!.clients, ...combineRepeats(atChosen) } : (fresh ?? chosen);
  if (best === undefined) return clientBoundOnly(state);
  const rate = rateOf(best);
  const afresh = confirming.length > 0;
  const clients = kneeOf(rates, best.mean);
  // Where only the most clients come near the rate, nothing says that still more would not give more.
  const stillRises = rates.length > 1 && clients === rates.at(-1)!.clients;
  const limit = state.limit ?? (stillRises ? limitAt(state, clients) : undefined);
  if (limit !== undefined)
    return { kind: 'not-reached', rate, clients: best.clients, because: limit, afresh };
  const { flatTo, fallsAfter } = flatness(rates, clients, best.mean);
  return { kind: 'reached', rate, clients, chosenClients: best.clients, flatTo, fallsAfter, afresh };
}

function limitAt(state: SearchState, clients: number): Limit {
  if (clients >= state.settings.clientsMax) return state.settings.clientsMaxIs;
  return highestOf(state) > clients ? 'void-points' : 'budget';
}

/** What a client-bound generator drove, the server did take: a lower bound, if there is no better one. */
function clientBoundOnly(state: SearchState): WallOutcome {
  const bound = state.points.filter((point) => point.voidReasons.join() === 'client-bound');
  const best = bestOf(bound);
  if (best === undefined) {
    return { kind: 'void', reasons: [...new Set(state.points.flatMap((point) => point.voidReasons))] };
  }
  const because = state.limit ?? 'client-bound';
  return { kind: 'not-reached', rate: rateOf(best), clients: best.clients, because, afresh: false };
}

/** From the knee on upwards, as long as no count falls below 5% by more than its noise. */
function flatness(
  rates: readonly ClientsRate[],
  knee: number,
  mean: number,
): { flatTo: number; fallsAfter: boolean } {
  let flatTo = knee;
  for (const rate of rates.filter(({ clients }) => clients > knee)) {
    if (rate.mean + widthOf(rate) < (1 - KNEE_SHARE) * mean) return { flatTo, fallsAfter: true };
    flatTo = rate.clients;
  }
  return { flatTo, fallsAfter: false };
}

function rateOf(estimate: Estimate): Rate {
  const width = halfWidth(estimate);
  return { tps: estimate.mean, plusMinus: Number.isFinite(width) ? width : undefined };
}
