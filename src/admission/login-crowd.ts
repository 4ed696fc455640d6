/**
 * The clients that have not logged in yet, and who of them has to go when they are too many. Pure: it is told of each, and of
 * the time, and says who goes.
 *
 * A flood of connections that say nothing must not keep honest ones out, so nobody is turned away at the bound: at the next tick those
 * go that have said least, the oldest first. An honest client says what it wants at once, and is through in less time than it
 * takes a flood to come round to it.
 *
 *   1. those without a complete start-up packet, after SILENT_MS;
 *   2. those whose turn it is to send (a password), after STALLED_MS.
 *
 * One that the router itself keeps waiting is never sent away. Between two ticks there may be up to HARD_FACTOR times the bound: who comes
 * then is refused. A tick comes when what had arrived before it has been read, or what an honest client has said would count as silence.
 */

export interface LoginLimits {
  /** In all. */
  readonly logins: number;
  /** From one address; loopback has no such limit, since a proxy on this machine speaks for many. */
  readonly loginsPerAddress: number;
}

export interface Stranger {
  /** A complete start-up packet has been read. */
  readonly hasStarted: boolean;
  /** It is the client's turn to send. */
  readonly awaitsClient: boolean;
}

const SILENT_MS = 100;
const STALLED_MS = 1_000;
const CROWDED_FACTOR = 2;
const HARD_FACTOR = 10;

interface Entry {
  readonly address: string;
  readonly sinceMs: number;
}

export class LoginCrowd<T extends Stranger> {
  limits: LoginLimits;
  readonly #all = new Map<T, Entry>();
  readonly #byAddress = new Map<string, number>();

  constructor(limits: LoginLimits) {
    this.limits = limits;
  }

  get count(): number {
    return this.#all.size;
  }

  /** Had the next tick better come at once? */
  get isCrowded(): boolean {
    return this.#all.size > CROWDED_FACTOR * this.limits.logins;
  }

  [Symbol.iterator](): IterableIterator<T> {
    return this.#all.keys();
  }

  /** False: there is no room at all, and it is not among them. */
  add(one: T, address: string, atMs: number): boolean {
    if (this.#all.size >= HARD_FACTOR * this.limits.logins) return false;
    this.#all.set(one, { address, sinceMs: atMs });
    this.#byAddress.set(address, (this.#byAddress.get(address) ?? 0) + 1);
    return true;
  }

  remove(one: T): void {
    const entry = this.#all.get(one);
    if (!entry) return;
    this.#all.delete(one);
    const left = this.#byAddress.get(entry.address)! - 1;
    if (left > 0) this.#byAddress.set(entry.address, left);
    else this.#byAddress.delete(entry.address);
  }

  /** Who has to go now; they are no longer among them. */
  tick(atMs: number): T[] {
    const { logins, loginsPerAddress } = this.limits;
    const gone: T[] = [];
    for (const [address, count] of this.#byAddress) {
      if (count > loginsPerAddress && !isLoopback(address))
        gone.push(...this.#least(count - loginsPerAddress, atMs, address));
    }
    gone.push(...this.#least(this.#all.size - logins, atMs));
    return gone;
  }

  #least(wanted: number, atMs: number, address?: string): T[] {
    const gone: T[] = [];
    const takes = (isLeast: (one: T) => boolean, afterMs: number): void => {
      for (const [one, entry] of this.#all) {
        if (gone.length >= wanted || atMs - entry.sinceMs < afterMs) return;
        if ((address !== undefined && entry.address !== address) || !isLeast(one)) continue;
        gone.push(one);
        this.remove(one);
      }
    };
    takes((one) => !one.hasStarted, SILENT_MS);
    takes((one) => one.awaitsClient, STALLED_MS);
    return gone;
  }
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.') || address.startsWith('::ffff:127.');
}
