import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PosternError } from '../base/errors.ts';
import { IdLeases, type LeaseIds } from './ids.ts';

/** The catalog as a counter: what leaseIdBlocks does, without a server. */
function counter(max = Number.MAX_SAFE_INTEGER): { lease: LeaseIds; counts: number[] } {
  const next = new Map<string, number>();
  const counts: number[] = [];
  return {
    counts,
    lease: async ({ tableId, column, count }) => {
      counts.push(count);
      const key = `${tableId}.${column}`;
      const first = next.get(key) ?? 1;
      if (first > max) throw new PosternError({ sqlState: '2200H', message: 'reached maximum' });
      const last = Math.min(first + count - 1, max);
      next.set(key, last + 1);
      return [{ first, last }];
    },
  };
}

describe('IdLeases', () => {
  test('has none at first, then hands out without waiting', async () => {
    const { lease, counts } = counter();
    const ids = new IdLeases({ lease });
    expect(ids.next(1, 'id')).toBeUndefined();
    expect(await ids.take(1, 'id', 3)).toEqual([1, 2, 3]);
    expect(ids.next(1, 'id')).toBe(4);
    expect(ids.next(2, 'id')).toBeUndefined();
    expect(counts).toEqual([1000]);
  });

  test('fetches the next block when half of one is used, so that next() goes on', async () => {
    const { lease, counts } = counter();
    const ids = new IdLeases({ lease });
    await ids.take(1, 'id', 400);
    expect(counts).toHaveLength(1);
    await ids.take(1, 'id', 200);
    expect(counts).toHaveLength(2);
    for (let id = 601; id <= 1001; id++) expect(ids.next(1, 'id')).toBe(id);
  });

  test('blocks grow while they are used up fast, and shrink when they last', async () => {
    const { lease, counts } = counter();
    let nowMs = 0;
    const ids = new IdLeases({ lease, nowMs: () => nowMs });
    await ids.take(1, 'id', 300_000);
    expect(Math.max(...counts)).toBe(100_000);
    for (let i = 0; i < 10; i++) {
      nowMs += 100_000;
      await ids.take(1, 'id', 100_000);
    }
    expect(counts.at(-1)).toBeLessThan(100_000);
  });

  test('ids are unique over two routers, whoever asks for how many', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ router: fc.nat(1), count: fc.integer({ min: 1, max: 3000 }) }), {
          maxLength: 20,
        }),
        async (requests) => {
          const { lease } = counter();
          const routers = [new IdLeases({ lease }), new IdLeases({ lease })];
          const taken = await Promise.all(
            requests.map(({ router, count }) => routers[router]!.take(1, 'id', count)),
          );
          const all = taken.flat();
          expect(new Set(all).size).toBe(requests.reduce((sum, request) => sum + request.count, 0));
        },
      ),
      { numRuns: 50 },
    );
  });

  test('at the end of the type: 2200H, after the last id', async () => {
    const ids = new IdLeases({ lease: counter(1500).lease });
    expect(await ids.take(1, 'id', 1500)).toHaveLength(1500);
    await expect(ids.take(1, 'id', 1)).rejects.toMatchObject({ sqlState: '2200H' });
  });

  test('a catalog that is away, or silent, is 53000 in bounded time; afterwards it works again', async () => {
    const { lease } = counter();
    let mode: 'refuse' | 'silent' | 'work' = 'refuse';
    const ids = new IdLeases({
      timeoutMs: 20,
      lease: (request) => {
        if (mode === 'work') return lease(request);
        if (mode === 'silent') return new Promise((_, reject) => setTimeout(reject, 100, new Error('late')));
        return Promise.reject(new PosternError({ sqlState: '08001', message: 'away' }));
      },
    });
    await expect(ids.take(1, 'id', 1)).rejects.toMatchObject({ sqlState: '53000', detail: 'away' });
    mode = 'silent';
    await expect(ids.take(1, 'id', 1)).rejects.toMatchObject({ sqlState: '53000' });
    mode = 'work';
    await expect.poll(() => ids.take(1, 'id', 1).catch(() => undefined)).toEqual([1]);
  });

  test('a lease of several blocks is used to its end, and a column that is forgotten begins anew', async () => {
    let leases = 0;
    const lease: LeaseIds = async () => {
      leases++;
      return leases === 1
        ? [
            { first: 1, last: 2 },
            { first: 5, last: 5 },
            { first: 9, last: 10 },
          ]
        : [{ first: 100 * leases, last: 100 * leases + 99 }];
    };
    const ids = new IdLeases({ lease });
    expect(await ids.take(1, 'id', 6)).toEqual([1, 2, 5, 9, 10, 200]);
    ids.forget(1, 'id');
    expect(ids.next(1, 'id')).toBeUndefined();
    expect(await ids.take(1, 'id', 1)).toEqual([300]);
  });

  test('what is on its way when a column is forgotten is not used', async () => {
    const answers: ((blocks: Awaited<ReturnType<LeaseIds>>) => void)[] = [];
    const ids = new IdLeases({ lease: () => new Promise((resolve) => answers.push(resolve)) });
    const early = ids.take(1, 'id', 1);
    ids.forget(1, 'id');
    const late = ids.take(1, 'id', 1);
    await expect.poll(() => answers.length).toBe(2);
    answers[1]!([{ first: 50, last: 60 }]);
    answers[0]!([{ first: 1, last: 10 }]);
    expect(await late).toEqual([50]);
    expect(await early).toEqual([51]);
    expect(ids.next(1, 'id')).toBe(52);
  });
});
