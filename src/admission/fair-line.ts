/**
 * Who waits, by role and in a role by tenant, served in turns: each role has its turn, however many wait of another, and in it
 * each of its tenants. Of one tenant whoever came first is first.
 *
 * Invariant: after its turn a role, and a tenant in its role, is behind all others that wait.
 */

interface RoleLine<T> {
  /** In the order of their turns. Sets keep the order of arrival. */
  readonly tenants: Map<string | undefined, Set<T>>;
  count: number;
}

export interface Waits {
  readonly role: string;
  /** undefined: it has none, and shares its turn with its like. */
  readonly tenant: string | undefined;
}

export class FairLine<T extends Waits> {
  readonly #roles = new Map<string, RoleLine<T>>();
  #count = 0;

  get count(): number {
    return this.#count;
  }

  countOf(role: string): number {
    return this.#roles.get(role)?.count ?? 0;
  }

  add(one: T): void {
    let line = this.#roles.get(one.role);
    if (!line) {
      line = { tenants: new Map(), count: 0 };
      this.#roles.set(one.role, line);
    }
    const own = line.tenants.get(one.tenant);
    if (own) own.add(one);
    else line.tenants.set(one.tenant, new Set([one]));
    line.count++;
    this.#count++;
  }

  remove(one: T): boolean {
    const line = this.#roles.get(one.role);
    const own = line?.tenants.get(one.tenant);
    if (!line || !own?.delete(one)) return false;
    if (own.size === 0) line.tenants.delete(one.tenant);
    if (--line.count === 0) this.#roles.delete(one.role);
    this.#count--;
    return true;
  }

  /** Takes out whoever's turn it is, of those that fit. */
  take(fits: { role(role: string): boolean; one(one: T): boolean }): T | undefined {
    for (const [role, line] of this.#roles) {
      if (!fits.role(role)) continue;
      for (const [tenant, own] of line.tenants) {
        const [first] = own;
        if (!first || !fits.one(first)) continue;
        this.remove(first);
        if (own.size > 0) {
          line.tenants.delete(tenant);
          line.tenants.set(tenant, own);
        }
        if (line.count > 0) {
          this.#roles.delete(role);
          this.#roles.set(role, line);
        }
        return first;
      }
    }
    return undefined;
  }

  /** Of the role with the most, and of that its tenant with the most, the one that came last. */
  lastOfMost(): T | undefined {
    let most: RoleLine<T> | undefined;
    for (const line of this.#roles.values()) if (!most || line.count > most.count) most = line;
    let own: Set<T> | undefined;
    for (const one of most?.tenants.values() ?? []) if (!own || one.size > own.size) own = one;
    return own && [...own].at(-1);
  }
}
