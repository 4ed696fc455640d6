/** `postern front`: its options. What it does is in serve-front.ts, loaded only then. */
import { type Command, InvalidArgumentError } from 'commander';
import { contradiction, parseTableName, type TableSwitch } from './coalesce-tables.ts';
import { WORKERS_MAX } from './worker-count.ts';

const CONNECTIONS_MAX = 1_000;

export interface FrontOptions {
  readonly host: string;
  readonly port: number;
  readonly connections: number | undefined;
  readonly coalesce: boolean;
  readonly workers: number | undefined;
  readonly metrics?: number | undefined;
  /** Of TLS with clients: files. */
  readonly tlsCert?: string | undefined;
  readonly tlsKey?: string | undefined;
  readonly tlsClientCa?: string | undefined;
  /** Other roles than the DSN's may log in, with what the server has of them; and where that is read. */
  readonly passThrough?: boolean | undefined;
  readonly authQuery?: string | undefined;
  /** Of both options, --coalesce-table and --no-coalesce-table. */
  readonly coalesceTable?: readonly TableSwitch[] | undefined;
}

export function registerFrontCommand(program: Command): void {
  const tables: TableSwitch[] = [];
  program
    .command('front')
    .summary('stand before one server of yours and merge commits')
    .description(
      'Stands before one unchanged PostgreSQL server (14 to 18) and merges the commits of writes that arrive together. It needs no rights beyond those of the role in the DSN, and changes no schema. Clients log in with the role, the password and the database of the DSN; with --pass-through, with any role.',
    )
    .argument('<dsn>', 'postgres://user:password@host:port/database, or host=… dbname=…')
    .option('--host <address>', 'where to listen', '127.0.0.1')
    .option('--port <port>', 'where to listen', wholeNumber(0, 65_535), 6432)
    .option('--connections <count>', 'connections to the server at most', wholeNumber(2, CONNECTIONS_MAX))
    .option(
      '--workers <count>',
      'processes to share the work (default: one for four cores)',
      wholeNumber(1, WORKERS_MAX),
    )
    .option('--metrics <port>', 'serve /metrics and /readyz there, on loopback', wholeNumber(0, 65_535))
    .option('--tls-cert <file>', 'certificate for TLS with clients, in PEM (with --tls-key)')
    .option('--tls-key <file>', 'its private key')
    .option('--tls-client-ca <file>', 'who signs the certificates of clients')
    .option('--pass-through', 'let all roles of the server log in with their own passwords')
    .option(
      '--auth-query <query>',
      'how to read those, in place of pg_authid: a query that gives name and password for $1',
    )
    .option('--no-coalesce', 'pass every statement on by itself')
    .option(
      '--coalesce-table <name>',
      'merge writes to this table although it has triggers or deferrable constraints (repeatable)',
      tableSwitch(tables, true),
    )
    .option(
      '--no-coalesce-table <name>',
      'never merge writes to this table (repeatable)',
      tableSwitch(tables, false),
    )
    .action(async (dsn: string, options: FrontOptions, command: Command) => {
      const both = contradiction(tables);
      if (both !== undefined) {
        command.error(`error: table ${both} is given with --coalesce-table and with --no-coalesce-table`);
      }
      if ((options.tlsCert === undefined) !== (options.tlsKey === undefined))
        command.error('error: --tls-cert and --tls-key go together');
      if (options.tlsClientCa !== undefined && options.tlsCert === undefined)
        command.error('error: --tls-client-ca goes with --tls-cert and --tls-key');
      if (options.authQuery !== undefined && !options.passThrough)
        command.error('error: --auth-query goes with --pass-through');
      const { runFront } = await import('./serve-front.ts');
      process.exitCode = await runFront(dsn, options);
    });
}

/** Both options add to one list: for commander they are one option and its negation. */
function tableSwitch(tables: TableSwitch[], merges: boolean): (text: string) => TableSwitch[] {
  return (text) => {
    const name = parseTableName(text);
    if (!name) {
      throw new InvalidArgumentError(
        'It must be a table or schema.table, as in SQL, with double quotes around odd names.',
      );
    }
    tables.push({ ...name, merges });
    return tables;
  };
}

function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
  };
}
