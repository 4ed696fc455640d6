/** `postern wall explain`: its options. What it does is in run-explain.ts, loaded only then. */
import type { Command } from 'commander';
import { WORKLOAD_NAMES } from '../wall/workload/built-in-workloads.ts';
import { linkSpeed, PROTOCOLS, protocolName, scriptFile, wholeUpTo, workloadName } from './option-values.ts';

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
