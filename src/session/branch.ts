/** One node's part of a client's transaction, and what those parts need of the session that has them (branches.ts). */
import type { BackendConnection } from '../backend/connection.ts';
import { objectError, type PosternError } from '../base/errors.ts';
import type { SessionEffect } from '../plan/plan.ts';
import type { BranchBegin } from './held-begin.ts';
import type { Responses } from './responses.ts';
import type { SessionBackends } from './session-backends.ts';
import type { ClientState } from './state.ts';
import type { TransactionSteps } from './transaction-steps.ts';

/** One node's part. */
export interface Branch {
  readonly connection: BackendConnection;
  /** It may have written. */
  wrote: boolean;
  /** It surely has a transaction id of the server's. */
  hasXid: boolean;
  /** It is not to be used by anybody else. */
  tainted: boolean;
  /** The last of the transaction's steps that has been made here. */
  seen: number;
}

/** What the lease does for its branches. */
export interface BranchHost {
  readonly state: ClientState;
  readonly steps: TransactionSteps;
  readonly responses: Responses;
  /** The current branch's connection. */
  connection: BackendConnection | undefined;
  wrote: boolean;
  tainted: boolean;
  readonly ended: boolean;
  readonly backends: SessionBackends;
  /** What the commit of the transaction has to do first. */
  readonly beforeCommit: (() => Promise<void>) | undefined;
  /** Why the session has backends of its own, if it has. */
  readonly pinReason: string | undefined;
  /** All that was sent is answered, a pipeline without its Sync as well; false: some of it has failed. */
  settle(): Promise<boolean>;
  /** A connection of the node with the session's settings, no transaction, and the session as its lessee. */
  open(nodeId: number, options: { beside: boolean }): Promise<BackendConnection>;
  /** Begins the client's transaction there, in the write of what is sent next. It is the current connection. */
  beginAhead(connection: BackendConnection, branch: BranchBegin): void;
  /** In whatever state: rolled back and given back, in the background. */
  abandon(connection: BackendConnection): void;
  /** The transaction is over, and `connection` is free of it. */
  onTransactionEnd(): void;
}

/** A statement that ends the transaction, or goes back and forth in it. */
export type ControlEffect = Extract<
  SessionEffect,
  { kind: 'savepoint' | 'releaseSavepoint' | 'rollbackToSavepoint' | 'constraints' | 'resetAll' }
>;

/** Heard by nobody. */
export function clientGone(): PosternError {
  return objectError('57P01', 'the client has gone');
}
