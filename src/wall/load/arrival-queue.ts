/**
 * Arrivals that wait for a free client, by their intended starts: a ring of fixed size, first come, first served. Pure.
 */
import { assert } from '../../base/assert.ts';

export class ArrivalQueue {
  private readonly startsAtMs: Float64Array;
  private first = 0;
  private length = 0;

  constructor(capacity: number) {
    assert(Number.isInteger(capacity) && capacity > 0, 'a queue needs room');
    this.startsAtMs = new Float64Array(capacity);
  }

  get size(): number {
    return this.length;
  }

  get isFull(): boolean {
    return this.length === this.startsAtMs.length;
  }

  /** The intended start of the one that has waited longest; only when there is one. */
  get head(): number {
    assert(this.length > 0, 'the queue is empty');
    return this.startsAtMs[this.first]!;
  }

  push(startAtMs: number): void {
    assert(!this.isFull, 'the queue is full');
    this.startsAtMs[(this.first + this.length) % this.startsAtMs.length] = startAtMs;
    this.length++;
  }

  shift(): void {
    assert(this.length > 0, 'the queue is empty');
    this.first = (this.first + 1) % this.startsAtMs.length;
    this.length--;
  }
}
