/** A sweep's result for tests of what is done with one. */
import type { SweepPoint, SweepResult } from '../../src/wall/measure/measure.ts';

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
    best: points.reduce<SweepPoint | undefined>(
      (best, point) => (point.tps > (best?.tps ?? 0) ? point : best),
      undefined,
    ),
    server: { version: '18.4', settings: { fsync: 'on' }, replicas: 0, unread: [] },
    machine: { cores: 2, memoryBytes: 2 ** 33, cpuModel: 'CPU', platform: 'linux x64', nodeVersion: 'v20' },
    sharesMachine: true,
  };
}
