/**
 * A thread of the load generator: it owns some of the clients and runs them by the messages of generator-messages.ts.
 * Its header's order is the only one; generator.ts sees to it.
 *
 * Everything that is not the hot path (load-client.ts) happens before or after a window, but for one progress message
 * every PROGRESS_INTERVAL_MS.
 */
import { performance } from 'node:perf_hooks';
import { parentPort, workerData } from 'node:worker_threads';
import { assert, unreachable } from '../../base/assert.ts';
import { PosternError } from '../../base/errors.ts';
import type { ServerError } from './answer-scanner.ts';
import type { FromWorker, OpenLoopSetup, Timeline, ToWorker, WorkerSetup } from './generator-messages.ts';
import { type ClientHost, LoadClient } from './load-client.ts';
import { type LoadConnection, openConnection } from './load-connection.ts';
import { ConnectError } from './login.ts';
import { Metronome } from './metronome.ts';
import { OpenLoop } from './open-loop.ts';
import { seededRandom } from './seeded-random.ts';
import { toThreadTime } from './shared-clock.ts';
import { ThreadMeter } from './thread-meter.ts';
import { compileWorkload } from './transaction-template.ts';
import { MeasuredWindow, WindowRecorder } from './window-recorder.ts';

const PROGRESS_INTERVAL_MS = 200;
/** Logins under way at a time: a server forks for each, and its queue of waiting connections is short. */
const CONNECTING_MAX = 16;

const port = parentPort;
assert(port !== null, 'the load generator runs in a worker thread');
const setup = workerData as WorkerSetup;
const template = compileWorkload(setup);

/** Kept from point to point; only an open loop needs one. */
let metronome: Metronome | undefined;

class Point implements ClientHost {
  readonly random = seededRandom(setup.seed);
  private readonly window = new MeasuredWindow();
  private readonly recorder: WindowRecorder;
  private readonly openLoopSetup: OpenLoopSetup | undefined;
  private openLoop: OpenLoop<LoadClient> | undefined;
  private connections: LoadConnection[] = [];
  private clients: LoadClient[] = [];
  /** Of a closed loop: clients that have not stopped yet. */
  private runningCount = 0;
  private running = false;
  private stopping = false;
  private failedAlready = false;
  private acknowledged = 0;
  private readonly meter = new ThreadMeter();
  private whenQuiet: (() => void) | undefined;

  constructor(openLoop: OpenLoopSetup | undefined) {
    this.openLoopSetup = openLoop;
    const transactions = setup.workload.transactions.length;
    this.recorder = new WindowRecorder({
      window: this.window,
      transactions,
      isOpenLoop: openLoop !== undefined,
    });
  }

  readonly now = (): number => performance.now();

  succeeded(latencyMs: number, transaction: number, now: number): void {
    this.acknowledged++;
    this.recorder.succeeded(transaction, now - latencyMs, now);
  }

  failed(error: ServerError, _transaction: number, intendedStartAt: number): void {
    this.recorder.failed(error, intendedStartAt, this.now());
  }

  finished(client: LoadClient, now: number): void {
    if (this.openLoop !== undefined) {
      this.openLoop.release(client, now);
    } else if (this.stopping) {
      this.runningCount--;
    } else {
      client.begin(now);
      return;
    }
    if (this.stopping && this.isQuiet) this.whenQuiet?.();
  }

  lost(message: string, serverError: ServerError | undefined): void {
    if (this.failedAlready) return;
    this.failedAlready = true;
    send({ kind: 'failed', message, serverError });
  }

  async connect(count: number, firstClientId: number): Promise<void> {
    if (this.openLoopSetup !== undefined) metronome ??= await Metronome.create();
    let remaining = count;
    const connectNext = async (): Promise<void> => {
      while (remaining > 0) {
        remaining--;
        this.connections.push(await openConnection(setup.target, template.preparation));
      }
    };
    await Promise.all(Array.from({ length: Math.min(count, CONNECTING_MAX) }, connectNext));
    this.clients = this.connections.map(
      (connection, index) =>
        new LoadClient({ connection, template, clientId: firstClientId + index, host: this }),
    );
  }

  run(timeline: Timeline): void {
    const opensAtMs = toThreadTime(timeline.opensAtMs);
    const closesAtMs = toThreadTime(timeline.closesAtMs);
    this.recorder.open({ opensAtMs, closesAtMs, bins: timeline.bins });
    this.meter.start(opensAtMs - this.now());
    this.running = true;
    if (this.openLoopSetup !== undefined) {
      this.runOpenLoop(this.openLoopSetup, timeline.startsAtMs);
      return;
    }
    this.runningCount = this.clients.length;
    for (const client of this.clients) client.begin(this.now());
  }

  async close(drainTimeoutMs: number): Promise<void> {
    this.stopping = true;
    const load = this.meter.stop();
    metronome?.stop();
    // What was due at the window's very end may not have been told of yet.
    this.openLoop?.admit(this.now());
    await this.drain(drainTimeoutMs);
    this.running = false;
    this.openLoop?.abandon();
    if (this.failedAlready) return;
    const unanswered = this.clients.filter((client) => client.isBusy).length;
    await Promise.all(this.connections.map((connection) => connection.close()));
    send({
      kind: 'finished',
      result: {
        record: this.recorder.record(),
        openLoop: this.openLoop?.counts(),
        acknowledged: this.acknowledged,
        unanswered,
        load,
      },
    });
  }

  sendProgress(): void {
    if (this.running) send({ kind: 'progress', acknowledged: this.acknowledged });
  }

  private runOpenLoop(options: OpenLoopSetup, startsAtMs: number): void {
    const { ratePerSecond, seed, waitMsMax, lateMs } = options;
    const arrivals = { ratePerSecond, seed, startAtMs: startsAtMs };
    const openLoop = new OpenLoop({
      arrivals: { ...arrivals, startAtMs: toThreadTime(startsAtMs) },
      ...{ clients: this.clients, waitMsMax, lateMs, window: this.window },
    });
    this.openLoop = openLoop;
    metronome!.start(arrivals, () => openLoop.admit(this.now()));
  }

  private get isQuiet(): boolean {
    return this.openLoop?.isQuiet(this.clients.length) ?? this.runningCount === 0;
  }

  private drain(timeoutMs: number): Promise<void> {
    if (this.isQuiet) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, timeoutMs);
      this.whenQuiet = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

let point = new Point(undefined);

async function obey(message: ToWorker): Promise<void> {
  switch (message.kind) {
    case 'connect':
      point = new Point(message.openLoop);
      await point.connect(message.clients, message.firstClientId);
      send({ kind: 'connected' });
      return;
    case 'run':
      point.run(message);
      return;
    case 'close':
      await point.close(message.drainTimeoutMs);
      return;
    default:
      unreachable(message);
  }
}

port.on('message', (message: ToWorker) => {
  obey(message).catch((error: unknown) => {
    if (error instanceof ConnectError) point.lost(error.message, error.serverError);
    else if (error instanceof PosternError) point.lost(error.message, undefined);
    else throw error;
  });
});
setInterval(() => point.sendProgress(), PROGRESS_INTERVAL_MS);

function send(message: FromWorker): void {
  port!.postMessage(message);
}
