/**
 * Ids of sessions, which clients see as the server's process id, and by which a cancel request finds its session through any router:
 *
 *   30        24 23       17  16         15          0
 *   slot of the  │ place of  │ generation │ number      31 bits: positive, as PostgreSQL's
 *   router, or 0 │ the worker│ of the place, modulo 2
 *
 * Invariant: two processes that hold the same place, the one that ends and its replacement, give out different ids.
 * A process has 65,535 numbers, and more clients than that it never has (BOUNDS.clientsMax is for all of them).
 */
import { assert } from '../base/assert.ts';
import { tooManyConnections } from '../base/errors.ts';

export const SLOT_MAX = 127;
const WORKER_SPAN = 128;
const NUMBER_MAX = 0xffff;

export interface SessionPlace {
  /** 0: the router is not registered. */
  readonly slot: number;
  readonly worker: number;
  /** How many processes have held the place before. */
  readonly generation: number;
}

/** This process among all that serve the cluster, as the listener needs to know of it. */
export interface SessionRoutes {
  /** As it is now. */
  place(): SessionPlace;
  /** Has the other processes of this router look for the session of a cancel request. */
  toOtherProcess(id: number, secretKey: Buffer): void;
  /** Has the other routers look for it; resolves when they were told, or can't be. `address`: of whoever asks. */
  toOtherRouter(id: number, secretKey: Buffer, address: string | undefined): Promise<void>;
}

const ALONE: SessionPlace = { slot: 0, worker: 0, generation: 0 };

export class SessionIds {
  #number = 0;

  /** One that is not in use; `isUsed` knows those of this process. Default: there is no other. */
  next(isUsed: (id: number) => boolean, place: SessionPlace = ALONE): number {
    const { slot, worker, generation } = place;
    assert(slot >= 0 && slot <= SLOT_MAX && worker >= 0 && worker < WORKER_SPAN, 'a place in range');
    const base = (slot << 24) | (worker << 17) | ((generation & 1) << 16);
    for (let tries = 0; tries < NUMBER_MAX; tries++) {
      this.#number = (this.#number % NUMBER_MAX) + 1;
      if (!isUsed(base | this.#number)) return base | this.#number;
    }
    throw tooManyConnections('sorry, too many clients already');
  }
}

export function slotOf(id: number): number {
  return (id >>> 24) & SLOT_MAX;
}

/** The worker of its router. */
export function workerOf(id: number): number {
  return (id >>> 17) & (WORKER_SPAN - 1);
}
