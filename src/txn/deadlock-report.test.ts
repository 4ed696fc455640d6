import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { deadlockedIn, findDeadlocks } from './deadlock-graph.ts';
import {
  conflict,
  describeDeadlock,
  graphOf,
  keyOfVertex,
  type Look,
  lastingWaits,
  type NodeAnswer,
  type PoolWait,
  waitsOf,
} from './deadlock-report.ts';

type Wait = NodeAnswer['waits'][number];

const wait = (pid: number, blockers: number[], more: Partial<Wait> = {}): Wait => ({
  ...{ pid, blockers, startedAt: '1', mode: 'ShareLock', prepared: null },
  ...more,
});
const registered = (pid: number, key: number) => ({ pid, branch: `1/${pid}`, key });
const look = (answers: Record<number, Partial<NodeAnswer>>, poolWaits: PoolWait[] = []): Look => ({
  answers: new Map(
    Object.entries(answers).map(([nodeId, answer]) => [
      Number(nodeId),
      { waits: [], registered: [], ...answer },
    ]),
  ),
  poolWaits,
});
const rank = (key: number): number => key;

describe('waitsOf', () => {
  it('names a process by its transaction, on each node its own', () => {
    const { locks } = waitsOf(
      look({
        1: { waits: [wait(10, [20, 30])], registered: [registered(10, 0xa), registered(20, 0xb)] },
        2: { waits: [wait(20, [10])], registered: [registered(10, 0xc)] },
      }),
    );
    expect(locks.map(({ waiter, blocker, nodeId }) => [waiter, blocker, nodeId])).toEqual([
      ['transaction 00000000000a', 'transaction 00000000000b', 1],
      ['transaction 00000000000a', 'process 30 of node 1', 1],
      ['process 20 of node 2', 'transaction 00000000000c', 2],
    ]);
    expect(locks.map(({ waiter }) => keyOfVertex(waiter))).toEqual([10, 10, undefined]);
  });

  it('takes process 0 for the prepared transactions whose mode conflicts', () => {
    const held = (branch: string, mode: string) => ({ branch, mode });
    const waits = waitsOf(
      look({
        1: {
          waits: [
            wait(10, [0, 0], {
              mode: 'AccessExclusiveLock',
              prepared: [held('-1/7', 'AccessShareLock'), held('3/4', 'RowExclusiveLock')],
            }),
            wait(11, [0], {
              mode: 'RowShareLock',
              prepared: [held('-1/7', 'AccessShareLock'), held('3/4', 'ExclusiveLock')],
            }),
          ],
          registered: [{ pid: null, branch: '3/4', key: 0xd }],
        },
      }),
    );
    expect(waits.locks.map(({ waiter, blocker }) => [waiter, blocker])).toEqual([
      ['process 10 of node 1', 'prepared transaction -1/7 of node 1'],
      ['process 10 of node 1', 'transaction 00000000000d'],
      ['process 11 of node 1', 'transaction 00000000000d'],
    ]);
    expect([...waits.committing]).toEqual([0xd]);
  });
});

it('conflict: modes are symmetrical, and an unknown one conflicts with none', () => {
  expect(conflict('ExclusiveLock', 'RowShareLock')).toBe(true);
  expect(conflict('RowShareLock', 'ExclusiveLock')).toBe(true);
  expect(conflict('ShareLock', 'ShareLock')).toBe(false);
  expect(conflict('SIReadLock', 'AccessExclusiveLock')).toBe(false);
  expect(conflict('AccessExclusiveLock', 'SIReadLock')).toBe(false);
});

describe('describeDeadlock', () => {
  it('goes the shortest way around, through locks and pools', () => {
    const waits = waitsOf(
      look(
        {
          1: { waits: [wait(10, [20]), wait(20, [30, 40])], registered: [registered(10, 1)] },
          2: { registered: [registered(99, 1)] },
          3: { waits: [wait(30, [40])] },
        },
        [{ key: 2, nodeId: 2, sinceMs: 5, holders: [99] }],
      ),
    );
    const deadlock = {
      victim: 'transaction 000000000001',
      members: ['transaction 000000000001', 'process 20 of node 1', 'transaction 000000000002'],
    };
    const closed = {
      ...waits,
      locks: [
        ...waits.locks,
        {
          waiter: 'process 20 of node 1',
          blocker: 'transaction 000000000002',
          nodeId: 1,
          identity: '',
        },
      ],
    };
    const names = new Map([
      [1, 'one'],
      [2, 'two'],
    ]);
    expect(describeDeadlock(deadlock, closed, names)).toBe(
      [
        'Transaction 000000000001 waits on node "one" for process 20 of node "one".',
        'Process 20 of node "one" waits on node "one" for transaction 000000000002.',
        'Transaction 000000000002 waits for a connection to node "two", held by transaction 000000000001.',
      ].join('\n'),
    );
  });
});

