/**
 * What recovery decides about one transaction whose coordinator may be gone, and when the rows of commits may be deleted;
 * without any I/O (SPEC.md). The same protocol settles an unknown outcome for its own coordinator and for `postern.outcome`.
 *
 *   asking ──commit / abort───────────────────────────────────────────────▶ finishing ──▶ done
 *     │ none, and old enough, or nobody is there                                ▲
 *     ▼                                                                         │ abort
 *   askingMarks ──none──▶ inserting ──inserted──▶ freeing ──────────────────────┤
 *     │                     │ ▲  └──exists──▶ asking                            │
 *     │ visible      locked ▼ │ gone                                            │
 *     │                   terminating                                           │ commit, and a loss is reported
 *     └──▶ askingAgain ──none──▶ askingPrepared ──there────────────────────────┘
 *
 * Invariant: a rollback follows a committed abort row only, found or inserted (I5).
 * Invariant: each wait is one bounded effect, and attempts are counted: a run ends (I10).
 */
import { assert, unreachable } from '../base/assert.ts';
import type { ProtocolFaults } from './commit-protocol.ts';

/** What stands on the commit point under (transaction id, owner). */
export type DecisionSeen = 'commit' | 'abort' | 'none' | 'unreachable';

export interface ForeignTransaction {
  /**
   * `recover`: a prepared transaction of some router's, found on a node; it is finished there. `settle`: only the outcome is
   * wanted (the coordinator's unknown outcome, `postern.outcome`): waits for no age, and finishes nothing.
   */
  readonly purpose: 'recover' | 'settle';
  /**
   * At this step. `recover`: how long it has been prepared, by the clock of its node. `settle`: how long ago the decision was
   * sent, by a clock that goes on while the router doesn't.
   */
  readonly ageMs: number;
  /** From this age on it is ended even if the commit point's transaction seems to be alive. */
  readonly recoveryAfterMs: number;
  /** How long a decision stays at least that its own coordinator has not deleted. */
  readonly decisionsKeptMs: number;
}

export type RecoveryEffect =
  /**
   * Ask the commit point, on a control connection: the row of (id, owner), and whether the commit point's transaction is still
   * open. A row that is found has to be durable on the synchronous standby as well before it is told (SPEC.md, I13): read it by
   * `UPDATE … SET outcome = outcome … RETURNING outcome` with synchronous_commit on, bounded on this side (never by
   * statement_timeout, which ends the wait for the standby with a mere warning).
   */
  | { readonly kind: 'askDecision' }
  /** Ask every node that can be reached, whether a mark of (id, owner) is visible there. */
  | { readonly kind: 'askMarks' }
  /** Is the prepared transaction still there, on its node? */
  | { readonly kind: 'askPrepared' }
  /** INSERT the abort row on the commit point, with a lock_timeout. */
  | { readonly kind: 'insertAbortRow' }
  /**
   * End the commit point's transaction: pg_terminate_backend of (pid, backend_start), if that backend still is in *this*
   * transaction, that is: holds its advisory lock (which decide() takes too). It may have been given back to a pool and work for
   * somebody else. Bounded wait until it is gone.
   */
  | { readonly kind: 'terminate' }
  /** COMMIT PREPARED or ROLLBACK PREPARED on the node where it was found. */
  | { readonly kind: 'finish'; readonly outcome: 'commit' | 'abort' }
  /** Marks show that it was committed, and the commit point knows nothing: it has lost it. Log loudly, count, show as `lost`. */
  | { readonly kind: 'reportLoss' };

export type RecoveryEvent =
  | {
      readonly kind: 'decisionAsked';
      readonly decision: DecisionSeen;
      readonly backend: 'inTransaction' | 'gone';
    }
  | { readonly kind: 'marksAsked'; readonly visible: boolean }
  | { readonly kind: 'preparedAsked'; readonly prepared: 'there' | 'gone' | 'unreachable' }
  /** `exists`: 23505. `locked`: 55P03, the commit point's transaction holds the key. */
  | { readonly kind: 'abortRowInserted'; readonly result: 'inserted' | 'exists' | 'locked' | 'unreachable' }
  | { readonly kind: 'terminated'; readonly result: 'gone' | 'stillThere' | 'unreachable' }
  /** `notThere`: 42704. `failed`: any other error, busy (55000), or a lost connection. */
  | { readonly kind: 'finished'; readonly result: 'done' | 'notThere' | 'failed' };

export type RecoveryResult =
  /** `lost`: it was committed, but the commit point has lost its own part (an asynchronous failover). */
  | { readonly kind: 'settled'; readonly outcome: 'committed' | 'rolledBack' | 'lost' }
  /** Somebody else has finished it meanwhile. Only when recovering. */
  | { readonly kind: 'gone' }
  /**
   * Nothing to do now; asked again in the next round. `younger`: its coordinator may be at work. `expired`: only when settling:
   * so long ago that a decision may have been deleted; for good.
   */
  | { readonly kind: 'stays'; readonly why: 'younger' | 'unreachable' | 'busy' | 'expired' };

