/**
 * How the sessions of one process leave it, all of them: each between two of its transactions, to another process (HANDOVER.md) or to
 * its end with 57P01; and what is still there when the time is up, wherever it is.
 */
import type { Socket } from 'node:net';
import { BOUNDS } from '../base/bounds.ts';
import type { PackedState } from './handover-form.ts';

export interface Mover {
  /** None is on its way now. */
  readonly mayGo: boolean;
  move(session: Leaver, socket: Socket, state: PackedState): void;
}

/** What a session that is to leave goes by. */
export interface Departure {
  /** Where those go that can; undefined: nowhere. */
  readonly mover: Mover | undefined;
  /** Those that can't, or have nowhere to go, are ended. */
  readonly ends: boolean;
}

export interface Leaver {
  readonly id: number;
  /** undefined: it stays after all. */
  departure: Departure | undefined;
  /** If it is between two transactions. Gives whether it has gone. */
  tryToLeave(): boolean;
  /** Ends it, whatever it is at. */
  shutDown(): void;
}

/** Another process takes a session; resolves when the next one may be sent. */
export type Send = (session: Leaver, socket: Socket, state: PackedState) => Promise<void>;

/** Resolves when all have gone. `sessions`: those that are there, each time it is asked. */
export async function leaveAll(options: {
  readonly sessions: () => Iterable<Leaver>;
  /** To be told of sessions that begin from now on. */
  readonly announce: (departure: Departure) => void;
  /** Until then nobody is ended: whoever can't be sent stays. Default: none is spared. */
  readonly spareMs?: number | undefined;
  readonly timeoutMs: number;
  /** Absent: nobody can be sent. */
  readonly send?: Send | undefined;
  /** Aborted: no more waiting. */
  readonly atOnce?: AbortSignal | undefined;
  /** Are there others that may become sessions? */
  readonly isMore?: () => boolean;
}): Promise<void> {
  const { sessions, announce, send, atOnce, spareMs = 0 } = options;
  const beganMs = performance.now();
  const hasPassed = (ms: number): boolean => atOnce?.aborted === true || performance.now() - beganMs >= ms;
  let underWay: Promise<void> | undefined;
  let sent = 0;
  let nextAtMs = 0;
  const mover: Mover | undefined = send && {
    get mayGo() {
      return underWay === undefined && performance.now() >= nextAtMs;
    },
    move(session: Leaver, socket: Socket, state: PackedState): void {
      underWay = send(session, socket, state)
        .catch(() => {})
        .then(() => {
          underWay = undefined;
          // A process that has just started is slow at first: the first ones warm it up for the others.
          if (++sent <= BOUNDS.handoverSlowFirst) nextAtMs = performance.now() + BOUNDS.handoverGapMs;
        });
    },
  };
  let ends = hasPassed(spareMs);
  const begin = (departure: Departure): void => {
    announce(departure);
    for (const session of sessions()) session.departure = departure;
  };
  begin({ mover, ends });
  while (!hasPassed(options.timeoutMs) && (!isEmpty(sessions()) || options.isMore?.())) {
    if (!ends && hasPassed(spareMs)) {
      ends = true;
      begin({ mover, ends });
    }
    for (const session of sessions()) {
      while (underWay) await underWay;
      if (hasPassed(options.timeoutMs)) break;
      session.tryToLeave();
    }
    while (underWay) await underWay;
    if (!isEmpty(sessions()) || options.isMore?.()) await pause(BOUNDS.departureLookMs, atOnce);
  }
  // Whoever could go and had to wait for its turn still goes, and waits no longer.
  sent = BOUNDS.handoverSlowFirst;
  begin({ mover: atOnce?.aborted ? undefined : mover, ends: true });
  for (const session of sessions()) {
    while (underWay) await underWay;
    nextAtMs = 0;
    if (!session.tryToLeave()) session.shutDown();
  }
  while (underWay) await underWay;
}

function isEmpty(sessions: Iterable<Leaver>): boolean {
  for (const _ of sessions) return false;
  return true;
}

function pause(ms: number, ended: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done(): void {
      clearTimeout(timer);
      ended?.removeEventListener('abort', done);
      resolve();
    }
    ended?.addEventListener('abort', done, { once: true });
  });
}
