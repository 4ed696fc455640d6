/** What tenants have of a pool's connections: how many each, and whether several use it at all. */
import { BOUNDS } from '../base/bounds.ts';
import type { Tenant } from './waiting-line.ts';

/** Counted on every loan, so an array where it is a bucket's number. */
export class HeldByTenant {
  readonly #buckets = new Uint16Array(BOUNDS.bucketsMax);
  readonly #named = new Map<string, number>();

  of(tenant: Tenant): number {
    if (typeof tenant === 'number') return this.#buckets[tenant] ?? 0;
    return tenant === undefined ? 0 : (this.#named.get(tenant) ?? 0);
  }

  count(tenant: Tenant, by: 1 | -1): void {
    if (tenant === undefined) return;
    if (typeof tenant === 'number') {
      this.#buckets[tenant]! += by;
      return;
    }
    const held = this.of(tenant) + by;
    if (held > 0) this.#named.set(tenant, held);
    else this.#named.delete(tenant);
  }
}

/** So many seconds after several tenants have used a pool, they may again. */
const SHARED_TICKS = 10;

/** Do several tenants use it, those of which nothing is known being one? Told on every loan, and once a second. */
export class SharedUse {
  #last: Tenant;
  #hasLast = false;
  #changed = false;
  #ticksLeft = 0;

  get isShared(): boolean {
    return this.#changed || this.#ticksLeft > 0;
  }

  note(tenant: Tenant): void {
    if (tenant === this.#last && this.#hasLast) return;
    if (this.#hasLast) this.#changed = true;
    this.#last = tenant;
    this.#hasLast = true;
  }

  tick(): void {
    this.#ticksLeft = this.#changed ? SHARED_TICKS : Math.max(0, this.#ticksLeft - 1);
    this.#changed = false;
  }
}
