/** `postern wall explain`: its options. What it does is in run-explain.ts, loaded only then. */
import { readFileSync } from 'node:fs';
import { type Command, InvalidArgumentError } from 'commander';
import { parseLinkSpeed } from '../wall/model/link-speed.ts';
import { WORKLOAD_NAMES } from '../wall/workload/built-in-workloads.ts';

const PROTOCOLS = ['simple', 'extended', 'prepared'] as const;
const CLIENTS_MAX = 10_000;
const SCALE_MAX = 10_000;

export interface ExplainArguments {
  readonly workload: string;
  /** The text of a script in pgbench's format, and its file's name. */
  readonly script: { readonly text: string; readonly name: string } | undefined;
  readonly scale: number;
  /** Undefined: searched for. */
  readonly clients: number | undefined;
  readonly protocol: (typeof PROTOCOLS)[number];
  /** Bits a second. */
  readonly link: number | undefined;
  readonly nodeExporter: string | undefined;
  readonly quick: boolean | undefined;
  readonly iKnow: boolean | undefined;
  readonly json: string | undefined;
}

export function registerWallExplain(wall: Command): void {
  wall
    .command('explain')
    .summary('say what binds: WAL flush, WAL writing, CPU, network, locks, the client')
    .description(
      'Says what limits the writes of a server, by running the same load with one thing changed at a time, and what speaks for it.',
    )
    .argument('<dsn>', 'postgres://user:password@host:port/database, or host=… dbname=…')
    .option('--workload <name>', `of: ${WORKLOAD_NAMES.join(', ')}`, workloadName, 'events')
    .option('--script <file>', "a transaction of yours, in pgbench's format", scriptFile)
    .option('--scale <n>', 'size of the tables, in units of the workload', wholeUpTo(SCALE_MAX), 1)
    .option('--clients <n>', 'those at the wall (default: searched for)', wholeUpTo(CLIENTS_MAX))
    .option('--protocol <name>', `how statements are sent: ${PROTOCOLS.join(', ')}`, protocolName, 'prepared')
    .option('--link <speed>', 'what the link to the replicas carries, as 1gbps', linkSpeed)
    .option('--node-exporter <url>', 'of the server’s machine, if it is not this one')
    .option('--quick', 'shorter windows: 20 seconds rather than 80, and wider intervals')
    .option('--json <file>', 'write all of it as JSON')
    .option('--i-know', 'go on although the server has other traffic on it')
    .addHelpText(
      'after',
      [
        '',
        'It works in schemas of its own, postern_wall and postern_wall_unlogged, and drops them at the end, after',
        'Ctrl-C too. What it changes are settings of its own sessions, never the server’s.',
        'Exit status: 0 explained, also if the answer is "unknown"; 1 failed; 2 wrong command line; 130 interrupted.',
      ].join('\n'),
    )
    .action(async (dsn: string, options: ExplainArguments) => {
      const { runExplain } = await import('./run-explain.ts');
      process.exitCode = await runExplain(dsn, options);
    });
}

function wholeUpTo(max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= 1 && value <= max) return value;
    throw new InvalidArgumentError(`It must be a whole number from 1 to ${max}.`);
  };
}

function protocolName(text: string): string {
  if (PROTOCOLS.some((name) => name === text)) return text;
  throw new InvalidArgumentError(`It must be one of ${PROTOCOLS.join(', ')}.`);
}

function workloadName(text: string): string {
  if (WORKLOAD_NAMES.includes(text)) return text;
  throw new InvalidArgumentError(`It must be one of ${WORKLOAD_NAMES.join(', ')}.`);
}

function scriptFile(path: string): { text: string; name: string } {
  try {
    return { text: readFileSync(path, 'utf8'), name: path };
  } catch (error) {
    throw new InvalidArgumentError(`The file can't be read: ${(error as Error).message}.`);
  }
}

function linkSpeed(text: string): number {
  const speed = parseLinkSpeed(text);
  if (speed !== undefined) return speed;
  throw new InvalidArgumentError('It must be a speed, as 1gbps or 100mbps.');
}
