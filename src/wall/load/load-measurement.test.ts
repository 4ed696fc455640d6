import { describe, expect, it } from 'vitest';
import type { ThreadLoad, WorkerResult } from './generator-messages.ts';
import { LatencyHistogram } from './latency-histogram.ts';
import {
  combineResults,
  type OpenLoopMeasurement,
  type PointFrame,
  whyClientBound,
} from './load-measurement.ts';

function latenciesOf(...milliseconds: number[]): LatencyHistogram {
  const histogram = new LatencyHistogram();
  for (const ms of milliseconds) histogram.record(ms * 1000);
  return histogram;
}

const resting: ThreadLoad = { cpuShare: 0.5, loopUtilization: 0.6, loopLagP99Ms: 1 };
const fullMachine = { busyShare: 0.97, stealShare: 0.02 };
const idleMachine = { busyShare: 0.4, stealShare: 0 };

describe('whyClientBound', () => {
  const judge = (of: {
    threads: ThreadLoad[];
    machine?: PointFrame['machine'];
    timingP99Ms?: number;
    throttledShare?: number;
  }) =>
    whyClientBound({
      ...{ threads: of.threads, latencies: latenciesOf(4), machine: of.machine },
      throttledShare: of.throttledShare ?? 0,
      loopLagP99Ms: Math.max(...of.threads.map(({ loopLagP99Ms }) => loopLagP99Ms)),
      openLoop:
        of.timingP99Ms === undefined ? undefined : ({ timingP99Ms: of.timingP99Ms } as OpenLoopMeasurement),
    });
  const computing = { ...resting, cpuShare: 0.92, loopUtilization: 0.97 };
  const starved = { ...resting, cpuShare: 0.4, loopUtilization: 0.97 };

  it.each<[string, Parameters<typeof judge>[0], RegExp | undefined]>([
    ['threads that rest', { threads: [resting], machine: fullMachine }, undefined],
    ['one that computes all the time', { threads: [computing], machine: fullMachine }, /^1 of 1 threads/],
    ['one of two', { threads: [resting, computing], machine: idleMachine }, /^1 of 2 threads/],
    ['one that does, where CPU is not told', { threads: [{ ...computing, cpuShare: undefined }] }, /1 of 1/],
    ['one that waits for a CPU of a full machine', { threads: [starved], machine: fullMachine }, undefined],
    ['one that waits, and nothing is known of the machine', { threads: [starved] }, undefined],
    [
      'one that waits while a CPU is free',
      { threads: [starved], machine: idleMachine },
      /40% of a core.* 60%/,
    ],
    [
      'a loop that lags on its own',
      { threads: [{ ...resting, loopLagP99Ms: 30 }], machine: idleMachine },
      /lagged by 30/,
    ],
    [
      'a loop that lags because the machine is full',
      { threads: [{ ...resting, loopLagP99Ms: 30 }], machine: fullMachine },
      undefined,
    ],
    ['starts in time', { threads: [resting], machine: idleMachine, timingP99Ms: 0.4 }, undefined],
    ['late starts', { threads: [resting], machine: fullMachine, timingP99Ms: 5.5 }, /5\.5 ms late/],
    [
      'a quota that is not felt',
      { threads: [resting], machine: fullMachine, throttledShare: 0.01 },
      undefined,
    ],
    ['a quota', { threads: [resting], machine: fullMachine, throttledShare: 0.4 }, /quota .* 40%/],
  ])('judges %s', (_, of, expected) => {
    const reasons = judge(of);
    if (expected === undefined) expect(reasons).toEqual([]);
    else expect(reasons.join()).toMatch(expected);
  });
});

describe('combineResults', () => {
  const transaction = (name: string) => ({ name, weight: 1, script: '' });
  const frame: PointFrame = {
    clients: 2,
    workload: {
      ...{ name: 'mix', description: '', reads: true, writes: undefined, setup: [], variables: {} },
      transactions: [transaction('read'), transaction('write')],
    },
    ...{ windowMs: 200, openLoop: undefined, cores: 4, machine: undefined, throttledShare: 0 },
  };
  const result = (of: { bins: number[]; read: number[]; write: number[]; busyMs: number }): WorkerResult => ({
    record: {
      bins: Uint32Array.from(of.bins),
      latencies: [latenciesOf(...of.read).snapshot(), latenciesOf(...of.write).snapshot()],
      errors: new Map([['40001', 1]]),
      errorMessages: new Map([['40001', 'again']]),
      busyMs: of.busyMs,
    },
    ...{ openLoop: undefined, acknowledged: 10, unanswered: 0, load: resting },
  });

  it('adds up the threads', () => {
    const measured = combineResults(
      [
        result({ bins: [2, 1], read: [1, 2], write: [9], busyMs: 12 }),
        result({ bins: [0, 3], read: [3], write: [8, 10], busyMs: 21 }),
      ],
      frame,
    );
    expect(measured.bins).toEqual({ widthMs: 100, counts: [2, 4] });
    expect(measured).toMatchObject({ transactionsPerSecond: 30, seconds: 0.2, acknowledged: 20 });
    expect(measured.errors).toEqual(new Map([['40001', 2]]));
    expect(measured.latencies.count).toBe(6);
    expect(measured.latencies.meanMs).toBeCloseTo(33 / 6);
    const byName = measured.latencyByTransaction;
    expect([byName.get('read')!.maxMs, byName.get('write')!.count]).toEqual([3, 3]);
    expect([measured.cpuShare, measured.machineShare]).toEqual([1, 0.25]);
    // Six transactions of two clients are too few for Little's law.
    expect(measured.littleRatio).toBeUndefined();
    expect(measured.voidReasons).toEqual([]);
  });

  it.each([
    [1, []],
    [0.96, []],
    [0.9, [expect.stringContaining("0.90 of the number of clients (Little's law)")]],
    [1.07, [expect.stringContaining("1.07 of the number of clients (Little's law)")]],
  ])('checks throughput times time against the clients: %f', (ratio, reasons) => {
    const busyMs = 2 * 200 * ratio;
    const measured = combineResults([result({ bins: [40, 40], read: [], write: [], busyMs })], frame);
    expect(measured.littleRatio).toBeCloseTo(ratio);
    expect(measured.voidReasons).toEqual(reasons);
    expect(measured.clientBound).toBe(false);
  });

  it('accounts for each arrival of an open loop', () => {
    const one = result({ bins: [1, 2], read: [5], write: [4, 4, 7], busyMs: 1_000 });
    const counts = {
      ...{ offered: 8, late: 2, missed: 3 },
      ...{ lateness: latenciesOf(0, 1, 2, 6).snapshot(), timing: latenciesOf(0.5).snapshot() },
    };
    const measured = combineResults([{ ...one, openLoop: counts }], {
      ...frame,
      openLoop: { rate: 40, lateMs: 5 },
    });
    expect(measured.openLoop).toEqual({
      ...{ rate: 40, lateMs: 5, offered: 8, completed: 4, failed: 1, late: 2, missed: 3 },
      ...{ latenessP99Ms: 6, timingP99Ms: 0.5 },
    });
    // Throughput is of those that ended within the window.
    expect(measured.transactionsPerSecond).toBe(15);
    expect(measured.littleRatio).toBeUndefined();
  });
});
