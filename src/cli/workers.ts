/**
 * Several processes behind one port, each a whole router of its own: they share nothing on the data path. The primary process
 * accepts connections and hands each to the next worker (node:cluster), restarts a worker that dies, and passes on cancel
 * requests that reached the wrong worker.
 *
 *   primary: forks ──all listening──▶ serving ──signal──▶ stopping (workers drain, then it ends)
 *   worker:  runs the same command line with `index` set; ends at SIGTERM or when the primary is gone
 */
import cluster, { type Worker } from 'node:cluster';
import { availableParallelism } from 'node:os';
import { untilSignal } from './until-signal.ts';

/** What a worker has to know of its place. Session ids carry the index, so that a cancel finds its way. */
export interface WorkerPlace {
  readonly index: number;
  readonly count: number;
}

const INDEX_VARIABLE = 'POSTERN_WORKER_INDEX';
const COUNT_VARIABLE = 'POSTERN_WORKER_COUNT';
const RESTART_DELAY_MS = 500;
const STOP_TIMEOUT_MS = 15_000;
/** The first byte of a session id is its worker. */
export const WORKERS_MAX = 120;

/** A core of its own for each four that the machine has: PostgreSQL or the network's interrupts need the others. */
export function defaultWorkers(): number {
  return Math.max(1, Math.min(WORKERS_MAX, Math.floor(availableParallelism() / 4)));
}

/** Where this process stands; undefined: it is alone. */
export function workerPlace(): WorkerPlace | undefined {
  const index = process.env[INDEX_VARIABLE];
  const count = process.env[COUNT_VARIABLE];
  return cluster.isWorker && index !== undefined && count !== undefined
    ? { index: Number(index), count: Number(count) }
    : undefined;
}

type Message =
  | { readonly kind: 'cancel'; readonly processId: number; readonly secretKey: string }
  /** The worker can't start. */
  | { readonly kind: 'failed'; readonly text: string };

/** In a worker that can't start: has the primary say why, and lets go of it, so that this process can end. */
export function reportFailure(text: string): Promise<void> {
  return new Promise((resolve) => {
    const message: Message = { kind: 'failed', text };
    process.send!(message, () => {
      process.disconnect();
      resolve();
    });
  });
}

/** In a worker: sends a cancel request to the worker whose session it is. */
export function forwardCancel(processId: number, secretKey: Buffer): void {
  const message: Message = { kind: 'cancel', processId, secretKey: secretKey.toString('base64') };
  process.send?.(message);
}

/** In a worker: hears the cancel requests that others have forwarded. */
export function onForwardedCancel(handle: (processId: number, secretKey: Buffer) => void): void {
  process.on('message', (message: Message) => {
    if (message?.kind === 'cancel') handle(message.processId, Buffer.from(message.secretKey, 'base64'));
  });
}

/** The primary's whole life. Gives the exit status: that of the first worker that could not start, else 0. */
export async function runWorkers(options: {
  readonly count: number;
  readonly onAllListening: (port: number) => void;
  readonly onFailed: (text: string) => void;
  readonly onRestart: (index: number, status: string) => void;
}): Promise<number> {
  cluster.schedulingPolicy = cluster.SCHED_RR;
  const workers = new Map<number, Worker>();
  let listening = 0;
  let stopping = false;
  let said = false;
  const failed = new Promise<number>((resolve) => {
    const start = (index: number): void => {
      const worker = cluster.fork({
        [INDEX_VARIABLE]: String(index),
        [COUNT_VARIABLE]: String(options.count),
      });
      let listened = false;
      workers.set(index, worker);
      worker.on('listening', (address) => {
        listened = true;
        listening++;
        if (listening === options.count) options.onAllListening(address.port);
      });
      worker.on('message', (message: Message) => {
        if (message?.kind === 'cancel') workers.get(message.processId >>> 24)?.send(message);
        else if (message?.kind === 'failed' && !said) {
          // One says it for all.
          said = true;
          options.onFailed(message.text);
        }
      });
      worker.on('exit', (code, signal) => {
        workers.delete(index);
        if (stopping) return;
        if (!listened && listening < options.count) {
          resolve(code === 0 ? 1 : (code ?? 1));
          return;
        }
        options.onRestart(index, signal ?? `status ${code}`);
        setTimeout(() => !stopping && start(index), RESTART_DELAY_MS);
      });
    };
    for (let index = 0; index < options.count; index++) start(index);
  });
  const status = await Promise.race([untilSignal().then(() => 0), failed]);
  stopping = true;
  await stopAll([...workers.values()]);
  return status;
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
