/**
 * The symptoms of SPEC.md as a pure core: `observe(state, sample)` gives the next state, and what it shows. Time comes in with
 * the samples.
 *
 *   absent ─holds→ pending ─sustainMs→ present ─fails→ fading ─sustainMs→ absent;   pending ─fails→ absent, fading ─holds→ present
 *
 * Invariant: a symptom that is unknown is neither present nor absent; `atTheWall` needs all four to be present.
 */
import type { Slo } from '../measure/slo.ts';
import { type Trend, trendOf } from './trend.ts';

export const SYMPTOM_NAMES = ['cpu', 'lag', 'latency', 'slo'] as const;
export type SymptomName = (typeof SYMPTOM_NAMES)[number];

/** One look. What could not be read is undefined. */
export interface WatchSample {
  readonly atMs: number;
  /** Of all cores of the server, from 0 to 1. */
  readonly cpuShare: number | undefined;
  /** Transactions that wrote, a second. */
  readonly writesPerSecond: number | undefined;
  /** Ages of write statements that are under way. */
  readonly writeAgesMs: readonly number[];
  /** How many of them wait for WAL to be written, flushed or confirmed. */
  readonly walWaiters: number;
  readonly standbys: readonly StandbyLag[];
  /** Whether the ages are those of all roles' sessions, as the writes a second are. */
  readonly seesAllSessions: boolean;
}

/** Bytes behind, by the step at which they wait. */
export interface StandbyLag {
  readonly name: string;
  readonly sendBytes: number;
  readonly flushBytes: number;
  readonly replayBytes: number;
}

const LAG_STEPS = ['sendBytes', 'flushBytes', 'replayBytes'] as const;
export type LagStep = (typeof LAG_STEPS)[number];

export interface SymptomOptions {
  /** Over which slopes and percentiles are taken. */
  readonly windowMs: number;
  /** How long a condition has to hold, and to fail. */
  readonly sustainMs: number;
  readonly slo: Slo | undefined;
}

type Phase = 'absent' | 'pending' | 'present' | 'fading';

export interface Symptom {
  readonly phase: Phase;
  /** When this phase began. */
  readonly sinceMs: number;
  /** When it was first present; undefined: never yet. */
  readonly firstPresentMs: number | undefined;
}

export interface WatchState {
  /** Of the window, oldest first. */
  readonly samples: readonly WatchSample[];
  readonly symptoms: Readonly<Record<SymptomName, Symptom>>;
  readonly calm: Calm;
  /** When a standby's slope was last judged, and how often in a row it was above 0. */
  readonly slopes: ReadonlyMap<string, { readonly judgedMs: number; readonly above: number }>;
}

