import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  firstShare,
  type ShareState,
  shareAwaited,
  shareEnded,
  shareGone,
  shareOut,
  shareReady,
  shareReported,
  sharesStart,
} from './worker-shares.ts';

function allReady(workers: number, connections: number): ShareState {
  let state = sharesStart({ workers, connections });
  for (let index = 0; index < workers; index++) state = shareReady(state, index);
  return state;
}

function told(state: ShareState): number[] {
  return state.workers.map((worker) => worker.told);
}

describe('the workers’ shares of the connections', () => {
  it('go to the first while nobody has clients, but for a few each', () => {
    expect(told(shareOut(allReady(4, 20), [0, 0, 0, 0], 0).state)).toEqual([14, 2, 2, 2]);
  });

  it('are equal among those with clients', () => {
    let { state } = shareOut(allReady(3, 20), [5, 0, 0], 0);
    expect(told(state)).toEqual([16, 2, 2]);
    const second = shareOut(state, [5, 1, 0], 1_000);
    // The first is told at once; the second has to wait until that is done.
    expect(second.orders).toEqual([{ worker: 0, share: 9 }]);
    state = shareReported(second.state, 0, { share: 16, open: 3 });
    expect(shareOut(state, [5, 1, 0], 1_000).orders).toEqual([]);
    state = shareReported(second.state, 0, { share: 9, open: 12 });
    expect(shareOut(state, [5, 1, 0], 1_000).orders).toEqual([{ worker: 1, share: 6 }]);
    state = shareReported(second.state, 0, { share: 9, open: 9 });
    expect(shareOut(state, [5, 1, 0], 1_000).orders).toEqual([{ worker: 1, share: 9 }]);
  });

  it('stay for a while when the clients have gone', () => {
    const { state } = shareOut(allReady(2, 20), [1, 1], 0);
    const settled = shareOut(shareReported(state, 0, { share: 10, open: 2 }), [1, 0], 29_000);
    expect(told(settled.state)).toEqual([10, 10]);
    const later = shareOut(settled.state, [1, 0], 30_001);
    expect(later.orders).toEqual([{ worker: 1, share: 2 }]);
  });

  it('are one each where there are fewer connections than workers', () => {
    expect(told(shareOut(allReady(4, 2), [9, 9, 9, 9], 0).state)).toEqual([1, 1, 1, 1]);
    expect(firstShare({ workers: 4, connections: 2 })).toBe(1);
  });

  it('make room for the replacement of one while it starts, and its share is free again when the old one has ended', () => {
    let { state } = shareOut(allReady(2, 20), [5, 0], 0);
    expect(told(state)).toEqual([18, 2]);
    const awaited = shareAwaited(state);
    expect(awaited.index).toBe(2);
    const shrunk = shareOut(awaited.state, [5, 0, 0], 1_000);
    expect(shrunk.orders).toEqual([{ worker: 0, share: 16 }]);
    state = shareReported(shrunk.state, 0, { share: 16, open: 16 });
    state = shareReady(state, awaited.index);
    expect(told(state)).toEqual([16, 2, 2]);
    // The sessions have moved.
    const moved = shareOut(shareGone(state, 0), [0, 0, 5], 2_000);
    expect(moved.orders).toEqual([{ worker: 2, share: 18 }]);
    expect(shareAwaited(moved.state).index).toBe(0);
  });

  it('never add up to more than there are, whatever happens in between, and are equal in the end', () => {
    const WORKERS = 3;
    const event = fc.record({
      kind: fc.constantFrom('start', 'end', 'out', 'obey', 'report'),
      worker: fc.nat(WORKERS - 1),
      clients: fc.array(fc.nat(2), { minLength: WORKERS, maxLength: WORKERS }),
      opens: fc.nat(40),
    });
    fc.assert(
      fc.property(
        fc.integer({ min: WORKERS, max: 40 }),
        fc.array(event, { maxLength: 100 }),
        (connections, events) => {
          const first = firstShare({ workers: WORKERS, connections });
          let state = sharesStart({ workers: WORKERS, connections });
          /** What runs: the share heard last, the orders on their way, and what is open. */
          const running = new Map<number, { share: number; orders: number[]; open: number }>();
          let nowMs = 0;
          const out = (clients: number[]) => {
            const result = shareOut(state, clients, nowMs);
            state = result.state;
            for (const { worker, share } of result.orders) running.get(worker)!.orders.push(share);
          };
          for (const { kind, worker, clients, opens } of events) {
            nowMs += 10_000;
            const one = running.get(worker);
            if (kind === 'start' && !one) {
              running.set(worker, { share: first, orders: [], open: 0 });
              state = shareReady(state, worker);
            } else if (kind === 'end') {
              running.delete(worker);
              state = shareEnded(state, worker);
            } else if (kind === 'out') out(clients);
            else if (kind === 'obey' && one) {
              one.share = one.orders.shift() ?? one.share;
              // What is open beyond the share is closed when it can be.
              one.open =
                one.open > one.share ? Math.max(one.share, one.open - opens) : Math.min(one.share, opens);
            } else if (kind === 'report' && one) state = shareReported(state, worker, one);
            let most = first * (WORKERS - running.size);
            for (const { share, open } of running.values()) most += Math.max(share, open);
            expect(most).toBeLessThanOrEqual(connections);
          }
          // Left alone, with clients everywhere, all that run come to equal shares.
          for (let round = 0; round < 4; round++) {
            nowMs += 40_000;
            out([1, 1, 1]);
            for (const [worker, one] of running) {
              one.share = one.orders.at(-1) ?? one.share;
              one.orders = [];
              one.open = Math.min(one.open, one.share);
              state = shareReported(state, worker, one);
            }
          }
          const shares = [...running.values()].map(({ share }) => share);
          if (shares.length > 0) expect(Math.max(...shares) - Math.min(...shares)).toBeLessThanOrEqual(1);
        },
      ),
    );
  });
});
