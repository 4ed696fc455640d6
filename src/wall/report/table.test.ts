import { describe, expect, it } from 'vitest';
import { samplePoint, sampleResult, sampleSearch } from '../../../test/support/sample-sweep.ts';
import type { ProgressEvent } from '../measure/progress.ts';
import type { SweepPoint } from '../measure/sweep.ts';
import { verdictOf } from '../measure/verdict.ts';
import { formatPoint, WallTable } from './table.ts';

describe('formatPoint', () => {
  it.each<[Partial<SweepPoint>, string]>([
    [{ clients: 16, tps: 54_100.4 }, 'clients=  16  tps=     54100  p50= 0.29 ms  p99= 0.91 ms'],
    [{ p50Ms: 12.345, p99Ms: 1234.5 }, 'clients=   8  tps=      1000  p50=12.35 ms  p99= 1235 ms'],
    [
      { errors: { '23505': 3 } },
      'clients=   8  tps=      1000  p50= 0.29 ms  p99= 0.91 ms  errors: 3 × 23505',
    ],
    [
      { tpsPlusMinus: 12, voidReasons: ['steal', 'unsteady'], purpose: 'confirm' },
      'clients=   8  tps=      1000  p50= 0.29 ms  p99= 0.91 ms  ±1.2%  afresh  void: steal, unsteady',
    ],
    [
      { clientBound: true, generatorCpuShare: 0.98 },
      'clients=   8  tps=      1000  p50= 0.29 ms  p99= 0.91 ms  client-bound: the generator used 1.0 cores, the server could do more',
    ],
  ])('prints %j', (fields, line) => {
    expect(formatPoint(samplePoint(fields))).toBe(line);
  });
});

describe('WallTable', () => {
  const events: ProgressEvent[] = [
    { kind: 'preparing' },
    { kind: 'connecting', clients: 8 },
    { kind: 'running', clients: 8, phase: 'warmup', elapsedSeconds: 0.5, phaseSeconds: 1, tps: 900 },
    { kind: 'running', clients: 8, phase: 'window', elapsedSeconds: 2.5, phaseSeconds: 5, tps: 990 },
    { kind: 'point', point: samplePoint() },
    { kind: 'skipped', skipped: { clients: 256, reason: 'too many' } },
    { kind: 'cleaning' },
  ];

  function written(isTerminal: boolean): string {
    let text = '';
    const table = new WallTable({ write: (part) => (text += part), isTerminal });
    for (const event of events) table.tell(event);
    table.end();
    return text;
  }

  it('writes whole lines only into a log', () => {
    expect(written(false)).toBe(
      'clients=   8  tps=      1000  p50= 0.29 ms  p99= 0.91 ms\nclients= 256  skipped: too many\n',
    );
  });

  it('leaves the same lines on a terminal, and shows what goes on meanwhile', () => {
    const text = written(true);
    expect(text).toContain('\r\x1b[2Kclients=   8  tps=       990   50% of 5 s …');
    // What a terminal shows in the end: of each line, what was written after its last erasure.
    const shown = text.split('\n').map((line) => line.split('\r\x1b[2K').at(-1));
    expect(`${shown.slice(0, -1).join('\n')}\n`).toBe(written(false));
    expect(shown.at(-1)).toBe('');
  });
});

describe('verdictOf', () => {
  const curve = (rates: readonly number[], fields: Partial<SweepPoint> = {}) =>
    sampleResult(rates.map((tps, index) => samplePoint({ clients: 2 ** index, tps, ...fields })));

  it('tells a wall from a curve that still rises', () => {
    expect(verdictOf(curve([100, 200, 390, 400, 380]))).toContain(
      'about 400 transactions a second, reached with 4 clients; 16 clients gave 380',
    );
    expect(verdictOf(curve([100, 200, 400]))).toContain('not reached: at least 400');
    expect(verdictOf(curve([100]))).toContain('not reached');
    expect(verdictOf(curve([]))).toBe('Nothing was measured.');
  });

  it('does not take the generator’s end for the server’s', () => {
    const verdict = verdictOf(curve([100, 100, 100], { clientBound: true }));
    expect(verdict).toContain('not reached');
    expect(verdict).toContain('load generator itself was at its limit');
  });

  it('says what the machine was at', () => {
    expect(verdictOf(curve([100, 100], { machineBusyShare: 0.97 }))).toContain('97% busy');
    expect(verdictOf(curve([100, 100], { machineBusyShare: 0.5 }))).not.toContain('busy');
    const crowded = verdictOf(curve([100, 100], { machineBusyShare: 0.97, othersShare: 0.4 }));
    expect(crowded).toContain('Other programs took 40% of this machine');
    expect(crowded).not.toContain('CPU is what ends it');
    expect(verdictOf(curve([100, 100], { stealShare: 0.2 }))).toContain('hypervisor took 20%');
    expect(verdictOf(curve([100, 100], { errors: { '40001': 7 } }))).toContain('7 transactions failed');
  });

  it('tells what a search has found', () => {
    const found = sampleSearch();
    expect(verdictOf(found)).toBe(
      'The wall is at 1,402 ± 15 transactions a second, reached with 4 clients, flat to 16 (more were not tried).',
    );
    const wall = {
      kind: 'not-reached',
      rate: { tps: 900, plusMinus: 20 },
      clients: 64,
      afresh: true,
    } as const;
    expect(verdictOf({ ...found, wall: { ...wall, because: 'connections' } })).toContain(
      'not reached: at least 900 ± 20 transactions a second, with 64 clients; the server has no more connections',
    );
    expect(verdictOf({ ...found, wall: { kind: 'void', reasons: ['steal'] } })).toContain(
      'every point was void (steal)',
    );
  });

  it('leaves void points out of what it says', () => {
    const point = (clients: number, tps: number) => samplePoint({ clients, tps });
    const spike = samplePoint({ clients: 4, tps: 5000, voidReasons: ['unsteady'] });
    const verdict = verdictOf(sampleResult([point(1, 100), point(2, 200), spike, point(8, 201)]));
    expect(verdict).toContain('about 201 transactions a second, reached with 2 clients');
  });

  it('tells what an open loop kept', () => {
    const slo = { objective: 'p99=50ms', points: 9, exhausted: false } as const;
    const of = (more: object) =>
      verdictOf({ ...sampleResult([samplePoint()]), slo: { ...slo, kind: 'found', ...more } });
    expect(of({ rate: 800, low: 780, high: 850 })).toContain(
      'p99=50ms holds up to 800 transactions a second (every point at 780 and below kept it, every point at 850',
    );
    expect(of({ kind: 'never' })).toContain('does not hold at any rate');
    expect(of({ kind: 'always', rate: 900, exhausted: true })).toContain('up to 900');
  });
});
