import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../load/seeded-random.ts';
import {
  type SearchEffect,
  type SearchEvent,
  type SearchPoint,
  type SearchSettings,
  type SearchState,
  startSearch,
  step,
  type VoidReason,
  type WallOutcome,
} from './search.ts';

const settings: SearchSettings = { clientsMax: 1024, clientsMaxIs: 'max-clients' };
const POINTS_EVER = 120;

function point(clients: number, mean: number, more: Partial<SearchPoint> = {}): SearchPoint {
  return { clients, mean, standardError: mean * 0.005, degrees: 20, voidReasons: [], ...more };
}

interface Run {
  readonly outcome: WallOutcome;
  /** What was measured, as `ramp 4`. */
  readonly asked: readonly string[];
  readonly state: SearchState;
}

/** Drives a search with what `answer` says of each point. */
function run(
  answer: (clients: number, asked: number) => SearchPoint | SearchEvent,
  withSettings: SearchSettings = settings,
): Run {
  const asked: string[] = [];
  let { state, effect }: { state: SearchState; effect: SearchEffect } = startSearch(withSettings);
  while (effect.kind === 'measure') {
    expect(asked.length).toBeLessThan(POINTS_EVER);
    asked.push(`${effect.purpose} ${effect.clients}`);
    const said = answer(effect.clients, asked.length);
    ({ state, effect } = step(state, 'kind' in said ? said : { kind: 'measured', point: said }));
  }
  return { outcome: effect.outcome, asked, state };
}

/** A queue with `servers` places that serve `perServer` a second each: as many clients as places, then flat. */
const queue = (servers: number, perServer: number) => (clients: number) =>
  point(clients, perServer * Math.min(clients, servers));