export interface Ages {
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** How it is when it is calm, by the calmest whole window so far. */
export interface Calm {
  /** Undefined: there never were enough of them, or older ones than can be reckoned from `meanMsMax`. */
  readonly ages: Ages | undefined;
  /** The most that a write can have taken on average, which is known even where hardly one was found under way. */
  readonly meanMsMax: number | undefined;
}

export interface SymptomReading {
  readonly present: boolean;
  /** Why nothing can be said; undefined: it can. */
  readonly unknown: string | undefined;
  /** The figures behind it. */
  readonly text: string;
  readonly firstPresentMs: number | undefined;
}

export interface Reading {
  readonly symptoms: Readonly<Record<SymptomName, SymptomReading>>;
  /** 'wall': all four are present; 'wall as far as seen': all that can be seen, at least two, are. */
  readonly verdict: 'calm' | 'symptoms' | 'wall as far as seen' | 'wall';
  readonly ages: Ages | undefined;
  /** What `ages` are held against; undefined: still learning. */
  readonly calmAges: Ages | undefined;
  /** By Little's law. */
  readonly meanWriteMs: number | undefined;
  readonly walWaiterShare: number | undefined;
  readonly cpuShare: number | undefined;
  readonly writesPerSecond: number | undefined;
  readonly worstLag: LagReading | undefined;
}

export interface LagReading {
  readonly standby: string;
  readonly bytes: number;
  /** Bytes a second. */
  readonly trend: Trend | undefined;
  /** The step that grows most, or holds most if none grows. */
  readonly step: LagStep;
}

const CPU_SHARE = 0.95;
const GROWTH_FACTOR = 2;
const WAL_WAITER_SHARE = 0.1;
const AGES_MIN = 10;
/** What is learnt once is held against all that comes, and is the lowest of many: less than these give no p99 for that. */
const CALM_AGES_MIN = 100;
/** So many writes a second in so many looks, and not one of them under way: that is no chance. */
const HIDDEN_WRITES_MIN = 1_000;
const HIDDEN_LOOKS_MIN = 20;
/** A percentile of a few ages is not one. */
const WINDOW_SHARE_MIN = 0.5;
/** Judged a third of a window apart, so that the same second doesn't count three times. */
const SLOPES_IN_A_ROW = 3;
const LAG_BYTES_MIN = 1024 * 1024;
/** Of the normal distribution: a mean that is said to be the most is it in 99 of 100 windows. */
const NORMAL_99 = 2.326;

const ABSENT: Symptom = { phase: 'absent', sinceMs: 0, firstPresentMs: undefined };

export function initialState(): WatchState {
  return {
    samples: [],
    symptoms: { cpu: ABSENT, lag: ABSENT, latency: ABSENT, slo: ABSENT },
    calm: { ages: undefined, meanMsMax: undefined },
    slopes: new Map(),
  };
}

/** The server went away and came back: nothing from before counts, but for what was calm. */
export function afterGap(state: WatchState): WatchState {
  return { ...initialState(), calm: state.calm };
}

export function observe(
  state: WatchState,
  sample: WatchSample,
  options: SymptomOptions,
): { state: WatchState; reading: Reading } {
  const samples = [...state.samples, sample].filter(({ atMs }) => atMs > sample.atMs - options.windowMs);
  // What holds now is judged over the last sustainMs, so that the symptom's own time isn't that of the window.
  const recent = samples.filter(({ atMs }) => atMs > sample.atMs - options.sustainMs);
  const ages = agesOf(recent);
  const lags = lagsOf(samples);
  const slopes = judgeSlopes(state.slopes, lags, sample.atMs, options);
  const conditions: Record<SymptomName, Condition> = {
    cpu: cpuCondition(recent),
    lag: lagCondition(lags, slopes),
    latency: latencyCondition({ ages, calm: state.calm, recent, samples }),
    slo: sloCondition({ recent, samples, slo: options.slo }),
  };
  const symptoms = {} as Record<SymptomName, Symptom>;
  const readings = {} as Record<SymptomName, SymptomReading>;
  for (const name of SYMPTOM_NAMES) {
    const condition = conditions[name];
    const symptom = stepSymptom(state.symptoms[name], condition.holds, sample.atMs, options.sustainMs);
    symptoms[name] = symptom;
    readings[name] = {
      present: condition.unknown === undefined && (symptom.phase === 'present' || symptom.phase === 'fading'),
      unknown: condition.unknown,
      text: condition.text,
      firstPresentMs: symptom.firstPresentMs,
    };
  }
  const isWhole = sample.atMs - samples[0]!.atMs >= options.windowMs * WINDOW_SHARE_MIN;
  return {
    state: { samples, symptoms, slopes, calm: isWhole ? calmest(state.calm, samples) : state.calm },
    reading: {
      symptoms: readings,
      verdict: verdictOf(readings),
      ages,
      calmAges: calmAgesOf(state.calm),
      ...loadOf(recent),
      worstLag: lags.reduce<LagReading | undefined>(
        (worst, lag) => (worst === undefined || lag.bytes > worst.bytes ? lag : worst),
        undefined,
      ),
    },
  };
}

/** Exported for its table. */
export function stepSymptom(
  symptom: Symptom,
  holds: boolean | undefined,
  nowMs: number,
  sustainMs: number,
): Symptom {
  const { phase, sinceMs } = symptom;
  const to = (next: Phase): Symptom => ({
    phase: next,
    sinceMs: nowMs,
    firstPresentMs: next === 'present' ? (symptom.firstPresentMs ?? nowMs) : symptom.firstPresentMs,
  });
  // What can't be seen neither begins nor goes on.
  if (holds === undefined) return phase === 'absent' ? symptom : to('absent');
  switch (phase) {
    case 'absent':
      return holds ? to('pending') : symptom;
    case 'pending':
      if (!holds) return to('absent');
      return nowMs - sinceMs >= sustainMs ? to('present') : symptom;
    case 'present':
      return holds ? symptom : to('fading');
    case 'fading':
      if (holds) return { ...symptom, phase: 'present', sinceMs: nowMs };
      return nowMs - sinceMs >= sustainMs ? to('absent') : symptom;
  }
}

interface Condition {
  /** Undefined: unknown. */
  readonly holds: boolean | undefined;
  readonly unknown: string | undefined;
  readonly text: string;
}

function unknownBecause(reason: string): Condition {
  return { holds: undefined, unknown: reason, text: reason };
}

function known(holds: boolean, text: string): Condition {
  return { holds, unknown: undefined, text };
}

/** The mean, since single looks waver around it; the first look has no share yet, which is no reason to forget the others. */
function cpuCondition(recent: readonly WatchSample[]): Condition {
  const share = meanOfKnown(recent.map(({ cpuShare }) => cpuShare));
  if (share === undefined) return unknownBecause('the processors of the server can’t be seen');
  return known(share >= CPU_SHARE, `${Math.round(share * 100)}% busy`);
}

function lagCondition(lags: readonly LagReading[], slopes: WatchState['slopes']): Condition {
  if (lags.length === 0) return unknownBecause('no standby streams');
  const growing = lags.filter(({ standby }) => (slopes.get(standby)?.above ?? 0) >= SLOPES_IN_A_ROW);
  const [worst] = [...(growing.length > 0 ? growing : lags)].sort((a, b) => b.bytes - a.bytes);
  return known(growing.length > 0, lagText(worst!));
}

function lagText({ standby, bytes, trend, step }: LagReading): string {
  const names: Record<LagStep, string> = { sendBytes: 'send', flushBytes: 'flush', replayBytes: 'replay' };
  const slope =
    trend === undefined
      ? ''
      : `, ${signed(trend.slope)} a second (${signed(trend.low)} to ${signed(trend.high)})`;
  return `${standby} is ${formatBytes(bytes)} behind${slope}, at ${names[step]}`;
}

/**
 * Few writes under way are a good sign, and no reason to know nothing; unless many are made and none is ever seen: then the
 * sessions are hidden.
 */
function withoutAges(samples: readonly WatchSample[]): Condition {
  const writes = meanOfKnown(samples.map((each) => each.writesPerSecond)) ?? 0;
  if (writes > HIDDEN_WRITES_MIN && agesIn(samples).length === 0 && samples.length > HIDDEN_LOOKS_MIN) {
    return unknownBecause('the sessions that write can’t be seen (GRANT pg_monitor shows them)');
  }
  return known(false, 'hardly a write is found under way');
}

function latencyCondition(options: {
  ages: Ages | undefined;
  calm: Calm;
  recent: readonly WatchSample[];
  samples: readonly WatchSample[];
}): Condition {
  const { ages, recent, samples } = options;
  const calm = calmAgesOf(options.calm);
  if (ages === undefined) return withoutAges(samples);
  const share = walWaiterShareOf(recent) ?? 0;
  const text = `writes under way are ${formatMs(ages.p50Ms)} old at p50, ${formatMs(ages.p99Ms)} at p99; ${Math.round(share * 100)}% wait for WAL`;
  if (calm === undefined)
    return { holds: false, unknown: undefined, text: `${text} (still learning what is calm)` };
  const hasGrown = ages.p99Ms >= GROWTH_FACTOR * calm.p99Ms && mayHaveGrownOnAverage(options.calm, recent);
  const tailGrowsMore = ages.p99Ms - calm.p99Ms > ages.p50Ms - calm.p50Ms;
  const most = options.calm.ages === undefined ? 'at most ' : '';
  return known(
    hasGrown && tailGrowsMore && share >= WAL_WAITER_SHARE,
    `${text} (calm: ${most}${formatMs(calm.p50Ms)} and ${formatMs(calm.p99Ms)})`,
  );
}

/**
 * Ages that were reckoned from a mean are as good as the shape of its distribution is known: writes that seldom take long
 * have a higher p99. Their mean itself needs no shape.
 */
function mayHaveGrownOnAverage(calm: Calm, recent: readonly WatchSample[]): boolean {
  if (calm.ages !== undefined || calm.meanMsMax === undefined) return true;
  const { meanWriteMs } = loadOf(recent);
  return meanWriteMs === undefined || meanWriteMs >= GROWTH_FACTOR * calm.meanMsMax;
}

function sloCondition(options: {
  recent: readonly WatchSample[];
  samples: readonly WatchSample[];
  slo: Slo | undefined;
}): Condition {
  const { recent, samples, slo } = options;
  if (slo === undefined) return unknownBecause('no objective was given (--slo)');
  const found = percentileOf(agesIn(recent), slo.share);
  if (found === undefined) return withoutAges(samples);
  const bound = `p${Number((slo.share * 100).toFixed(3))} of their ages is ${formatMs(found)}, the objective ${formatMs(slo.latencyMs)}`;
  return known(found > slo.latencyMs, bound);
}

function verdictOf(readings: Readonly<Record<SymptomName, SymptomReading>>): Reading['verdict'] {
  const all = SYMPTOM_NAMES.map((name) => readings[name]);
  const present = all.filter((reading) => reading.present).length;
  const seen = all.filter((reading) => reading.unknown === undefined).length;
  if (present === all.length) return 'wall';
  if (present === seen && present >= 2) return 'wall as far as seen';
  return present > 0 ? 'symptoms' : 'calm';
}

function judgeSlopes(
  before: WatchState['slopes'],
  lags: readonly LagReading[],
  nowMs: number,
  options: SymptomOptions,
): WatchState['slopes'] {
  const slopes = new Map<string, { judgedMs: number; above: number }>();
  for (const { standby, trend, bytes } of lags) {
    const last = before.get(standby) ?? { judgedMs: nowMs, above: 0 };
    if (nowMs - last.judgedMs < options.windowMs / SLOPES_IN_A_ROW) slopes.set(standby, last);
    else {
      const isAbove = trend !== undefined && trend.low > 0 && bytes >= LAG_BYTES_MIN;
      slopes.set(standby, { judgedMs: nowMs, above: isAbove ? last.above + 1 : 0 });
    }
  }
  return slopes;
}

/** Of the standbys of the last sample. */
function lagsOf(samples: readonly WatchSample[]): LagReading[] {
  const last = samples.at(-1)!;
  return last.standbys.map((standby) => {
    const trendBy = (of: (lag: StandbyLag) => number): Trend | undefined =>
      trendOf(
        samples.flatMap(({ atMs, standbys }) => {
          const same = standbys.find(({ name }) => name === standby.name);
          return same === undefined ? [] : [{ x: atMs / 1000, y: of(same) }];
        }),
      );
    const weightOf = (step: LagStep): number => {
      const growth = trendBy((lag) => lag[step])?.slope ?? 0;
      // What grows outweighs what only stands.
      return growth > 0 ? growth * 1e6 : standby[step] / 1e6;
    };
    return {
      standby: standby.name,
      bytes: totalOf(standby),
      trend: trendBy(totalOf),
      step: LAG_STEPS.reduce((most, step) => (weightOf(step) > weightOf(most) ? step : most)),
    };
  });
}

function totalOf(lag: StandbyLag): number {
  return lag.sendBytes + lag.flushBytes + lag.replayBytes;
}

function loadOf(
  recent: readonly WatchSample[],
): Pick<Reading, 'meanWriteMs' | 'walWaiterShare' | 'cpuShare' | 'writesPerSecond'> {
  const writesPerSecond = meanOfKnown(recent.map((each) => each.writesPerSecond));
  const underWay = agesIn(recent).length / Math.max(1, recent.length);
  return {
    writesPerSecond,
    cpuShare: meanOfKnown(recent.map((each) => each.cpuShare)),
    walWaiterShare: walWaiterShareOf(recent),
    meanWriteMs:
      writesPerSecond === undefined || writesPerSecond === 0
        ? undefined
        : (underWay / writesPerSecond) * 1000,
  };
}

function walWaiterShareOf(samples: readonly WatchSample[]): number | undefined {
  const writers = agesIn(samples).length;
  return writers === 0 ? undefined : samples.reduce((sum, each) => sum + each.walWaiters, 0) / writers;
}

function agesIn(samples: readonly WatchSample[]): number[] {
  return samples.flatMap(({ writeAgesMs }) => writeAgesMs);
}

function agesOf(samples: readonly WatchSample[]): Ages | undefined {
  const ages = agesIn(samples);
  const p50Ms = percentileOf(ages, 0.5);
  const p99Ms = percentileOf(ages, 0.99);
  return p50Ms === undefined || p99Ms === undefined ? undefined : { p50Ms, p99Ms };
}

/**
 * A load that comes in one jump, upon a server where hardly a write was ever found under way, is not to be learnt as calm:
 * the first ages that are enough have to be lower than those reckoned before it came, as later ones than those before.
 */
function calmest(before: Calm, samples: readonly WatchSample[]): Calm {
  const ages = agesIn(samples).length < CALM_AGES_MIN ? undefined : agesOf(samples);
  const lowest = calmAgesOf(before);
  const isLower = ages !== undefined && (lowest === undefined || ages.p99Ms < lowest.p99Ms);
  return {
    ages: isLower ? ages : before.ages,
    meanMsMax: leastKnown(before.meanMsMax, meanMsMaxOf(samples)),
  };
}

/** Those that were found, or those that times with such a mean would have, if they are exponential. */
function calmAgesOf({ ages, meanMsMax }: Calm): Ages | undefined {
  if (ages !== undefined || meanMsMax === undefined) return ages;
  return { p50Ms: meanMsMax * Math.log(2), p99Ms: meanMsMax * Math.log(100) };
}

/**
 * By Little's law from the number found under way, none at all included: the 99% limit of a Poisson count over the writes
 * of so many looks. Source of the limit: Wilson and Hilferty, "The distribution of chi-square" (1931).
 */
function meanMsMaxOf(samples: readonly WatchSample[]): number | undefined {
  const { writesPerSecond } = loadOf(samples);
  if (writesPerSecond === undefined || writesPerSecond === 0) return undefined;
  if (!samples.every((each) => each.seesAllSessions)) return undefined;
  const next = agesIn(samples).length + 1;
  const limit = next * (1 - 1 / (9 * next) + NORMAL_99 / (3 * Math.sqrt(next))) ** 3;
  return (limit / samples.length / writesPerSecond) * 1000;
}

function leastKnown(one: number | undefined, other: number | undefined): number | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return Math.min(one, other);
}

function percentileOf(values: readonly number[], share: number): number | undefined {
  if (values.length < AGES_MIN) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)];
}

function meanOfKnown(values: readonly (number | undefined)[]): number | undefined {
  const known = values.filter((value) => value !== undefined);
  return known.length === 0 ? undefined : known.reduce((sum, value) => sum + value, 0) / known.length;
}

function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = Math.abs(bytes);
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${bytes < 0 ? '-' : ''}${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

function signed(bytes: number): string {
  return bytes < 0 ? formatBytes(bytes) : `+${formatBytes(bytes)}`;
}

export function formatMs(ms: number): string {
  return ms < 10 ? `${ms.toFixed(2)} ms` : `${Math.round(ms)} ms`;
}
