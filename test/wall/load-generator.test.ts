/**
 * The load generator against a server whose capacity and latencies are known by queueing theory (fake-server.ts). Bounds are
 * loose, and disturbed points measured again, for machines that do other things as well; what is asked for are relations
 * that hold on any machine.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { LoadGenerator } from '../../src/wall/load/generator.ts';
import type { LoadMeasurement } from '../../src/wall/load/load-measurement.ts';
import { workloadFromScript } from '../../src/wall/workload/workload.ts';
import { type FakeServer, type FakeServerOptions, startFakeServer } from '../support/fake-server.ts';

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/**
 * Their jobs keep the queue filled while the machine lets its process or ours wait: 2,000 jobs a second take 64 ms for so
 * many.
 */
const CLIENTS = 128;

async function setUp(
  options: FakeServerOptions & { script?: string; workers?: number },
): Promise<{ server: FakeServer; generator: LoadGenerator }> {
  const server = await startFakeServer(options);
  closers.push(() => server.stop());
  const generator = new LoadGenerator({
    target: server.target(),
    workload: workloadFromScript(options.script ?? 'SELECT 1;', { name: 'job' }),
    ...{ protocol: 'prepared', schema: '', workers: options.workers ?? 1 },
  });
  closers.push(() => generator.close());
  return { server, generator };
}

const TRIES = 3;
/** Of a thread's loop and of arrivals that found a free client: the generator had its CPU when it wanted it. */
const CALM_MS = 2;

/**
 * What other programs take of the machine only ever adds to latencies, here and in the server's process. So a point that
 * was disturbed is measured again, a few times at most, and the one with the least mean counts.
 */
async function calmest(
  generator: LoadGenerator,
  options: Parameters<LoadGenerator['measurePoint']>[0],
): Promise<LoadMeasurement> {
  const points: LoadMeasurement[] = [];
  for (let tries = 0; tries < TRIES; tries++) {
    const point = await generator.measurePoint(options);
    points.push(point);
    if (Math.max(point.loopLagP99Ms, point.openLoop?.timingP99Ms ?? 0) < CALM_MS) break;
  }
  return points.reduce((least, point) => (point.latencies.meanMs < least.latencies.meanMs ? point : least));
}

function binned({ bins }: LoadMeasurement): number {
  return bins.counts.reduce((sum, count) => sum + count, 0);
}

describe('the closed loop', () => {
  it.each(['deterministic', 'exponential'] as const)(
    'finds the capacity of a queue with %s service',
    async (service) => {
      const { server, generator } = await setUp({ servers: 4, serviceMs: 2, service, workers: 2 });
      const windowMs = 2_000;
      const point = await calmest(generator, { clients: CLIENTS, warmupMs: 300, windowMs });
      // 4,000 exponential times: the standard error of their mean is 1.6%.
      const tolerance = service === 'deterministic' ? 0.03 : 0.06;
      expect(Math.abs(point.transactionsPerSecond / server.capacityPerSecond - 1)).toBeLessThan(tolerance);
      expect(point.littleRatio).toBeGreaterThan(0.95);
      expect(point.littleRatio).toBeLessThan(1.05);
      expect(point.bins).toMatchObject({ widthMs: 100 });
      expect(point.bins.counts).toHaveLength(20);
      expect(binned(point)).toBe(point.latencies.count);
      expect(point.threads).toHaveLength(2);
      expect([...point.latencyByTransaction.keys()]).toEqual(['job']);
      // 128 clients share 2,000 a second: Little's law gives the mean, 64 ms.
      expect(Math.abs(point.latencies.meanMs / 64 - 1)).toBeLessThan(tolerance + 0.02);
    },
  );

  it('gives a transaction of three statements a third of the rate', async () => {
    const script = 'BEGIN;\nSELECT 1;\nCOMMIT;';
    const { server, generator } = await setUp({ servers: 2, serviceMs: 1, service: 'deterministic', script });
    const point = await calmest(generator, { clients: CLIENTS, warmupMs: 300, windowMs: 2_000 });
    // The clients' statements go round in step, so transactions end in bursts, of which a window cuts one at each end.
    expect(Math.abs(point.transactionsPerSecond / (server.capacityPerSecond / 3) - 1)).toBeLessThan(0.12);
  });
});

