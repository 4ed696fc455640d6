/**
 * One point of a measurement: so many clients (and, in an open loop, so many arrivals a second) for so long, with what the
 * figure has to be read with: the interval, the machine's load, the generator's own use of CPU, WAL and checkpoints, and
 * whether it is void.
 */
import { availableParallelism } from 'node:os';
import { LoadError, type LoadGenerator } from '../load/generator.ts';
import { LITTLE_TOLERANCE, type LoadMeasurement } from '../load/load-measurement.ts';
import {
  type MachineSample,
  machineShares,
  processTreeCpuSeconds,
  sampleMachine,
} from '../server/machine.ts';
import { LiveRate, type ProgressEvent } from './progress.ts';
import type { VoidReason } from './search.ts';
import { blockBootstrap, halfWidth, steadiness, warmupBins } from './statistics.ts';
import type { SweepPoint } from './sweep.ts';
import type { WindowCounters } from './window-counters.ts';

/** Of the CPU that the hypervisor gives to others while it is wanted here; above it a figure is as much theirs as ours. */
const STEAL_SHARE_MAX = 0.06;

export interface PointTask {
  readonly generator: LoadGenerator;
  readonly clients: number;
  readonly purpose: NonNullable<SweepPoint['purpose']>;
  readonly warmupSeconds: number;
  readonly windowSeconds: number;
  /** Arrivals a second; undefined: a closed loop. */
  readonly rate?: number | undefined;
  /** Process trees on this machine whose CPU time is to be told: a name and a pid. */
  readonly processes: Readonly<Record<string, number>>;
  readonly counters?: WindowCounters | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((event: ProgressEvent) => void) | undefined;
}

export interface MeasuredLoad {
  readonly point: SweepPoint;
  readonly measured: LoadMeasurement;
}

/** Rejects with LoadError, or with the signal's reason. */
export async function measurePoint(task: PointTask): Promise<MeasuredLoad> {
  const { generator, clients, rate, processes, warmupSeconds, windowSeconds, onProgress: tell } = task;
  const live = new LiveRate({ clients, warmupSeconds, windowSeconds, tell });
  let before: Sample | undefined;
  let after: Sample | undefined;
  tell?.({ kind: 'connecting', clients });
  const countersBefore = await task.counters?.read();
  const measured = await generator.measurePoint({
    clients,
    warmupMs: warmupSeconds * 1000,
    windowMs: windowSeconds * 1000,
    ...(rate === undefined ? {} : { rate }),
    signal: task.signal,
    onConnected: () => live.enter('warmup'),
    onOpen: () => {
      before = takeSample(processes);
      live.enter('window');
    },
    onClose: () => {
      after = takeSample(processes);
    },
    onProgress: (acknowledged) => live.update(acknowledged),
  });
  if (measured.unanswered > 0) {
    throw new LoadError(`${measured.unanswered} of ${clients} clients had no answer long after the window`);
  }
  const counted = task.counters?.between(countersBefore, await task.counters.read(), measured.acknowledged);
  return { point: { ...toPoint({ task, measured, before, after }), ...counted }, measured };
}

interface Sample {
  readonly machine: MachineSample | undefined;
  readonly cpuSeconds: ReadonlyMap<string, number>;
}

function takeSample(processes: Readonly<Record<string, number>>): Sample {
  const cpuSeconds = new Map<string, number>();
  for (const [name, pid] of Object.entries(processes)) {
    const seconds = processTreeCpuSeconds(pid);
    if (seconds !== undefined) cpuSeconds.set(name, seconds);
  }
  return { machine: sampleMachine(), cpuSeconds };
}

