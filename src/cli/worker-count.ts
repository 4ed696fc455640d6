/** How many workers there may be, and are if nothing is said. */
import { availableParallelism } from 'node:os';

/** The first byte of a session id is its worker. */
export const WORKERS_MAX = 120;

/** A core of its own for each four that the machine has: PostgreSQL or the network's interrupts need the others. */
export function defaultWorkers(): number {
  return Math.max(1, Math.min(WORKERS_MAX, Math.floor(availableParallelism() / 4)));
}
