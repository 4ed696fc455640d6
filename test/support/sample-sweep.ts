/** A sweep's result for tests of what is done with one. */
import { bestOf, type SweepPoint, type SweepResult } from '../../src/wall/measure/sweep.ts';

export function samplePoint(fields: Partial<SweepPoint> = {}): SweepPoint {
  return {
    clients: 8,
    tps: 1000,
    p50Ms: 0.29,
    p95Ms: 0.6,
    p99Ms: 0.91,
    maxMs: 3,
    errors: {},
    errorMessages: {},
    transactions: 5000,
    seconds: 5,
    acknowledged: 6000,
    generatorCpuShare: 0.2,
    clientBound: false,
    cpuMsPerTransaction: {},
    ...fields,
  };
}

export function sampleResult(points: readonly SweepPoint[]): SweepResult {
  return {
    target: 'u@h:5432/d',
    workload: 'events',
    protocol: 'prepared',
    tls: false,
    startedAt: '2026-01-01T00:00:00.000Z',
    points,
    skipped: [],
    best: bestOf(points),
    server: { version: '18.4', settings: { fsync: 'on', synchronous_commit: 'on' }, replicas: 0, unread: [] },
    machine: { cores: 2, memoryBytes: 2 ** 33, cpuModel: 'CPU', platform: 'linux x64', nodeVersion: 'v20' },
    sharesMachine: true,
  };
}

/** A search's result, with what a real one has: several windows of a count, a void point, the wall and its facts. */
export function sampleSearch(): SweepResult {
  const interval = { standardError: 10, degrees: 12, tpsPlusMinus: 22, blockBins: 4, warmupBins: 0 };
  const rates: readonly (readonly [SweepPoint['purpose'], number, number])[] = [
    ...([
      ['ramp', 1, 500],
      ['ramp', 2, 950],
      ['ramp', 4, 1400],
      ['ramp', 8, 1420],
      ['ramp', 16, 1390],
    ] as const),
    ...([
      ['bisect', 3, 1200],
      ['confirm', 8, 1400],
      ['confirm', 8, 1404],
    ] as const),
  ];
  const points = rates.map(([purpose, clients, tps]) =>
    samplePoint({
      ...interval,
      purpose,
      clients,
      tps,
      voidReasons: [],
      checkpoints: 0,
      fullPageImageShare: 0.02,
    }),
  );
  const unsteady = samplePoint({ clients: 16, tps: 9999, purpose: 'ramp', voidReasons: ['unsteady'] });
  return {
    ...sampleResult([...points, unsteady]),
    finished: true,
    settings: { target: 'u@h:5432/d', protocol: 'prepared' },
    best: points[3]!,
    wall: {
      ...{ kind: 'reached', rate: { tps: 1402, plusMinus: 15 }, clients: 4, chosenClients: 8, flatTo: 16 },
      ...{ fallsAfter: false, afresh: true },
    },
    usl: { perClient: 510, contention: 0.05, coherency: 0.002, peakClients: 21.8, deviationShare: 0.03 },
    traffic: '0 transactions a second by others, no session at work',
    dataBytes: 2 ** 28,
    sharedBuffersBytes: 2 ** 27,
  };
}
