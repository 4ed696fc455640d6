/** How many of the machine's cores have nothing to do. */
import { cpus } from 'node:os';
import { WINDOW_TICKS } from './worker-load.ts';

interface CpuTimes {
  readonly atMs: number;
  readonly idleMs: number;
}

export class IdleCores {
  readonly #times = [read()];

  /**
   * To be called each TICK_MS. In the busiest tick of the last ones: a worker’s last second is another one, so that an average
   * would have some of the rest from before in it. A container's own quota is not seen: there the figure is too high.
   */
  tick(): number {
    this.#times.push(read());
    if (this.#times.length > WINDOW_TICKS + 1) this.#times.shift();
    let least = Number.POSITIVE_INFINITY;
    for (const [i, to] of this.#times.entries()) {
      const from = this.#times[i - 1];
      if (from && to.atMs > from.atMs)
        least = Math.min(least, (to.idleMs - from.idleMs) / (to.atMs - from.atMs));
    }
    return least;
  }
}

function read(): CpuTimes {
  return { atMs: performance.now(), idleMs: cpus().reduce((sum, { times }) => sum + times.idle, 0) };
}
