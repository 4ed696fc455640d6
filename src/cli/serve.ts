/** `postern serve`: its options. What it does is in run-serve.ts, loaded only then. */
import { type Command, InvalidArgumentError } from 'commander';
import { WORKERS_MAX } from './worker-count.ts';

export interface ServeOptions {
  readonly config: string;
  readonly host: string | undefined;
  readonly port: number | undefined;
  readonly workers: number | undefined;
  readonly metrics: number | undefined;
}

export function registerServeCommand(program: Command): void {
  program
    .command('serve')
    .summary('run the router over servers of yours')
    .description(
      'Runs the router over the PostgreSQL servers (14 to 18) that the configuration names, until SIGINT or SIGTERM. Says at the start what each server lacks.',
    )
    .requiredOption('-c, --config <file>', 'the configuration, e.g. postern.yaml')
    .option('--host <address>', 'where to listen, in place of the configuration’s listen.host')
    .option('--port <port>', 'where to listen, in place of the configuration’s listen.port', portNumber)
    .option(
      '--metrics <port>',
      'serve /metrics for Prometheus there, on loopback or the configuration’s metrics.host',
      portNumber,
    )
    .option('--workers <count>', 'processes to share the work (default: one for four cores)', workerCount)
    .action(async (options: ServeOptions) => {
      const { runServe } = await import('./run-serve.ts');
      process.exitCode = await runServe(options);
    });
}

function portNumber(text: string): number {
  const port = Number(text);
  if (/^\d+$/.test(text) && port <= 65_535) return port;
  throw new InvalidArgumentError('It must be a whole number from 0 to 65535.');
}

function workerCount(text: string): number {
  const count = Number(text);
  if (/^\d+$/.test(text) && count >= 1 && count <= WORKERS_MAX) return count;
  throw new InvalidArgumentError(`It must be a whole number from 1 to ${WORKERS_MAX}.`);
}
