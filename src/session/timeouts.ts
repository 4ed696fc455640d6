/**
 * The time-outs of all sessions of a process: some times a second each is looked at, and where its time is over it is told so. No
 * statement sets a timer. What follows from a look is decided by admission/session-clock.ts.
 */
import {
  type Clock,
  type ClockLimits,
  clockStart,
  type Expiry,
  type Look,
  look,
  type OwnLimits,
} from '../admission/session-clock.ts';
import { millisecondsOf, type Settings } from '../backend/settings.ts';
import type { Conversation } from './conversation.ts';

export interface Watched {
  /** Says what it is doing now. */
  describe(seen: Look): void;
  expire(what: Expiry): void;
}

export class SessionTimeouts {
  /** How often each has struck. */
  readonly counters: Record<Expiry, number> = { idle: 0, idleInTransaction: 0, statement: 0, stalled: 0 };
  #limits: ClockLimits;
  readonly #now: () => number;
  readonly #watched = new Map<Watched, Clock>();
  /** One for all looks. */
  readonly #seen: Look = { doing: 'idle', mark: 0, unsentBytes: 0, own: NO_LIMITS, waitsHere: false };

  constructor(limits: ClockLimits, now: () => number) {
    this.#limits = limits;
    this.#now = now;
  }

  reload(limits: ClockLimits): void {
    this.#limits = limits;
  }

  watch(session: Watched): void {
    this.#watched.set(session, clockStart(this.#now()));
  }

  forget(session: Watched): void {
    this.#watched.delete(session);
  }

  tick(): void {
    const now = this.#now();
    const seen = this.#seen;
    for (const [session, clock] of this.#watched) {
      session.describe(seen);
      const expiry = look(clock, seen, this.#limits, now);
      if (!expiry) continue;
      this.counters[expiry]++;
      session.expire(expiry);
    }
  }
}

/** What a session does, from what it has under way. `isBusy`: it handles a message; `frames`: so many it has read. */
export function describeSession(
  { state, lease, responses, awaitsBatch }: Conversation,
  { isBusy, frames }: { readonly isBusy: boolean; readonly frames: number },
  seen: Look,
): void {
  const { connection } = lease;
  const works =
    isBusy || responses.owedReady > 0 || (connection !== undefined && connection.pendingCount > 0);
  const isOpen = state.transaction !== 'none' || lease.unsynced || lease.inBlock || lease.branches.areMany;
  seen.unsentBytes = state.output.unsentBytes;
  seen.doing = works ? 'busy' : seen.unsentBytes > 0 ? 'sending' : isOpen ? 'inTransaction' : 'idle';
  // What a client sends while a statement is under way does not make that one shorter.
  seen.mark = works ? responses.answered : responses.answered + frames;
  seen.own = ownLimitsOf(state.settings);
  seen.waitsHere = works && (awaitsBatch || lease.backends.awaitedNodeId !== undefined);
}

const NO_LIMITS: OwnLimits = { idle: 0, idleInTransaction: 0, statement: 0 };
const ownLimits = new WeakMap<Settings, OwnLimits>();

/** Of the client's own settings; those of its role or database the servers know, and keep. */
function ownLimitsOf(settings: Settings): OwnLimits {
  if (settings.values.size === 0) return NO_LIMITS;
  let own = ownLimits.get(settings);
  if (!own) {
    const of = (name: string) => millisecondsOf(settings.values.get(name) ?? '0');
    own = {
      idle: of('idle_session_timeout'),
      idleInTransaction: of('idle_in_transaction_session_timeout'),
      statement: of('statement_timeout'),
    };
    ownLimits.set(settings, own);
  }
  return own;
}
