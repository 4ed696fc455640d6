/**
 * One point, put together from what the threads recorded, and the generator's judgement of itself: whether the figures are
 * the server's or its own. Pure.
 *
 * A thread is the bottleneck when its loop never rests and it computes for most of that time. A loop that never rests
 * because the thread waits for a CPU is held back by something else: on a full machine by the server that it shares it
 * with, and more threads would only take from the server what they get; on a machine with time to spare by a limit of its
 * own (a pinned core), and then it is the bottleneck again. A CPU quota is told by its control group.
 */
import type { Workload } from '../workload/workload.ts';
import type { ThreadLoad, WorkerResult } from './generator-messages.ts';
import { LatencyHistogram, type LatencySnapshot } from './latency-histogram.ts';

/** What all threads measured in one window. */
export interface LoadMeasurement {
  readonly clients: number;
  /** Of all transactions: in a closed loop, of those that ended within the window. In an open loop, of the arrivals intended within it. */
  readonly latencies: LatencyHistogram;
  /** The same, by the name of the transaction in the workload. */
  readonly latencyByTransaction: ReadonlyMap<string, LatencyHistogram>;
  /** That ended within the window. */
  readonly transactionsPerSecond: number;
  readonly seconds: number;
  /** Transactions that ended well in each part of the window, in order. */
  readonly bins: { readonly widthMs: number; readonly counts: readonly number[] };
  readonly errors: ReadonlyMap<string, number>;
  readonly errorMessages: ReadonlyMap<string, string>;
  /** Every transaction that the server confirmed, also before and after the window. */
  readonly acknowledged: number;
  readonly unanswered: number;
  readonly openLoop?: OpenLoopMeasurement;
  readonly threads: readonly ThreadLoad[];
  /** CPU time of all threads over the window's length: 1 is one core. */
  readonly cpuShare: number;
  /** The same of all cores of the machine that the generator runs on. */
  readonly machineShare: number;
  /** Of the thread where it is greatest. */
  readonly loopLagP99Ms: number;
  /**
   * Little's law in a closed loop: throughput times mean time over the number of clients, which is 1 when every
   * client always has a transaction under way. Undefined in an open loop, and for a window too short to tell.
   */
  readonly littleRatio: number | undefined;
  /** The generator was the bottleneck: the server could have done more. */
  readonly clientBound: boolean;
  /** Why the point says nothing about the server, a sentence each; empty: it stands. */
  readonly voidReasons: readonly string[];
}

export interface OpenLoopMeasurement {
  /** Arrivals a second that were asked for. */
  readonly rate: number;
  /** Arrivals whose intended start lies in the window: completed + failed + missed + unanswered. */
  readonly offered: number;
  readonly completed: number;
  readonly failed: number;
  /** Began more than `lateMs` after their intended start. */
  readonly late: number;
  readonly lateMs: number;
  /** Never began. */
  readonly missed: number;
  /** From the intended start to the real one, of all that began. */
  readonly latenessP99Ms: number;
  /** The same of those that found a free client: what the generator itself adds to a latency. */
  readonly timingP99Ms: number;
}

/** What only the thread that directs the others knows. */
export interface PointFrame {
  readonly clients: number;
  readonly workload: Workload;
  readonly windowMs: number;
  readonly openLoop: { readonly rate: number; readonly lateMs: number } | undefined;
  readonly cores: number;
  /** Of the machine's time in the window; undefined where the system doesn't tell. */
  readonly machine: { readonly busyShare: number; readonly stealShare: number } | undefined;
  /** Time for which a quota kept the generator from its CPUs, over the window's length; 0 where nothing is told of one. */
  readonly throttledShare: number;
}

export function combineResults(results: readonly WorkerResult[], frame: PointFrame): LoadMeasurement {
  const { clients, windowMs } = frame;
  const latencyByTransaction = new Map<string, LatencyHistogram>();
  const latencies = new LatencyHistogram();
  const errors = new Map<string, number>();
  const errorMessages = new Map<string, string>();
  const bins = new Array<number>(results[0]!.record.bins.length).fill(0);
  for (const { record } of results) {
    frame.workload.transactions.forEach(({ name }, place) => {
      const histogram = new LatencyHistogram(record.latencies[place]!);
      latencies.merge(histogram);
      const known = latencyByTransaction.get(name);
      if (known === undefined) latencyByTransaction.set(name, histogram);
      else known.merge(histogram);
    });
    for (const [sqlState, count] of record.errors) errors.set(sqlState, (errors.get(sqlState) ?? 0) + count);
    for (const [sqlState, message] of record.errorMessages) errorMessages.set(sqlState, message);
    record.bins.forEach((count, bin) => {
      bins[bin]! += count;
    });
  }
  const total = (of: (result: WorkerResult) => number): number =>
    results.reduce((sum, one) => sum + of(one), 0);
  const completed = bins.reduce((sum, count) => sum + count, 0);
  const threads = results.map(({ load }) => load);
  const cpuShare = total(({ load }) => load.cpuShare ?? load.loopUtilization);
  const openLoop = openLoopOf(results, frame, { latencies, errors });
  const busyMs = total(({ record }) => record.busyMs);
  const failed = [...errors.values()].reduce((sum, count) => sum + count, 0);
  const littleRatio =
    openLoop === undefined && completed + failed >= LITTLE_TRANSACTIONS_MIN * clients
      ? busyMs / (windowMs * clients)
      : undefined;
  const judged = {
    ...{ threads, latencies, littleRatio, openLoop },
    machineShare: cpuShare / frame.cores,
    loopLagP99Ms: Math.max(...threads.map((thread) => thread.loopLagP99Ms)),
  };
  const boundReasons = whyClientBound({
    ...judged,
    machine: frame.machine,
    throttledShare: frame.throttledShare,
  });
  return {
    clients,
    latencies,
    latencyByTransaction,
    transactionsPerSecond: (completed * 1000) / windowMs,
    seconds: windowMs / 1000,
    bins: { widthMs: windowMs / bins.length, counts: bins },
    errors,
    errorMessages,
    acknowledged: total((result) => result.acknowledged),
    unanswered: total((result) => result.unanswered),
    ...(openLoop === undefined ? {} : { openLoop }),
    threads,
    cpuShare,
    machineShare: judged.machineShare,
    loopLagP99Ms: judged.loopLagP99Ms,
    littleRatio,
    clientBound: boundReasons.length > 0,
    voidReasons: [...boundReasons, ...littleReasons(littleRatio)],
  };
}

