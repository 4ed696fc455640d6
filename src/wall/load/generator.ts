/**
 * The load generator: worker threads with many clients each, in a closed loop: a client sends its next transaction when
 * the answer to the last is complete. One `LoadGenerator` serves a whole sweep; its threads and their compiled code stay
 * warm between points, and each point has new connections.
 *
 * Invariant: every wait is bounded: connecting by the target's connectTimeoutMs for each connection, the window by its
 * length, the end by DRAIN_TIMEOUT_MS. After a failure all threads are gone, and the next point starts new ones.
 */
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { assert, unreachable } from '../../base/assert.ts';
import type { Workload } from '../workload/workload.ts';
import type { ServerError } from './answer-scanner.ts';
import type { FromWorker, Target, ToWorker, WorkerResult, WorkerSetup } from './generator-messages.ts';
import { LatencyHistogram } from './latency-histogram.ts';
import type { Protocol } from './transaction-template.ts';

/** A transaction that is under way when the window closes gets this long to be answered. */
const DRAIN_TIMEOUT_MS = 10_000;
const CLOSE_TIMEOUT_MS = 5_000;
/** One thread drives some tens of thousands of transactions a second, and the server needs the cores more. */
const WORKERS_MAX_DEFAULT = 4;
const CLIENTS_PER_WORKER_MIN = 8;

/** The load could not be run to its end; `serverError` is what the server said, if it was the server. */
export class LoadError extends Error {
  readonly serverError: ServerError | undefined;

  constructor(message: string, serverError?: ServerError) {
    super(message);
    this.name = 'LoadError';
    this.serverError = serverError;
  }
}

/** What all threads measured in one window. */
export interface LoadMeasurement {
  readonly latencies: LatencyHistogram;
  readonly transactionsPerSecond: number;
  readonly seconds: number;
  readonly errors: ReadonlyMap<string, number>;
  readonly errorMessages: ReadonlyMap<string, string>;
  /** Every transaction that the server confirmed, also before and after the window. */
  readonly acknowledged: number;
  readonly unanswered: number;
  /** CPU time of all threads over the window's length: 1 is one core. */
  readonly cpuShare: number;
  readonly clientBound: boolean;
}

interface PointOptions {
  readonly clients: number;
  readonly warmupMs: number;
  readonly windowMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly onConnected?: () => void;
  readonly onOpen?: () => void;
  readonly onClose?: () => void;
  readonly onProgress?: (acknowledged: number) => void;
}

interface Thread {
  readonly worker: Worker;
  /** How many clients it has at this point. */
  clients: number;
  acknowledged: number;
}

export class LoadGenerator {
  private readonly setup: Omit<WorkerSetup, 'seed'>;
  private readonly threadsMax: number;
  private threads: Thread[] = [];

  constructor(options: {
    target: Target;
    workload: Workload;
    protocol: Protocol;
    /** Empty, or ends in a dot. */
    schema: string;
    workers?: number | undefined;
  }) {
    const { target, workload, protocol, schema } = options;
    this.setup = { target, workload, protocol, schema };
    this.threadsMax =
      options.workers ?? Math.max(1, Math.min(WORKERS_MAX_DEFAULT, Math.floor(availableParallelism() / 2)));
  }

  /** Runs one point. Rejects with LoadError, or with the signal's reason; then nothing of it is left running. */
  async measurePoint(options: PointOptions): Promise<LoadMeasurement> {
    options.signal?.throwIfAborted();
    const threads = this.threadsFor(options.clients);
    let pause: NodeJS.Timeout | undefined;
    let fail: (error: unknown) => void = () => {};
    const failure = new Promise<never>((_, reject) => (fail = reject));
    // Nobody may be waiting for it at the moment it fails; whoever waits next still sees it.
    failure.catch(() => {});
    const onAbort = (): void => fail(options.signal?.reason);
    options.signal?.addEventListener('abort', onAbort, { once: true });
    const listeners = threads.map((thread) => watchThread(thread, fail));
    const each = <T>(wanted: (message: FromWorker) => T | undefined): Promise<T[]> =>
      Promise.race([Promise.all(listeners.map((listener) => listener.wait(wanted))), failure]);
    const sleep = (ms: number): Promise<void> =>
      Promise.race([new Promise<void>((resolve) => (pause = setTimeout(resolve, ms))), failure]);
    const progress = setInterval(() => {
      options.onProgress?.(threads.reduce((sum, thread) => sum + thread.acknowledged, 0));
    }, 250);
    try {
      for (const thread of threads) say(thread, { kind: 'connect', clients: thread.clients });
      await each((message) => (message.kind === 'connected' ? true : undefined));
      options.onConnected?.();
      for (const thread of threads) say(thread, { kind: 'run' });
      await sleep(options.warmupMs);
      options.onOpen?.();
      for (const thread of threads) say(thread, { kind: 'open' });
      await sleep(options.windowMs);
      options.onClose?.();
      const finished = each((message) => (message.kind === 'finished' ? message.result : undefined));
      for (const thread of threads) say(thread, { kind: 'close', drainTimeoutMs: DRAIN_TIMEOUT_MS });
      const overdue = sleep(DRAIN_TIMEOUT_MS + CLOSE_TIMEOUT_MS).then(() => {
        throw new LoadError('a thread of the load generator does not answer');
      });
      return combine(await Promise.race([finished, overdue]));
    } catch (error) {
      await this.close();
      throw error;
    } finally {
      clearTimeout(pause);
      clearInterval(progress);
      options.signal?.removeEventListener('abort', onAbort);
      for (const listener of listeners) listener.stop();
    }
  }

