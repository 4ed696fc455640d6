import fc from 'fast-check';
import { expect, it } from 'vitest';
import { SessionIds, SLOT_MAX, slotOf, workerOf } from './session-ids.ts';

const place = fc.record({
  slot: fc.integer({ min: 0, max: SLOT_MAX }),
  worker: fc.integer({ min: 0, max: 127 }),
  generation: fc.nat(9),
});

it('say where a session is, as positive numbers of 31 bits', () => {
  fc.assert(
    fc.property(place, (of) => {
      const id = new SessionIds().next(() => false, of);
      expect(id).toBeGreaterThan(0);
      expect(id).toBeLessThan(2 ** 31);
      expect([slotOf(id), workerOf(id)]).toEqual([of.slot, of.worker]);
    }),
  );
});

it('are never given twice while in use, by processes of one place that follow each other, or by others', () => {
  const used = new Set<number>();
  for (const slot of [0, 1, 127])
    for (const worker of [0, 1, 119])
      for (const generation of [0, 1]) {
        const ids = new SessionIds();
        for (let i = 0; i < 500; i++) {
          const id = ids.next(() => false, { slot, worker, generation });
          expect(used.has(id)).toBe(false);
          used.add(id);
        }
      }
});

it('go round, past those that are still in use', () => {
  const ids = new SessionIds();
  const of = { slot: 3, worker: 2, generation: 0 };
  const first = ids.next(() => false, of);
  const seen = new Set<number>();
  for (let i = 0; i < 0x10000; i++) seen.add(ids.next((id) => id === first, of));
  expect(seen.has(first)).toBe(false);
  expect(seen.size).toBe(0xffff - 1);
  expect(() => ids.next(() => true, of)).toThrow('sorry, too many clients already');
});
