/**
 * Several processes behind one port, each a whole router of its own: they share nothing on the data path. The first process
 * accepts clients and reads nothing of them; it hands each socket to the worker that worker-fill.ts chooses, shares out the
 * connections to the nodes (worker-shares.ts), restarts a worker that dies, and passes on cancel requests that reached the
 * wrong worker.
 *
 *   first:   forks ──all ready──▶ listening ──signal──▶ stopping (no more clients; workers drain, then it ends)
 *   worker:  runs the same command line with `index` set; ends at SIGTERM or when the first process is gone
 *   client:  accepted ──a worker chosen──▶ in its queue ──the one before has arrived──▶ the worker's
 *              └─none ready─▶ held ──one is ready──▶ …      └─ the worker ends or is silent: chosen again
 *                               └─HELD_MS─▶ refused (57P03)
 *
 * A worker is sent one client at a time, so that with its end no more than that one is lost on the way. What waits here is
 * bounded by WAITING_MAX.
 */
import cluster, { type Worker } from 'node:cluster';
import { availableParallelism, cpus } from 'node:os';
import { PosternError, shuttingDown, tooManyConnections } from '../base/errors.ts';
import { type AcceptedClient, openDoor, refuseClient } from '../session/listener.ts';
import { untilSignal } from './until-signal.ts';
import {
  chooseWorker,
  clientsOf,
  type FillEvent,
  type FillState,
  fillStart,
  fillStep,
} from './worker-fill.ts';
import { TICK_MS, WINDOW_TICKS } from './worker-load.ts';
import type { FromWorker, ToWorker } from './worker-messages.ts';
import {
  type ShareState,
  shareEnded,
  shareOut,
  shareReady,
  shareReported,
  sharesStart,
} from './worker-shares.ts';
import { COUNT_VARIABLE, INDEX_VARIABLE } from './worker-side.ts';

export interface WorkersOptions {
  readonly count: number;
  readonly listen: { readonly host: string; readonly port: number };
  /** Connections to one node, of all workers. */
  readonly connections: number;
  /** Whether commits are merged: else there is no reason to keep clients together. */
  readonly merges: boolean;
  readonly onListening: (port: number) => void;
  /** It can't start: the text says why. */
  readonly onFailed: (text: string) => void;
  readonly describeListenFailure: (error: Error) => string;
  readonly onRestart: (index: number, status: string) => void;
  readonly onDoorError: (error: Error) => void;
}

const RESTART_DELAY_MS = 500;
const STOP_TIMEOUT_MS = 15_000;
/** How long a client waits while no worker is ready. */
const HELD_MS = 10_000;
/** Clients that are accepted and have no worker yet. */
const WAITING_MAX = 4_096;

interface Place {
  readonly worker: Worker;
  readonly queue: AcceptedClient[];
  /** One is on its way. */
  sending: boolean;
}

/** The first process's whole life. Gives the exit status: that of the first worker that could not start, else 0. */
export function runWorkers(options: WorkersOptions): Promise<number> {
  return new Workers(options).run();
}

class Workers {
  readonly #options: WorkersOptions;
  readonly #places = new Map<number, Place>();
  #held: { readonly client: AcceptedClient; readonly untilMs: number }[] = [];
  #waiting = 0;
  #fill: FillState;
  #shares: ShareState;
  #door: { port: number; close(): void } | undefined;
  #isOpening = false;
  #stopping = false;
  #hasFailed = false;
  readonly #cpuTimes = [readCpuTimes()];
  #fail: (status: number) => void = () => {};

  constructor(options: WorkersOptions) {
    this.#options = options;
    const { count, merges, connections } = options;
    this.#fill = fillStart({ workers: count, merges, cores: availableParallelism() });
    this.#shares = sharesStart({ workers: count, connections });
  }

