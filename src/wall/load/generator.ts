/**
 * The load generator: worker threads with many clients each. In a closed loop a client sends its next transaction when the
 * answer to the last is complete; in an open loop transactions begin when they are due (open-loop.ts). The threads share
 * one timeline, so their windows and bins are the same to the fraction of a millisecond. One `LoadGenerator` serves a whole sweep; its threads and their compiled code stay
 * warm between points, and each point has new connections.
 *
 * Invariant: every wait is bounded: connecting by the target's connectTimeoutMs for each connection, the window by its
 * length, the end by DRAIN_TIMEOUT_MS. After a failure all threads are gone, and the next point starts new ones.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { assert, unreachable } from '../../base/assert.ts';
import { machineShares, sampleMachine } from '../server/machine.ts';
import type { Workload } from '../workload/workload.ts';
import type { ServerError } from './answer-scanner.ts';
import { throttledSeconds } from './cpu-throttle.ts';
import type { FromWorker, Target, ToWorker, WorkerSetup } from './generator-messages.ts';
import { combineResults, type LoadMeasurement } from './load-measurement.ts';
import { sharedNow } from './shared-clock.ts';
import { threadFile } from './thread-file.ts';
import { compileWorkload, type Protocol } from './transaction-template.ts';

/** A transaction that is under way when the window closes gets this long to be answered. */
const DRAIN_TIMEOUT_MS = 10_000;
const CLOSE_TIMEOUT_MS = 5_000;
/** Every thread has heard of the timeline before it begins. */
const START_LEAD_MS = 20;
/** The parts of a window in which completions are counted are about so long. */
const BIN_MS = 100;
const LATE_MS_DEFAULT = 10;
const WAIT_MS_MAX_DEFAULT = 2_000;
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

export interface PointOptions {
  /** In an open loop: how many transactions may be under way at a time. */
  readonly clients: number;
  readonly warmupMs: number;
  readonly windowMs: number;
  /** Arrivals a second over all threads, whatever the server answers: an open loop. Without it: a closed loop. */
  readonly rate?: number | undefined;
  /** Of the arrivals. Default 1. */
  readonly seed?: number | undefined;
  /** An arrival that begins more than this after its intended start counts as late. Default 10. */
  readonly lateMs?: number | undefined;
  /** One that has waited longer for a free client is missed. Default 2,000. */
  readonly waitMsMax?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onConnected?: () => void;
  readonly onOpen?: () => void;
  readonly onClose?: () => void;
  readonly onProgress?: (acknowledged: number) => void;
}

/** Each thread's arrivals are drawn from a seed of its own. */
const SEED_STRIDE = 7_919;

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
    // What this protocol can't run is refused here, by its line, and not in a thread.
    compileWorkload({ workload, protocol, schema });
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
    const sleepUntil = (atMs: number): Promise<void> => sleep(Math.max(0, atMs - sharedNow()));
    const waitMsMax = options.waitMsMax ?? WAIT_MS_MAX_DEFAULT;
    const lateMs = options.lateMs ?? LATE_MS_DEFAULT;
    const { rate, clients, windowMs } = options;
    try {
      let firstClientId = 0;
      for (const [index, thread] of threads.entries()) {
        const openLoop =
          rate === undefined
            ? undefined
            : {
                ratePerSecond: (rate * thread.clients) / clients,
                seed: (options.seed ?? 1) + index * SEED_STRIDE,
                ...{ waitMsMax, lateMs },
              };
        say(thread, { kind: 'connect', clients: thread.clients, firstClientId, openLoop });
        firstClientId += thread.clients;
      }
      await each((message) => (message.kind === 'connected' ? true : undefined));
      options.onConnected?.();
      const startsAtMs = sharedNow() + START_LEAD_MS;
      const opensAtMs = startsAtMs + options.warmupMs;
      const closesAtMs = opensAtMs + windowMs;
      const bins = Math.max(1, Math.round(windowMs / BIN_MS));
      for (const thread of threads) say(thread, { kind: 'run', startsAtMs, opensAtMs, closesAtMs, bins });
      await sleepUntil(opensAtMs);
      const machineBefore = sampleMachine();
      const throttledBefore = throttledSeconds();
      options.onOpen?.();
      await sleepUntil(closesAtMs);
      options.onClose?.();
      const machine = machineShares(machineBefore, sampleMachine());
      const throttled = (throttledSeconds() ?? 0) - (throttledBefore ?? 0);
      const finished = each((message) => (message.kind === 'finished' ? message.result : undefined));
      const drainTimeoutMs = DRAIN_TIMEOUT_MS + (rate === undefined ? 0 : waitMsMax);
      for (const thread of threads) say(thread, { kind: 'close', drainTimeoutMs });
      const overdue = sleep(drainTimeoutMs + CLOSE_TIMEOUT_MS).then(() => {
        throw new LoadError('a thread of the load generator does not answer');
      });
      return combineResults(await Promise.race([finished, overdue]), {
        ...{ clients, windowMs, machine, workload: this.setup.workload },
        openLoop: rate === undefined ? undefined : { rate, lateMs },
        throttledShare: (throttled * 1000) / windowMs,
        cores: availableParallelism(),
      });
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
      const worker = new Worker(threadFile('generator.worker'), {
        workerData: { ...this.setup, seed } satisfies WorkerSetup,
      });
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
