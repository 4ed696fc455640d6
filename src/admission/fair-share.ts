/**
 * Who goes first where fewer may go than wait: a share that is fair to tenants. Pure.
 *
 * As in a queue, the first `size` places go to the kinds of those who came first: those of a named tenant, those of a bucket (which
 * stands for the tenant of a shard key), those of which nothing is known. Within a kind, tenants take turns, in the order in which they
 * came: so a tenant with many waiting has no more of a share than others, and whoever is alone of its kind finds the queue as ever.
 *
 * Invariant: of one tenant, and of those of which nothing is known, whoever came first goes first.
 */

export interface Sharer {
  /** A name, or a bucket's number; undefined: not known. */
  readonly tenant: string | number | undefined;
}

/** Are the first `size` all of those of which nothing is known? Then they are the fair share. */
export function goByArrival(waiting: readonly Sharer[], size: number): boolean {
  for (let i = 0; i < size; i++) if (waiting[i]!.tenant !== undefined) return false;
  return true;
}

/** `waiting`: in the order of arrival, more than `size`. Gives `size` of them. */
export function fairShare<T extends Sharer>(waiting: readonly T[], size: number): Set<T> {
  const chosen = new Set<T>();
  let named = 0;
  let keyed = 0;
  for (let i = 0; i < size; i++) {
    const one = waiting[i]!;
    if (typeof one.tenant === 'string') named++;
    else if (one.tenant !== undefined) keyed++;
    else chosen.add(one);
  }
  if (named > 0) takeTurns(waiting, { type: 'string', places: named }, chosen);
  if (keyed > 0) takeTurns(waiting, { type: 'number', places: keyed }, chosen);
  return chosen;
}

function takeTurns<T extends Sharer>(
  waiting: readonly T[],
  { type, places }: { readonly type: 'string' | 'number'; readonly places: number },
  chosen: Set<T>,
): void {
  const byTenant = new Map<Sharer['tenant'], T[]>();
  for (const one of waiting) {
    if (typeof one.tenant !== type) continue;
    const own = byTenant.get(one.tenant);
    if (own) own.push(one);
    else byTenant.set(one.tenant, [one]);
  }
  let tenants = [...byTenant.values()];
  let left = places;
  for (let turn = 0; left > 0; turn++) {
    for (const own of tenants) {
      if (left === 0) return;
      chosen.add(own[turn]!);
      left--;
    }
    tenants = tenants.filter((own) => own.length > turn + 1);
  }
}