  async run(): Promise<number> {
    const failed = new Promise<number>((resolve) => {
      this.#fail = resolve;
    });
    for (let index = 0; index < this.#options.count; index++) this.#start(index);
    const ticker = setInterval(() => this.#tick(), TICK_MS);
    const status = await Promise.race([untilSignal().then(() => 0), failed]);
    this.#stopping = true;
    clearInterval(ticker);
    this.#door?.close();
    for (const { client } of this.#held) refuseClient(client, shuttingDown());
    for (const { queue } of this.#places.values())
      for (const client of queue.splice(0)) refuseClient(client, shuttingDown());
    await stopAll([...this.#places.values()].map(({ worker }) => worker));
    return status;
  }

  #start(index: number): void {
    const worker = cluster.fork({
      [INDEX_VARIABLE]: String(index),
      [COUNT_VARIABLE]: String(this.#options.count),
    });
    this.#places.set(index, { worker, queue: [], sending: false });
    worker.on('message', (message: FromWorker) => this.#onMessage(index, message));
    worker.on('exit', (code, signal) => this.#onExit(index, { code, signal }));
    // Told to one that has just ended: its exit says the rest.
    worker.on('error', () => {});
  }

  #onMessage(index: number, message: FromWorker): void {
    switch (message?.kind) {
      case 'ready':
        this.#shares = shareReady(this.#shares, index);
        this.#step({ kind: 'ready', worker: index, atMs: performance.now() });
        this.#shareOut();
        this.#offerHeld();
        if (this.#fill.workers.every(({ ready }) => ready)) void this.#open();
        break;
      case 'failed':
        this.#sayFailure(message.text);
        break;
      case 'cancel':
        this.#tell(message.processId >>> 24, message);
        break;
      case 'taken': {
        const place = this.#places.get(index);
        if (!place) break;
        place.sending = false;
        this.#sendNext(place);
        break;
      }
      case 'report':
        this.#step({ kind: 'reported', worker: index, report: message.fill, atMs: performance.now() });
        this.#shares = shareReported(this.#shares, index, message.share);
        this.#shareOut();
        break;
    }
  }

  #onExit(index: number, { code, signal }: { code: number | null; signal: string | null }): void {
    const place = this.#places.get(index);
    this.#places.delete(index);
    this.#step({ kind: 'ended', worker: index });
    this.#shares = shareEnded(this.#shares, index);
    if (this.#stopping) return;
    if (!this.#door) {
      this.#fail(code || 1);
      return;
    }
    this.#options.onRestart(index, signal ?? `status ${code}`);
    setTimeout(() => !this.#stopping && this.#start(index), RESTART_DELAY_MS);
    for (const client of place?.queue.splice(0) ?? []) this.#onQueueLeft(client);
  }

  /** Once all workers are ready for the first time. */
  async #open(): Promise<void> {
    if (this.#door || this.#isOpening || this.#stopping) return;
    this.#isOpening = true;
    try {
      this.#door = await openDoor({
        address: this.#options.listen,
        onClient: (client) => this.#onAccepted(client),
        onError: this.#options.onDoorError,
      });
    } catch (error) {
      this.#sayFailure(this.#options.describeListenFailure(error as Error));
      this.#fail(1);
      return;
    }
    if (this.#stopping) this.#door.close();
    else this.#options.onListening(this.#door.port);
  }

  #onAccepted(client: AcceptedClient): void {
    client.on('error', () => client.destroy());
    if (this.#stopping) refuseClient(client, shuttingDown());
    else if (this.#waiting >= WAITING_MAX)
      refuseClient(client, tooManyConnections('sorry, too many clients are waiting to be let in'));
    else {
      this.#waiting++;
      this.#offer(client, performance.now() + HELD_MS);
    }
  }

  #offer(client: AcceptedClient, untilMs: number): void {
    const index = chooseWorker(this.#fill);
    const place = index === undefined ? undefined : this.#places.get(index);
    if (index === undefined || place === undefined) {
      this.#held.push({ client, untilMs });
      return;
    }
    this.#step({ kind: 'given', worker: index });
    place.queue.push(client);
    this.#sendNext(place);
  }

  #offerHeld(): void {
    for (const { client, untilMs } of this.#held.splice(0)) this.#offer(client, untilMs);
  }

  /** Its worker has ended, or says nothing. */
  #onQueueLeft(client: AcceptedClient): void {
    this.#offer(client, performance.now() + HELD_MS);
  }

  #sendNext(place: Place): void {
    if (place.sending || !place.worker.isConnected()) return;
    const client = place.queue.shift();
    if (!client) return;
    place.sending = true;
    this.#waiting--;
    const message: ToWorker = { kind: 'client' };
    place.worker.send(message, client, () => {});
  }

  #tick(): void {
    this.#cpuTimes.push(readCpuTimes());
    if (this.#cpuTimes.length > WINDOW_TICKS + 1) this.#cpuTimes.shift();
    const nowMs = performance.now();
    this.#step({ kind: 'tick', idleCores: leastIdle(this.#cpuTimes), atMs: nowMs });
    const { workers } = this.#fill;
    if (workers.some(({ ready, silent }) => ready && !silent))
      for (const [index, { queue }] of this.#places) {
        if (!workers[index]!.silent) continue;
        for (const client of queue.splice(0)) {
          this.#step({ kind: 'returned', worker: index });
          this.#onQueueLeft(client);
        }
      }
    this.#shareOut();
    const late = this.#held.filter(({ untilMs }) => untilMs <= nowMs);
    this.#held = this.#held.filter(({ untilMs }) => untilMs > nowMs);
    this.#waiting -= late.length;
    for (const { client } of late) refuseClient(client, nobodyReady());
  }

  #shareOut(): void {
    const clients = this.#fill.workers.map(clientsOf);
    const { state, orders } = shareOut(this.#shares, clients, performance.now());
    this.#shares = state;
    for (const { worker, share } of orders) this.#tell(worker, { kind: 'share', connections: share });
  }

  #tell(index: number, message: ToWorker): void {
    const worker = this.#places.get(index)?.worker;
    if (worker?.isConnected()) worker.send(message, () => {});
  }

  #step(event: FillEvent): void {
    this.#fill = fillStep(this.#fill, event);
  }

  /** One says it for all. */
  #sayFailure(text: string): void {
    if (!this.#hasFailed) this.#options.onFailed(text);
    this.#hasFailed = true;
  }
}

function nobodyReady(): PosternError {
  return new PosternError({
    sqlState: '57P03',
    message: 'no worker of the router is ready',
    hint: 'They are being restarted; the log says why. Try again.',
  });
}

interface CpuTimes {
  readonly atMs: number;
  readonly idleMs: number;
}

function readCpuTimes(): CpuTimes {
  return { atMs: performance.now(), idleMs: cpus().reduce((sum, { times }) => sum + times.idle, 0) };
}

/**
 * How many cores had nothing to do, in the busiest tick: a worker’s last second is another one, so that an average
 * would have some of the rest from before in it. A container's own quota is not seen: there the figure is too high.
 */
function leastIdle(times: readonly CpuTimes[]): number {
  let least = Number.POSITIVE_INFINITY;
  for (const [i, to] of times.entries()) {
    const from = times[i - 1];
    if (from && to.atMs > from.atMs)
      least = Math.min(least, (to.idleMs - from.idleMs) / (to.atMs - from.atMs));
  }
  return least;
}

async function stopAll(workers: readonly Worker[]): Promise<void> {
  await Promise.all(
    workers.map(
      (worker) =>
        new Promise<void>((resolve) => {
          if (worker.isDead()) {
            resolve();
            return;
          }
          const timer = setTimeout(() => worker.process.kill('SIGKILL'), STOP_TIMEOUT_MS);
          worker.once('exit', () => {
            clearTimeout(timer);
            resolve();
          });
          worker.process.kill('SIGTERM');
        }),
    ),
  );
}
