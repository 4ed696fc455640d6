/** `postern serve -c postern.yaml`: the router over the user's own servers, until SIGINT or SIGTERM. */
import { readConfig } from './config.ts';
import { controlRole } from './control-role.ts';
import { failureText } from './failure-text.ts';
import { LOG_DEFAULTS } from './log.ts';
import type { RouterOptions } from './router-options.ts';
import type { ServeOptions } from './serve.ts';
import { runServing } from './serving.ts';
import { reportFailure, workerPlace } from './worker-side.ts';

/** The exit status: 0 after a signal, 1 when it can't start (one line on stderr says why and what to do). */
export async function runServe(options: ServeOptions): Promise<number> {
  let config: Readonly<RouterOptions>;
  try {
    config = readOptions(options);
  } catch (error) {
    const text = failureText(error);
    if (workerPlace()) await reportFailure(text);
    else process.stderr.write(`${text}\n`);
    return 1;
  }
  const { listen } = config;
  return runServing({
    workers: config.workers,
    listen,
    connections: config.connectionsPerNode,
    merges: config.coalesce !== false,
    announce: (port) =>
      `listening on ${listen.host}:${port}, over ${config.nodes.map(({ name }) => name).join(', ')}`,
    logging: config.logging ?? LOG_DEFAULTS,
    drain: config.drain,
    limits: config.limits,
    reservedRole: controlRole(config),
    http: config.http,
    read: () => readOptions(options),
    start: async ({ log, first }) => {
      // Not before: the first process has nothing of a router in its memory.
      const { startRouter } = await import('./router.ts');
      return startRouter({
        ...config,
        log,
        onFindings: (findings) => {
          if (!first) return;
          for (const { node, severity, message, hint } of findings) {
            const level = severity === 'note' ? 'info' : severity === 'warning' ? 'warn' : 'error';
            log[level](message, { node, hint });
          }
        },
      });
    },
  });
}

/** The configuration, with what the command line says in its place. */
function readOptions(options: ServeOptions): Readonly<RouterOptions> {
  const config = readConfig(options.config, process.env);
  return {
    ...config,
    workers: options.workers ?? config.workers,
    listen: { host: options.host ?? config.listen.host, port: options.port ?? config.listen.port },
    http:
      options.metrics === undefined
        ? config.http
        : { host: config.http?.host ?? '127.0.0.1', port: options.metrics },
  };
}
