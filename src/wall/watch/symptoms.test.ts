import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../load/seeded-random.ts';
import {
  afterGap,
  initialState,
  observe,
  type Reading,
  type StandbyLag,
  SYMPTOM_NAMES,
  type Symptom,
  type SymptomOptions,
  stepSymptom,
  type WatchSample,
} from './symptoms.ts';

const OPTIONS: SymptomOptions = { windowMs: 60_000, sustainMs: 10_000, slo: { share: 0.99, latencyMs: 50 } };
const MB = 1024 * 1024;

interface Load {
  readonly cpu?: number | undefined;
  /** Of writes under way: half are this old, and a few much older. */
  readonly p50Ms?: number;
  readonly p99Ms?: number;
  readonly walShare?: number;
  readonly lag?: Partial<StandbyLag> | undefined;
}

function sample(atMs: number, load: Load): WatchSample {
  const { p50Ms = 1, p99Ms = 3, walShare = 0, lag } = load;
  const ages = Array.from({ length: 50 }, (_, index) => (index < 48 ? p50Ms : p99Ms));
  return {
    atMs,
    cpuShare: 'cpu' in load ? load.cpu : 0.4,
    writesPerSecond: 1_000,
    writeAgesMs: ages,
    walWaiters: Math.round(walShare * ages.length),
    seesAllSessions: true,
    standbys:
      lag === undefined ? [] : [{ name: 'near', sendBytes: 0, flushBytes: 0, replayBytes: 0, ...lag }],
  };
}

/** Looks once a second, from the first to the last second. */
function watch(options: {
  readonly seconds: number;
  readonly load: (second: number) => Load;
  readonly symptoms?: SymptomOptions;
}): Reading[] {
  let state = initialState();
  const readings: Reading[] = [];
  for (let second = 0; second < options.seconds; second++) {
    const step = observe(state, sample(second * 1000, options.load(second)), options.symptoms ?? OPTIONS);
    state = step.state;
    readings.push(step.reading);
  }
  return readings;
}

function exponential(meanMs: number, random: () => number): number {
  return -meanMs * Math.log(1 - random());
}

function firstPresent(readings: readonly Reading[], name: (typeof SYMPTOM_NAMES)[number]): number {
  return readings.findIndex((reading) => reading.symptoms[name].present);
}

describe('the steps of a symptom', () => {
  const at = (phase: Symptom['phase'], sinceMs = 0): Symptom => ({
    phase,
    sinceMs,
    firstPresentMs: undefined,
  });
  const table: [Symptom['phase'], boolean | undefined, number, Symptom['phase']][] = [
    ['absent', false, 0, 'absent'],
    ['absent', true, 0, 'pending'],
    ['absent', undefined, 0, 'absent'],
    ['pending', true, 9_999, 'pending'],
    ['pending', true, 10_000, 'present'],
    ['pending', false, 9_999, 'absent'],
    ['pending', undefined, 10_000, 'absent'],
    ['present', true, 99_999, 'present'],
    ['present', false, 99_999, 'fading'],
    ['present', undefined, 1, 'absent'],
    ['fading', true, 1, 'present'],
    ['fading', false, 9_999, 'fading'],
    ['fading', false, 10_000, 'absent'],
    ['fading', undefined, 1, 'absent'],
  ];
  it.each(table)('%s, the condition is %s after %d ms: %s', (phase, holds, afterMs, next) => {
    expect(stepSymptom(at(phase), holds, afterMs, 10_000).phase).toBe(next);
  });
});