describe('the open loop', () => {
  it('offers the rate that it was asked for, and accounts for each arrival', async () => {
    const { generator } = await setUp({ servers: 8, serviceMs: 1, service: 'deterministic', workers: 2 });
    const measure = (seed: number) =>
      generator.measurePoint({ clients: 64, rate: 2_000, warmupMs: 100, windowMs: 1_000, seed });
    const point = await measure(1);
    const { offered, completed, failed, missed } = point.openLoop!;
    // 2,000 arrivals of a Poisson process: a standard deviation is 45.
    expect(Math.abs(offered - 2_000)).toBeLessThan(200);
    expect(completed + failed + missed).toBe(offered);
    expect([failed, missed, point.unanswered]).toEqual([0, 0, 0]);
    expect(point.latencies.count).toBe(completed);
    expect(point.littleRatio).toBeUndefined();
    expect((await measure(1)).openLoop!.offered).toBe(offered);
    expect((await measure(2)).openLoop!.offered).not.toBe(offered);
  });

  it('has the latencies of M/M/1', async () => {
    const { generator } = await setUp({ servers: 1, serviceMs: 2, service: 'exponential' });
    const point = await calmest(generator, { clients: 64, rate: 250, warmupMs: 300, windowMs: 3_000 });
    // Load 0.5 on 750 arrivals: the time in the system is exponential with a mean of 4 ms.
    expect(point.latencies.meanMs).toBeGreaterThan(2.8);
    expect(point.latencies.meanMs).toBeLessThan(8);
    expect(point.latencies.percentileMs(0.95) / point.latencies.meanMs).toBeGreaterThan(2);
    expect(point.latencies.percentileMs(0.95) / point.latencies.meanMs).toBeLessThan(4);
  });

  it('has the latencies of M/D/1', async () => {
    const { generator } = await setUp({ servers: 1, serviceMs: 4, service: 'deterministic' });
    const point = await calmest(generator, { clients: 64, rate: 175, warmupMs: 300, windowMs: 3_000 });
    // Load 0.7: service of 4 ms and a mean wait of 0.7 / (2 × 0.3) services by Pollaczek and Khinchine, 8.7 ms together.
    expect(point.latencies.percentileMs(0)).toBeGreaterThanOrEqual(4);
    expect(point.latencies.meanMs).toBeGreaterThan(6.5);
    expect(point.latencies.meanMs).toBeLessThan(14);
  });

  it('tells a pause of the server by the latencies of all that should have begun in it', async () => {
    const { server, generator } = await setUp({ servers: 4, serviceMs: 2, service: 'deterministic' });
    let resumed: Promise<void> | undefined;
    const point = await generator.measurePoint({
      ...{ clients: 8, rate: 500, warmupMs: 200, windowMs: 2_500 },
      onOpen: () => {
        process.kill(server.pid, 'SIGSTOP');
        resumed = new Promise((resolve) =>
          setTimeout(() => {
            process.kill(server.pid, 'SIGCONT');
            resolve();
          }, 300),
        );
      },
    });
    await resumed;
    // An eighth of all arrivals are due in the pause, and wait for its end: evenly up to 300 ms. A closed loop of eight
    // clients would show eight slow ones of some 1,250.
    expect(point.latencies.percentileMs(0.99)).toBeGreaterThan(200);
    expect(point.latencies.percentileMs(0.95)).toBeGreaterThan(100);
    expect(point.openLoop).toMatchObject({ missed: 0, failed: 0 });
    expect(point.openLoop!.late).toBeGreaterThan(50);
    expect(point.openLoop!.late / point.openLoop!.offered).toBeLessThan(0.5);
    expect(point.openLoop!.latenessP99Ms).toBeGreaterThan(200);
  });

  it('misses what the server has no room for, in bounded time', async () => {
    const { server, generator } = await setUp({ servers: 1, serviceMs: 2, service: 'deterministic' });
    const point = await generator.measurePoint({
      ...{ clients: 4, rate: 1_000, waitMsMax: 200, warmupMs: 500, windowMs: 2_000 },
    });
    const { offered, completed, missed } = point.openLoop!;
    expect(completed + missed).toBe(offered);
    expect(missed / offered).toBeGreaterThan(0.35);
    expect(missed / offered).toBeLessThan(0.6);
    expect(point.transactionsPerSecond / server.capacityPerSecond).toBeGreaterThan(0.9);
    expect(point.latencies.percentileMs(0.99, missed)).toBe(Number.POSITIVE_INFINITY);
    // Their wait is bounded, and the answers of four clients before them take 8 ms.
    expect(point.latencies.percentileMs(0.5)).toBeLessThan(260);
  });
});
