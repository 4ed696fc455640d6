import { describe, expect, it } from 'vitest';
import { readiness, type ServingState } from './readiness.ts';
import type { NodeStatus, RouterStatus } from './router-status.ts';

const UP: NodeStatus = { node: 'n1', isHome: true, state: 'up', usable: true, notes: [] };
const AWAY: NodeStatus = { ...UP, state: 'unreachable', usable: false, since: '2026-01-01T00:00:00Z' };

function status(of: Partial<RouterStatus> = {}): RouterStatus {
  return {
    ...{ worker: 0, processId: 1, version: '1', startedAt: '', isDraining: false, clients: 3 },
    ...{ epoch: 7, mapAgeMs: 100, slot: 1, nodes: [UP] },
    ...of,
  };
}

describe('a router is ready', () => {
  it.each<[string, ServingState, number, RouterStatus[], boolean, string[]]>([
    ['when its worker serves', 'serving', 1, [status()], true, []],
    ['not before the port is open', 'starting', 1, [status()], false, ['starting']],
    ['not once it drains', 'draining', 1, [status()], false, ['draining']],
    ['not without a worker', 'serving', 1, [], false, ['0 of 1 workers serve']],
    ['with one of two workers', 'serving', 2, [status({ worker: 1 })], true, ['1 of 2 workers serve']],
    [
      'while a process hands over to another in its place',
      'serving',
      1,
      [status({ isDraining: true }), status()],
      true,
      [],
    ],
    [
      'not when all that is left hands over',
      'serving',
      1,
      [status({ isDraining: true })],
      false,
      ['0 of 1 workers serve'],
    ],
    [
      'without a catalog, before one server',
      'serving',
      1,
      [status({ epoch: undefined, mapAgeMs: undefined })],
      true,
      [],
    ],
    [
      'not with a map that is too old',
      'serving',
      1,
      [status({ mapAgeMs: 300_001 })],
      false,
      ['the catalog has been away for more than 5 minutes'],
    ],
    ['while a node is away', 'serving', 1, [status({ nodes: [AWAY] })], true, ['node "n1" is unreachable']],
    [
      'and says what the worker that sees least sees',
      'serving',
      2,
      [status(), status({ worker: 1, nodes: [AWAY] })],
      true,
      ['node "n1" is unreachable'],
    ],
  ])('%s', (_, state, expected, statuses, ready, reasons) => {
    expect(readiness(state, expected, statuses)).toMatchObject({ ready, reasons, state });
  });

  it('and tells of all its processes', () => {
    const all = readiness('serving', 2, [
      status({ mapAgeMs: 5 }),
      status({ worker: 1, clients: 4, epoch: 6, mapAgeMs: 90 }),
    ]);
    expect(all).toMatchObject({
      clients: 7,
      workers: { expected: 2, serving: 2 },
      map: { epoch: 6, age_ms: 90 },
      slot: 1,
    });
  });
});