/** So often the abort row is tried, and the decision asked for, in one run. */
const ATTEMPTS_MAX = 4;

export type RecoveryState =
  | { readonly kind: 'asking'; readonly attempts: number }
  | { readonly kind: 'askingMarks'; readonly attempts: number }
  | { readonly kind: 'askingAgain'; readonly attempts: number }
  | { readonly kind: 'askingPrepared' }
  | { readonly kind: 'inserting'; readonly attempts: number }
  | { readonly kind: 'terminating'; readonly attempts: number }
  | { readonly kind: 'freeing' }
  | { readonly kind: 'finishing'; readonly outcome: 'committed' | 'rolledBack' | 'lost' }
  | { readonly kind: 'done'; readonly result: RecoveryResult };

export interface RecoveryStep {
  readonly state: RecoveryState;
  readonly effects: readonly RecoveryEffect[];
}

export function startRecovery(): RecoveryStep {
  return { state: { kind: 'asking', attempts: 1 }, effects: [{ kind: 'askDecision' }] };
}

export function stepRecovery(
  state: RecoveryState,
  event: RecoveryEvent,
  transaction: ForeignTransaction,
): RecoveryStep {
  switch (state.kind) {
    case 'asking': {
      assert(event.kind === 'decisionAsked', `asking awaits no ${event.kind}`);
      if (event.decision !== 'none') return known(event.decision, transaction);
      if (isLeftAlone(event.backend, transaction)) return stays('younger');
      if (isExpired(transaction)) return stays('expired');
      return { state: { kind: 'askingMarks', attempts: state.attempts }, effects: [{ kind: 'askMarks' }] };
    }
    case 'askingMarks': {
      assert(event.kind === 'marksAsked', `askingMarks awaits no ${event.kind}`);
      if (!event.visible) return insert(state.attempts);
      return { state: { kind: 'askingAgain', attempts: state.attempts }, effects: [{ kind: 'askDecision' }] };
    }
    case 'askingAgain': {
      // The mark is older than this answer. A decision that is deleted by cleaning, is so after every participant has
      // finished; so with this one still prepared, there never was a deletion: the commit point has lost the row.
      assert(event.kind === 'decisionAsked', `askingAgain awaits no ${event.kind}`);
      if (event.decision !== 'none') return known(event.decision, transaction);
      if (transaction.purpose === 'settle') return lost(transaction);
      return { state: { kind: 'askingPrepared' }, effects: [{ kind: 'askPrepared' }] };
    }
    case 'askingPrepared': {
      assert(event.kind === 'preparedAsked', `askingPrepared awaits no ${event.kind}`);
      assert(transaction.purpose === 'recover', 'who only settles has no prepared transaction to ask for');
      if (event.prepared === 'there') return lost(transaction);
      return event.prepared === 'gone' ? gone() : stays('unreachable');
    }
    case 'inserting':
      assert(event.kind === 'abortRowInserted', `inserting awaits no ${event.kind}`);
      return afterInsert(event.result, state.attempts);
    case 'terminating': {
      assert(event.kind === 'terminated', `terminating awaits no ${event.kind}`);
      if (event.result === 'gone') return insert(state.attempts + 1);
      return stays(event.result === 'stillThere' ? 'busy' : 'unreachable');
    }
    case 'freeing':
      // The abort row is what counts; that its locks are freed at once is a courtesy.
      assert(event.kind === 'terminated', `freeing awaits no ${event.kind}`);
      return finish('rolledBack', transaction);
    case 'finishing': {
      assert(event.kind === 'finished', `finishing awaits no ${event.kind}`);
      // 42704: somebody else was quicker. That it was not lost, is for judgeDecision to find out.
      if (event.result === 'notThere') return gone();
      return event.result === 'failed' ? stays('unreachable') : settled(state.outcome);
    }
    case 'done':
      return assert(false, `nothing is awaited after the end, not even ${event.kind}`) as never;
    default:
      return unreachable(state);
  }
}

/** Its coordinator may be about to decide: while its transaction on the commit point is open, it is given time. */
function isLeftAlone(backend: 'inTransaction' | 'gone', transaction: ForeignTransaction): boolean {
  const { purpose, ageMs, recoveryAfterMs } = transaction;
  return purpose === 'recover' && backend === 'inTransaction' && ageMs < recoveryAfterMs;
}

/** Then the decision may have come and gone, and neither its absence nor an abort row proves a rollback. */
function isExpired({ purpose, ageMs, decisionsKeptMs }: ForeignTransaction): boolean {
  return purpose === 'settle' && ageMs >= decisionsKeptMs;
}

function known(decision: Exclude<DecisionSeen, 'none'>, transaction: ForeignTransaction): RecoveryStep {
  switch (decision) {
    case 'commit':
      return finish('committed', transaction);
    case 'abort':
      return finish('rolledBack', transaction);
    case 'unreachable':
      return stays('unreachable');
    default:
      return unreachable(decision);
  }
}

