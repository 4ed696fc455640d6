/**
 * A worker's side of its bond with the first process: its place, the clients that it is given, its reports, its share of the
 * connections, questions, cancel requests. What it does when it is told to leave is in worker-end.ts.
 */
import cluster from 'node:cluster';
import type { AcceptedClient } from '../session/door.ts';
import { HANDOVER_VERSION, type HandedSession } from '../session/handover-form.ts';
import { LoadWindow, type Spent, TICK_MS } from './worker-load.ts';
import type { FromWorker, ToWorker, WorkerQuestion } from './worker-messages.ts';
import { firstShare } from './worker-shares.ts';

/** What a worker has to know of its place. Session ids carry it, so that a cancel finds its way (session/session-ids.ts). */
export interface WorkerPlace {
  readonly index: number;
  readonly count: number;
  /** How many processes have held it before. */
  readonly generation: number;
}

export const INDEX_VARIABLE = 'POSTERN_WORKER_INDEX';
export const COUNT_VARIABLE = 'POSTERN_WORKER_COUNT';
/** One for the router as a whole: its workers inherit it from the first process. */
export const ROUTER_ID_VARIABLE = 'POSTERN_ROUTER_ID';
export const GENERATION_VARIABLE = 'POSTERN_WORKER_GENERATION';
/** Those who leave together are reported together. */
const LEFT_DELAY_MS = 10;

/** Where this process stands; undefined: it is alone. */
export function workerPlace(): WorkerPlace | undefined {
  const index = process.env[INDEX_VARIABLE];
  const count = process.env[COUNT_VARIABLE];
  return cluster.isWorker && index !== undefined && count !== undefined
    ? {
        index: Number(index),
        count: Number(count),
        generation: Number(process.env[GENERATION_VARIABLE] ?? 0),
      }
    : undefined;
}

/** In a worker that can't start: has the first process say why, and ends. */
export function reportFailure(text: string): Promise<never> {
  return new Promise(() => {
    const message: FromWorker = { kind: 'failed', text };
    process.send!(message, undefined, undefined, () => process.exit(1));
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
  /** It was another worker's client until now. */
  readonly onSession: (client: AcceptedClient, session: HandedSession) => void;
  readonly onExpect: (ids: readonly number[]) => void;
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
  /** `client` undefined: it has gone on the way. */
  const take = (client: AcceptedClient | undefined, serve: (client: AcceptedClient) => void): void => {
    const arrival = window.arrived();
    if (client) {
      client.once('close', () => onLeft(arrival));
      serve(client);
    } else window.left(arrival);
    tell({ kind: 'taken' });
  };
  process.on('message', (message: ToWorker, client: AcceptedClient | undefined) => {
    switch (message?.kind) {
      case 'client':
        take(client, options.onClient);
        break;
      case 'session':
        take(client, (taken) => options.onSession(taken, message.session));
        break;
      case 'expect':
        options.onExpect(message.ids);
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
  tell({ kind: 'ready', form: HANDOVER_VERSION });
}

/** In a worker: has its questions answered. `answer` undefined, or rejecting: there is no answer. */
export function answerQuestions(answer: (what: WorkerQuestion) => unknown): void {
  process.on('message', (message: ToWorker) => {
    if (message?.kind !== 'ask') return;
    const { question, what } = message;
    Promise.resolve()
      .then(() => answer(what))
      .catch(() => undefined)
      .then((value) => tell({ kind: 'answer', question, value }))
      .catch(() => {});
  });
}

export function tell(message: FromWorker): void {
  // Without the first process this one is about to end.
  if (process.connected) process.send!(message, undefined, undefined, () => {});
}

function spent(): Spent {
  const { user, system } = process.cpuUsage();
  const { active } = performance.eventLoopUtilization();
  return { wallMs: performance.now(), cpuMs: (user + system) / 1_000, activeMs: active };
}
