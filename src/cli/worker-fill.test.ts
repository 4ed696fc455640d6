import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BOUNDS } from '../base/bounds.ts';
import {
  CLIENTS_EACH,
  CLIENTS_EACH_LEAST,
  chooseWorker,
  clientsOf,
  type FillEvent,
  type FillState,
  FULL_LOAD,
  fillStart,
  fillStep,
  RECOVERY_MS,
  SILENT_MS,
  type WorkerReport,
} from './worker-fill.ts';

const READY: FillEvent[] = [0, 1, 2].map((worker) => ({ kind: 'ready', worker, atMs: 0 }));

function stateAfter(events: readonly FillEvent[], merges = true): FillState {
  return events.reduce(fillStep, fillStart({ workers: 3, merges, cores: 8 }));
}

function given(worker: number, count: number): FillEvent[] {
  return Array.from({ length: count }, () => ({ kind: 'given', worker }));
}

/** All of them have been there for the whole window, if not told otherwise. */
function reported(worker: number, report: Partial<WorkerReport> & { clients: number }, atMs = 0): FillEvent {
  const { clients } = report;
  return {
    ...{ kind: 'reported', worker, atMs },
    report: { load: 0, settled: clients, settledThen: clients, taken: clients, ...report },
  };
}

/** Where so many go, one after the other, and how many each then has. */
function sendMany(state: FillState, count: number): number[] {
  let now = state;
  for (let i = 0; i < count; i++) now = fillStep(now, { kind: 'given', worker: chooseWorker(now)! });
  return now.workers.map(clientsOf);
}

describe('the worker that a new client goes to', () => {
  const table: readonly (readonly [string, FillEvent[], number | undefined])[] = [
    ['nobody while none is ready', [], undefined],
    ['the only one that is ready', [READY[2]!], 2],
    ['the first of those that are', READY, 0],
    ['the first, though it has clients', [...READY, ...given(0, 50)], 0],
    ['the second when the first has as many as fill its batches', [...READY, ...given(0, CLIENTS_EACH)], 1],
    [
      'the second when the first is full',
      [...READY, ...given(0, 20), reported(0, { clients: 20, load: 0.9 })],
      1,
    ],
    [
      'the first when the machine has no core for another',
      [
        ...READY,
        ...given(0, 20),
        { kind: 'tick', idleCores: 0.1, atMs: 1 },
        reported(0, { clients: 20, load: 0.95 }),
      ],
      0,
    ],
    [
      'the first when those that filled it have left',
      [
        ...READY,
        ...given(0, 20),
        reported(0, { clients: 2, settled: 2, settledThen: 20, taken: 20, load: 0.95 }),
      ],
      0,
    ],
    [
      'the least loaded when all are full',
      [
        ...[...READY, ...given(0, 20), ...given(1, 20), ...given(2, 20)],
        ...[0.99, 0.9, 0.95].map((load, worker) => reported(worker, { clients: 20, load })),
      ],
      1,
    ],
    [
      'the one with the fewest when all have enough and none is full',
      [...READY, ...given(0, CLIENTS_EACH + 9), ...given(1, CLIENTS_EACH + 3), ...given(2, CLIENTS_EACH + 5)],
      1,
    ],
    ['not one that has ended', [...READY, { kind: 'ended', worker: 0 }], 1],
    [
      'one that has been restarted, which begins with nobody',
      [...READY, ...given(0, 200), { kind: 'ended', worker: 0 }, { kind: 'ready', worker: 0, atMs: 5 }],
      0,
    ],
    [
      'not one that says nothing',
      [...READY, reported(1, { clients: 0 }, 1_500), { kind: 'tick', idleCores: 8, atMs: SILENT_MS }],
      1,
    ],
    [
      'a silent one again once it reports',
      [
        ...[...READY, reported(1, { clients: 0 }, 1_500)],
        ...[{ kind: 'tick', idleCores: 8, atMs: SILENT_MS } as const, reported(0, { clients: 0 }, SILENT_MS)],
      ],
      0,
    ],
    ['one of them though all are silent', [...READY, { kind: 'tick', idleCores: 8, atMs: SILENT_MS }], 0],
    [
      'one that takes more than one that is at its limit',
      [
        ...[...READY, { kind: 'ended', worker: 2 } as const],
        ...[
          reported(0, { clients: BOUNDS.clientsMax, taken: 0 }),
          reported(1, { clients: 500, taken: 0, load: 1 }),
        ],
      ],
      1,
    ],
    [
      'the first again when a client has not reached it',
      [...READY, ...given(0, CLIENTS_EACH), { kind: 'returned', worker: 0 }],
      0,
    ],
  ];
  it.each(table)('is %s', (_, events, expected) => {
    expect(chooseWorker(stateAfter(events))).toBe(expected);
  });

  it('is the one with the fewest clients where nothing is merged', () => {
    expect(sendMany(stateAfter(READY, false), 10)).toEqual([4, 3, 3]);
  });

  it('changes during a burst of logins, which no report tells of yet', () => {
    expect(sendMany(stateAfter(READY), 1_000)).toEqual([334, 333, 333]);
    expect(sendMany(stateAfter(READY), CLIENTS_EACH + 40)).toEqual([CLIENTS_EACH, 40, 0]);
    // Two thirds of what it can carry are measured: it gets about a third of those that fill it.
    const [first = 0] = sendMany(
      stateAfter([...READY, ...given(0, 10), reported(0, { clients: 10, load: (FULL_LOAD * 2) / 3 })]),
      100,
    );
    expect(first).toBe(10 + Math.ceil(CLIENTS_EACH / 3));
  });
});

