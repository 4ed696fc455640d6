/**
 * A worker's side of its bond with the first process: its place, the clients that it is given, its reports, its share of the
 * connections, cancel requests.
 */
import cluster from 'node:cluster';
import type { AcceptedClient } from '../session/listener.ts';
import { LoadWindow, type Spent, TICK_MS } from './worker-load.ts';
import type { FromWorker, ToWorker } from './worker-messages.ts';
import { firstShare } from './worker-shares.ts';

/** What a worker has to know of its place. Session ids carry the index, so that a cancel finds its way. */
export interface WorkerPlace {
  readonly index: number;
  readonly count: number;
}

export const INDEX_VARIABLE = 'POSTERN_WORKER_INDEX';
export const COUNT_VARIABLE = 'POSTERN_WORKER_COUNT';
/** Those who leave together are reported together. */
const LEFT_DELAY_MS = 10;

/** Where this process stands; undefined: it is alone. */
export function workerPlace(): WorkerPlace | undefined {
  const index = process.env[INDEX_VARIABLE];
  const count = process.env[COUNT_VARIABLE];
  return cluster.isWorker && index !== undefined && count !== undefined
    ? { index: Number(index), count: Number(count) }
    : undefined;
}

/** In a worker that can't start: has the first process say why, and lets go of it, so that this process can end. */
export function reportFailure(text: string): Promise<void> {
  return new Promise((resolve) => {
    const message: FromWorker = { kind: 'failed', text };
    process.send!(message, () => {
      process.disconnect();
      resolve();
    });
  });
}

/** In a worker: sends a cancel request to the worker whose session it is. */
export function forwardCancel(processId: number, secretKey: Buffer): void {
  tell({ kind: 'cancel', processId, secretKey: secretKey.toString('base64') });
}

/** In a worker: says that clients can come, and serves those that do until the process ends. */
export function joinWorkers(options: {
  readonly place: WorkerPlace;
  /** To one node, of all workers. */
  readonly connections: number;
  readonly onClient: (client: AcceptedClient) => void;
  readonly onCancel: (processId: number, secretKey: Buffer) => void;
  readonly onShare: (connections: number) => void;
  /** The most connections that there are to any one node. */
  readonly open: () => number;
}): void {
  const window = new LoadWindow(spent());
  let share = firstShare({ workers: options.place.count, connections: options.connections });
  options.onShare(share);
  const report = (): void =>
    tell({ kind: 'report', fill: window.report(), share: { share, open: options.open() } });
  let isReportDue = false;
  const onLeft = (arrival: number): void => {
    window.left(arrival);
    if (isReportDue) return;
    isReportDue = true;
    setTimeout(() => {
      isReportDue = false;
      report();
    }, LEFT_DELAY_MS).unref();
  };
  const take = (client: AcceptedClient): void => {
    const arrival = window.arrived();
    client.once('close', () => onLeft(arrival));
    options.onClient(client);
  };
  process.on('message', (message: ToWorker, client: AcceptedClient | undefined) => {
    switch (message?.kind) {
      case 'client':
        // It may have gone on the way.
        if (client) take(client);
        else window.left(window.arrived());
        tell({ kind: 'taken' });
        break;
      case 'share':
        share = message.connections;
        options.onShare(share);
        report();
        break;
      case 'cancel':
        options.onCancel(message.processId, Buffer.from(message.secretKey, 'base64'));
        break;
    }
  });
  setInterval(() => {
    window.tick(spent());
    report();
  }, TICK_MS).unref();
  tell({ kind: 'ready' });
}

function tell(message: FromWorker): void {
  // Without the first process this one is about to end.
  if (process.connected) process.send!(message, undefined, undefined, () => {});
}

function spent(): Spent {
  const { user, system } = process.cpuUsage();
  const { active } = performance.eventLoopUtilization();
  return { wallMs: performance.now(), cpuMs: (user + system) / 1_000, activeMs: active };
}
