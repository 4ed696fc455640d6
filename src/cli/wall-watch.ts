/** `postern wall watch`: its options. What it does is in run-watch.ts, loaded only then. */
import { type Command, InvalidArgumentError } from 'commander';
import type { Slo } from '../wall/measure/slo.ts';
import { objective } from './option-values.ts';

const SECONDS_MIN = 1;
const SECONDS_MAX = 3_600;
const DURATION_MAX = 365 * 86_400;
const ALERTS = ['symptom', 'wall'] as const;
const METRICS_HOST = '127.0.0.1';

export interface WatchArguments {
  readonly interval: number;
  readonly window: number;
  readonly sustain: number;
  readonly duration: number | undefined;
  /** Writes a second, or the file that holds them. */
  readonly wall: number | string | undefined;
  readonly slo: Slo | undefined;
  readonly nodeExporter: string | undefined;
  readonly metrics: { readonly host: string; readonly port: number } | undefined;
  readonly alert: (typeof ALERTS)[number] | undefined;
  readonly webhook: string | undefined;
  readonly history: string | undefined;
}

export function registerWallWatch(wall: Command): void {
  wall
    .command('watch')
    .summary('watch a live server approach its ceiling')
    .description(
      'Watches a live primary, reading only and at most once a second: four symptoms of the wall, how far away it is, and when it will be reached.',
    )
    .argument('<dsn>', 'postgres://user:password@host:port/database, or host=… dbname=…')
    .option(
      '--wall <rate>',
      'the measured wall: writes a second, or a JSON file of "wall measure"',
      rateOrFile,
    )
    .option('--slo <objective>', 'the service level objective, as p99=50ms', objective)
    .option('--interval <s>', 'between two looks', seconds(SECONDS_MIN, SECONDS_MAX), 1)
    .option('--window <s>', 'over which slopes are taken', seconds(10, 86_400), 60)
    .option('--sustain <s>', 'how long a condition has to hold to be a symptom', seconds(1, 86_400), 15)
    .option('--duration <s>', 'stop after this long (default: at Ctrl-C)', seconds(1, DURATION_MAX))
    .option('--node-exporter <url>', 'where the server’s machine tells of its processors')
    .option('--metrics <address>', 'serve /metrics for Prometheus at [host:]port', address)
    .option(
      '--alert <what>',
      'end with status 3 at the first symptom, or 4 at the wall: symptom, wall',
      alertName,
    )
    .option('--webhook <url>', 'POST each change of the verdict there, as JSON', webhookUrl)
    .option('--history <file>', 'keep the peaks of each minute there, for the date of arrival')
    .addHelpText(
      'after',
      '\nExit status: 0 ended as asked, 1 it could not watch, 3 and 4 by --alert, 130 by Ctrl-C.',
    )
    .action(async (dsn: string, options: WatchArguments, command: Command) => {
      const { runWatch, wallOf } = await import('./run-watch.ts');
      const wall = wallOf(options.wall);
      if (wall !== undefined && 'wrong' in wall) return command.error(`error: ${wall.wrong}`);
      process.exitCode = await runWatch(dsn, { ...options, wall });
    });
}

function seconds(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== '' && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`It must be a number from ${least} to ${most}.`);
  };
}

function rateOrFile(text: string): number | string {
  const rate = Number(text);
  if (text.trim() === '' || Number.isNaN(rate)) return text;
  if (rate > 0 && Number.isFinite(rate)) return rate;
  throw new InvalidArgumentError('It must be a number above 0, or a file that "wall measure --json" wrote.');
}

function address(text: string): { host: string; port: number } {
  const match = /^(?:(.+):)?(\d+)$/.exec(text);
  const port = Number(match?.[2]);
  if (match && port <= 65_535) return { host: match[1] ?? METRICS_HOST, port };
  throw new InvalidArgumentError('It must be a port, or host:port.');
}

function alertName(text: string): string {
  if (ALERTS.some((name) => name === text)) return text;
  throw new InvalidArgumentError(`It must be one of ${ALERTS.join(', ')}.`);
}

function webhookUrl(text: string): string {
  if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) return text;
  throw new InvalidArgumentError('It must be an address that begins with http:// or https://.');
}
