/**
 * Carries out recovery-protocol.ts for one transaction: for recovery, for a coordinator that has lost its commit point, and
 * for postern.outcome().
 */
import { unreachable } from '../base/assert.ts';
import { ServerError } from '../platform/control-connection.ts';
import type { BackendIdentity } from './gid.ts';
import type { LostPart } from './losses.ts';
import type { NodeControls } from './node-controls.ts';
import {
  type ForeignTransaction,
  type RecoveryEffect,
  type RecoveryEvent,
  type RecoveryResult,
  startRecovery,
  stepRecovery,
} from './recovery-protocol.ts';
import {
  endBackend,
  finishFailure,
  finishPrepared,
  insertAbort,
  isInTransaction,
  ownerOfPrepared,
  readDecision,
  readMark,
  type TransactionKey,
} from './settle.ts';

export interface UnsettledTransaction extends TransactionKey {
  readonly commitPoint: number;
  readonly backend: BackendIdentity;
  readonly foreign: ForeignTransaction;
  /** Where it was found, for the purpose `recover`. */
  readonly found: { readonly nodeId: number; readonly gid: string } | undefined;
}

export interface ResolveWorld {
  readonly controls: NodeControls;
  readonly nodeIds: readonly number[];
  reportLoss(loss: LostPart): void;
  /** A server has refused what recovery asked for; the same text may come again and again. */
  reportRefusal(message: string): void;
}

export async function resolveTransaction(
  world: ResolveWorld,
  transaction: UnsettledTransaction,
): Promise<RecoveryResult> {
  let { state, effects } = startRecovery();
  while (state.kind !== 'done') {
    let event: RecoveryEvent | undefined;
    for (const effect of effects) event = (await carryOut(world, transaction, effect)) ?? event;
    ({ state, effects } = stepRecovery(state, event!, transaction.foreign));
  }
  for (const effect of effects) await carryOut(world, transaction, effect);
  return state.result;
}

/** What came of it; never throws: what can't be done or found out is `unreachable`. */
async function carryOut(
  { controls, nodeIds, reportLoss, reportRefusal }: ResolveWorld,
  transaction: UnsettledTransaction,
  effect: RecoveryEffect,
): Promise<RecoveryEvent | undefined> {
  const { commitPoint, backend, found, transactionId, owner } = transaction;
  const { processId } = backend;
  switch (effect.kind) {
    case 'askDecision':
      return await controls
        .use(commitPoint, async (control): Promise<RecoveryEvent> => {
          const decision = (await readDecision(control, transaction)) ?? 'none';
          const isOpen =
            decision === 'none' && (await isInTransaction(control, { transactionId, processId }));
          return { kind: 'decisionAsked', decision, backend: isOpen ? 'inTransaction' : 'gone' };
        })
        .catch(
          (): RecoveryEvent => ({ kind: 'decisionAsked', decision: 'unreachable', backend: 'inTransaction' }),
        );
    case 'askMarks': {
      const asked = nodeIds.map((nodeId) =>
        controls.use(nodeId, (control) => readMark(control, transaction)).catch(() => false),
      );
      return { kind: 'marksAsked', visible: (await Promise.all(asked)).includes(true) };
    }
    case 'askPrepared':
      if (!found) return { kind: 'preparedAsked', prepared: 'gone' };
      return await controls
        .use(found.nodeId, async (control): Promise<RecoveryEvent> => {
          const isThere = (await ownerOfPrepared(control, found.gid)) !== undefined;
          return { kind: 'preparedAsked', prepared: isThere ? 'there' : 'gone' };
        })
        .catch((): RecoveryEvent => ({ kind: 'preparedAsked', prepared: 'unreachable' }));
    case 'insertAbortRow':
      return await controls
        .use(commitPoint, (control) => insertAbort(control, transaction))
        .catch(() => 'unreachable' as const)
        .then((result) => ({ kind: 'abortRowInserted', result }));
    case 'terminate':
      return await controls
        .use(commitPoint, (control) => endBackend(control, { transactionId, owner, processId }))
        .catch(() => 'unreachable' as const)
        .then((result) => ({ kind: 'terminated', result }));
    case 'finish': {
      if (!found) return { kind: 'finished', result: 'failed' };
      const verb = effect.outcome === 'commit' ? 'COMMIT' : 'ROLLBACK';
      return await controls
        .use(found.nodeId, (control) => finishPrepared(control, { gid: found.gid, owner, verb }))
        .then(
          () => 'done' as const,
          (error: unknown) => {
            const result = finishFailure(error);
            if (result === 'failed' && error instanceof ServerError && error.sqlState !== '55000')
              reportRefusal(`${verb} PREPARED of ${owner}'s on node "${error.nodeName}": ${error.message}`);
            return result;
          },
        )
        .then((result) => ({ kind: 'finished', result }));
    }
    case 'reportLoss':
      reportLoss({ nodeId: commitPoint, commitPoint, gid: found?.gid ?? '', transactionId, owner });
      return undefined;
    default:
      return unreachable(effect);
  }
}
