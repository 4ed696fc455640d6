/** What `serve` and `front` have in common: the first process, or one of its workers; and how a failure to start is told. */
import { randomUUID } from 'node:crypto';
import { DRAIN_DEFAULTS, type DrainOptions } from './config-drain.ts';
import { failureText } from './failure-text.ts';
import { runFirstProcess } from './first-process.ts';
import { type LogOptions, openLog, type ProcessLog } from './log.ts';
import type { Router } from './router.ts';
import type { RouterOptions } from './router-options.ts';
import type { ReloadResult } from './router-reload.ts';
import { defaultWorkers } from './worker-count.ts';
import { untilToldToEnd } from './worker-end.ts';
import type { ToWorker, WorkerQuestion } from './worker-messages.ts';
import {
  answerQuestions,
  ROUTER_ID_VARIABLE,
  reportFailure,
  type WorkerPlace,
  workerPlace,
} from './worker-side.ts';

export interface ServingOptions {
  /** undefined: by the machine. */
  readonly workers: number | undefined;
  readonly listen: { readonly host: string; readonly port: number };
  /** To one node, of all workers; undefined: the default. */
  readonly connections: number | undefined;
  /** Whether commits are merged. */
  readonly merges: boolean;
  readonly logging: LogOptions;
  readonly drain?: DrainOptions | undefined;
  readonly limits?: RouterOptions['limits'];
  /** A role for which places are kept among the clients. */
  readonly reservedRole?: string | undefined;
  /** Where the first process serves /metrics, /healthz and /readyz. Default: nowhere. */
  readonly http?: RouterOptions['http'];
  /** The configuration as it is now. Throws a PosternError that says what is wrong with it. */
  readonly read: () => Partial<RouterOptions>;
  /** Starts the router; `first`: it is the one that says what it found. */
  readonly start: (context: { log: ProcessLog; first: boolean }) => Promise<Router>;
  /** One line for the log, once clients can come. */
  readonly announce: (port: number) => string;
}

/** The exit status: 0 after a signal, 1 when it can't start (one line on stderr says why and what to do). */
export function runServing(options: ServingOptions): Promise<number> {
  const place = workerPlace();
  const log = openLog({ level: options.logging.level, worker: place?.index });
  if (place) return runWorker(options, { place, log });
  process.env[ROUTER_ID_VARIABLE] ??= randomUUID();
  return runFirstProcess({
    ...options,
    log,
    workers: options.workers ?? defaultWorkers(),
    drain: options.drain ?? DRAIN_DEFAULTS,
  });
}

async function runWorker(
  options: ServingOptions,
  { place, log }: { readonly place: WorkerPlace; readonly log: ProcessLog },
): Promise<number> {
  // They are the first process's, which a terminal or a service manager tells at the same time.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR2'] as const) process.on(signal, () => {});
  // Before it serves there is nobody to wait for; home may be away, and this would wait for it.
  const endNow = (message: ToWorker): void => {
    if (message?.kind === 'drain' || message?.kind === 'stop') process.exit(0);
  };
  process.on('message', endNow);
  let router: Router;
  try {
    router = await options.start({ log, first: place.index === 0 && place.generation === 0 });
  } catch (error) {
    await reportFailure(failureText(error));
    return 1;
  }
  process.off('message', endNow);
  // A worker whose primary was killed has nobody left to serve with.
  process.once('disconnect', () => process.exit(1));
  answerQuestions((what) => answer(what, { router, log, read: options.read }));
  await untilToldToEnd(router);
  await router.close();
  process.exit(0);
}

function answer(
  what: WorkerQuestion,
  of: { readonly router: Router; readonly log: ProcessLog; readonly read: ServingOptions['read'] },
): unknown {
  switch (what) {
    case 'reload':
      return reload(of);
    case 'status':
    case 'metrics':
      return of.router.answer(what);
    default:
      return what satisfies never;
  }
}

async function reload(of: {
  readonly router: Router;
  readonly log: ProcessLog;
  readonly read: ServingOptions['read'];
}): Promise<ReloadResult> {
  const { router, log, read } = of;
  const options = read();
  if (options.logging) log.setLevel(options.logging.level);
  return router.reload(options);
}