function toPoint(options: {
  task: PointTask;
  measured: LoadMeasurement;
  before: Sample | undefined;
  after: Sample | undefined;
}): SweepPoint {
  const { task, measured, before, after } = options;
  const { latencies } = measured;
  const shares = machineShares(before?.machine, after?.machine);
  const cpuMsPerTransaction: Record<string, number> = {};
  for (const [name, seconds] of after?.cpuSeconds ?? []) {
    const earlier = before?.cpuSeconds.get(name);
    if (earlier !== undefined && latencies.count > 0) {
      cpuMsPerTransaction[name] = ((seconds - earlier) * 1000) / latencies.count;
    }
  }
  const { openLoop } = measured;
  const { steady, ...rate } = rateOfWindow(measured);
  return {
    clients: task.clients,
    purpose: task.purpose,
    ...rate,
    voidReasons: voidReasons(measured, { stealShare: shares?.stealShare, steady }),
    ...(measured.voidReasons.length === 0 ? {} : { voidNotes: measured.voidReasons }),
    p50Ms: latencies.percentileMs(0.5),
    p95Ms: latencies.percentileMs(0.95),
    p99Ms: latencies.percentileMs(0.99),
    maxMs: latencies.maxMs,
    meanMs: latencies.meanMs,
    errors: Object.fromEntries(measured.errors),
    errorMessages: Object.fromEntries(measured.errorMessages),
    transactions: latencies.count,
    seconds: measured.seconds,
    acknowledged: measured.acknowledged,
    generatorCpuShare: measured.cpuShare,
    loopLagP99Ms: measured.loopLagP99Ms,
    clientBound: measured.clientBound,
    ...(shares === undefined ? {} : { machineBusyShare: shares.busyShare, stealShare: shares.stealShare }),
    ...othersOf({ measured, busyShare: shares?.busyShare, serverMs: cpuMsPerTransaction.server }),
    cpuMsPerTransaction,
    ...byTransaction(measured),
    ...(openLoop === undefined ? {} : { openLoop }),
  };
}

function rateOfWindow(measured: LoadMeasurement) {
  const { widthMs, counts } = measured.bins;
  const dropped = warmupBins(counts);
  const bins = counts.slice(dropped);
  const perSecond = 1000 / widthMs;
  const estimate = blockBootstrap(bins.map((count) => count * perSecond));
  const steady = steadiness(bins);
  // A window of a few bins has edges that weigh; its whole length is known exactly.
  if (estimate.degrees === 0) return { tps: measured.transactionsPerSecond, steady: true };
  return {
    tps: dropped === 0 ? measured.transactionsPerSecond : estimate.mean,
    tpsPlusMinus: halfWidth(estimate),
    standardError: estimate.standardError,
    degrees: estimate.degrees,
    blockBins: estimate.blockLength,
    warmupBins: dropped,
    driftShare: steady.driftShare,
    steady: steady.steady,
  };
}

function voidReasons(
  measured: LoadMeasurement,
  of: { stealShare: number | undefined; steady: boolean },
): VoidReason[] {
  const { stealShare, steady } = of;
  const reasons: VoidReason[] = [];
  if (measured.clientBound) reasons.push('client-bound');
  if ((stealShare ?? 0) > STEAL_SHARE_MAX) reasons.push('steal');
  if (!steady) reasons.push('unsteady');
  if (Math.abs((measured.littleRatio ?? 1) - 1) > LITTLE_TOLERANCE) reasons.push('littles-law');
  return reasons;
}

/** What of the machine's busy time neither the server nor the generator took, if both run on it. */
function othersOf(of: {
  measured: LoadMeasurement;
  busyShare: number | undefined;
  serverMs: number | undefined;
}): Pick<SweepPoint, 'othersShare'> {
  const { measured, busyShare, serverMs } = of;
  if (busyShare === undefined || serverMs === undefined) return {};
  const serverCores = (serverMs * measured.latencies.count) / measured.seconds / 1000;
  const serverShare = serverCores / availableParallelism();
  return { othersShare: Math.max(0, busyShare - serverShare - measured.machineShare) };
}

function byTransaction(measured: LoadMeasurement): Pick<SweepPoint, 'byTransaction'> {
  if (measured.latencyByTransaction.size < 2) return {};
  const entries = [...measured.latencyByTransaction].map(([name, latencies]) => [
    name,
    { count: latencies.count, p50Ms: latencies.percentileMs(0.5), p99Ms: latencies.percentileMs(0.99) },
  ]);
  return { byTransaction: Object.fromEntries(entries) };
}
