/**
 * Whose time is over: what one session was seen doing at one look after another, and the time-outs that follow. Pure; the
 * looks come from session/timeouts.ts, some times a second for all sessions, so that no statement needs a timer of its own.
 *
 *   idle ──idle──▶ closed (57P05)        inTransaction ──idleInTransaction──▶ closed (25P03)
 *   busy ──statement──▶ canceled (57014), and again after as long as that if it goes on
 *   any state with output that its client does not take ──stalled──▶ closed
 *
 * What is seen to begin has begun after the look before: a time-out is late by up to the time between two looks, and never early.
 */

export type Doing =
  /** Nothing, and no transaction is open. */
  | 'idle'
  /** Nothing, and one is. */
  | 'inTransaction'
  /** A statement is under way. */
  | 'busy'
  /** All is done, and the client has not taken all of it. */
  | 'sending';

/** Milliseconds; 0: never. */
export interface ClockLimits {
  readonly idle: number;
  readonly idleInTransaction: number;
  readonly statement: number;
  readonly stalled: number;
}

export type OwnLimits = Omit<ClockLimits, 'stalled'>;

/** Filled in anew at each look. */
export interface Look {
  doing: Doing;
  /** Counts what has ended or begun: equal at two looks, the same thing goes on. */
  mark: number;
  /** Bytes of output that the client has not taken. */
  unsentBytes: number;
  /** The client's own time-outs, of its settings. */
  own: OwnLimits;
  /** The statement waits in the router: no server knows of it, and of the client's own time-out. */
  waitsHere: boolean;
}

export interface Clock {
  doing: Doing;
  mark: number;
  sinceMs: number;
  unsentBytes: number;
  unsentSinceMs: number;
}

export type Expiry = 'idle' | 'idleInTransaction' | 'statement' | 'stalled';

/** A server ends what runs on it by the client's own statement_timeout. Where it does not, the router does after so much more. */
const SERVER_GRACE_MS = 1_000;

export function clockStart(atMs: number): Clock {
  return { doing: 'idle', mark: -1, sinceMs: atMs, unsentBytes: 0, unsentSinceMs: atMs };
}

/** The clock is changed in place: there is one for each client, and they are looked at all the time. */
export function look(clock: Clock, seen: Look, limits: ClockLimits, atMs: number): Expiry | undefined {
  if (seen.unsentBytes === 0 || seen.unsentBytes !== clock.unsentBytes) {
    clock.unsentBytes = seen.unsentBytes;
    clock.unsentSinceMs = atMs;
  } else if (limits.stalled > 0 && atMs - clock.unsentSinceMs >= limits.stalled) return 'stalled';
  if (seen.doing !== clock.doing || seen.mark !== clock.mark) {
    clock.doing = seen.doing;
    clock.mark = seen.mark;
    clock.sinceMs = atMs;
    return undefined;
  }
  const forMs = atMs - clock.sinceMs;
  switch (seen.doing) {
    case 'idle':
      return isOver(forMs, least(limits.idle, seen.own.idle)) ? 'idle' : undefined;
    case 'inTransaction':
      return isOver(forMs, least(limits.idleInTransaction, seen.own.idleInTransaction))
        ? 'idleInTransaction'
        : undefined;
    case 'busy': {
      const own = seen.own.statement;
      const ownMs = own === 0 || seen.waitsHere ? own : own + SERVER_GRACE_MS;
      if (!isOver(forMs, least(limits.statement, ownMs))) return undefined;
      clock.sinceMs = atMs;
      return 'statement';
    }
    case 'sending':
      return undefined;
  }
}

function isOver(forMs: number, limitMs: number): boolean {
  return limitMs > 0 && forMs >= limitMs;
}

/** The shorter of two, of which 0 is none. */
function least(a: number, b: number): number {
  if (a === 0 || b === 0) return a + b;
  return Math.min(a, b);
}
