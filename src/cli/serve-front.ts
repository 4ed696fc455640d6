/** `postern front`: the first process and its workers, each of which is a router as run-front.ts makes it. */
import { describeDsn, parseDsn } from '../pg/dsn.ts';
import type { FrontOptions } from './front.ts';
import { LOG_DEFAULTS } from './log.ts';
import { runServing } from './serving.ts';

/** The exit status: 0 after a signal, 1 when it can't start. */
export function runFront(dsnText: string, options: FrontOptions): Promise<number> {
  return runServing({
    workers: options.workers,
    listen: { host: options.host, port: options.port },
    connections: options.connections,
    merges: options.coalesce,
    announce: (port) =>
      `listening on ${options.host}:${port}, before ${describeDsn(parseDsn(dsnText, process.env))}`,
    logging: LOG_DEFAULTS,
    http: options.metrics === undefined ? undefined : { host: '127.0.0.1', port: options.metrics },
    // Everything is on the command line.
    read: () => ({}),
    start: async ({ log, first }) => {
      // Not before: the first process has nothing of a router in its memory.
      const { startFront } = await import('./run-front.ts');
      const router = await startFront(dsnText, options, log);
      if (first && parseDsn(dsnText, process.env).password === undefined)
        log.warn('the DSN has no password: every client that names its role is let in without one');
      return router;
    },
  });
}
