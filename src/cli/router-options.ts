/** What a router is started with, whoever reads it from where. */
import type { Finding } from '../catalog/requirements.ts';
import type { RouterLog } from '../execute/context.ts';
import type { UserEntry } from '../session/users.ts';
import type { TransactionsOptions } from '../txn/transactions.ts';

export interface NodeOptions {
  readonly name: string;
  /** The control path: a role that may create schemas, and is a superuser or a member of the clients' roles. */
  readonly dsn: string;
  /** How the servers of the other nodes reach it; default: as the DSN says. */
  readonly mesh?: { readonly host: string; readonly port: number } | undefined;
}

export interface RouterOptions {
  readonly listen: { readonly host: string; readonly port: number };
  /** The database name that clients connect to. */
  readonly database: string;
  readonly nodes: readonly NodeOptions[];
  /** The node of the catalog and of tables without a door. */
  readonly home: string;
  readonly users: readonly UserEntry[];
  /** Backend connections to one node at most, over all roles. */
  readonly connectionsPerNode?: number | undefined;
  /** Merge the commits of writes that arrive together. Default: yes. */
  readonly coalesce?: boolean | undefined;
  /** Processes that share the port; read by the command line, not here. */
  readonly workers?: number | undefined;
  /** How long a statement waits for a free backend connection, and a client's login may take. */
  readonly acquireTimeoutMs?: number | undefined;
  readonly loginTimeoutMs?: number | undefined;
  readonly log?: RouterLog | undefined;
  /** Hears what each node has and lacks, before anything is served. */
  readonly onFindings?: ((findings: readonly Finding[]) => void) | undefined;
  /** Where this process tells Prometheus; with workers, each on the next port. */
  readonly metrics?: { readonly host: string; readonly port: number } | undefined;
  /** For tests: how often postern.statements is written. */
  readonly statementsEveryMs?: number | undefined;
  /** For tests: called before each step of a DDL statement that is carried out in a transaction, or as a job. */
  readonly beforeDdlStep?: ((step: string) => Promise<void> | void) | undefined;
  /** For tests: shorter times, and what goes wrong in the middle of a commit. */
  readonly transactions?: Pick<TransactionsOptions, 'times' | 'faults'> | undefined;
}