function insert(attempts: number): RecoveryStep {
  if (attempts > ATTEMPTS_MAX) return stays('busy');
  return { state: { kind: 'inserting', attempts }, effects: [{ kind: 'insertAbortRow' }] };
}

function afterInsert(
  result: Extract<RecoveryEvent, { kind: 'abortRowInserted' }>['result'],
  attempts: number,
): RecoveryStep {
  switch (result) {
    case 'inserted':
      return { state: { kind: 'freeing' }, effects: [{ kind: 'terminate' }] };
    case 'exists':
      if (attempts >= ATTEMPTS_MAX) return stays('busy');
      return { state: { kind: 'asking', attempts: attempts + 1 }, effects: [{ kind: 'askDecision' }] };
    case 'locked':
      return { state: { kind: 'terminating', attempts }, effects: [{ kind: 'terminate' }] };
    case 'unreachable':
      return stays('unreachable');
    default:
      return unreachable(result);
  }
}

function finish(outcome: 'committed' | 'rolledBack' | 'lost', transaction: ForeignTransaction): RecoveryStep {
  if (outcome === 'rolledBack' && isExpired(transaction)) return stays('expired');
  if (transaction.purpose === 'settle') return settled(outcome);
  const order = outcome === 'rolledBack' ? 'abort' : 'commit';
  return { state: { kind: 'finishing', outcome }, effects: [{ kind: 'finish', outcome: order }] };
}

/** Others have committed: so does this one, and what the commit point has lost is said. */
function lost(transaction: ForeignTransaction): RecoveryStep {
  const { state, effects } = finish('lost', transaction);
  return { state, effects: [{ kind: 'reportLoss' }, ...effects] };
}

function settled(outcome: 'committed' | 'rolledBack' | 'lost'): RecoveryStep {
  return { state: { kind: 'done', result: { kind: 'settled', outcome } }, effects: [] };
}

function gone(): RecoveryStep {
  return { state: { kind: 'done', result: { kind: 'gone' } }, effects: [] };
}

function stays(why: Extract<RecoveryResult, { kind: 'stays' }>['why']): RecoveryStep {
  return { state: { kind: 'done', result: { kind: 'stays', why } }, effects: [] };
}

/** Is a prepared transaction of that id left, on any node? `unknown`: a node could not be asked. */
export type PreparedLeft = 'no' | 'yes' | 'unknown';

/**
 * An abort row may go when no transaction of the commit point that might still decide is left: one that is older than the row
 * (its own xid below `pg_snapshot_xmin(pg_current_snapshot())` there); and when nobody needs it any more.
 */
export function mayDeleteAbortRow(
  row: { readonly xidBelowXmin: boolean; readonly preparedLeft: PreparedLeft },
  faults?: ProtocolFaults,
): boolean {
  return (row.xidBelowXmin || faults?.cleanAbortRowsEarly === true) && row.preparedLeft === 'no';
}

/** What is seen at a participant of a decision, after the decision's row was read. */
export interface ParticipantSeen {
  readonly nodeId: number;
  readonly prepared: 'there' | 'gone' | 'unreachable';
  readonly mark: 'visible' | 'missing' | 'unreachable';
}

export interface DecisionVerdict {
  /** Its marks may go after it. */
  readonly mayDelete: boolean;
  /** Participants that were to commit, and have neither prepared transaction nor mark: an asynchronous failover lost it. */
  readonly lost: readonly number[];
}

/**
 * A decision that its own coordinator has not deleted. `stillThere`: the row is read again after the participants, and still says 'commit'; a
 * coordinator deletes the row before the marks, so only then is a missing mark a loss. It is kept for as long as tokens may ask for it.
 */
export function judgeDecision(row: {
  readonly ageMs: number;
  readonly keptMs: number;
  readonly participants: readonly ParticipantSeen[];
  readonly stillThere: boolean;
}): DecisionVerdict {
  const { participants, stillThere } = row;
  const lost = participants.filter(({ prepared, mark }) => prepared === 'gone' && mark === 'missing');
  const isOver = participants.every(({ prepared, mark }) => prepared === 'gone' && mark !== 'unreachable');
  return {
    mayDelete: stillThere && isOver && row.ageMs >= row.keptMs,
    lost: stillThere ? lost.map(({ nodeId }) => nodeId) : [],
  };
}

/**
 * A mark whose decision has gone. `decision` and `preparedLeft` have to be read after the mark was seen: a mark that is visible is
 * younger than its decision, so that a decision that is missing then was deleted (or lost), and not yet to come.
 */
export function mayDeleteMark(mark: {
  readonly decision: DecisionSeen;
  readonly preparedLeft: PreparedLeft;
}): boolean {
  return (mark.decision === 'none' || mark.decision === 'abort') && mark.preparedLeft === 'no';
}