  async close(): Promise<void> {
    const threads = this.threads;
    this.threads = [];
    await Promise.all(threads.map((thread) => thread.worker.terminate()));
  }

  /** As many threads as are worth their while for so many clients, with the clients dealt out among them. */
  private threadsFor(clients: number): Thread[] {
    assert(clients >= 1, 'a point needs a client');
    const wanted = Math.max(1, Math.min(this.threadsMax, Math.floor(clients / CLIENTS_PER_WORKER_MIN)));
    while (this.threads.length < wanted) {
      const seed = this.threads.length + 1;
      const worker = new Worker(workerFile(), { workerData: { ...this.setup, seed } satisfies WorkerSetup });
      this.threads.push({ worker, clients: 0, acknowledged: 0 });
    }
    const threads = this.threads.slice(0, wanted);
    threads.forEach((thread, index) => {
      thread.clients = Math.floor(clients / wanted) + (index < clients % wanted ? 1 : 0);
      thread.acknowledged = 0;
    });
    return threads;
  }
}

function say(thread: Thread, message: ToWorker): void {
  thread.worker.postMessage(message);
}

interface ThreadListener {
  wait<T>(wanted: (message: FromWorker) => T | undefined): Promise<T>;
  stop(): void;
}

function watchThread(thread: Thread, fail: (error: Error) => void): ThreadListener {
  const waiting = new Set<(message: FromWorker) => void>();
  const onMessage = (message: FromWorker): void => {
    switch (message.kind) {
      case 'failed':
        fail(new LoadError(message.message, message.serverError));
        return;
      case 'progress':
        thread.acknowledged = message.acknowledged;
        return;
      case 'connected':
      case 'finished':
        for (const take of [...waiting]) take(message);
        return;
      default:
        unreachable(message);
    }
  };
  const onExit = (): void => fail(new LoadError('a thread of the load generator has ended'));
  thread.worker.on('message', onMessage).on('error', fail).on('exit', onExit);
  return {
    wait: <T>(wanted: (message: FromWorker) => T | undefined): Promise<T> =>
      new Promise((resolve) => {
        const take = (message: FromWorker): void => {
          const result = wanted(message);
          if (result === undefined) return;
          waiting.delete(take);
          resolve(result);
        };
        waiting.add(take);
      }),
    stop: () => {
      thread.worker.off('message', onMessage).off('error', fail).off('exit', onExit);
    },
  };
}

/**
 * A thread is the bottleneck when its loop never rests and it computes for most of that time. A loop that never rests
 * because the thread waits for a CPU shares a full machine with the server, and that is said by the machine's figures:
 * more threads would only take from the server what they get.
 */
const BOUND_LOOP_UTILIZATION = 0.9;
const BOUND_CPU_SHARE = 0.75;

function combine(results: readonly WorkerResult[]): LoadMeasurement {
  const latencies = new LatencyHistogram();
  const errors = new Map<string, number>();
  const errorMessages = new Map<string, string>();
  let transactionsPerSecond = 0;
  let cpuShare = 0;
  for (const result of results) {
    latencies.merge(new LatencyHistogram(result.latencies));
    for (const [sqlState, count] of result.errors) errors.set(sqlState, (errors.get(sqlState) ?? 0) + count);
    for (const [sqlState, message] of result.errorMessages) errorMessages.set(sqlState, message);
    transactionsPerSecond += result.latencies.total / result.windowSeconds;
    cpuShare +=
      result.cpuSeconds === undefined ? result.loopUtilization : result.cpuSeconds / result.windowSeconds;
  }
  const total = (of: (result: WorkerResult) => number): number =>
    results.reduce((sum, one) => sum + of(one), 0);
  return {
    latencies,
    transactionsPerSecond,
    seconds: total((result) => result.windowSeconds) / results.length,
    errors,
    errorMessages,
    acknowledged: total((result) => result.acknowledged),
    unanswered: total((result) => result.unanswered),
    cpuShare,
    clientBound: results.every(isClientBound),
  };
}

export function isClientBound(
  result: Pick<WorkerResult, 'loopUtilization' | 'cpuSeconds' | 'windowSeconds'>,
): boolean {
  if (result.loopUtilization < BOUND_LOOP_UTILIZATION) return false;
  return result.cpuSeconds === undefined || result.cpuSeconds >= BOUND_CPU_SHARE * result.windowSeconds;
}

/** A thread can't load TypeScript: from a checkout that runs unbuilt (tests, tsx) it is the built file that is taken. */
function workerFile(): URL {
  const unbuilt = fileURLToPath(import.meta.url).endsWith('.ts');
  return new URL(
    unbuilt ? '../../../dist/wall/load/generator.worker.js' : './generator.worker.js',
    import.meta.url,
  );
}
