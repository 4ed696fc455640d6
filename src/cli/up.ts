/** `postern up`: its options. What it does is in bring-up.ts, loaded only then. */
import { type Command, InvalidArgumentError } from 'commander';
import { numberUpTo } from './option-values.ts';

const NODES_MAX = 16;
const PORT_DEFAULT = 6432;
const SECONDS_MAX = 600;

export interface UpOptions {
  /** Undefined: as many as the directory holds, or four. */
  readonly nodes: number | undefined;
  /** 0: any free one. */
  readonly port: number;
  readonly data: string;
  readonly quick?: boolean;
  /** Of each point; undefined: what quick says. */
  readonly seconds: number | undefined;
  readonly once?: boolean;
  readonly measure: boolean;
}

export function registerUpCommand(program: Command): void {
  program
    .command('up')
    .summary('start a cluster on this machine and measure its wall')
    .description(
      'Starts embedded PostgreSQL primaries and a router on this machine, measures the wall of one primary and then the same clients through the router, writes both curves as a chart, and stays up until Ctrl-C.',
    )
    .option(
      '--nodes <count>',
      'primaries to start (default: what --data holds, or 4)',
      wholeNumber(1, NODES_MAX),
    )
    .option('--port <port>', 'where the router listens on 127.0.0.1', wholeNumber(0, 65_535), PORT_DEFAULT)
    .option('--data <directory>', 'where everything is kept between runs', '.postern')
    .option('--quick', 'measure within one minute instead of three')
    .option(
      '--seconds <n>',
      'length of each point (default: 5, or 1.5 with --quick)',
      numberUpTo(SECONDS_MAX),
    )
    .option('--once', 'stop after the report instead of staying up')
    .option('--no-measure', 'only start')
    .action(async (options: UpOptions) => {
      const { bringUp } = await import('./bring-up.ts');
      process.exitCode = await bringUp(options);
    });
}

function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
  };
}
