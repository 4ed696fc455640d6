/**
 * Checkers of histories: could a serial order that PostgreSQL might have chosen have given these answers? Times are a count of
 * what the test has seen, so that what ended before another began is known for certain.
 */

export interface Interval {
  readonly start: number;
  readonly end: number;
}

/** One committed `SET n = n + 1 … RETURNING n` of one row that began with 0. */
export interface Increment extends Interval {
  readonly value: number;
}

/** What is wrong; undefined: nothing. */
export function checkIncrements(increments: readonly Increment[], final: number): string | undefined {
  const byValue = [...increments].sort((a, b) => a.value - b.value);
  for (const [i, { value }] of byValue.entries())
    if (value !== i + 1) return `${value} where ${i + 1} was due`;
  if (byValue.length !== final) return `${final} at the end after ${byValue.length} increments`;
  let latestStart = -1;
  for (const { start, end, value } of byValue) {
    if (end < latestStart) return `${value} was answered before a lower value was asked for`;
    latestStart = Math.max(latestStart, start);
  }
  return undefined;
}

/** What one statement learnt of, or did to, the row of one key. */
export type KeyOperation = Interval &
  (
    | { readonly kind: 'inserted' | 'deleted'; readonly owner: string }
    /** A duplicate, so the row was there; or no row was found. */
    | { readonly kind: 'exists' | 'missing' }
  );

/** As for any linearizable object: an order of the operations that agrees with their times and with what each saw. */
export function checkKey(
  operations: readonly KeyOperation[],
  finalOwner: string | undefined,
): string | undefined {
  const sorted = [...operations].sort((a, b) => a.start - b.start);
  const dead = new Set<string>();
  const search = (done: ReadonlySet<number>, owner: string | undefined): boolean => {
    const taken = new Set(done);
    // Whoever only looks takes the first chance: that never spoils a later one.
    for (let found = true; found; ) {
      found = false;
      for (const i of candidates(sorted, taken)) {
        const { kind } = sorted[i]!;
        if (kind === (owner === undefined ? 'missing' : 'exists')) {
          taken.add(i);
          found = true;
        }
      }
    }
    if (taken.size === sorted.length) return owner === finalOwner;
    const key = `${owner}:${sorted.map((_, i) => (taken.has(i) ? '' : i)).join(' ')}`;
    if (dead.has(key)) return false;
    for (const i of candidates(sorted, taken)) {
      const operation = sorted[i]!;
      if (operation.kind === 'inserted' && owner === undefined) {
        if (search(new Set(taken).add(i), operation.owner)) return true;
      } else if (operation.kind === 'deleted' && owner === operation.owner) {
        if (search(new Set(taken).add(i), undefined)) return true;
      }
    }
    dead.add(key);
    return false;
  };
  return search(new Set(), undefined) ? undefined : `no serial order explains ${JSON.stringify(sorted)}`;
}

/** Those that may come next: nothing that remains has ended before they began. */
function candidates(sorted: readonly KeyOperation[], taken: ReadonlySet<number>): number[] {
  let firstEnd = Number.POSITIVE_INFINITY;
  for (const [i, { end }] of sorted.entries()) if (!taken.has(i)) firstEnd = Math.min(firstEnd, end);
  return sorted.flatMap(({ start }, i) => (!taken.has(i) && start < firstEnd ? [i] : []));
}
