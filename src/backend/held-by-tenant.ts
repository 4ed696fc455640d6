/** How many connections of a pool each tenant has: counted on every loan, so an array where it is a bucket's number. */
import { BOUNDS } from '../base/bounds.ts';
import type { Tenant } from './waiting-line.ts';

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
