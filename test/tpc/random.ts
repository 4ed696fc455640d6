/** A generator of numbers that gives the same rows in each run (Lehmer's, modulo 2^31 − 1). */
export class SeededRandom {
  #state: number;

  constructor(seed: number) {
    this.#state = (seed % 2_147_483_646) + 1;
  }

  /** An integer of min … max, both included. */
  between(min: number, max: number): number {
    this.#state = (this.#state * 48_271) % 2_147_483_647;
    return min + (this.#state % (max - min + 1));
  }

  pick<T>(values: readonly T[]): T {
    return values[this.between(0, values.length - 1)]!;
  }
}
