/** What a client hears of a commit over several nodes, in the words of the one catalogue or of its server. */
import { unreachable } from '../base/assert.ts';
import {
  connectionLost,
  decisionUnknown,
  notSupported,
  outcomeUnknown,
  PosternError,
} from '../base/errors.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { ServerError } from '../platform/control-connection.ts';
import type { RollbackCause } from './commit-protocol.ts';

export interface NamesOfNodes {
  nameOf(nodeId: number): string;
  /** Why this node's part can't be prepared, if it can't. */
  unpreparableBy(nodeId: number): string | undefined;
}

/** Each of these is a transaction that is rolled back on all nodes. */
export function rolledBackError(cause: RollbackCause, names: NamesOfNodes): PosternError | ServerError {
  switch (cause.kind) {
    case 'error':
      if (isEndedByRecovery(cause.error)) return endedError();
      if (cause.error instanceof ServerError || cause.error instanceof PosternError) return cause.error;
      return connectionLost(names.nameOf(cause.nodeId));
    case 'lost':
      return lostError(names.nameOf(cause.nodeId), cause.error);
    case 'failedTransaction':
      return new PosternError({
        sqlState: '40000',
        message: `the transaction was rolled back: its part on node "${names.nameOf(cause.nodeId)}" had failed`,
        hint: 'Retry the transaction.',
      });
    case 'unpreparable':
      return unpreparableError(cause.nodeIds, names);
    case 'ownersDiffer':
      return notSupported(
        'the parts of this transaction ended under different roles',
        'Set the role with SET ROLE, which reaches every node, and not inside a function.',
      );
    default:
      return unreachable(cause);
  }
}

/** The decision has met an abort row: recovery had taken this router for dead, or frozen. */
function isEndedByRecovery(error: unknown): boolean {
  return (
    error instanceof ServerError &&
    error.sqlState === '23505' &&
    error.fields.get('s') === INTERNAL_SCHEMA &&
    error.fields.get('t') === 'decisions'
  );
}

function endedError(): PosternError {
  return new PosternError({
    sqlState: '40001',
    message:
      'the transaction was rolled back on all of its nodes: its commit took too long, and recovery has ended it',
    hint: 'Retry the transaction.',
  });
}

/** Before the decision: a retry is safe, whatever became of the connection. */
function lostError(nodeName: string, error: unknown): PosternError {
  if (error instanceof PosternError && error.sqlState === '08006') {
    const { message } = error;
    return new PosternError({
      sqlState: '08006',
      message,
      detail: 'The transaction was not committed, on any node.',
      hint: 'Retry the transaction.',
    });
  }
  return connectionLost(nodeName);
}

function unpreparableError(nodeIds: readonly number[], names: NamesOfNodes): PosternError {
  const reasons = nodeIds.map((id) => `node "${names.nameOf(id)}": ${names.unpreparableBy(id) ?? 'unknown'}`);
  return notSupported(
    'this transaction has written on several nodes, and more than one of them cannot prepare its part',
    'At most one node of a transaction may be used with temporary tables, LISTEN, NOTIFY or cursors WITH HOLD, or have max_prepared_transactions = 0.',
    `${reasons.join('; ')}.`,
  );
}

/** With a token: two-phase commit. */
export function unknownError(nodeName: string, token: string | undefined): PosternError {
  return token === undefined ? outcomeUnknown(nodeName) : decisionUnknown(nodeName, token);
}

/** Committed, and some nodes don't have it any more. Never retryable: an operator has to look. */
export function lossError(nodeNames: readonly string[], transactionId: string): PosternError {
  return new PosternError({
    sqlState: 'XX001',
    message: `the transaction was committed, and its part on ${nodeNames.map((name) => `node "${name}"`).join(', ')} was lost`,
    detail: `A part that had been prepared is not there any more, and not committed either. The transaction is ${transactionId}.`,
    hint: 'That server has lost writes that it had confirmed, as after a failover to a standby that lags. See SELECT * FROM postern.prepared.',
  });
}

/** Committed, and not everywhere yet. */
export function unconfirmedWarning(nodeName: string): { sqlState: string; message: string; hint: string } {
  return {
    sqlState: '01000',
    message: `node "${nodeName}" could not be reached after the transaction was committed`,
    hint: 'Its part is committed there as soon as it can be reached; until then it is in postern.prepared, and its rows stay locked.',
  };
}
