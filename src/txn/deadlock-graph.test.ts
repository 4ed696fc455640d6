import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Deadlock,
  deadlockedIn,
  findDeadlocks,
  hopelessWaits,
  type Vertex,
  type WaitGraph,
  type WaitGroup,
} from './deadlock-graph.ts';

const lock = (nodeId: number, blocker: string): WaitGroup => ({ anyOf: [blocker], lockNodeId: nodeId });
const pool = (...holders: string[]): WaitGroup => ({ anyOf: holders, lockNodeId: undefined });
/** A distributed transaction whose rank is the number in its name. */
const transaction = (name: string, ...waits: WaitGroup[]): [string, Vertex] => [
  name,
  { waits, victimRank: Number(name.slice(1)) },
];
const backend = (name: string, ...waits: WaitGroup[]): [string, Vertex] => [
  name,
  { waits, victimRank: undefined },
];

describe('findDeadlocks', () => {
  const cases: readonly [string, [string, Vertex][], Deadlock[]][] = [
    ['nobody waits', [transaction('t1'), transaction('t2')], []],
    ['a queue without a cycle', [transaction('t1'), transaction('t2', lock(1, 't1'))], []],
    [
      'two transactions over two nodes',
      [transaction('t1', lock(1, 't2')), transaction('t2', lock(2, 't1'))],
      [{ victim: 't2', members: ['t1', 't2'] }],
    ],
    [
      'three over three nodes',
      [transaction('t3', lock(1, 't1')), transaction('t1', lock(2, 't2')), transaction('t2', lock(3, 't3'))],
      [{ victim: 't3', members: ['t1', 't2', 't3'] }],
    ],
    [
      'one through a local backend, which is never the victim',
      [transaction('t1', lock(1, 'b1')), backend('b1', lock(1, 't2')), transaction('t2', lock(2, 't1'))],
      [{ victim: 't2', members: ['b1', 't1', 't2'] }],
    ],
    [
      'a cycle on one node is left to its PostgreSQL',
      [transaction('t1', lock(1, 't2')), transaction('t2', lock(1, 't1'))],
      [],
    ],
    [
      'a wait for a prepared transaction, which somebody will end',
      [transaction('t1', lock(1, 'p')), backend('p'), transaction('t2', lock(2, 't1'))],
      [],
    ],
    [
      'those behind a deadlock wait and live',
      [
        transaction('t1', lock(1, 't2')),
        transaction('t2', lock(2, 't1')),
        transaction('t8', lock(1, 't1')),
        transaction('t9', lock(2, 't8')),
      ],
      [{ victim: 't2', members: ['t1', 't2'] }],
    ],
    [
      'a pool whose holders all wait for who stands in its line',
      [transaction('t1', pool('t2', 'b1')), transaction('t2', lock(1, 't1')), backend('b1', lock(1, 't1'))],
      [{ victim: 't2', members: ['b1', 't1', 't2'] }],
    ],
    [
      'a pool with one holder that goes on',
      [transaction('t1', pool('t2', 'b1')), transaction('t2', lock(1, 't1')), backend('b1')],
      [],
    ],
    [
      'a pool wait and a lock wait on one node are no local cycle',
      [transaction('t1', pool('t2')), transaction('t2', lock(1, 't1'))],
      [{ victim: 't2', members: ['t1', 't2'] }],
    ],
    [
      'all blockers have to let go: one in a cycle is enough',
      [transaction('t1', lock(1, 't2'), lock(1, 'b1')), backend('b1'), transaction('t2', lock(2, 't1'))],
      [{ victim: 't2', members: ['t1', 't2'] }],
    ],
    [
      'two cycles that share one transaction, and not the greatest',
      [
        transaction('t1', lock(1, 't2'), lock(2, 't3')),
        transaction('t2', lock(3, 't1')),
        transaction('t3', lock(4, 't1')),
      ],
      [
        { victim: 't3', members: ['t1', 't2', 't3'] },
        { victim: 't2', members: ['t1', 't2'] },
      ],
    ],
    [
      'a second deadlock that waits for the first',
      [
        transaction('t1', lock(1, 't2')),
        transaction('t2', lock(2, 't1')),
        transaction('t3', lock(1, 't4'), lock(1, 't1')),
        transaction('t4', lock(2, 't3')),
      ],
      [
        { victim: 't2', members: ['t1', 't2'] },
        { victim: 't4', members: ['t3', 't4'] },
      ],
    ],
    ['one that blocks itself', [transaction('t1', pool('t1'))], [{ victim: 't1', members: ['t1'] }]],
  ];
  it.each(cases)('%s', (_name, vertices, expected) => {
    expect(findDeadlocks(new Map(vertices))).toEqual(expected);
  });

  it('follows a queue of thousands without a stack', () => {
    const names = Array.from({ length: 20_000 }, (_, i) => `t${i}`);
    const graph = new Map(
      names.map((name, i) => transaction(name, lock(i % 3, names[(i + 1) % names.length]!))),
    );
    expect(findDeadlocks(graph)).toMatchObject([{ victim: 't19999' }]);
  });
});

