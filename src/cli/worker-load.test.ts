import { describe, expect, it } from 'vitest';
import { LoadWindow, type Spent, TICK_MS } from './worker-load.ts';

/** After so many ticks in which a share of the CPU was used. */
function spentAfter(ticks: number, share: number, active = share): Spent {
  const wallMs = ticks * TICK_MS;
  return { wallMs, cpuMs: wallMs * share, activeMs: wallMs * active };
}

describe('the load of a worker', () => {
  it('is that of the last second', () => {
    const window = new LoadWindow(spentAfter(0, 0));
    expect(window.report().load).toBe(0);
    for (let tick = 1; tick <= 8; tick++) window.tick(spentAfter(tick, 0.5));
    expect(window.report().load).toBeCloseTo(0.5);
    const at = spentAfter(8, 0.5);
    for (let tick = 9; tick <= 12; tick++) window.tick({ ...at, wallMs: tick * TICK_MS });
    expect(window.report().load).toBe(0);
  });

  it('has neither the time it waited for a core nor that of other threads', () => {
    const waiting = new LoadWindow(spentAfter(0, 0));
    waiting.tick(spentAfter(1, 0.3, 0.9));
    expect(waiting.report().load).toBeCloseTo(0.3);
    const threads = new LoadWindow(spentAfter(0, 0));
    threads.tick(spentAfter(1, 1.5, 0.4));
    expect(threads.report().load).toBeCloseTo(0.4);
  });

  it('tells those who were there all the time from those who came', () => {
    const window = new LoadWindow(spentAfter(0, 0));
    const early = [window.arrived(), window.arrived(), window.arrived()];
    window.tick(spentAfter(1, 0));
    expect(window.report()).toMatchObject({ clients: 3, settled: 0, settledThen: 0, taken: 3 });
    for (let tick = 2; tick <= 5; tick++) window.tick(spentAfter(tick, 0));
    expect(window.report()).toMatchObject({ clients: 3, settled: 3, settledThen: 3, taken: 3 });
    window.left(early[0]!);
    const late = window.arrived();
    expect(window.report()).toMatchObject({ clients: 3, settled: 2, settledThen: 3, taken: 4 });
    window.left(late);
    expect(window.report()).toMatchObject({ clients: 2, settled: 2, settledThen: 3, taken: 4 });
    for (let tick = 6; tick <= 10; tick++) window.tick(spentAfter(tick, 0));
    expect(window.report()).toMatchObject({ clients: 2, settled: 2, settledThen: 2, taken: 4 });
  });
});
