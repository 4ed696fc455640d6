/**
 * A thread of the load generator: it owns some of the clients and runs them by the messages of generator-messages.ts.
 * Its header's order is the only one; generator.ts sees to it.
 *
 * Everything that is not the hot path (load-client.ts) happens before or after a window, but for one progress message
 * every PROGRESS_INTERVAL_MS.
 */
import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { parentPort, workerData } from 'node:worker_threads';
import { assert, unreachable } from '../../base/assert.ts';
import { PosternError } from '../../base/errors.ts';
import { FrameWriter } from '../../wire/frame-writer.ts';
import { encodeQuery } from '../../wire/frontend.ts';
import type { ServerError } from './answer-scanner.ts';
import type { FromWorker, ToWorker, WorkerSetup } from './generator-messages.ts';
import { LatencyHistogram } from './latency-histogram.ts';
import { type ClientHost, LoadClient } from './load-client.ts';
import { type LoadConnection, openConnection } from './load-connection.ts';
import { ConnectError } from './login.ts';
import { seededRandom } from './seeded-random.ts';
import { compileTransaction, copyTemplate } from './transaction-template.ts';

const PROGRESS_INTERVAL_MS = 200;
/** Logins under way at a time: a server forks for each, and its queue of waiting connections is short. */
const CONNECTING_MAX = 16;

const port = parentPort;
assert(port !== null, 'the load generator runs in a worker thread');
const setup = workerData as WorkerSetup;
const template = compileTransaction(setup);
const rollback = encodeRollback();

class Point implements ClientHost {
  stopping = false;
  readonly random = seededRandom(setup.seed);
  private recording = false;
  private failedAlready = false;
  private connections: LoadConnection[] = [];
  private clients: LoadClient[] = [];
  private busyCount = 0;
  private acknowledged = 0;
  private readonly latencies = new LatencyHistogram();
  private readonly errors = new Map<string, number>();
  private readonly errorMessages = new Map<string, string>();
  private openedAt = 0;
  private loopAtOpen = performance.eventLoopUtilization();
  private threadCpuAtOpen = threadCpuSeconds();
  private whenIdle: (() => void) | undefined;

  readonly now = (): number => performance.now();

  succeeded(latencyMs: number): void {
    this.acknowledged++;
    if (this.recording) this.latencies.record(latencyMs * 1000);
  }

  failed(error: ServerError): void {
    if (!this.recording) return;
    this.errors.set(error.sqlState, (this.errors.get(error.sqlState) ?? 0) + 1);
    if (!this.errorMessages.has(error.sqlState)) this.errorMessages.set(error.sqlState, error.message);
  }

  idle(): void {
    this.busyCount--;
    if (this.busyCount === 0) this.whenIdle?.();
  }

  lost(message: string, serverError: ServerError | undefined): void {
    if (this.failedAlready) return;
    this.failedAlready = true;
    send({ kind: 'failed', message, serverError });
  }

  async connect(count: number): Promise<void> {
    let remaining = count;
    const connectNext = async (): Promise<void> => {
      while (remaining > 0) {
        remaining--;
        this.connections.push(await openConnection(setup.target, template.preparation));
      }
    };
    await Promise.all(Array.from({ length: Math.min(count, CONNECTING_MAX) }, connectNext));
    this.clients = this.connections.map(
      (connection) => new LoadClient({ connection, template: copyTemplate(template), rollback, host: this }),
    );
  }

  run(): void {
    this.busyCount = this.clients.length;
    for (const client of this.clients) client.start();
  }

  open(): void {
    this.loopAtOpen = performance.eventLoopUtilization();
    this.threadCpuAtOpen = threadCpuSeconds();
    this.openedAt = performance.now();
    this.recording = true;
  }

  async close(drainTimeoutMs: number): Promise<void> {
    const windowSeconds = (performance.now() - this.openedAt) / 1000;
    this.recording = false;
    this.stopping = true;
    const loop = performance.eventLoopUtilization(performance.eventLoopUtilization(), this.loopAtOpen);
    const threadCpu = threadCpuSeconds();
    await this.drain(drainTimeoutMs);
    if (this.failedAlready) return;
    const unanswered = this.clients.filter((client) => client.isBusy).length;
    await Promise.all(this.connections.map((connection) => connection.close()));
    send({
      kind: 'finished',
      result: {
        latencies: this.latencies.snapshot(),
        errors: this.errors,
        errorMessages: this.errorMessages,
        acknowledged: this.acknowledged,
        unanswered,
        windowSeconds,
        cpuSeconds: difference(threadCpu, this.threadCpuAtOpen),
        loopUtilization: loop.utilization,
      },
    });
  }

  sendProgress(): void {
    if (this.busyCount > 0) send({ kind: 'progress', acknowledged: this.acknowledged });
  }

  private drain(timeoutMs: number): Promise<void> {
    if (this.busyCount === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, timeoutMs);
      this.whenIdle = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

let point = new Point();

async function obey(message: ToWorker): Promise<void> {
  switch (message.kind) {
    case 'connect':
      point = new Point();
      await point.connect(message.clients);
      send({ kind: 'connected' });
      return;
    case 'run':
      point.run();
      return;
    case 'open':
      point.open();
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

/** CPU time of this thread since it began; Linux only, to the nanosecond. */
function threadCpuSeconds(): number | undefined {
  try {
    return Number(readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ', 1)[0]) / 1e9;
  } catch {
    return undefined;
  }
}

function difference(later: number | undefined, earlier: number | undefined): number | undefined {
  return later === undefined || earlier === undefined ? undefined : later - earlier;
}

function encodeRollback(): Buffer {
  const writer = new FrameWriter();
  encodeQuery(writer, 'ROLLBACK');
  return Buffer.from(writer.take());
}
