/** `postern serve -c postern.yaml`: the router over the user's own servers, until SIGINT or SIGTERM. */
import { readConfig } from './config.ts';
import { failureText } from './failure-text.ts';
import { startRouter } from './router.ts';
import type { RouterOptions } from './router-options.ts';
import type { ServeOptions } from './serve.ts';
import { runServing } from './serving.ts';

/** The exit status: 0 after a signal, 1 when it can't start (one line on stderr says why and what to do). */
export async function runServe(options: ServeOptions): Promise<number> {
  let config: Readonly<RouterOptions>;
  try {
    config = readConfig(options.config, process.env);
  } catch (error) {
    process.stderr.write(`${failureText(error)}\n`);
    return 1;
  }
  const listen = { host: options.host ?? config.listen.host, port: options.port ?? config.listen.port };
  const metrics =
    options.metrics === undefined
      ? config.metrics
      : { host: config.metrics?.host ?? '127.0.0.1', port: options.metrics };
  return runServing({
    workers: options.workers ?? config.workers,
    listen,
    connections: config.connectionsPerNode,
    merges: config.coalesce !== false,
    announce: (port) =>
      `listening on ${listen.host}:${port}, over ${config.nodes.map(({ name }) => name).join(', ')}`,
    start: ({ logger, first }) =>
      startRouter({
        ...config,
        listen,
        metrics,
        log: logger,
        onFindings: (findings) => {
          if (!first) return;
          for (const { node, severity, message, hint } of findings) {
            const level = severity === 'note' ? 'info' : severity === 'warning' ? 'warn' : 'error';
            logger[level]({ node, hint }, message);
          }
        },
      }),
  });
}
