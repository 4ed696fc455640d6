/**
 * Who waits for a connection to a node, and who is next of a role. Pure.
 *
 * The greater need comes first. Among equals of one role there are three kinds: those whose client has named its tenant, those whose
 * statement names a shard key (its bucket stands for the tenant), and those of which nothing is known, such as the lanes of merged
 * commits. One time whoever has waited longest says which kind is next, the other time it is the kind whose last turn is longest ago;
 * within it the tenant that holds the fewest connections is, of several such the one whose last turn is longest ago. So a tenant with a
 * thousand waiting statements delays another's by no more than its share, of whatever kind that is, and no kind lives at another's cost.
 *
 * Invariant: of one tenant and need, whoever came first is served first.
 */

/** Those with the greater need come first, and find more connections. */
export const NEED = { ordinary: 0, beside: 1, brief: 2 } as const;
export type Need = (typeof NEED)[keyof typeof NEED];
const NEEDS: readonly Need[] = [NEED.brief, NEED.beside, NEED.ordinary];

/** A name, or a bucket's number; undefined: not known. */
export type Tenant = string | number | undefined;

export interface Waits {
  readonly user: string;
  readonly tenant: Tenant;
  readonly need: Need;
  /** Monotonic milliseconds. */
  readonly sinceMs: number;
  /** Of the line's alone: it stands in it. */
  waits: boolean;
}

/** What those who are served hold already. */
export interface Holding {
  /** May one more of this role and need be served? */
  fits(user: string, need: Need): boolean;
  /** Connections that a tenant has. */
  heldBy(tenant: Tenant): number;
  /** How many a named tenant may have, and how many a bucket, where the need is ordinary. */
  readonly perTenant: number;
  readonly perBucket: number;
}

/** Named, keyed, unknown. */
type Kinds<W extends Waits> = readonly [Kind<W>, Kind<W>, Kind<W>];

/** So many roles may be remembered though nobody of them waits. */
const EMPTY_ROLES_MAX = 100;
const SPARE_MAX = 64;

/** In the order of arrival. Those who leave before their turn are passed over when they come to it: nothing is made anew for each. */
class Queue<W extends Waits> {
  tenant: Tenant;
  count = 0;
  #ring: (W | undefined)[] = [undefined, undefined, undefined, undefined];
  #head = 0;
  #tail = 0;

  push(one: W): void {
    if (this.#isFull) {
      // Those who have had their turn stand at the head, mostly: without them there is room.
      this.first();
      if (this.#isFull) this.#grow();
    }
    this.#ring[this.#tail++ & (this.#ring.length - 1)] = one;
  }

  get #isFull(): boolean {
    return this.#tail - this.#head === this.#ring.length;
  }

  first(): W | undefined {
    while (this.#head < this.#tail) {
      const at = this.#head & (this.#ring.length - 1);
      const one = this.#ring[at]!;
      if (one.waits) return one;
      this.#ring[at] = undefined;
      this.#head++;
    }
    return undefined;
  }

  *[Symbol.iterator](): IterableIterator<W> {
    for (let i = this.#head; i < this.#tail; i++) {
      const one = this.#ring[i & (this.#ring.length - 1)]!;
      if (one.waits) yield one;
    }
  }

  #grow(): void {
    const all = [...this];
    const length = all.length * 2 > this.#ring.length ? this.#ring.length * 2 : this.#ring.length;
    this.#ring = Array.from({ length }, (_, i) => all[i]);
    this.#head = 0;
    this.#tail = all.length;
  }
}

class Kind<W extends Waits> {
  readonly all = new Queue<W>();
  /** The number of its last turn. */
  turn = 0;
  /** In the order of their turns. */
  readonly tenants = new Map<Tenant, Queue<W>>();
  /** Queues of tenants that none waits of. */
  readonly #spare: Queue<W>[] = [];

  add(one: W): void {
    this.all.push(one);
    this.all.count++;
    let own = this.tenants.get(one.tenant);
    if (!own) {
      own = this.#spare.pop() ?? new Queue();
      own.tenant = one.tenant;
      this.tenants.set(one.tenant, own);
    }
    own.push(one);
    own.count++;
  }

  remove({ tenant }: W): void {
    this.all.count--;
    const own = this.tenants.get(tenant)!;
    if (--own.count > 0) return;
    this.tenants.delete(tenant);
    // What is left in it has gone, and is let go of.
    own.first();
    if (this.#spare.length < SPARE_MAX) this.#spare.push(own);
  }

  /** undefined: all have as many as they may. No more are looked at than hold something. */
  fairest(heldBy: Holding['heldBy'], most: number): W | undefined {
    if (this.tenants.size === 1 && most === Number.POSITIVE_INFINITY) return this.all.first();
    let best: Queue<W> | undefined;
    let least = most;
    for (const own of this.tenants.values()) {
      const held = heldBy(own.tenant);
      if (held >= least) continue;
      best = own;
      least = held;
      if (held === 0) break;
    }
    return best?.first();
  }

  /** After its turn. */
  rotate(tenant: Tenant): void {
    const own = this.tenants.get(tenant);
    if (!own || this.tenants.size === 1) return;
    this.tenants.delete(tenant);
    this.tenants.set(tenant, own);
  }
}

class RoleLine<W extends Waits> {
  readonly all = new Queue<W>();
  /** By need. */
  readonly kinds: readonly Kinds<W>[] = [newKinds(), newKinds(), newKinds()];
  turns = 0;