function openLoopOf(
  results: readonly WorkerResult[],
  frame: PointFrame,
  of: { latencies: LatencyHistogram; errors: ReadonlyMap<string, number> },
): OpenLoopMeasurement | undefined {
  if (frame.openLoop === undefined) return undefined;
  const counts = results.flatMap(({ openLoop }) => openLoop ?? []);
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  return {
    ...frame.openLoop,
    offered: sum(counts.map(({ offered }) => offered)),
    completed: of.latencies.count,
    failed: sum([...of.errors.values()]),
    late: sum(counts.map(({ late }) => late)),
    missed: sum(counts.map(({ missed }) => missed)),
    latenessP99Ms: merged(counts.map(({ lateness }) => lateness)).percentileMs(0.99),
    timingP99Ms: merged(counts.map(({ timing }) => timing)).percentileMs(0.99),
  };
}

function merged(snapshots: readonly LatencySnapshot[]): LatencyHistogram {
  const histogram = new LatencyHistogram();
  for (const snapshot of snapshots) histogram.merge(new LatencyHistogram(snapshot));
  return histogram;
}

const BOUND_LOOP_UTILIZATION = 0.9;
const BOUND_CPU_SHARE = 0.75;
/** A machine with so much of its time to spare did not keep a thread from its CPU. */
const SPARE_SHARE = 0.15;
/** A lag below this is no more than the timers' own granularity and a scheduler's turn. */
const LAG_MS_MIN = 5;
/** A lag, or a late start, of this share of the latency itself. */
const LAG_LATENCY_SHARE = 0.5;
/** A late start below this is a turn of the scheduler, as on any machine that does something else as well. */
const LATE_START_MS_MIN = 5;
const THROTTLED_SHARE = 0.05;
export const LITTLE_TOLERANCE = 0.05;
/** Transactions that straddle the window's ends weigh less than the tolerance from so many for each client on. */
const LITTLE_TRANSACTIONS_MIN = 20;

export function whyClientBound(of: {
  readonly threads: readonly ThreadLoad[];
  readonly latencies: LatencyHistogram;
  readonly loopLagP99Ms: number;
  readonly openLoop: OpenLoopMeasurement | undefined;
  readonly machine: PointFrame['machine'];
  readonly throttledShare: number;
}): string[] {
  const { threads, loopLagP99Ms, openLoop, machine, throttledShare } = of;
  const latencyP99Ms = of.latencies.percentileMs(0.99);
  const spareShare = machine === undefined ? undefined : 1 - machine.busyShare - machine.stealShare;
  const hasSpare = spareShare !== undefined && spareShare >= SPARE_SHARE;
  const restless = threads.filter(({ loopUtilization }) => loopUtilization >= BOUND_LOOP_UTILIZATION);
  const computing = restless.filter(({ cpuShare }) => cpuShare === undefined || cpuShare >= BOUND_CPU_SHARE);
  const reasons: string[] = [];
  if (computing.length > 0) {
    reasons.push(
      `${computing.length} of ${threads.length} threads of the generator computed without a rest: it was the bottleneck`,
    );
  } else if (throttledShare >= THROTTLED_SHARE) {
    reasons.push(
      `a CPU quota kept the generator from computing for ${percent(throttledShare)} of the window: it was the bottleneck`,
    );
  } else if (restless.length > 0 && hasSpare) {
    reasons.push(
      `a thread of the generator never rested on ${percent(Math.min(...restless.map(({ cpuShare }) => cpuShare!)))} of a core, and the machine had ${percent(spareShare)} to spare: something limits the generator`,
    );
  } else if (hasSpare && loopLagP99Ms >= Math.max(LAG_MS_MIN, LAG_LATENCY_SHARE * latencyP99Ms)) {
    reasons.push(
      `the generator's loop lagged by ${loopLagP99Ms.toFixed(1)} ms (p99) on a machine with ${percent(spareShare)} to spare: its own pauses are in the figures`,
    );
  }
  if (
    openLoop !== undefined &&
    openLoop.timingP99Ms >= Math.max(LATE_START_MS_MIN, LAG_LATENCY_SHARE * latencyP99Ms)
  ) {
    reasons.push(
      `the generator itself began ${openLoop.timingP99Ms.toFixed(1)} ms late (p99), which is most of the latency`,
    );
  }
  return reasons;
}

function littleReasons(ratio: number | undefined): string[] {
  if (ratio === undefined || Math.abs(ratio - 1) <= LITTLE_TOLERANCE) return [];
  return [
    `throughput times mean time is ${ratio.toFixed(2)} of the number of clients (Little's law): some of the time is not accounted for`,
  ];
}

function percent(share: number): string {
  return `${Math.round(share * 100)}%`;
}
