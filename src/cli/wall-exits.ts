/** `postern wall exits`: its options. What it does is in run-exits.ts, loaded only then. */
import { type Command, InvalidArgumentError } from 'commander';
import { EXIT_IDS } from '../wall/exits/exit.ts';

const CLIENTS_DEFAULT = 64;
const CLIENTS_MAX = 250;

export interface ExitsArguments {
  readonly clients: number;
  readonly only: readonly string[] | undefined;
  readonly quick?: boolean;
  readonly json?: string;
  readonly html?: string;
  readonly iKnow?: boolean;
}

export function registerWallExits(wall: Command): void {
  wall
    .command('exits')
    .summary('measure what each way past the ceiling gives')
    .description(
      'Measures each setting and each arrangement that is said to lift the write ceiling, in turns with the unchanged one, and says what it gains, costs and risks.',
    )
    .argument('[dsn]', 'the server to try session settings and front mode on (default: a scratch server)')
    .option('--clients <n>', 'clients that write at the same time', clientCount, CLIENTS_DEFAULT)
    .option('--only <list>', `of: ${EXIT_IDS.join(', ')}`, exitList)
    .option('--quick', 'short windows: wider intervals')
    .option('--json <file>', 'write the figures as JSON')
    .option('--html <file>', 'write the table as one HTML file')
    .option('--i-know', 'go on although the given server has other traffic on it')
    .addHelpText(
      'after',
      [
        '',
        'On the given server it works in a schema of its own, postern_wall, sets nothing but settings of its own sessions,',
        'and drops the schema at the end, after Ctrl-C too. What must not be tried there (fsync off, replicas, quotas) runs',
        'on scratch servers of this machine, and says so.',
        'All of it takes some ten minutes, or four with --quick.',
        'Exit status: 0 measured, 1 failed, 2 wrong command line, 130 interrupted.',
      ].join('\n'),
    )
    .action(async (dsn: string | undefined, options: ExitsArguments) => {
      const { runExits } = await import('./run-exits.ts');
      process.exitCode = await runExits(dsn, options);
    });
}

function clientCount(text: string): number {
  const count = Number(text);
  if (/^\d+$/.test(text) && count >= 1 && count <= CLIENTS_MAX) return count;
  throw new InvalidArgumentError(`It must be a whole number from 1 to ${CLIENTS_MAX}.`);
}

function exitList(text: string): string[] {
  const ids = text.split(',').map((id) => id.trim());
  const unknown = ids.find((id) => !EXIT_IDS.includes(id));
  if (unknown === undefined) return ids;
  throw new InvalidArgumentError(`There is no exit "${unknown}".`);
}
