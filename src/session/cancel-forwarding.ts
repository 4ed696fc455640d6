/**
 * Cancel requests that reached another router than their session's: sent to all routers over a channel of the home node, where each
 * process looks among its own sessions and compares the secret key.
 *
 *   a request for a session of another slot ──no such router, or too many──▶ dropped
 *      └──▶ sealed (cancel-envelope.ts) ──NOTIFY──▶ every process ──false, old, or seen before──▶ dropped
 *                                                      └──▶ Listener: is there such a session, and is the key right?
 *
 * Guessed keys cost the home node nothing beyond `RATES`. A message that was seen before is nothing: whoever listens to the channel
 * can send it again, and would cancel what the session does by then.
 * Invariant: of what has come a nonce is kept, until its time is too old for a repetition, and `SEEN_MAX` of them at most.
 */
import { type Rate, TokenBucket } from '../base/token-bucket.ts';
import { openCancel, SECRET_KEY_BYTES_MAX, sealCancel } from './cancel-envelope.ts';
import { slotOf } from './session-ids.ts';

const RATES: { readonly all: Rate; readonly address: Rate } = {
  all: { burst: 200, perSecond: 100 },
  address: { burst: 50, perSecond: 10 },
};
const ADDRESSES_MAX = 1_000;
/** Clocks of routers follow that of the home node, so what is older was held up, or kept by somebody. */
const ENVELOPE_AGE_MS_MAX = 30_000;
const SEEN_MAX = 20_000;

/** The other routers, as catalog/router-registration.ts knows them. */
export interface OtherRouters {
  /** Has a router this slot? May ask the home node. */
  hasSlot(slot: number): Promise<boolean>;
  /** The home node's clock, ms since 1970; undefined: it was not asked yet. */
  homeNowMs(): number | undefined;
  /** To every process of every router. Rejects when the home node is away. */
  publish(payload: string): Promise<void>;
}

export class CancelForwarding {
  readonly #key: Buffer;
  readonly #routers: OtherRouters;
  readonly #accept: (sessionId: number, secretKey: Buffer) => void;
  readonly #now: () => number;
  readonly #all: TokenBucket;
  readonly #byAddress = new Map<string, TokenBucket>();
  /** By nonce: until when a repetition could pass as young enough, on the home node's clock. */
  readonly #seen = new Map<string, number>();
  /** Up to this time messages have been forgotten: by a clock that was set back, they would pass as young and as new. */
  #forgottenUntilMs = Number.NEGATIVE_INFINITY;
  /** What became of requests: `dropped` before they were sent, `refused` after they came. */
  readonly counters = { sent: 0, received: 0, dropped: 0, refused: 0 };

  constructor(options: {
    readonly key: Buffer;
    readonly routers: OtherRouters;
    /** It may be for one of this process's sessions. */
    readonly accept: (sessionId: number, secretKey: Buffer) => void;
    /** ms of a clock that never goes back. */
    readonly now: () => number;
  }) {
    this.#key = options.key;
    this.#routers = options.routers;
    this.#accept = options.accept;
    this.#now = options.now;
    this.#all = new TokenBucket(RATES.all, options.now());
  }

  /** Never rejects: a cancel request gets no answer. `address`: of whoever asks. */
  async forward(sessionId: number, secretKey: Buffer, address: string | undefined): Promise<void> {
    const isSound = sessionId > 0 && secretKey.length > 0 && secretKey.length <= SECRET_KEY_BYTES_MAX;
    if (!isSound || !this.#isAdmitted(address)) {
      this.counters.dropped++;
      return;
    }
    try {
      const isThere = await this.#routers.hasSlot(slotOf(sessionId));
      const sentAtMs = this.#routers.homeNowMs();
      if (isThere && sentAtMs !== undefined) {
        await this.#routers.publish(sealCancel({ sessionId, secretKey, sentAtMs }, this.#key));
        this.counters.sent++;
        return;
      }
    } catch {
      // The home node is away, and with it the way to the other routers.
    }
    this.counters.dropped++;
  }

  /** What came over the channel, from whomever. */
  receive(payload: string): void {
    const envelope = openCancel(payload, this.#key);
    const homeNowMs = this.#routers.homeNowMs();
    if (!envelope || homeNowMs === undefined || !this.#isNew(envelope, homeNowMs)) {
      this.counters.refused++;
      return;
    }
    this.counters.received++;
    this.#accept(envelope.sessionId, envelope.secretKey);
  }

  #isAdmitted(address = ''): boolean {
    const nowMs = this.#now();
    let own = this.#byAddress.get(address);
    if (!own) {
      if (this.#byAddress.size >= ADDRESSES_MAX) this.#byAddress.clear();
      own = new TokenBucket(RATES.address, nowMs);
      this.#byAddress.set(address, own);
    }
    return own.take(nowMs) && this.#all.take(nowMs);
  }

  #isNew({ sentAtMs, nonce }: { sentAtMs: number; nonce: string }, homeNowMs: number): boolean {
    if (Math.abs(homeNowMs - sentAtMs) > ENVELOPE_AGE_MS_MAX || this.#seen.has(nonce)) return false;
    for (const [old, untilMs] of this.#seen) {
      // In the order of their coming: behind the first that may still be repeated come others.
      if (untilMs > homeNowMs) break;
      this.#seen.delete(old);
      this.#forgottenUntilMs = Math.max(this.#forgottenUntilMs, untilMs - ENVELOPE_AGE_MS_MAX);
    }
    if (sentAtMs <= this.#forgottenUntilMs) return false;
    if (this.#seen.size >= SEEN_MAX) return false;
    this.#seen.set(nonce, homeNowMs + 2 * ENVELOPE_AGE_MS_MAX);
    return true;
  }
}
