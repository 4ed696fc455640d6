import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ControlConnection } from './control-connection.ts';
import { backoffMs, Reconnecting } from './reconnecting.ts';

describe('backoffMs', () => {
  it('grows to its bound, and a fifth more or less', () => {
    const options = { firstMs: 100, maxMs: 2_000 };
    expect(
      [0, 1, 2, 3, 4, 5, 60].map((tries) => backoffMs({ ...options, tries, random: () => 0.5 })),
    ).toEqual([100, 200, 400, 800, 1_600, 2_000, 2_000]);
    fc.assert(
      fc.property(fc.nat(100), fc.double({ min: 0, max: 1, noNaN: true }), (tries, random) => {
        const middle = backoffMs({ ...options, tries, random: () => 0.5 });
        const pause = backoffMs({ ...options, tries, random: () => random });
        expect(Math.abs(pause - middle)).toBeLessThanOrEqual(middle * 0.2 + 1e-9);
      }),
    );
  });
});

/** As far as Reconnecting uses one. */
class Connection {
  lost = false;
  isClosed = false;
  readonly #listeners: (() => void)[] = [];

  onLost(listener: () => void): void {
    this.#listeners.push(listener);
  }

  lose(): void {
    this.lost = true;
    for (const listener of this.#listeners) listener();
  }

  destroy(): void {
    this.lose();
  }

  async close(): Promise<void> {
    this.isClosed = true;
  }
}

function world(failures = 0) {
  const opened: Connection[] = [];
  const told: string[] = [];
  let left = failures;
  const link = new Reconnecting({
    open: async () => {
      if (opened.length > 0 && left-- > 0) throw new Error('refused');
      const connection = new Connection();
      opened.push(connection);
      return connection as unknown as ControlConnection;
    },
    firstMs: 1,
    maxMs: 2,
    onAway: (reason) => told.push(`away: ${reason}`),
    onBack: () => told.push('back'),
  });
  return { link, opened, told };
}

describe('Reconnecting', () => {
  it('opens again after a loss, however often that fails', async () => {
    const { link, opened, told } = world(3);
    await link.start();
    opened[0]!.lose();
    expect(link.current).toBeUndefined();
    await expect.poll(() => told).toEqual(['away: the connection was lost', 'back']);
    expect(link.current).toBe(opened[1]);
    await link.stop();
    expect(opened[1]!.isClosed).toBe(true);
  });

  it('gives up one that answers wrongly, once', async () => {
    const { link, opened, told } = world();
    await link.start();
    link.giveUp(link.current!, 'overdue');
    await expect.poll(() => told).toEqual(['away: overdue', 'back']);
    opened[0]!.lose();
    expect(link.current).toBe(opened[1]);
    await link.stop();
  });

  it('opens nothing after its end, and lets go of what is opened meanwhile', async () => {
    const { link, opened } = world();
    const started = link.start();
    await link.stop();
    await started;
    expect(link.current).toBeUndefined();
    expect(opened[0]!.lost).toBe(true);
    expect(opened).toHaveLength(1);
  });

  it('is told of a first failure, and tries no more', async () => {
    const link = new Reconnecting({
      open: () => Promise.reject(new Error('refused')),
      firstMs: 1,
      maxMs: 1,
      onAway: () => {},
      onBack: () => {},
    });
    await expect(link.start()).rejects.toThrow('refused');
  });
});