describe('lastingWaits', () => {
  const lookOf = (startedAt: string): Look =>
    look({
      1: { waits: [wait(10, [20], { startedAt })], registered: [registered(10, 1), registered(20, 2)] },
      2: { waits: [wait(21, [11])], registered: [registered(11, 1), registered(21, 2)] },
    });

  it('keeps a cycle that was there in both looks', () => {
    const lasting = lastingWaits(waitsOf(lookOf('5')), waitsOf(lookOf('5')));
    expect(findDeadlocks(graphOf(lasting, rank))).toHaveLength(1);
  });

  it('drops a wait that is another one by the second look, though of the same two', () => {
    const lasting = lastingWaits(waitsOf(lookOf('5')), waitsOf(lookOf('6')));
    expect(lasting.locks).toHaveLength(1);
    expect(findDeadlocks(graphOf(lasting, rank))).toEqual([]);
  });

  it('counts on a holder of either look to give its connection back', () => {
    const looks = [[99], [98]].map((holders) =>
      waitsOf(
        look(
          {
            1: { waits: [wait(10, [20])], registered: [registered(20, 1)] },
            2: { registered: [registered(99, 3)] },
          },
          [{ key: 1, nodeId: 2, sinceMs: 5, holders }],
        ),
      ),
    );
    expect(lastingWaits(looks[0]!, looks[1]!).pools).toMatchObject([
      { holders: ['transaction 000000000003', 'process 98 of node 2'] },
    ]);
    expect(lastingWaits(looks[0]!, { ...looks[1]!, pools: [] }).pools).toEqual([]);
  });
});

const NODES = 2;
const TRANSACTIONS = 4;

/** Transactions that lock resources of nodes until they end; a statement may be given up, by a time-out say. */
class World {
  readonly #holders = new Map<number, number>();
  readonly #waiting = new Map<number, { resource: number; since: number }>();
  #clock = 0;

  act(transaction: number, action: 'end' | 'giveUp' | number): void {
    this.#clock++;
    const waits = this.#waiting.get(transaction);
    if (action === 'giveUp') this.#waiting.delete(transaction);
    else if (waits) return;
    else if (action === 'end') {
      for (const [resource, holder] of this.#holders) if (holder === transaction) this.#release(resource);
    } else if (this.#holders.get(action) === undefined) this.#holders.set(action, transaction);
    else if (this.#holders.get(action) !== transaction)
      this.#waiting.set(transaction, { resource: action, since: this.#clock });
  }

  #release(resource: number): void {
    this.#holders.delete(resource);
    const [next] = [...this.#waiting]
      .filter(([, wait]) => wait.resource === resource)
      .sort(([, a], [, b]) => a.since - b.since);
    if (!next) return;
    this.#waiting.delete(next[0]);
    this.#holders.set(resource, next[0]);
  }

  /** Resource r is on node r % NODES; a transaction's process there has its number. */
  read(nodeId: number): NodeAnswer {
    const waits = [...this.#waiting]
      .filter(([, { resource }]) => resource % NODES === nodeId)
      .map(([pid, { resource, since }]) =>
        wait(pid, [this.#holders.get(resource)!], { startedAt: String(since) }),
      );
    return { waits, registered: Array.from({ length: TRANSACTIONS }, (_, key) => registered(key, key)) };
  }

  readAll(): Look {
    return look(
      Object.fromEntries(Array.from({ length: NODES }, (_, nodeId) => [nodeId, this.read(nodeId)])),
    );
  }
}

const histories = fc.record({
  actions: fc.array(
    fc.tuple(
      fc.nat({ max: TRANSACTIONS - 1 }),
      fc.oneof(
        { weight: 8, arbitrary: fc.nat({ max: 3 }) },
        { weight: 1, arbitrary: fc.constantFrom('end' as const, 'giveUp' as const) },
      ),
    ),
    { minLength: 8, maxLength: 60 },
  ),
  moments: fc.array(fc.nat({ max: 60 }), { minLength: 2 * NODES, maxLength: 2 * NODES }),
});

/** Both looks, each node at a moment of its own, and what was true when the first had ended. */
function observe({ actions, moments }: typeof histories extends fc.Arbitrary<infer H> ? H : never): {
  looks: [Look, Look];
  truth: Look;
} {
  const world = new World();
  const at = [...moments].sort((a, b) => a - b);
  const answers: NodeAnswer[] = [];
  let truth: Look | undefined;
  for (let now = 0; now <= 60; now++) {
    while (answers.length < at.length && at[answers.length] === now) {
      answers.push(world.read(answers.length % NODES));
      if (answers.length === NODES) truth = world.readAll();
    }
    const action = actions[now];
    if (action) world.act(...action);
  }
  return {
    looks: [look({ 0: answers[0]!, 1: answers[1]! }), look({ 0: answers[2]!, 1: answers[3]! })],
    truth: truth!,
  };
}

describe('over all histories', () => {
  let found = 0;
  let phantoms = 0;

  it('whoever is in a deadlock of both looks was in it at the moment between', () => {
    fc.assert(
      fc.property(histories, (history) => {
        const { looks, truth } = observe(history);
        const [first, second] = looks.map(waitsOf) as [
          ReturnType<typeof waitsOf>,
          ReturnType<typeof waitsOf>,
        ];
        const real = deadlockedIn(graphOf(waitsOf(truth), rank));
        for (const member of deadlockedIn(graphOf(lastingWaits(first, second), rank))) {
          expect(real.has(member)).toBe(true);
          found++;
        }
        for (const member of deadlockedIn(graphOf(first, rank))) if (!real.has(member)) phantoms++;
      }),
      { numRuns: 5_000 },
    );
  });

  it('and the histories had deadlocks, and some that one look alone would have made up', () => {
    expect(found).toBeGreaterThan(0);
    expect(phantoms).toBeGreaterThan(0);
  });
});
