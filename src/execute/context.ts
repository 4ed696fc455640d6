/** What one router has, shared by all its sessions. Built in cli/router.ts, parsed once and passed in. */

import type { NotificationHub } from '../backend/notification-hub.ts';
import type { NodePool } from '../backend/pool.ts';
import type { StatementRegistry } from '../backend/prepared.ts';
import type { IdColumn } from '../catalog/id-sequences.ts';
import type { ClusterMap } from '../catalog/map.ts';
import type { Coalescer } from '../coalesce/coalescer.ts';
import type { DdlServices, DdlWorld } from '../ddl/world.ts';
import type { ClientLogs } from '../observe/client-log.ts';
import type { Log } from '../observe/log.ts';
import type { RouterCommand } from '../plan/plan.ts';
import type { FlushQueue } from '../platform/flush-queue.ts';
import type { StatementCounters } from '../statements/counters.ts';
import type { TransactionCoordinator } from '../txn/coordinator.ts';
import type { DecisionGate } from '../txn/decision-gate.ts';
import type { DistributedTransactions } from '../txn/registry.ts';
import type { FunctionFacts } from './function-facts.ts';
import type { IdChooser } from './id-chooser.ts';
import type { Mesh } from './mesh.ts';
import type { PlanCache } from './plan-cache.ts';
import type { StatefulRelations } from './stateful-relations.ts';
import type { WriteFactsCache } from './write-facts.ts';

/** Who sends a router command, as PostgreSQL's rights will see it. */
export interface CommandSession {
  readonly role: string;
  /** The value of the GUC search_path. */
  readonly searchPath: string;
}

/** What a router command answers. */
export interface CommandResult {
  readonly tag: string;
  /** A one-row, one-column text result, as SELECT f() gives. */
  readonly row: { readonly column: string; readonly value: string } | undefined;
  readonly notices: readonly { readonly sqlState: string; readonly message: string }[];
}

export interface RouterContext {
  /** DDL of a client's has been committed. */
  readonly afterDdl?: (() => void) | undefined;
  /** A statement is about to change who may log in, and with what. */
  readonly rolesChange?: (() => void) | undefined;
  /** The name that clients connect to; each node's own database name is in its DSN. */
  readonly database: string;
  readonly catalog: {
    readonly current: ClusterMap;
    refresh(): Promise<ClusterMap>;
  };
  readonly pools: ReadonlyMap<number, NodePool>;
  readonly plans: PlanCache;
  readonly statements: StatementRegistry;
  readonly functions: FunctionFacts;
  readonly relations: StatefulRelations;
  readonly ids: IdChooser;
  readonly writeFacts: WriteFactsCache;
  /** What is told by postern.statements; undefined: nothing is counted (front mode). */
  readonly counters: StatementCounters | undefined;
  /** Writes that go out together, merged or pipelined. */
  readonly coalescer: Coalescer;
  /** Holds decisions back, for reads that agree; undefined: there is one node. */
  readonly decisionGate: DecisionGate | undefined;
  /** Reads that several nodes are needed for at once; undefined: there is no catalog. */
  readonly mesh: Mesh | undefined;
  /** Transactions of this process that are on several nodes now. */
  readonly distributed: DistributedTransactions;
  /** Ends transactions, whatever the number of their nodes. */
  readonly transactions: TransactionCoordinator;
  /** LISTEN for all sessions; undefined (front mode): a session that listens has a backend of its own. */
  readonly notifications: NotificationHub | undefined;
  readonly flushQueue: FlushQueue;
  readonly log: Log;
  /** The lines about clients. */
  readonly clientLogs: ClientLogs;
  /** Sequences of sharded tables were set: other routers are told. Absent: there are none. */
  readonly announceRestart?: ((columns: readonly IdColumn[]) => Promise<void>) | undefined;
  runCommand(command: RouterCommand, session: CommandSession): Promise<CommandResult>;
  /** Undefined before one unchanged server (front mode). */
  readonly ddl: RouterDdl | undefined;
}

export interface RouterDdl extends DdlServices {
  /** Is it carried out by runCommand() here? */
  runs(command: RouterCommand): boolean;
  /** As runCommand, in the client's transaction. */
  runCommand(command: RouterCommand, world: DdlWorld): Promise<CommandResult>;
}