describe('what is learned', () => {
  const full = [...READY, ...given(0, 100), reported(0, { clients: 100, load: 0.95 })];

  it('a full worker halves what each gets of the next burst', () => {
    const state = stateAfter([...full, reported(0, { clients: 0, settledThen: 100, taken: 100 })]);
    expect(state.clientsEach).toBe(50);
    expect(sendMany(state, 100)).toEqual([50, 50, 0]);
    // Said again, it is no news.
    expect(stateAfter([...full, full.at(-1)!]).clientsEach).toBe(50);
  });

  it('one heavy client does not spread all', () => {
    const state = stateAfter([...READY, ...given(0, 1), reported(0, { clients: 1, load: 1 })]);
    expect(state.clientsEach).toBe(CLIENTS_EACH_LEAST);
  });

  it('nothing from logins, nor while the machine has no core for another worker', () => {
    const logins = [...READY, ...given(0, 100), reported(0, { clients: 100, settled: 10, load: 1 })];
    expect(stateAfter(logins).clientsEach).toBe(CLIENTS_EACH);
    const crowded: FillEvent[] = [
      ...READY,
      { kind: 'tick', idleCores: 0, atMs: 0 },
      ...full.slice(READY.length),
    ];
    expect(stateAfter(crowded).clientsEach).toBe(CLIENTS_EACH);
  });

  it('is forgotten by and by', () => {
    const quiet = (atMs: number) => reported(0, { clients: 100, load: 0.5 }, atMs);
    expect(stateAfter([...full, quiet(RECOVERY_MS - 1)]).clientsEach).toBe(50);
    expect(stateAfter([...full, quiet(RECOVERY_MS)]).clientsEach).toBe(100);
    expect(stateAfter([...full, quiet(RECOVERY_MS), quiet(RECOVERY_MS * 2)]).clientsEach).toBe(CLIENTS_EACH);
  });

  it('a report that comes after its worker has ended changes nothing', () => {
    const ended = stateAfter([...READY, { kind: 'ended', worker: 0 }]);
    expect(fillStep(ended, reported(0, { clients: 7 }))).toBe(ended);
  });
});

it('whatever happens, a client goes to a ready worker if there is one, and the counts hold', () => {
  const worker = fc.nat(2);
  const event: fc.Arbitrary<{ kind: string; worker: number; load: number; keep: number }> = fc.record({
    kind: fc.constantFrom('ready', 'ended', 'client', 'client', 'client', 'reported', 'tick'),
    worker,
    load: fc.double({ min: 0, max: 1, noNaN: true }),
    keep: fc.nat(100),
  });
  fc.assert(
    fc.property(fc.array(event, { maxLength: 200 }), (events) => {
      let state = stateAfter([]);
      const ready = new Set<number>();
      const taken = [0, 0, 0];
      const present = [0, 0, 0];
      for (const [atMs, { kind, worker, load, keep }] of events.entries()) {
        if (kind === 'ready' && !ready.has(worker)) {
          ready.add(worker);
          state = fillStep(state, { kind: 'ready', worker, atMs });
        } else if (kind === 'ended') {
          ready.delete(worker);
          taken[worker] = 0;
          present[worker] = 0;
          state = fillStep(state, { kind: 'ended', worker });
        } else if (kind === 'client') {
          const chosen = chooseWorker(state);
          expect(chosen === undefined).toBe(ready.size === 0);
          if (chosen === undefined) continue;
          expect(ready.has(chosen)).toBe(true);
          taken[chosen]!++;
          present[chosen]!++;
          state = fillStep(state, { kind: 'given', worker: chosen });
        } else if (kind === 'reported') {
          const clients = Math.min(present[worker]!, keep);
          present[worker] = clients;
          const settled = Math.floor(clients / 2);
          const report = { load, clients, settled, settledThen: clients, taken: taken[worker]! };
          state = fillStep(state, { kind: 'reported', worker, report, atMs });
        } else if (kind === 'tick') state = fillStep(state, { kind: 'tick', idleCores: load * 8, atMs });
        expect(state.workers.map(clientsOf)).toEqual(present);
        expect(state.clientsEach).toBeGreaterThanOrEqual(CLIENTS_EACH_LEAST);
        expect(state.clientsEach).toBeLessThanOrEqual(CLIENTS_EACH);
      }
    }),
  );
});
