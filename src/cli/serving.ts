/** What `serve` and `front` have in common: logging, one process or several, signals, and how a failure is told. */
import cluster from 'node:cluster';
import { type Logger, pino } from 'pino';
import { BOUNDS } from '../base/bounds.ts';
import { failureText } from './failure-text.ts';
import { cannotListen, type Router } from './router.ts';
import { untilSignal } from './until-signal.ts';
import { defaultWorkers } from './worker-count.ts';
import { reportFailure, workerPlace } from './worker-side.ts';
import { runWorkers } from './workers.ts';

export interface ServingOptions {
  /** undefined: by the machine. */
  readonly workers: number | undefined;
  readonly listen: { readonly host: string; readonly port: number };
  /** To one node, of all workers; undefined: the default. */
  readonly connections: number | undefined;
  /** Whether commits are merged. */
  readonly merges: boolean;
  /** Starts the router; `first`: it is the one that says what it found. */
  readonly start: (context: { logger: Logger; first: boolean }) => Promise<Router>;
  /** One line for the log, once clients can come. */
  readonly announce: (port: number) => string;
}

/** The exit status: 0 after a signal, 1 when it can't start (one line on stderr says why and what to do). */
export async function runServing(options: ServingOptions): Promise<number> {
  const place = workerPlace();
  const logger = pino({
    base: place === undefined ? null : { worker: place.index },
    timestamp: pino.stdTimeFunctions.isoTime,
  });
  const count = options.workers ?? defaultWorkers();
  if (cluster.isPrimary && count > 1) {
    return runWorkers({
      count,
      listen: options.listen,
      connections: options.connections ?? BOUNDS.connectionsPerNode,
      merges: options.merges,
      onListening: (port) => logger.info({ workers: count }, options.announce(port)),
      onFailed: (text) => process.stderr.write(`${text}\n`),
      describeListenFailure: (error) => failureText(cannotListen(options.listen, error)),
      onDoorError: (error) => logger.error(`listener: ${error.message}`),
      onRestart: (index, status) =>
        logger.error({ worker: index }, `worker ended with ${status}; restarting it`),
    });
  }
  let router: Router;
  try {
    router = await options.start({ logger, first: place === undefined || place.index === 0 });
  } catch (error) {
    if (place === undefined) process.stderr.write(`${failureText(error)}\n`);
    else await reportFailure(failureText(error));
    return 1;
  }
  if (place === undefined) logger.info(options.announce(router.port));
  // A worker whose primary was killed has nobody left to serve with.
  if (place !== undefined) process.once('disconnect', () => process.exit(1));
  await untilSignal();
  if (place === undefined) logger.info('stopping');
  await router.close();
  if (place !== undefined) process.exit(0);
  return 0;
}
