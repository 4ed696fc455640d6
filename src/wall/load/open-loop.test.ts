import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ArrivalSchedule } from './arrival-schedule.ts';
import { LatencyHistogram } from './latency-histogram.ts';
import { OpenLoop } from './open-loop.ts';
import { MeasuredWindow } from './window-recorder.ts';

interface Scenario {
  readonly ratePerSecond: number;
  readonly clients: number;
  readonly serviceMs: number;
  readonly waitMsMax: number;
  readonly lateMs: number;
  readonly opensAtMs: number;
  readonly closesAtMs: number;
  /** The server answers nothing from here on for so long. */
  readonly pause?: { readonly atMs: number; readonly forMs: number };
  /** How often the loop is woken. */
  readonly tickMs: number;
}

interface Served {
  readonly dueAtMs: number;
  readonly beganAtMs: number;
  readonly endedAtMs: number;
}

/** Runs it in simulated time: each client's transaction takes serviceMs, and none ends within the pause. */
function simulate(scenario: Scenario) {
  const { clients, serviceMs, tickMs, pause } = scenario;
  const window = new MeasuredWindow();
  window.opensAtMs = scenario.opensAtMs;
  window.closesAtMs = scenario.closesAtMs;
  const running: (Served & { client: FakeClient })[] = [];
  const served: Served[] = [];
  class FakeClient {
    begin(dueAtMs: number, now: number): void {
      let endedAtMs = now + serviceMs;
      if (pause !== undefined && endedAtMs >= pause.atMs && now < pause.atMs + pause.forMs) {
        endedAtMs = Math.max(endedAtMs, pause.atMs + pause.forMs);
      }
      running.push({ client: this, dueAtMs, beganAtMs: now, endedAtMs });
      running.sort((a, b) => a.endedAtMs - b.endedAtMs);
    }
  }
  const loop = new OpenLoop({
    arrivals: { ratePerSecond: scenario.ratePerSecond, seed: 5, startAtMs: 0 },
    clients: Array.from({ length: clients }, () => new FakeClient()),
    ...{ waitMsMax: scenario.waitMsMax, lateMs: scenario.lateMs, window },
  });
  const endMs = scenario.closesAtMs + scenario.waitMsMax + 10 * serviceMs + (pause?.forMs ?? 0);
  for (let now = 0; now < endMs; now += tickMs) {
    for (let next = running[0]; next !== undefined && next.endedAtMs <= now; next = running[0]) {
      running.shift();
      served.push(next);
      loop.release(next.client, next.endedAtMs);
    }
    loop.admit(now);
  }
  const isQuiet = loop.isQuiet(clients);
  loop.abandon();
  const counts = loop.counts();
  return {
    counts,
    isQuiet,
    within: served.filter(({ dueAtMs }) => window.contains(dueAtMs)),
    latenessMs: new LatencyHistogram(counts.lateness),
    timingMs: new LatencyHistogram(counts.timing),
  };
}

/** When arrivals were due in the window, straight from the schedule. */
function dueTimes({ ratePerSecond, opensAtMs, closesAtMs }: Scenario): number[] {
  const schedule = new ArrivalSchedule({ ratePerSecond, seed: 5, startAtMs: 0 });
  const times: number[] = [];
  for (; schedule.nextAtMs < closesAtMs; schedule.advance()) {
    if (schedule.nextAtMs >= opensAtMs) times.push(schedule.nextAtMs);
  }
  return times;
}

const scenario: fc.Arbitrary<Scenario> = fc.record({
  ratePerSecond: fc.integer({ min: 10, max: 3_000 }),
  clients: fc.integer({ min: 1, max: 6 }),
  serviceMs: fc.integer({ min: 1, max: 20 }),
  waitMsMax: fc.constantFrom(1, 20, 200),
  lateMs: fc.constantFrom(0.5, 5),
  opensAtMs: fc.constantFrom(0, 50),
  closesAtMs: fc.constantFrom(120, 300),
  tickMs: fc.constantFrom(0.1, 1, 7),
});

describe('OpenLoop', () => {
  it('serves or misses each arrival of the schedule, the first come first', () => {
    fc.assert(
      fc.property(scenario, (options) => {
        const { counts, within, isQuiet } = simulate(options);
        const due = dueTimes(options);
        expect(isQuiet).toBe(true);
        expect(counts.offered).toBe(due.length);
        expect(within.length + counts.missed).toBe(due.length);
        const began = [...within].sort((a, b) => a.dueAtMs - b.dueAtMs);
        expect(due).toEqual(expect.arrayContaining(began.map(({ dueAtMs }) => dueAtMs)));
        expect(began.map(({ beganAtMs }) => beganAtMs)).toEqual(
          began.map(({ beganAtMs }) => beganAtMs).sort((a, b) => a - b),
        );
        expect(counts.late).toBe(
          began.filter(({ dueAtMs, beganAtMs }) => beganAtMs - dueAtMs > options.lateMs).length,
        );
        for (const { dueAtMs, beganAtMs } of began) {
          expect(beganAtMs).toBeGreaterThanOrEqual(dueAtMs);
          // It is looked for those that have waited too long whenever the loop is woken or a client gets free.
          expect(beganAtMs - dueAtMs).toBeLessThanOrEqual(options.waitMsMax + options.tickMs);
        }
      }),
      { numRuns: 200 },
    );
  });

  const plain: Scenario = {
    ...{ ratePerSecond: 400, clients: 64, serviceMs: 1, waitMsMax: 2_000, lateMs: 10, tickMs: 0.1 },
    ...{ opensAtMs: 0, closesAtMs: 10_000 },
  };

  it('begins at once while clients are free, and tells the wait for its own wake-ups', () => {
    const { counts, latenessMs, timingMs } = simulate({ ...plain, tickMs: 2 });
    expect(counts).toMatchObject({ late: 0, missed: 0 });
    expect(timingMs.count).toBe(counts.offered);
    expect(latenessMs.maxMs).toBeLessThanOrEqual(2);
    expect(timingMs.percentileMs(0.5)).toBeGreaterThan(0.5);
  });

  it('shows a pause of the server in the latencies of all that should have begun in it', () => {
    // 300 of 10,000 ms: 3% of the arrivals wait up to 300 ms, evenly, so a third of them is above 200 ms.
    const paused = simulate({ ...plain, pause: { atMs: 4_000, forMs: 300 } });
    const latency = new LatencyHistogram();
    for (const { dueAtMs, endedAtMs } of paused.within) latency.record((endedAtMs - dueAtMs) * 1000);
    expect(paused.counts.missed).toBe(0);
    expect(latency.percentileMs(0.99)).toBeGreaterThan(170);
    expect(latency.percentileMs(0.99)).toBeLessThan(230);
    // The same seen from the real start: the wait for a free client is left out.
    const fromStart = new LatencyHistogram();
    for (const { beganAtMs, endedAtMs } of paused.within) fromStart.record((endedAtMs - beganAtMs) * 1000);
    expect(fromStart.percentileMs(0.99)).toBeLessThan(latency.percentileMs(0.99));
  });

  it('misses what finds no client in time, and does not grow without a bound', () => {
    // One client serves 100 a second of the 400.
    const { counts, within } = simulate({ ...plain, clients: 1, serviceMs: 10, waitMsMax: 100 });
    expect(within.length / counts.offered).toBeCloseTo(0.25, 1);
    expect(counts.missed).toBe(counts.offered - within.length);
    expect(counts.late).toBeGreaterThan(0.9 * within.length);
  });
});