  kindOf({ need, tenant }: Waits): Kind<W> {
    const [named, keyed, unknown] = this.kinds[need]!;
    if (typeof tenant === 'string') return named;
    return tenant === undefined ? unknown : keyed;
  }
}

export class WaitingLine<W extends Waits> {
  readonly #all = new Queue<W>();
  readonly #roles = new Map<string, RoleLine<W>>();
  #userCount = 0;
  readonly #countByNeed = [0, 0, 0];

  get count(): number {
    return this.#all.count;
  }

  /** In the order of arrival. */
  [Symbol.iterator](): IterableIterator<W> {
    return this.#all[Symbol.iterator]();
  }

  /** Roles of which somebody waits. */
  get users(): string[] {
    return [...this.#roles].flatMap(([user, { all }]) => (all.count > 0 ? [user] : []));
  }

  get userCount(): number {
    return this.#userCount;
  }

  countOf(user: string): number {
    return this.#roles.get(user)?.all.count ?? 0;
  }

  /** Who has waited longest, of all or of one role. */
  oldest(user?: string): W | undefined {
    return user === undefined ? this.#all.first() : this.#roles.get(user)?.all.first();
  }

  /** Of those who wait; ordinary if nobody does. */
  get greatestNeed(): Need {
    if (this.#countByNeed[NEED.brief]! > 0) return NEED.brief;
    return this.#countByNeed[NEED.beside]! > 0 ? NEED.beside : NEED.ordinary;
  }

  /** As greatestNeed, of one role. */
  greatestNeedOf(user: string): Need {
    const role = this.#roles.get(user);
    for (const need of NEEDS) if (role?.kinds[need]?.some(({ all }) => all.count > 0)) return need;
    return NEED.ordinary;
  }

  /** How many of a role, with at least this need, could be served if there were connections enough. */
  countServable(user: string, least: Need, holding: Holding): number {
    const role = this.#roles.get(user);
    let count = 0;
    for (const need of role ? NEEDS : []) {
      if (need < least) continue;
      const kinds = role!.kinds[need]!;
      for (const kind of kinds) {
        const most = mostOf(kind, kinds, { need, holding });
        if (most === Number.POSITIVE_INFINITY) count += kind.all.count;
        else
          for (const own of kind.tenants.values())
            count += Math.min(own.count, Math.max(0, most - holding.heldBy(own.tenant)));
      }
    }
    return count;
  }

  add(one: W): void {
    const role = this.#roles.get(one.user) ?? this.#newRole(one.user);
    one.waits = true;
    if (role.all.count++ === 0) this.#userCount++;
    this.#all.count++;
    this.#countByNeed[one.need]!++;
    this.#all.push(one);
    role.all.push(one);
    role.kindOf(one).add(one);
  }

  #newRole(user: string): RoleLine<W> {
    if (this.#roles.size - this.#userCount >= EMPTY_ROLES_MAX)
      for (const [other, { all }] of this.#roles) if (all.count === 0) this.#roles.delete(other);
    const role = new RoleLine<W>();
    this.#roles.set(user, role);
    return role;
  }

  /** False: it does not wait. */
  remove(one: W): boolean {
    if (!one.waits) return false;
    one.waits = false;
    const role = this.#roles.get(one.user)!;
    if (--role.all.count === 0) this.#userCount--;
    this.#all.count--;
    this.#countByNeed[one.need]!--;
    role.kindOf(one).remove(one);
    return true;
  }

  removeAll(user?: string): W[] {
    const gone = [...(user === undefined ? this.#all : (this.#roles.get(user)?.all ?? []))];
    for (const one of gone) this.remove(one);
    return gone;
  }

  /** Takes out who is next of a role; undefined: nobody that may be served now. */
  take(user: string, holding: Holding): W | undefined {
    const role = this.#roles.get(user);
    if (!role || role.all.count === 0) return undefined;
    for (const need of NEEDS) {
      if (this.#countByNeed[need] === 0) continue;
      if (!holding.fits(user, need)) continue;
      const next = this.#takeOf(role, need, holding);
      if (next) return next;
    }
    return undefined;
  }

  #takeOf(role: RoleLine<W>, need: Need, holding: Holding): W | undefined {
    const kinds = role.kinds[need]!;
    const byTurn = role.turns % 2 === 1;
    let tried: Set<Kind<W>> | undefined;
    for (;;) {
      let kind: Kind<W> | undefined;
      for (const each of kinds)
        if (each.all.count > 0 && !tried?.has(each) && (!kind || isBefore(each, kind, byTurn))) kind = each;
      if (!kind) return undefined;
      const next = kind.fairest(holding.heldBy, mostOf(kind, kinds, { need, holding }));
      if (next) {
        this.remove(next);
        kind.turn = ++role.turns;
        kind.rotate(next.tenant);
        return next;
      }
      // All of this kind have as many as they may.
      tried ??= new Set();
      tried.add(kind);
    }
  }
}

function isBefore<W extends Waits>(a: Kind<W>, b: Kind<W>, byTurn: boolean): boolean {
  if (byTurn && a.turn !== b.turn) return a.turn < b.turn;
  return a.all.first()!.sinceMs < b.all.first()!.sinceMs;
}

/** How many connections one tenant of this kind may have. */
function mostOf<W extends Waits>(
  kind: Kind<W>,
  [named, keyed]: Kinds<W>,
  { need, holding }: { readonly need: Need; readonly holding: Holding },
): number {
  if (need !== NEED.ordinary) return Number.POSITIVE_INFINITY;
  if (kind === named) return holding.perTenant;
  return kind === keyed ? holding.perBucket : Number.POSITIVE_INFINITY;
}

function newKinds<W extends Waits>(): Kinds<W> {
  return [new Kind<W>(), new Kind<W>(), new Kind<W>()];
}