/** Graphs of up to 8 vertices, with lock waits, pool waits, and waits for what is not in the graph. */
const graphs: fc.Arbitrary<WaitGraph> = fc.integer({ min: 1, max: 8 }).chain((count) => {
  const name = fc.integer({ min: 0, max: count }).map((at) => `v${at}`);
  const group = fc.oneof(
    { weight: 3, arbitrary: fc.tuple(fc.integer({ min: 1, max: 3 }), name).map(([n, v]) => lock(n, v)) },
    { weight: 1, arbitrary: fc.uniqueArray(name, { minLength: 1, maxLength: 4 }).map((v) => pool(...v)) },
  );
  const vertex = fc.record({
    waits: fc.array(group, { maxLength: 3 }),
    victimRank: fc.option(fc.integer({ min: 0, max: 5 }), { nil: undefined }),
  });
  return fc
    .array(vertex, { minLength: count, maxLength: count })
    .map((vertices) => new Map(vertices.map((each, at) => [`v${at}`, each])));
});

/** The dumb way: a set is stuck if each member has a group within it; the union of all stuck sets is what we look for. */
function stuckByTrial(graph: WaitGraph): string[] {
  const names = [...graph.keys()];
  const union = new Set<string>();
  for (let mask = 1; mask < 2 ** names.length; mask++) {
    const set = new Set(names.filter((_, at) => mask & (1 << at)));
    const isStuck = [...set].every((id) =>
      graph.get(id)!.waits.some((group) => group.anyOf.every((other) => set.has(other))),
    );
    if (isStuck) for (const id of set) union.add(id);
  }
  return [...union].sort();
}

function without(graph: WaitGraph, ids: readonly string[]): WaitGraph {
  return new Map([...graph].filter(([id]) => !ids.includes(id)));
}

/** Does whoever is in `from` reach `id` over waits that keep it? */
function reaches(graph: WaitGraph, stuck: ReadonlySet<string>, from: string, id: string): boolean {
  const seen = new Set<string>();
  const next = [from];
  for (let at = next.pop(); at !== undefined; at = next.pop()) {
    for (const other of hopelessWaits(graph.get(at)!, stuck).flatMap((group) => group.anyOf)) {
      if (other === id) return true;
      if (!seen.has(other)) next.push(other);
      seen.add(other);
    }
  }
  return false;
}

describe('by all graphs', () => {
  it('what is deadlocked is what trying all sets finds', () => {
    fc.assert(
      fc.property(graphs, (graph) => {
        expect([...deadlockedIn(graph)].sort()).toEqual(stuckByTrial(graph));
      }),
    );
  });

  it('each victim is in a cycle of its own when its turn comes, and its rank is the greatest there', () => {
    fc.assert(
      fc.property(graphs, (graph) => {
        const gone: string[] = [];
        for (const { victim, members } of findDeadlocks(graph)) {
          const left = without(graph, gone);
          const stuck = new Set(stuckByTrial(left));
          expect(members.every((member) => stuck.has(member))).toBe(true);
          for (const member of members) {
            expect(reaches(left, stuck, victim, member)).toBe(true);
            expect(reaches(left, stuck, member, victim)).toBe(true);
            expect(left.get(member)!.victimRank ?? -1).toBeLessThanOrEqual(graph.get(victim)!.victimRank!);
          }
          gone.push(victim);
        }
      }),
    );
  });

  it('when the victims have gone, nobody is stuck but behind local cycles and those without a victim', () => {
    fc.assert(
      fc.property(graphs, (graph) => {
        const left = without(
          graph,
          findDeadlocks(graph).map((deadlock) => deadlock.victim),
        );
        const stuck = new Set(stuckByTrial(left));
        for (const id of stuck) {
          // Whoever is left reaches a closed set that offers no victim, or whose waits are of one node.
          const closed = [...stuck].filter(
            (other) =>
              (other === id || reaches(left, stuck, id, other)) &&
              [...stuck].every(
                (far) => !reaches(left, stuck, other, far) || reaches(left, stuck, far, other),
              ),
          );
          expect(closed.length).toBeGreaterThan(0);
          for (const member of closed) {
            const component = closed.filter((other) => reaches(left, stuck, member, other));
            const waits = component.flatMap((each) => hopelessWaits(left.get(each)!, stuck));
            const nodes = new Set(waits.map((group) => group.lockNodeId));
            const isLocal = nodes.size === 1 && !nodes.has(undefined);
            expect(isLocal || component.every((each) => left.get(each)!.victimRank === undefined)).toBe(true);
          }
        }
      }),
    );
  });

  it('the order in which a graph is given changes nothing', () => {
    const shuffled = graphs.chain((graph) =>
      fc.tuple(
        fc.constant(graph),
        fc
          .shuffledSubarray([...graph], { minLength: graph.size, maxLength: graph.size })
          .map((entries) => new Map(entries)),
      ),
    );
    fc.assert(
      fc.property(shuffled, ([graph, other]) => {
        expect(findDeadlocks(other)).toEqual(findDeadlocks(graph));
      }),
    );
  });
});
