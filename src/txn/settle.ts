/**
 * The statements by which a router learns, or settles, what a commit point has decided, and finishes prepared transactions. What
 * they are put together to is recovery-protocol.ts's; each here is one question to one node over the control path.
 *
 * Invariant: the abort row has the key that the decision would have, and the key is unique: never both.
 * Invariant: a decision is told only when it is durable, on the standbys too that the server waits for.
 */
import { BOUNDS } from '../base/bounds.ts';
import { INTERNAL_SCHEMA } from '../catalog/schema.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import { ServerError } from '../platform/control-connection.ts';
import type { NodeControl } from './node-controls.ts';
import type { RecoveryEvent } from './recovery-protocol.ts';
import { IS_REGISTRATION, REGISTERED_KEY, transactionKeyOf } from './registration.ts';

export interface TransactionKey {
  readonly transactionId: string;
  /** The role that PREPARE has recorded. */
  readonly owner: string;
}

/**
 * undefined: neither is there (yet). Written anew and not only read: a row can be seen whose commit was cut short while it
 * waited for a standby, and a failover would take it back.
 */
export async function readDecision(
  control: NodeControl,
  key: TransactionKey,
): Promise<'commit' | 'abort' | undefined> {
  const rows = await control.query<{ outcome: 'commit' | 'abort' }>(
    `UPDATE ${INTERNAL_SCHEMA}.decisions SET outcome = outcome WHERE transaction_id = $1 AND owner = $2 RETURNING outcome`,
    [key.transactionId, key.owner],
  );
  return rows[0]?.outcome;
}

/** Has this node's part committed, and will it stay so? Its mark became visible with it; written anew as a decision is. */
export async function readMark(control: NodeControl, key: TransactionKey): Promise<boolean> {
  const rows = await control.query(
    `UPDATE ${INTERNAL_SCHEMA}.transaction_marks SET xid = xid WHERE transaction_id = $1 AND owner = $2 RETURNING true`,
    [key.transactionId, key.owner],
  );
  return rows.length > 0;
}

/** Of pg_locks: that process, as long as it is in that transaction. Takes the transaction's key and the pid. */
const IN_TRANSACTION = `${IS_REGISTRATION} AND ${REGISTERED_KEY} = $1 AND l.pid = $2`;

export async function isInTransaction(
  control: NodeControl,
  options: { readonly transactionId: string; readonly processId: number },
): Promise<boolean> {
  const rows = await control.query(`SELECT FROM pg_locks l WHERE ${IN_TRANSACTION}`, valuesOf(options));
  return rows.length > 0;
}

/** Ends the process if it is in that transaction, and waits for its end, bounded. */
export async function endBackend(
  control: NodeControl,
  options: { readonly transactionId: string; readonly owner: string; readonly processId: number },
): Promise<'gone' | 'stillThere'> {
  const text = `SELECT pg_terminate_backend(l.pid, ${BOUNDS.settleTimeoutMs}) AS gone FROM pg_locks l WHERE ${IN_TRANSACTION}`;
  const values = valuesOf(options);
  const rows = await control.query<{ gone: boolean }>(text, values).catch((error: unknown) => {
    // The role that logged in there may be another than the one that PREPARE recorded; either may be the one to ask as.
    if (!(error instanceof ServerError) || error.sqlState !== '42501') throw error;
    return control.asOwner<{ gone: boolean }>(options.owner, text, values);
  });
  return rows.every(({ gone }) => gone) ? 'gone' : 'stillThere';
}

function valuesOf(options: { readonly transactionId: string; readonly processId: number }): unknown[] {
  return [transactionKeyOf(options.transactionId), options.processId];
}

/** A decision that is being written at this moment is waited for, bounded by the connection's lock_timeout. */
export async function insertAbort(
  control: NodeControl,
  key: TransactionKey,
): Promise<Extract<RecoveryEvent, { kind: 'abortRowInserted' }>['result']> {
  try {
    await control.query(
      `INSERT INTO ${INTERNAL_SCHEMA}.decisions (transaction_id, owner, outcome, participants, xid, decided_at)
       VALUES ($1, $2, 'abort', '{}', pg_current_xact_id(), clock_timestamp())`,
      [key.transactionId, key.owner],
    );
    return 'inserted';
  } catch (error) {
    if (error instanceof ServerError && error.sqlState === '23505') return 'exists';
    if (error instanceof ServerError && error.sqlState === '55P03') return 'locked';
    throw error;
  }
}

/** undefined: there is none of that name. */
export async function ownerOfPrepared(control: NodeControl, gid: string): Promise<string | undefined> {
  const rows = await control.query<{ owner: string }>(
    'SELECT owner FROM pg_prepared_xacts WHERE gid = $1 AND database = current_database()',
    [gid],
  );
  return rows[0]?.owner;
}

export async function finishPrepared(
  control: NodeControl,
  options: { readonly gid: string; readonly owner: string; readonly verb: 'COMMIT' | 'ROLLBACK' },
): Promise<void> {
  await control.asOwner(options.owner, `${options.verb} PREPARED ${quoteLiteral(options.gid)}`);
}

/** 42704: no such prepared transaction. */
export function finishFailure(error: unknown): 'notThere' | 'failed' {
  return error instanceof ServerError && error.sqlState === '42704' ? 'notThere' : 'failed';
}
