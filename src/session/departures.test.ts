import type { Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { type Departure, type Leaver, leaveAll, type Send } from './departures.ts';
import type { PackedState } from './handover-form.ts';

/** What a session does when it is looked at: it rests from its `restsAt`th look on; `moves`: it can go to another process. */
class Guest implements Leaver {
  departure: Departure | undefined;
  ending: 'moved' | 'ended between transactions' | 'ended' | undefined;
  readonly id: number;
  readonly #restsAt: number;
  readonly #moves: boolean;
  readonly #guests: Map<number, Guest>;
  #looks = 0;

  constructor(id: number, of: { guests: Map<number, Guest>; restsAt: number; moves: boolean }) {
    this.id = id;
    this.#guests = of.guests;
    this.#restsAt = of.restsAt;
    this.#moves = of.moves;
    of.guests.set(id, this);
  }

  tryToLeave(): boolean {
    const { departure } = this;
    if (!departure || ++this.#looks < this.#restsAt) return false;
    if (departure.mover && !departure.mover.mayGo) return false;
    if (departure.mover && this.#moves) {
      this.#leave('moved');
      departure.mover.move(this, {} as Socket, {} as PackedState);
      return true;
    }
    if (departure.ends) this.#leave('ended between transactions');
    return departure.ends;
  }

  shutDown(): void {
    this.#leave('ended');
  }

  #leave(how: Guest['ending']): void {
    this.ending = how;
    this.#guests.delete(this.id);
  }
}

async function endings(
  guests: readonly { readonly restsAt: number; readonly moves: boolean }[],
  how: Partial<Parameters<typeof leaveAll>[0]>,
): Promise<(string | undefined)[]> {
  const there = new Map<number, Guest>();
  const all = guests.map((of, id) => new Guest(id, { ...of, guests: there }));
  await leaveAll({ sessions: () => there.values(), announce: () => {}, timeoutMs: 5_000, ...how });
  return all.map(({ ending }) => ending);
}

const NEVER = Number.POSITIVE_INFINITY;

describe('sessions that are to leave', () => {
  it('go one at a time, each as soon as it rests', async () => {
    let underWay = 0;
    const send: Send = async () => {
      expect(++underWay).toBe(1);
      await new Promise(setImmediate);
      underWay--;
    };
    const guests = Array.from({ length: 50 }, (_, i) => ({ restsAt: 1 + (i % 3), moves: true }));
    expect(await endings(guests, { send, spareMs: 5_000 })).toEqual(guests.map(() => 'moved'));
  });

  it('are spared for a while where they can’t go, then ended when they rest, and at last wherever they are', async () => {
    const send: Send = async () => {};
    const ended = await endings(
      [
        { restsAt: 1, moves: true },
        { restsAt: 1, moves: false },
        { restsAt: NEVER, moves: true },
      ],
      { send, spareMs: 100, timeoutMs: 300 },
    );
    expect(ended).toEqual(['moved', 'ended between transactions', 'ended']);
  });

  it('that could go and had to wait for their turn still go when the time is up', async () => {
    const send: Send = () => new Promise((resolve) => setTimeout(resolve, 10));
    const guests = Array.from({ length: 20 }, () => ({ restsAt: 1, moves: true }));
    expect(await endings(guests, { send, spareMs: 20, timeoutMs: 40 })).toEqual(guests.map(() => 'moved'));
  });

  it('are all ended when they have nowhere to go', async () => {
    expect(
      await endings(
        [
          { restsAt: 1, moves: true },
          { restsAt: 3, moves: false },
        ],
        {},
      ),
    ).toEqual(['ended between transactions', 'ended between transactions']);
  });

  it('are not waited for any more when that is said', async () => {
    const atOnce = new AbortController();
    const done = endings([{ restsAt: NEVER, moves: true }], { atOnce: atOnce.signal, timeoutMs: 60_000 });
    atOnce.abort();
    expect(await done).toEqual(['ended']);
  });

  it('are waited for while logins are under way', async () => {
    let looks = 0;
    await endings([], { isMore: () => ++looks < 3 });
    expect(looks).toBeGreaterThanOrEqual(3);
  });
});
