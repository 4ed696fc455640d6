/** `postern wall measure`: its options. What it does is in run-measure.ts, loaded only then. */
import { type Command, InvalidArgumentError } from 'commander';
import type { Slo } from '../wall/measure/slo.ts';
import { WORKLOAD_NAMES } from '../wall/workload/built-in-workloads.ts';
import {
  numberUpTo,
  objective,
  PROTOCOLS,
  protocolName,
  scriptFile,
  wholeUpTo,
  workloadName,
} from './option-values.ts';

const CLIENTS_MAX = 10_000;
const SCALE_MAX = 10_000;
const SECONDS_MAX = 3_600;
const BUDGET_MINUTES_MAX = 1_440;
const RATE_MAX = 10_000_000;

export interface MeasureArguments {
  readonly workload: string;
  /** The text of a script in pgbench's format, and its file's name. */
  readonly script: { readonly text: string; readonly name: string } | undefined;
  readonly scale: number;
  /** Undefined: the wall is searched for. */
  readonly clients: readonly number[] | undefined;
  readonly maxClients: number | undefined;
  readonly seconds: number;
  readonly protocol: (typeof PROTOCOLS)[number];
  readonly rate: number | undefined;
  readonly slo: Slo | undefined;
  readonly budget: number | undefined;
  readonly json: string | undefined;
  readonly csv: string | undefined;
  readonly html: string | undefined;
  readonly resume: string | undefined;
  readonly failBelow: number | undefined;
  readonly iKnow: boolean | undefined;
  readonly explain: boolean | undefined;
}

export function registerWallMeasure(wall: Command): void {
  wall
    .command('measure')
    .summary('find how many transactions a second a server takes')
    .description(
      'Finds the write ceiling of a server: more and more clients until they give nothing more, the fewest that reach it, and the figure measured afresh, with its 95% interval.',
    )
    .argument('<dsn>', 'postgres://user:password@host:port/database, or host=… dbname=…')
    .option('--workload <name>', `of: ${WORKLOAD_NAMES.join(', ')}`, workloadName, 'events')
    .option('--script <file>', "a transaction of yours, in pgbench's format", scriptFile)
    .option('--scale <n>', 'size of the tables, in units of the workload', wholeUpTo(SCALE_MAX), 1)
    .option('--clients <list>', 'measure these counts and search for nothing, as 1,8,64', clientCounts)
    .option('--max-clients <n>', 'of the search (default: 512)', wholeUpTo(CLIENTS_MAX))
    .option('--seconds <n>', 'length of each point', numberUpTo(SECONDS_MAX), 5)
    .option('--protocol <name>', `how statements are sent: ${PROTOCOLS.join(', ')}`, protocolName, 'prepared')
    .option('--rate <n>', 'an open loop: so many arrivals a second', numberUpTo(RATE_MAX))
    .option('--slo <p=time>', 'find the highest rate that keeps it, as p99=50ms', objective)
    .option('--budget <minutes>', 'for the whole search', numberUpTo(BUDGET_MINUTES_MAX))
    .option('--explain', 'say what binds the server as well (another minute)')
    .option('--json <file>', 'write the figures as JSON, after each point')
    .option('--csv <file>', 'write the points as CSV')
    .option('--html <file>', 'write the report as one HTML file')
    .option('--resume <file>', 'go on from the JSON of a measurement that was interrupted')
    .option('--fail-below <tps>', 'exit with status 3 if the wall is lower', numberUpTo(RATE_MAX))
    .option('--i-know', 'measure although the server has other traffic on it')
    .addHelpText(
      'after',
      [
        '',
        'It works in a schema of its own, postern_wall, and drops it at the end, after Ctrl-C too.',
        'What the DSN leaves out comes from PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE and PGSSLMODE.',
        'Exit status: 0 measured, 1 failed or nothing could be told, 2 wrong command line, 3 below',
        '--fail-below, 130 interrupted.',
      ].join('\n'),
    )
    .action(async (dsn: string, options: MeasureArguments, command: Command) => {
      const wrong = contradiction(options);
      if (wrong !== undefined) command.error(`error: ${wrong}`);
      const { runMeasure } = await import('./run-measure.ts');
      process.exitCode = await runMeasure(dsn, options);
    });
}

/** Options that can't go together. */
function contradiction(options: MeasureArguments): string | undefined {
  const { clients, rate, slo, maxClients, failBelow, budget } = options;
  const isOpen = rate !== undefined || slo !== undefined;
  if (isOpen && (clients?.length ?? 1) > 1) return 'with --rate or --slo, --clients takes one number';
  if (isOpen && maxClients !== undefined) return '--max-clients is of the search, not of --rate or --slo';
  if (clients !== undefined && maxClients !== undefined)
    return '--clients and --max-clients exclude each other';
  if (budget !== undefined && (isOpen || clients !== undefined)) return '--budget is of the search';
  if (failBelow !== undefined && rate !== undefined && slo === undefined)
    return '--fail-below needs a wall or an objective; with --rate there is neither';
  return undefined;
}

function clientCounts(text: string): number[] {
  const counts = text.split(',').map((part) => (/^\s*\d+\s*$/.test(part) ? Number(part) : 0));
  if (counts.every((count) => count >= 1 && count <= CLIENTS_MAX)) return counts;
  throw new InvalidArgumentError(`It must be whole numbers from 1 to ${CLIENTS_MAX} with commas, as 1,8,64.`);
}