describe('the search', () => {
  it('doubles until two points gain nothing, bisects to the knee, and measures both afresh', () => {
    const { asked, outcome } = run(queue(24, 1000));
    expect(asked).toEqual([
      ...['ramp 1', 'ramp 2', 'ramp 4', 'ramp 8', 'ramp 16', 'ramp 32', 'ramp 64', 'ramp 128'],
      ...['bisect 23', 'bisect 19', 'bisect 21'],
      ...['confirm 32', 'confirm 23', 'confirm 32', 'confirm 32', 'confirm 23', 'confirm 32'],
    ]);
    expect(outcome).toEqual({
      ...{ kind: 'reached', rate: { tps: 24_000, plusMinus: expect.closeTo(118, -2) } },
      ...{ clients: 23, chosenClients: 32, flatTo: 128, fallsAfter: false, afresh: true },
    });
  });

  it('reports what was measured afresh, not the lucky point that was chosen', () => {
    const lucky = (clients: number, asked: number) =>
      point(clients, 100 * Math.min(clients, 8) * (clients === 16 && asked < 7 ? 1.1 : 1));
    const { outcome } = run(lucky);
    expect(outcome).toMatchObject({ kind: 'reached', rate: { tps: 800 }, chosenClients: 16, clients: 8 });
  });

  it('goes on when the most clients turn out far ahead afresh', () => {
    // Noise hides the growth at first: the ramp ends at 16, whose true rate is far above.
    const rates: Record<number, number> = { 1: 100, 2: 200, 4: 400, 8: 400, 16: 405 };
    const { asked, outcome } = run((clients, count) =>
      point(clients, (count <= 5 ? rates[clients] : undefined) ?? 100 * Math.min(clients, 24)),
    );
    expect(asked).toContain('ramp 64');
    expect(outcome).toMatchObject({ kind: 'reached', rate: { tps: 2400 } });
    const limited = run(
      (clients, count) =>
        point(clients, (count <= 5 ? rates[clients] : undefined) ?? 100 * Math.min(clients, 24)),
      { clientsMax: 16, clientsMaxIs: 'connections' },
    );
    expect(limited.outcome).toMatchObject({ kind: 'not-reached', because: 'connections', clients: 16 });
  });

  it('says where the plateau ends when it falls', () => {
    const { outcome } = run((clients) => point(clients, clients <= 16 ? Math.min(clients, 8) * 100 : 500));
    expect(outcome).toMatchObject({ kind: 'reached', flatTo: 16, fallsAfter: true });
  });

  it('does not stop at one point without gain, nor at a gain within the noise', () => {
    // 4 gains nothing on 2, 8 does.
    const { asked } = run((clients) =>
      point(clients, [100, 200, 200, 400, 400, 400][Math.log2(clients)] ?? 400),
    );
    expect(asked).toContain('ramp 32');
    const noisy = run((clients) => point(clients, 1000 + clients, { standardError: 100 }));
    expect(noisy.asked.slice(0, 4)).toEqual(['ramp 1', 'ramp 2', 'ramp 4', 'confirm 4']);
    // Creeping up by less than the least gain at each step is noticed over two of them.
    const creeping = run((clients) =>
      point(clients, 1000 * 1.015 ** Math.log2(clients), { standardError: 1 }),
    );
    expect(creeping.outcome).toMatchObject({ kind: 'not-reached', because: 'max-clients' });
  });

  it.each<[string, SearchSettings, (clients: number) => SearchPoint | SearchEvent, object]>([
    [
      'at the most clients allowed',
      { clientsMax: 6, clientsMaxIs: 'max-clients' },
      queue(100, 10),
      { because: 'max-clients', clients: 6, rate: { tps: 60 } },
    ],
    [
      'when the server has no more connections, known before',
      { clientsMax: 90, clientsMaxIs: 'connections' },
      queue(100, 10),
      { because: 'connections', clients: 90 },
    ],
    [
      'when the server has no more connections, found out',
      settings,
      (clients) => (clients > 20 ? { kind: 'refused' } : queue(100, 10)(clients)),
      { because: 'connections', clients: 16, afresh: true },
    ],
    [
      'when the generator is at its end',
      settings,
      (clients) => ({ ...queue(100, 10)(clients), voidReasons: clients > 20 ? ['client-bound'] : [] }),
      { because: 'client-bound', clients: 16 },
    ],
    [
      'when the generator was at its end from the first point on',
      settings,
      (clients) => point(clients, 77, { voidReasons: ['client-bound'] }),
      { because: 'client-bound', rate: { tps: 77 }, afresh: false },
    ],
  ])('says "not reached" %s', (_, withSettings, answer, expected) => {
    expect(run(answer, withSettings).outcome).toMatchObject({ kind: 'not-reached', ...expected });
  });

  it('takes a point between when the last doubling is not allowed', () => {
    const { asked, outcome } = run(queue(10, 10), { clientsMax: 32, clientsMaxIs: 'connections' });
    expect(asked.slice(0, 8)).toContain('ramp 23');
    expect(outcome).toMatchObject({ kind: 'reached', clients: 10 });
  });

  it('measures a void point again, and then does without it', () => {
    const bad = (reason: VoidReason) => (clients: number, asked: number) =>
      ({ ...queue(8, 100)(clients), voidReasons: asked === 3 ? [reason] : [] }) as SearchPoint;
    const { asked, outcome } = run(bad('unsteady'));
    expect(asked.slice(0, 5)).toEqual(['ramp 1', 'ramp 2', 'ramp 4', 'ramp 4', 'ramp 8']);
    expect(outcome.kind).toBe('reached');
    const always = run((clients) => ({
      ...queue(8, 100)(clients),
      voidReasons: clients === 4 ? ['steal'] : [],
    }));
    expect(always.asked.filter((text) => text === 'ramp 4')).toHaveLength(3);
    expect(always.outcome).toMatchObject({ kind: 'reached', rate: { tps: 800 } });
  });

  it('gives up when everything is void, and says what for', () => {
    const { asked, outcome } = run((clients, asked) =>
      point(clients, 100, { voidReasons: asked % 2 === 0 ? ['steal'] : ['unsteady'] }),
    );
    expect(asked).toHaveLength(9);
    expect(outcome).toEqual({ kind: 'void', reasons: ['unsteady', 'steal'] });
  });

  it('confirms in a hurry when time runs short, and stops when it is over', () => {
    const hurried = run((clients, asked) => (asked === 4 ? { kind: 'hurry' } : queue(100, 10)(clients)));
    expect(hurried.asked.slice(3)).toEqual(['ramp 8', 'confirm 4', 'confirm 4', 'confirm 4', 'confirm 4']);
    expect(hurried.outcome).toMatchObject({ kind: 'not-reached', because: 'budget', afresh: true });
    const stopped = run((clients, asked) => (asked === 4 ? { kind: 'stop' } : queue(100, 10)(clients)));
    expect(stopped.outcome).toMatchObject({ because: 'budget', afresh: false, rate: { tps: 40 } });
    const late = run((clients, asked) => (asked === 13 ? { kind: 'hurry' } : queue(24, 1000)(clients)));
    expect(late.outcome).toMatchObject({ kind: 'reached', afresh: true });
  });
});

