/** `postern serve -c postern.yaml`: the router over the user's own servers, until SIGINT or SIGTERM. */
import { pino } from 'pino';
import { PosternError } from '../base/errors.ts';
import { ServerError } from '../platform/control-connection.ts';
import { readConfig } from './config.ts';
import { startRouter } from './router.ts';
import type { ServeOptions } from './serve.ts';

/** The exit status: 0 after a signal, 1 when it can't start (one line on stderr says why and what to do). */
export async function runServe(options: ServeOptions): Promise<number> {
  try {
    await serve(options);
    return 0;
  } catch (error) {
    if (!(error instanceof PosternError) && !(error instanceof ServerError)) throw error;
    const hint = error instanceof PosternError ? error.hint : error.fields.get('H');
    process.stderr.write(`postern: ${error.message}${hint === undefined ? '' : `. ${hint}`}\n`);
    return 1;
  }
}

async function serve(options: ServeOptions): Promise<void> {
  const config = readConfig(options.config, process.env);
  const logger = pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime });
  const log = {
    info: (message: string) => logger.info(message),
    warn: (message: string) => logger.warn(message),
    error: (message: string) => logger.error(message),
  };
  const router = await startRouter({
    ...config,
    listen: { host: options.host ?? config.listen.host, port: options.port ?? config.listen.port },
    log,
    onFindings: (findings) => {
      for (const { node, severity, message, hint } of findings) {
        const level = severity === 'note' ? 'info' : severity === 'warning' ? 'warn' : 'error';
        logger[level]({ node, hint }, message);
      }
    },
  });
  logger.info(
    { nodes: config.nodes.map(({ name }) => name), home: config.home },
    `listening on ${options.host ?? config.listen.host}:${router.port}`,
  );
  await new Promise<void>((resolve) => {
    process.once('SIGINT', resolve);
    process.once('SIGTERM', resolve);
  });
  logger.info('stopping');
  await router.close();
}
