/** What a router is started with, whoever reads it from where. */
import type { RouterLimits, RouterTimeouts } from '../admission/limits.ts';

import type { UserEntry } from '../auth/user-entry.ts';
import type { Finding } from '../catalog/requirements.ts';
import type { Log } from '../observe/log.ts';
import type { ClientTlsOptions } from '../platform/client-tls.ts';
import type { TransactionsOptions } from '../txn/transactions.ts';
import type { BypassOptions } from './config-bypass.ts';
import type { DrainOptions } from './config-drain.ts';
import type { LogOptions } from './log.ts';
import type { AuthenticationConfig } from './router-auth.ts';
import type { HealthOptions } from './router-health.ts';

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
  /** Rules for them, and for roles that are not listed. */
  readonly authentication?: AuthenticationConfig | undefined;
  /** TLS with clients. Default: none. */
  readonly tls?: ClientTlsOptions | undefined;
  /** Backend connections to one node at most, over all roles. */
  readonly connectionsPerNode?: number | undefined;
  /** How many clients and logins there may be, and how many backends for a role or tenant. */
  readonly limits?: RouterLimits | undefined;
  /** Of logins, idle clients, statements. */
  readonly timeouts?: RouterTimeouts | undefined;
  /** Merge the commits of writes that arrive together. Default: yes. */
  readonly coalesce?: boolean | undefined;
  /** Processes that share the port; read by the command line, not here. */
  readonly workers?: number | undefined;
  /** How long a statement waits for a free backend connection, and a client's login may take; before what `timeouts` says. */
  readonly acquireTimeoutMs?: number | undefined;
  readonly loginTimeoutMs?: number | undefined;
  /** How nodes are watched; default: by the bounds, and a home node that is away at the start is not waited for. */
  readonly health?: HealthOptions | undefined;
  readonly log?: Log | undefined;
  /** The least that `log` writes, and what of clients. */
  readonly logging?: LogOptions | undefined;
  /** How clients leave when the router stops; read by the first process. */
  readonly drain?: DrainOptions | undefined;
  /** Who may log in at the nodes without a router. */
  readonly bypass?: BypassOptions | undefined;
  /** Hears what each node has and lacks, before anything is served. */
  readonly onFindings?: ((findings: readonly Finding[]) => void) | undefined;
  /** Its name in postern.routers. Default: that of the machine. */
  readonly name?: string | undefined;
  /** Where /metrics, /healthz and /readyz are; with workers, the first process serves them for all. Default: nowhere. */
  readonly http?: { readonly host: string; readonly port: number } | undefined;
  /** For tests: how often this process renews its entry in the register of routers. */
  readonly heartbeatMs?: number | undefined;
  /** For tests: how often postern.statements is written. */
  readonly statementsEveryMs?: number | undefined;
  /** For tests: called before each step of a DDL statement that is carried out in a transaction, or as a job. */
  readonly beforeDdlStep?: ((step: string) => Promise<void> | void) | undefined;
  /** For tests: shorter times, and what goes wrong in the middle of a commit. */
  readonly transactions?: Pick<TransactionsOptions, 'times' | 'faults'> | undefined;
}
