/** `postern wall`: its options. What `measure` does is in wall-measure.ts, loaded only then. */
import { type Command, InvalidArgumentError } from 'commander';
import { registerWallModel } from './wall-model.ts';

const PROTOCOLS = ['simple', 'extended', 'prepared'] as const;
const CLIENTS_MAX = 10_000;
const SECONDS_MAX = 3_600;

export interface MeasureArguments {
  /** Undefined: 1, 2, 4, … 256. */
  readonly clients: readonly number[] | undefined;
  readonly seconds: number;
  readonly protocol: (typeof PROTOCOLS)[number];
  readonly json: string | undefined;
  readonly html: string | undefined;
}

export function registerWallCommands(program: Command): void {
  const wall = program.command('wall').description('find the write ceiling of a PostgreSQL server');
  registerWallModel(wall);
  wall
    .command('measure')
    .summary('measure durable inserts by more and more clients')
    .description(
      'Measures durable single-row inserts by 1, 2, 4, … clients, on any server, and prints each point.',
    )
    .argument('<dsn>', 'postgres://user:password@host:port/database, or host=… dbname=…')
    .option(
      '--clients <list>',
      'how many clients at each point (default: 1,2,4,8,16,32,64,128,256)',
      clientCounts,
    )
    .option('--seconds <n>', 'length of each point', secondsOfPoint, 5)
    .option('--protocol <name>', `how statements are sent: ${PROTOCOLS.join(', ')}`, protocolName, 'prepared')
    .option('--json <file>', 'write the figures as JSON')
    .option('--html <file>', 'write the chart as one HTML file')
    .addHelpText(
      'after',
      [
        '',
        'It works in a schema of its own, postern_wall, and drops it at the end, after Ctrl-C too.',
        'What the DSN leaves out comes from PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE and PGSSLMODE.',
      ].join('\n'),
    )
    .action(async (dsn: string, options: MeasureArguments) => {
      const { runMeasure } = await import('./wall-measure.ts');
      process.exitCode = await runMeasure(dsn, options);
    });
}

function clientCounts(text: string): number[] {
  const counts = text.split(',').map((part) => (/^\s*\d+\s*$/.test(part) ? Number(part) : 0));
  if (counts.every((count) => count >= 1 && count <= CLIENTS_MAX)) return counts;
  throw new InvalidArgumentError(`It must be whole numbers from 1 to ${CLIENTS_MAX} with commas, as 1,8,64.`);
}

function secondsOfPoint(text: string): number {
  const seconds = Number(text);
  if (text.trim() !== '' && seconds > 0 && seconds <= SECONDS_MAX) return seconds;
  throw new InvalidArgumentError(`It must be a number above 0, up to ${SECONDS_MAX}.`);
}

function protocolName(text: string): string {
  if (PROTOCOLS.some((name) => name === text)) return text;
  throw new InvalidArgumentError(`It must be one of ${PROTOCOLS.join(', ')}.`);
}