describe('the symptoms of a primary', () => {
  it('are none while it is calm, whatever the noise', () => {
    const random = seededRandom(7);
    let lag = 3 * MB;
    const readings = watch({
      seconds: 300,
      load: () => {
        // It wanders, and comes back.
        lag = 3 * MB + 0.8 * (lag - 3 * MB) + (random() - 0.5) * 2 * MB;
        return {
          cpu: 0.5 + 0.4 * random(),
          p50Ms: 1 + random(),
          p99Ms: 4 + 2 * random(),
          lag: { replayBytes: lag },
        };
      },
    });
    expect(new Set(readings.map((reading) => reading.verdict))).toEqual(new Set(['calm']));
  });

  it('are not shown by a spike of fifteen seconds, and by one of half a minute are', () => {
    const spike = (length: number): Reading[] =>
      watch({
        seconds: 150,
        load: (second) => ({ cpu: second >= 60 && second < 60 + length ? 0.99 : 0.5 }),
      });
    expect(firstPresent(spike(15), 'cpu')).toBe(-1);
    expect(firstPresent(spike(30), 'cpu')).toBeGreaterThanOrEqual(70);
    expect(spike(30).at(-1)!.verdict).toBe('calm');
  });

  it('take a second below the bound among many above it for what it is', () => {
    const readings = watch({ seconds: 120, load: (second) => ({ cpu: second % 10 === 0 ? 0.9 : 1 }) });
    expect(readings.slice(30).every((reading) => reading.symptoms.cpu.present)).toBe(true);
  });

  it('tell where the lag arises, and call it unbounded only when it grows and grows', () => {
    const steps = { sendBytes: 'sendBytes', flushBytes: 'flushBytes', replayBytes: 'replayBytes' } as const;
    for (const step of Object.values(steps)) {
      const readings = watch({
        seconds: 180,
        load: (second) => ({ lag: { replayBytes: 5 * MB, [step]: 5 * MB + second * MB } }),
      });
      expect(firstPresent(readings, 'lag')).toBeGreaterThan(40);
      expect(readings.at(-1)!.worstLag).toMatchObject({ standby: 'near', step });
      expect(readings.at(-1)!.worstLag!.trend!.low).toBeGreaterThan(0.9 * MB);
    }
    const large = watch({ seconds: 180, load: () => ({ lag: { replayBytes: 900 * MB } }) });
    expect(firstPresent(large, 'lag')).toBe(-1);
  });

  it('see latency rise by its tail and by waits for WAL, not by one of them', () => {
    const thenIs = (load: Load): Reading[] =>
      watch({ seconds: 180, load: (second) => (second < 90 ? {} : load) });
    expect(firstPresent(thenIs({ p50Ms: 2, p99Ms: 30, walShare: 0.4 }), 'latency')).toBeGreaterThan(90);
    expect(firstPresent(thenIs({ p50Ms: 2, p99Ms: 30, walShare: 0 }), 'latency')).toBe(-1);
    expect(firstPresent(thenIs({ p50Ms: 1, p99Ms: 4, walShare: 0.4 }), 'latency')).toBe(-1);
    expect(firstPresent(thenIs({ p50Ms: 30, p99Ms: 31, walShare: 0.4 }), 'latency')).toBe(-1);
  });

  describe('where hardly a write is found under way while it is calm', () => {
    interface Writes {
      readonly writes: number;
      readonly meanMs: number;
      /** Of those under way: exponential times have the same mean again. */
      readonly ageMs?: (random: () => number) => number;
    }

    /** As many are under way as Little's law says; from the ninetieth second on it is `later`. */
    function looks(seed: number, calm: Writes, later: Writes): Reading[] {
      const random = seededRandom(seed);
      let state = initialState();
      return Array.from({ length: 240 }, (_, second) => {
        const { writes, meanMs, ageMs } = second < 90 ? calm : later;
        const underWay = (writes * meanMs) / 1000;
        const count = Math.floor(underWay) + (random() < underWay % 1 ? 1 : 0);
        const look: WatchSample = {
          ...sample(second * 1000, {}),
          writesPerSecond: writes,
          writeAgesMs: Array.from({ length: count }, () => ageMs?.(random) ?? exponential(meanMs, random)),
          walWaiters: count,
        };
        const step = observe(state, look, OPTIONS);
        state = step.state;
        return step.reading;
      });
    }

    const seeds = [1, 2, 3, 4, 5, 6, 7, 8];
    const calm: Writes = { writes: 50, meanMs: 1 };

    it.each(seeds)('reckon what is calm, so that a jump is not learnt as calm (seed %i)', (seed) => {
      const readings = looks(seed, calm, { writes: 500, meanMs: 50 });
      expect(readings[89]!.calmAges!.p99Ms).toBeLessThan(20);
      expect(firstPresent(readings, 'latency')).toBeGreaterThan(90);
      expect(firstPresent(readings, 'latency')).toBeLessThan(130);
      expect(readings.at(-1)!.symptoms.latency.present).toBe(true);
    });

    it.each(seeds)('see no rise in more writes that take no longer (seed %i)', (seed) => {
      const same = looks(seed, calm, { writes: 1_000, meanMs: 1 });
      expect(firstPresent(same, 'latency')).toBe(-1);
      // Half of those under way are the one in two hundred that takes two hundred times as long.
      const ageMs = (random: () => number): number => exponential(random() < 0.5 ? 0.5 : 100, random);
      const longTailed = looks(seed, calm, { writes: 1_000, meanMs: 1, ageMs });
      expect(firstPresent(longTailed, 'latency')).toBe(-1);
    });

    it('learn nothing from what other roles hide', () => {
      let state = initialState();
      for (let second = 0; second < 90; second++) {
        const hidden = {
          ...sample(second * 1000, {}),
          writeAgesMs: [],
          walWaiters: 0,
          seesAllSessions: false,
        };
        const step = observe(state, hidden, OPTIONS);
        state = step.state;
        expect(step.reading.calmAges).toBeUndefined();
      }
    });
  });

  it('say "at the wall" when all four stand, and not before', () => {
    const readings = watch({
      seconds: 400,
      load: (second) => ({
        cpu: second > 100 ? 0.98 : 0.5,
        lag: { replayBytes: second > 150 ? (second - 150) * MB : 0 },
        walShare: second > 250 ? 0.5 : 0,
        p50Ms: second > 250 ? 3 : 1,
        p99Ms: second > 320 ? 200 : second > 250 ? 40 : 3,
      }),
    });
    const first = SYMPTOM_NAMES.map((name) => firstPresent(readings, name));
    expect([...first].sort((a, b) => a - b)).toEqual(first);
    const wallAt = readings.findIndex((reading) => reading.verdict === 'wall');
    expect(wallAt).toBe(first.at(-1));
    expect(readings.slice(0, wallAt).every((reading) => reading.verdict !== 'wall as far as seen')).toBe(
      true,
    );
    expect(readings.at(-1)!.verdict).toBe('wall');
  });

  it('count what cannot be seen neither way', () => {
    const blind = watch({
      seconds: 180,
      symptoms: { ...OPTIONS, slo: undefined },
      load: (second) => ({ cpu: undefined, ...(second < 90 ? {} : { p50Ms: 3, p99Ms: 80, walShare: 0.5 }) }),
    });
    const last = blind.at(-1)!;
    expect(SYMPTOM_NAMES.filter((name) => last.symptoms[name].unknown !== undefined)).toEqual([
      'cpu',
      'lag',
      'slo',
    ]);
    expect(last.verdict).toBe('symptoms');
    const seen = watch({
      seconds: 180,
      load: (second) => (second < 90 ? {} : { cpu: 0.99, p50Ms: 3, p99Ms: 80, walShare: 0.5 }),
    });
    expect(seen.at(-1)!.verdict).toBe('wall as far as seen');
  });

  it('begin anew after a gap', () => {
    let state = initialState();
    for (let second = 0; second < 60; second++) {
      state = observe(state, sample(second * 1000, { cpu: 0.99 }), OPTIONS).state;
    }
    expect(state.symptoms.cpu.phase).toBe('present');
    const { reading } = observe(afterGap(state), sample(200_000, { cpu: 0.99 }), OPTIONS);
    expect(reading.symptoms.cpu.present).toBe(false);
  });

  it('never say "at the wall" unless all four are present, whatever comes', () => {
    const load = fc.record({
      cpu: fc.option(fc.constantFrom(0.3, 0.97, 1), { nil: undefined }),
      p50Ms: fc.constantFrom(1, 5, 50),
      p99Ms: fc.constantFrom(50, 100, 500),
      walShare: fc.constantFrom(0, 0.5),
      lag: fc.option(fc.record({ replayBytes: fc.integer({ min: 0, max: 1e9 }) }), { nil: undefined }),
    });
    fc.assert(
      fc.property(fc.array(load, { minLength: 1, maxLength: 60 }), (loads) => {
        const readings = watch({
          seconds: loads.length,
          symptoms: { windowMs: 12_000, sustainMs: 2_000, slo: OPTIONS.slo },
          load: (second) => loads[second]!,
        });
        for (const { verdict, symptoms } of readings) {
          const present = SYMPTOM_NAMES.filter((name) => symptoms[name].present);
          expect(verdict === 'wall').toBe(present.length === 4);
          for (const name of present) expect(symptoms[name].unknown).toBeUndefined();
        }
      }),
      { seed: 20_261_122, numRuns: 60 },
    );
  });
});
