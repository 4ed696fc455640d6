/** How much a worker has to do, and for how many clients: a window of WINDOW_TICKS ticks that moves by one tick. */
import type { WorkerReport } from './worker-fill.ts';

/** Times since some beginning, in milliseconds. */
export interface Spent {
  readonly wallMs: number;
  /** Of the whole process, garbage collection included. */
  readonly cpuMs: number;
  /** In which the event loop was not waiting. */
  readonly activeMs: number;
}

export const TICK_MS = 250;
export const WINDOW_TICKS = 4;

export class LoadWindow {
  #tick = 0;
  #clients = 0;
  #taken = 0;
  /** The last WINDOW_TICKS + 1 readings, the oldest first. */
  readonly #readings: { readonly spent: Spent; readonly clients: number }[];
  /** How many are there of those that came in a tick, for the ticks of the window. */
  readonly #arrivedIn = new Map<number, number>();

  constructor(spent: Spent) {
    this.#readings = [{ spent, clients: 0 }];
  }

  /** Gives what `left` has to be called with. */
  arrived(): number {
    this.#clients++;
    this.#taken++;
    this.#arrivedIn.set(this.#tick, (this.#arrivedIn.get(this.#tick) ?? 0) + 1);
    return this.#tick;
  }

  left(arrival: number): void {
    this.#clients--;
    const arrived = this.#arrivedIn.get(arrival);
    if (arrived !== undefined) this.#arrivedIn.set(arrival, arrived - 1);
  }

  /** To be called each TICK_MS. */
  tick(spent: Spent): void {
    this.#tick++;
    this.#readings.push({ spent, clients: this.#clients });
    if (this.#readings.length > WINDOW_TICKS + 1) this.#readings.shift();
    this.#arrivedIn.delete(this.#tick - WINDOW_TICKS - 1);
  }

  report(): WorkerReport {
    const first = this.#readings[0]!;
    const last = this.#readings.at(-1)!;
    const wallMs = last.spent.wallMs - first.spent.wallMs;
    // A process that waits for a core is active and gets no CPU; one whose helper threads run has CPU and is not active.
    const busyMs = Math.min(last.spent.cpuMs - first.spent.cpuMs, last.spent.activeMs - first.spent.activeMs);
    let fresh = 0;
    for (const count of this.#arrivedIn.values()) fresh += count;
    return {
      load: wallMs > 0 ? Math.min(1, Math.max(0, busyMs / wallMs)) : 0,
      clients: this.#clients,
      settled: this.#clients - fresh,
      settledThen: first.clients,
      taken: this.#taken,
    };
  }
}
