/** `postern doctor`: its options. What it does is in run-doctor.ts, loaded only then. */
import { type Command, InvalidArgumentError } from 'commander';

export interface DoctorOptions {
  readonly config: string;
  /** A file, or `-` for standard output. */
  readonly json: string | undefined;
  readonly node: string | undefined;
  readonly deep: boolean | undefined;
  readonly preparedFor: number | undefined;
}

export function registerDoctorCommand(program: Command): void {
  program
    .command('doctor')
    .summary('compare the nodes with the catalog, and say what to run')
    .description(
      'Compares every node with the catalog and with the home node: servers, settings, roles, types, functions, tables, leaves, copies. Reads only, while routers serve or not, and says of each finding what to run.',
    )
    .requiredOption('-c, --config <file>', 'the configuration of the routers, e.g. postern.yaml')
    .option('--json <file>', 'write the findings there as JSON (-: to standard output, instead of the text)')
    .option('--node <name>', 'tell of this node alone')
    .option('--deep', 'read all rows of reference tables and of lookups, however many there are')
    .option(
      '--prepared-for <s>',
      'since when a transaction must be prepared to be told (default: 60)',
      seconds,
    )
    .addHelpText(
      'after',
      '\nExit status: 0 nothing found, or notes alone; 1 it could not look; 2 a wrong command line; 3 errors or warnings; 130 by Ctrl-C.',
    )
    .action(async (options: DoctorOptions) => {
      const { runDoctor } = await import('./run-doctor.ts');
      process.exitCode = await runDoctor(options);
    });
}

function seconds(text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value <= 86_400) return value;
  throw new InvalidArgumentError('It must be a whole number of seconds, from 0 to 86400.');
}
