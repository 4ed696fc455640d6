/**
 * Which role is next where a connection serves one role only and fewer can be open than roles want. Pure.
 *
 * Invariant: a role whose connection has just been opened keeps it for `roleTurnMs`, and for a transaction at least. Else, where all
 * that want one have none, connections would be opened and closed in turn, and none would ever be used.
 */
import { BOUNDS } from '../base/bounds.ts';

export interface RoleCount {
  readonly user: string;
  /** Connections that it has. */
  readonly count: number;
}

export class RoleTurns {
  /** When a connection was opened for a role last. Monotonic milliseconds. */
  readonly #begunAtMs = new Map<string, number>();

  begin(user: string, nowMs: number): void {
    this.#begunAtMs.set(user, nowMs);
  }

  /** Has a connection of this role come back that had better be of `other`, which has waited long enough? `own.count` is without it. */
  isOver(own: RoleCount, other: RoleCount, nowMs: number): boolean {
    // Where it changes nothing for the better, it stays.
    if (other.count > 0) return other.count + 1 < own.count;
    return own.count > 0 || nowMs - this.#begunOf(own) >= BOUNDS.roleTurnMs;
  }

  /** Whoever has fewer, of equals the one whose last turn is longer ago. */
  isBefore(a: RoleCount, b: RoleCount): boolean {
    return a.count === b.count ? this.#begunOf(a) < this.#begunOf(b) : a.count < b.count;
  }

  #begunOf({ user }: RoleCount): number {
    return this.#begunAtMs.get(user) ?? Number.NEGATIVE_INFINITY;
  }
}
