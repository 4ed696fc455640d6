/**
 * The first process of `serve` and `front`: it owns the port, starts the workers, and hears the signals.
 *
 *   SIGTERM, SIGINT   drain: no more clients; those that are there end their transactions, by drain.timeout
 *     a second one    at once; a third kills
 *   SIGHUP            the configuration is read again, and holds as far as it can without a restart
 *   SIGUSR2           each worker is replaced by a new process, which reads the configuration and the program from disk; no client
 *                     notices (session/HANDOVER.md)
 */
import { clientLimits, LIMITS, type RouterLimits } from '../admission/limits.ts';
import { BOUNDS } from '../base/bounds.ts';
import { cannotListen } from './cannot-listen.ts';
import type { DrainOptions } from './config-drain.ts';
import { failureText } from './failure-text.ts';
import { type HttpSource, startHttp } from './http.ts';
import { takeListenDescriptor } from './listen-fds.ts';
import type { ProcessLog } from './log.ts';
import type { RouterOptions } from './router-options.ts';
import { FIRST_PROCESS_KEYS, type ReloadResult } from './router-reload.ts';
import { Workers } from './workers.ts';

export interface FirstProcessOptions {
  readonly workers: number;
  readonly listen: { readonly host: string; readonly port: number };
  readonly connections: number | undefined;
  readonly merges: boolean;
  readonly drain: DrainOptions;
  readonly limits?: RouterLimits | undefined;
  /** A role for which places are kept among the clients. */
  readonly reservedRole?: string | undefined;
  readonly http?: RouterOptions['http'];
  readonly log: ProcessLog;
  /** The configuration as it is now. Throws a PosternError that says what is wrong with it. */
  readonly read: () => Partial<RouterOptions>;
  readonly announce: (port: number) => string;
}

// `npm start` passes a Ctrl-C on to a program that the terminal has told already: twice within this is once.
const SAME_REQUEST_MS = 300;
const RELOAD_MAX_MS = 15_000;
const STATUS_KILLED = 130;

/** The exit status: 0 after a signal, 1 when it can't start (one line on stderr says why and what to do). */
export async function runFirstProcess(options: FirstProcessOptions): Promise<number> {
  const { log } = options;
  let { drain } = options;
  const workers = new Workers({
    count: options.workers,
    listen: { ...options.listen, fileDescriptor: takeListenDescriptor(process.env, process.pid) },
    connections: options.connections ?? BOUNDS.connectionsPerNode,
    merges: options.merges,
    clients: clientLimits(options.limits ?? LIMITS, options.reservedRole),
    drain: () => drain,
    onListening: (port) => log.info(options.announce(port), { workers: options.workers }),
    onFailed: (text) => process.stderr.write(`${text}\n`),
    describeListenFailure: (error) => failureText(cannotListen(options.listen, error)),
    onDoorError: (error) => log.error(`listener: ${error.message}`),
    onRestart: (index, status) => log.error(`worker ended with ${status}; restarting it`, { worker: index }),
    onRolling: (why) => {
      if (why === undefined) log.info('replacing the workers');
      else log.warn(`the workers are not replaced: ${why}`);
    },
    onRolled: (failure) => {
      if (failure === undefined) log.info('all workers have been replaced');
      else log.error(`the restart has ended early: ${failure}`);
    },
  });
  const reload = async (): Promise<void> => {
    let read: Partial<RouterOptions>;
    try {
      read = options.read();
    } catch (error) {
      log.error(`the configuration is not reloaded: ${failureText(error).replace(/^postern: /, '')}`);
      return;
    }
    drain = read.drain ?? options.drain;
    workers.limit(clientLimits(read.limits ?? LIMITS, options.reservedRole));
    if (read.logging) log.setLevel(read.logging.level);
    sayReloaded(log, await workers.ask('reload', RELOAD_MAX_MS), workers.expected);
  };
  const signals = new Map<NodeJS.Signals, () => void>([
    ['SIGHUP', () => void reload()],
    ['SIGUSR2', () => workers.roll()],
  ]);
  const end = whenAsked({
    first: (atOnce) => {
      log.info('stopping', { clients_have_ms: drain.timeoutMs });
      void workers.drain(atOnce);
    },
  });
  signals.set('SIGTERM', end);
  signals.set('SIGINT', end);
  for (const [signal, handle] of signals) process.on(signal, handle);
  let http: { close(): void } | undefined;
  try {
    // Before the workers are there: that it is starting, or why it does not get on, can be asked.
    if (options.http) {
      const { host } = options.http;
      const started = await startHttp({ address: options.http, source: httpSource(workers), isFirst: true });
      log.info(`health and metrics on ${host}:${started.port}`);
      http = started;
    }
    return await workers.run();
  } catch (error) {
    process.stderr.write(`${failureText(error)}\n`);
    return 1;
  } finally {
    http?.close();
    for (const [signal, handle] of signals) process.off(signal, handle);
  }
}

function httpSource(workers: Workers): HttpSource {
  return {
    state: () => workers.state,
    expected: workers.expected,
    ask: (what) => workers.ask(what),
  };
}

/** What a request to end does: the first one, the second (aborts the signal), the third. */
function whenAsked(on: { first: (atOnce: AbortSignal) => void }): () => void {
  const atOnce = new AbortController();
  let lastMs = Number.NEGATIVE_INFINITY;
  let count = 0;
  return () => {
    const nowMs = performance.now();
    if (nowMs - lastMs < SAME_REQUEST_MS) return;
    lastMs = nowMs;
    count++;
    if (count === 1) on.first(atOnce.signal);
    else if (count === 2) atOnce.abort();
    // Workers end with their first process.
    else process.exit(STATUS_KILLED);
  };
}

function sayReloaded(log: ProcessLog, results: readonly ReloadResult[], expected: number): void {
  const all = (key: 'changed' | 'needRestart' | 'failures'): string[] => [
    ...new Set(results.flatMap((result) => result[key])),
  ];
  const needRestart = all('needRestart');
  log.info('the configuration is reloaded', { changed: all('changed').join(', ') });
  for (const failure of all('failures')) log.error(`not reloaded: ${failure}`);
  const ofWorkers = needRestart.filter((key) => !FIRST_PROCESS_KEYS.has(key));
  if (ofWorkers.length > 0)
    log.warn('some of the configuration holds once the workers are replaced (SIGUSR2)', {
      keys: ofWorkers.join(', '),
    });
  const ofFirst = needRestart.filter((key) => FIRST_PROCESS_KEYS.has(key));
  if (ofFirst.length > 0)
    log.warn('some of the configuration holds once the router is started again', {
      keys: ofFirst.join(', '),
    });
  if (results.length < expected)
    log.warn('not every worker has reloaded its configuration', { workers: results.length, of: expected });
}