describe('the transition table', () => {
  const good = (state: SearchState): SearchEvent => ({
    kind: 'measured',
    point: point(state.clients, Math.min(state.clients, 8) * 100),
  });
  const bad = (state: SearchState): SearchEvent => ({
    kind: 'measured',
    point: point(state.clients, 100, { voidReasons: ['steal'] }),
  });
  /** The state after so many good points. */
  function stateAfter(points: number): SearchState {
    let { state } = startSearch(settings);
    for (let count = 0; count < points; count++) ({ state } = step(state, good(state)));
    return state;
  }
  // 1, 2, 4, 8, 16, 32 are the ramp; then 6 and 7 (within 5% is 8 alone); then 8 four times.
  const [ramp, lastOfRamp, bisect, confirm, lastOfAll] = [
    stateAfter(2),
    stateAfter(5),
    stateAfter(6),
    stateAfter(8),
    stateAfter(11),
  ];

  it.each<[string, SearchState, SearchEvent, string, string]>([
    ['ramp, a gain', ramp, good(ramp), 'ramp', 'measure 8'],
    ['ramp, the second point without gain', lastOfRamp, good(lastOfRamp), 'bisect', 'measure 6'],
    ['ramp, void', ramp, bad(ramp), 'ramp', 'measure 4'],
    ['ramp, refused', ramp, { kind: 'refused' }, 'confirm', 'measure 2'],
    ['ramp, hurry', ramp, { kind: 'hurry' }, 'confirm', 'measure 2'],
    ['ramp, stop', ramp, { kind: 'stop' }, 'done', 'finished not-reached'],
    ['ramp, stop before any point', stateAfter(0), { kind: 'stop' }, 'done', 'finished void'],
    ['bisect, measured', bisect, good(bisect), 'bisect', 'measure 7'],
    ['bisect, void', bisect, bad(bisect), 'bisect', 'measure 6'],
    ['bisect, refused', bisect, { kind: 'refused' }, 'confirm', 'measure 8'],
    ['bisect, hurry', bisect, { kind: 'hurry' }, 'confirm', 'measure 8'],
    ['bisect, stop', bisect, { kind: 'stop' }, 'done', 'finished reached'],
    ['confirm, measured', confirm, good(confirm), 'confirm', 'measure 8'],
    ['confirm, void', confirm, bad(confirm), 'confirm', 'measure 8'],
    ['confirm, refused', confirm, { kind: 'refused' }, 'confirm', 'measure 8'],
    ['confirm, the last', lastOfAll, good(lastOfAll), 'done', 'finished reached'],
    ['confirm, hurry', confirm, { kind: 'hurry' }, 'done', 'finished reached'],
    ['confirm, stop', confirm, { kind: 'stop' }, 'done', 'finished reached'],
  ])('%s', (_, state, event, phase, effect) => {
    const next = step(state, event);
    const said =
      next.effect.kind === 'measure'
        ? `measure ${next.effect.clients}`
        : `finished ${next.effect.outcome.kind}`;
    expect([next.state.phase, said]).toEqual([phase, effect]);
  });

  it('takes nothing after the end, nor a point it did not ask for', () => {
    const { state } = step(lastOfAll, { kind: 'stop' });
    expect(() => step(state, { kind: 'stop' })).toThrow('a bug in Postern');
    expect(() => step(ramp, { kind: 'measured', point: point(77, 1) })).toThrow('a bug in Postern');
  });
});

describe('any search', () => {
  const reasons = fc.subarray<VoidReason>(['client-bound', 'steal', 'unsteady', 'littles-law']);
  const answers = fc.oneof(
    {
      weight: 12,
      arbitrary: fc.record({ mean: fc.double({ min: 1, max: 1e5, noNaN: true }), degrees: fc.nat(30) }),
    },
    { weight: 2, arbitrary: fc.record({ reasons }) },
    { weight: 1, arbitrary: fc.constantFrom<SearchEvent>({ kind: 'refused' }, { kind: 'hurry' }) },
  );

  it('ends, asks for no more clients than allowed, and reports a rate that was measured', () => {
    fc.assert(
      fc.property(fc.infiniteStream(answers), fc.integer({ min: 1, max: 3000 }), (stream, clientsMax) => {
        const means: number[] = [];
        const { outcome, state } = run(
          (clients) => {
            expect(clients).toBeLessThanOrEqual(clientsMax);
            const said = stream.next().value!;
            if ('kind' in said) return said;
            const answer = {
              standardError: 3,
              degrees: 5,
              mean: 50,
              voidReasons: [],
              ...('reasons' in said ? { voidReasons: said.reasons } : said),
            };
            means.push(answer.mean);
            return { clients, ...answer };
          },
          { clientsMax, clientsMaxIs: 'max-clients' },
        );
        expect(state.phase).toBe('done');
        if (outcome.kind === 'void') return;
        expect(outcome.rate.tps).toBeGreaterThanOrEqual(Math.min(...means));
        expect(outcome.rate.tps).toBeLessThanOrEqual(Math.max(...means));
        if (outcome.kind === 'reached') {
          expect(outcome.clients).toBeLessThanOrEqual(outcome.flatTo);
          expect(outcome.flatTo).toBeLessThanOrEqual(clientsMax);
        }
      }),
    );
  });

  it('finds the capacity of a noisy queue within 3%, and its interval mostly holds it', () => {
    let covered = 0;
    const runs = 200;
    for (let seed = 1; seed <= runs; seed++) {
      const random = seededRandom(seed);
      const servers = 1 + Math.floor(random() * 100);
      const noise = () => 1 + 0.02 * (random() + random() + random() - 1.5);
      const { outcome } = run((clients) => {
        const truth = 100 * Math.min(clients, servers);
        return point(clients, truth * noise(), { standardError: 0.01 * truth, degrees: 20 });
      });
      expect(outcome.kind).toBe('reached');
      if (outcome.kind !== 'reached') continue;
      const truth = 100 * servers;
      expect(Math.abs(outcome.rate.tps / truth - 1)).toBeLessThan(0.03);
      expect(outcome.clients / servers).toBeGreaterThan(0.85);
      expect(outcome.clients / servers).toBeLessThan(1.2);
      if (Math.abs(outcome.rate.tps - truth) <= outcome.rate.plusMinus!) covered++;
    }
    expect(covered / runs).toBeGreaterThan(0.9);
  });
});
