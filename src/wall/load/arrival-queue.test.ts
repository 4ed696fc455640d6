import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ArrivalQueue } from './arrival-queue.ts';

describe('ArrivalQueue', () => {
  it('does what an array does, up to its capacity', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5 }),
        fc.array(fc.constantFrom('push', 'shift')),
        (capacity, acts) => {
          const queue = new ArrivalQueue(capacity);
          const plain: number[] = [];
          acts.forEach((act, index) => {
            if (act === 'push' && plain.length < capacity) {
              queue.push(index);
              plain.push(index);
            } else if (act === 'shift' && plain.length > 0) {
              expect(queue.head).toBe(plain.shift());
              queue.shift();
            }
            expect([queue.size, queue.isFull]).toEqual([plain.length, plain.length === capacity]);
          });
        },
      ),
    );
  });

  it('refuses what it has no room for, and what is not there', () => {
    const queue = new ArrivalQueue(1);
    expect(() => queue.head).toThrow();
    expect(() => queue.shift()).toThrow();
    queue.push(1);
    expect(() => queue.push(2)).toThrow();
  });
});
