/**
 * Bounds how many lines of one kind a log gets: an attack must not fill a disk. What is left out is counted, and told by the next line
 * of its kind that is written, or by take() when none comes.
 *
 *   line ──a token is there──▶ written, with the count of those left out before
 *     └──────none───────────▶ counted
 */
import { type Rate, TokenBucket } from '../base/token-bucket.ts';

export class LineLimit {
  readonly #rate: Rate;
  readonly #now: () => number;
  readonly #kinds = new Map<string, { readonly bucket: TokenBucket; leftOut: number }>();

  /** `now`: ms of a clock that never goes back. */
  constructor(options: { readonly rate: Rate; readonly now: () => number }) {
    this.#rate = options.rate;
    this.#now = options.now;
  }

  /** How many were left out before this line; undefined: it is left out itself. `kind` is one of a few constants. */
  admit(kind: string): number | undefined {
    const nowMs = this.#now();
    let known = this.#kinds.get(kind);
    if (!known) {
      known = { bucket: new TokenBucket(this.#rate, nowMs), leftOut: 0 };
      this.#kinds.set(kind, known);
    }
    if (!known.bucket.take(nowMs)) {
      known.leftOut++;
      return undefined;
    }
    const { leftOut } = known;
    known.leftOut = 0;
    return leftOut;
  }

  /** The kinds of which lines were left out and nothing was said of it, with their counts. */
  take(): readonly { readonly kind: string; readonly leftOut: number }[] {
    const found: { kind: string; leftOut: number }[] = [];
    for (const [kind, known] of this.#kinds) {
      if (known.leftOut > 0) found.push({ kind, leftOut: known.leftOut });
      known.leftOut = 0;
    }
    return found;
  }
}
