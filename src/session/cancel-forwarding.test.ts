import { expect, it } from 'vitest';
import { cancelKey, sealCancel } from './cancel-envelope.ts';
import { CancelForwarding } from './cancel-forwarding.ts';
import { SessionIds } from './session-ids.ts';

const KEY = cancelKey(Buffer.alloc(32, 7));
const SECRET = Buffer.from('1234');
const idOf = (slot: number): number => new SessionIds().next(() => false, { slot, worker: 0, generation: 0 });

/** Two routers on one channel; the clock is home's and everybody's. */
function world() {
  const clock = { ms: 1_000_000 };
  const channel: string[] = [];
  const accepted: [number, string][] = [];
  const home = { isAway: false, slots: new Set([1, 2]), asked: 0 };
  const open = () =>
    new CancelForwarding({
      key: KEY,
      routers: {
        hasSlot: async (slot) => {
          home.asked++;
          return home.slots.has(slot);
        },
        homeNowMs: () => clock.ms,
        publish: async (payload) => {
          if (home.isAway) throw new Error('away');
          channel.push(payload);
        },
      },
      accept: (id, key) => void accepted.push([id, key.toString()]),
      now: () => clock.ms,
    });
  return { clock, channel, accepted, home, first: open(), second: open() };
}

it('brings a request to the other router', async () => {
  const { first, second, channel, accepted } = world();
  await first.forward(idOf(2), SECRET, '10.0.0.1');
  second.receive(channel[0]!);
  expect(accepted).toEqual([[idOf(2), '1234']]);
  expect(first.counters).toEqual({ sent: 1, received: 0, dropped: 0, refused: 0 });
  expect(second.counters).toEqual({ sent: 0, received: 1, dropped: 0, refused: 0 });
});

it('takes each message once, and none that is old or was never sent by a router', async () => {
  const { first, second, channel, accepted, clock } = world();
  await first.forward(idOf(2), SECRET, undefined);
  await first.forward(idOf(2), SECRET, undefined);
  second.receive(channel[0]!);
  second.receive(channel[0]!);
  second.receive('anything');
  expect(accepted).toHaveLength(1);
  clock.ms += 30_001;
  second.receive(channel[1]!);
  expect(accepted).toHaveLength(1);
  const future = { sessionId: 1, secretKey: SECRET, sentAtMs: clock.ms + 30_001 };
  second.receive(sealCancel(future, KEY));
  expect(accepted).toHaveLength(1);
  expect(second.counters.refused).toBe(4);
});

it('remembers a message for as long as it could pass as young', async () => {
  const { second, accepted, clock } = world();
  const early = sealCancel({ sessionId: 1, secretKey: SECRET, sentAtMs: clock.ms + 29_999 }, KEY);
  second.receive(early);
  for (let i = 0; i < 65; i++) {
    clock.ms += 1_000;
    second.receive(early);
    second.receive(sealCancel({ sessionId: 2, secretKey: SECRET, sentAtMs: clock.ms }, KEY));
  }
  expect(accepted.filter(([id]) => id === 1)).toHaveLength(1);
});

it('takes none again when home’s clock is set back', () => {
  const { second, accepted, clock } = world();
  const now = () => sealCancel({ sessionId: 1, secretKey: SECRET, sentAtMs: clock.ms }, KEY);
  const early = now();
  second.receive(early);
  clock.ms += 100_000;
  second.receive(now());
  clock.ms -= 90_000;
  second.receive(early);
  expect(accepted).toHaveLength(2);
  clock.ms += 60_000;
  second.receive(now());
  expect(accepted).toHaveLength(3);
});

it('sends nothing for slots that nobody has, nonsense, or while home is away', async () => {
  const { first, channel, home } = world();
  await first.forward(idOf(3), SECRET, undefined);
  await first.forward(-5, SECRET, undefined);
  await first.forward(idOf(2), Buffer.alloc(0), undefined);
  await first.forward(idOf(2), Buffer.alloc(257), undefined);
  home.isAway = true;
  await first.forward(idOf(2), SECRET, undefined);
  expect(channel).toEqual([]);
  expect(first.counters.dropped).toBe(5);
});

it('does not let guesses reach home without bound, and one who guesses leaves room for others', async () => {
  const { first, channel, home, clock } = world();
  for (let i = 0; i < 10_000; i++) await first.forward(idOf(2), SECRET, '10.0.0.1');
  expect(channel.length).toBe(50);
  expect(home.asked).toBe(50);
  await first.forward(idOf(2), SECRET, '10.0.0.2');
  expect(channel.length).toBe(51);
  // Many addresses.
  for (let i = 0; i < 10_000; i++) await first.forward(idOf(2), SECRET, `10.1.${i >> 8}.${i & 255}`);
  expect(channel.length).toBe(200);
  clock.ms += 1_000;
  for (let i = 0; i < 10_000; i++) await first.forward(idOf(2), SECRET, `10.2.${i >> 8}.${i & 255}`);
  expect(channel.length).toBe(300);
});
