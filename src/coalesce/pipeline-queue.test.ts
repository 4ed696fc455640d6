/** The queue of pipelined writes: its transitions one by one, and its promises (SPEC.md) over generated histories. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PipelineSimulation } from '../../test/coalescing/pipeline-simulation.ts';
import { PipelineQueue } from './pipeline-queue.ts';

interface Name {
  readonly name: string;
}

/** A queue whose effects are a list of lines; members are made by their names. */
function traced(options: { lanes?: number; runMax?: number } = {}) {
  const lines: string[] = [];
  const members = new Map<string, Name>();
  const member = (name: string): Name => {
    const known = members.get(name) ?? { name };
    members.set(name, known);
    return known;
  };
  const queue = new PipelineQueue<Name>(
    {
      send: (lane, run) => lines.push(`send ${lane}: ${run.map(({ name }) => name).join(' ')}`),
      answer: ({ name }) => lines.push(`answer ${name}`),
      alone: ({ name }) => lines.push(`alone ${name}`),
      canceled: ({ name }) => lines.push(`canceled ${name}`),
      unknown: ({ name }) => lines.push(`unknown ${name}`),
      cancelLane: (lane) => lines.push(`cancel lane ${lane}`),
    },
    { lanes: options.lanes ?? 2, runMax: options.runMax ?? 16 },
  );
  return {
    queue,
    member,
    submit: (names: string, row = -1) => {
      for (const name of names.split(' ')) queue.submit(member(name), row);
    },
    /** The effects since the last call. */
    effects: () => lines.splice(0),
  };
}

/** One lane that runs a, b and c; a is the head. */
function running() {
  const world = traced({ lanes: 1 });
  world.submit('a b c');
  world.queue.laneOpened(0);
  expect(world.effects()).toEqual(['send 0: a b c']);
  return world;
}

type World = ReturnType<typeof running>;

describe('an idle lane', () => {
  it('without a connection takes nothing; when it opens it takes its share', () => {
    const { queue, submit, effects } = traced();
    submit('a b c');
    queue.cut();
    expect(effects()).toEqual([]);
    queue.laneOpened(1);
    expect(effects()).toEqual(['send 1: a b']);
    expect(queue.queuedCount).toBe(1);
    queue.laneOpened(0);
    expect(effects()).toEqual(['send 0: c']);
  });

  it('is given nothing of what waits when the node answers nothing; what is under way stays', () => {
    const { queue, submit, effects } = running();
    submit('d', 7);
    submit('e');
    queue.refuseAll();
    expect(effects()).toEqual(['alone d', 'alone e']);
    expect([queue.memberCount, queue.queuedCount]).toEqual([3, 0]);
    queue.laneLost(0);
    expect(effects()).toEqual(['unknown a', 'unknown b', 'unknown c']);
    expect(queue.memberCount).toBe(0);
  });

  it('takes one member while there are no more members than lanes', () => {
    const { queue, submit, effects } = traced({ lanes: 3 });
    for (const lane of [0, 1, 2]) queue.laneOpened(lane);
    submit('a b c');
    expect(effects()).toEqual([]);
    queue.cut();
    expect(effects()).toEqual(['send 0: a', 'send 1: b', 'send 2: c']);
  });

  it('takes no more than the bound of a run', () => {
    const { queue, submit, effects } = traced({ lanes: 1, runMax: 2 });
    submit('a b c');
    queue.laneOpened(0);
    expect(effects()).toEqual(['send 0: a b']);
    expect(queue.headReady(0)).toBe(false);
    expect(queue.headReady(0)).toBe(true);
    expect(effects()).toEqual(['answer a', 'answer b']);
    queue.laneReady(0);
    expect(effects()).toEqual(['send 0: c']);
  });

  it('leaves a row that another lane writes to that lane', () => {
    const { queue, submit, effects } = traced({ lanes: 2 });
    queue.laneOpened(0);
    queue.laneOpened(1);
    submit('a', 7);
    queue.cut();
    submit('b c', 7);
    submit('d', 8);
    queue.cut();
    expect(effects()).toEqual(['send 0: a', 'send 1: d']);
    expect(queue.queuedCount).toBe(2);
    expect(queue.headReady(0)).toBe(true);
    queue.laneReady(0);
    expect(effects()).toEqual(['answer a', 'send 0: b c']);
  });

  it('takes over what was left to a lane that has gone', () => {
    const { queue, submit, effects } = traced({ lanes: 2 });
    queue.laneOpened(0);
    queue.laneOpened(1);
    submit('a', 7);
    queue.cut();
    submit('b', 7);
    queue.cut();
    expect(effects()).toEqual(['send 0: a']);
    queue.headReady(0);
    queue.laneReady(0, true);
    expect(effects()).toEqual(['answer a', 'send 1: b']);
  });
});

describe('a head', () => {
  const table: readonly {
    readonly name: string;
    readonly happens: (world: World) => void;
    /** What ReadyForQuery comes to then, and what the loss of the connection. */
    readonly ready: readonly string[];
    readonly lost: readonly string[];
  }[] = [
    { name: 'of which nothing is known', happens: () => {}, ready: ['answer a'], lost: ['unknown a'] },
    {
      name: 'that has failed by itself',
      happens: ({ queue }) => queue.headFailed(0, false),
      ready: ['answer a'],
      lost: ['answer a'],
    },
    {
      name: 'whose commit has failed',
      happens: ({ queue }) => queue.headFailed(0, true),
      ready: ['answer a'],
      lost: ['unknown a'],
    },
    {
      name: 'that was stopped',
      happens: ({ queue }) => queue.headStopped(0),
      ready: ['alone a'],
      lost: ['alone a'],
    },
    {
      name: 'whose commit was cut short by another client',
      happens: ({ queue }) => queue.headUnconfirmed(0),
      ready: ['unknown a'],
      lost: ['unknown a'],
    },
    {
      name: 'whose client has canceled it in vain',
      happens: ({ queue, member }) => queue.cancel(member('a')),
      ready: ['cancel lane 0', 'answer a'],
      lost: ['cancel lane 0', 'unknown a'],
    },
    {
      name: 'whose client has cut its commit short',
      happens: ({ queue, member }) => {
        queue.cancel(member('a'));
        queue.headUnconfirmed(0);
      },
      ready: ['cancel lane 0', 'answer a'],
      lost: ['cancel lane 0', 'unknown a'],
    },
    {
      name: 'whose client has canceled it',
      happens: ({ queue, member }) => {
        queue.cancel(member('a'));
        queue.headStopped(0);
      },
      ready: ['cancel lane 0', 'canceled a'],
      lost: ['cancel lane 0', 'canceled a'],
    },
    {
      name: 'canceled when it was stopped already',
      happens: ({ queue, member }) => {
        queue.headStopped(0);
        queue.cancel(member('a'));
      },
      ready: ['canceled a'],
      lost: ['canceled a'],
    },
    {
      name: 'that has too large an answer',
      happens: ({ queue }) => {
        queue.headTooLarge(0);
        queue.headStopped(0);
      },
      ready: ['cancel lane 0', 'alone a'],
      lost: ['cancel lane 0', 'alone a'],
    },
  ];

  it.each(table)('$name', ({ happens, ready, lost }) => {
    const world = running();
    happens(world);
    expect(world.queue.headReady(0)).toBe(false);
    expect(world.effects()).toEqual(ready);
    // Those behind it are transactions of their own.
    world.queue.headReady(0);
    world.queue.headReady(0);
    expect(world.effects()).toEqual(['answer b', 'answer c']);
    const another = running();
    happens(another);
    another.queue.laneLost(0);
    expect(another.effects()).toEqual([...lost, 'unknown b', 'unknown c']);
    expect(another.queue.memberCount).toBe(0);
  });
});

describe('a cancel', () => {
  it('takes who is queued, also behind a row', () => {
    const { queue, member, submit, effects } = traced({ lanes: 2 });
    queue.laneOpened(0);
    queue.laneOpened(1);
    submit('a', 7);
    queue.cut();
    submit('b', 7);
    queue.cut();
    submit('c');
    effects();
    queue.cancel(member('b'));
    queue.cancel(member('c'));
    expect(effects()).toEqual(['canceled b', 'canceled c']);
    expect(queue.queuedCount).toBe(0);
  });

  it('of one behind the head reaches the server when it is the head', () => {
    const { queue, member, effects } = running();
    queue.cancel(member('b'));
    expect(effects()).toEqual([]);
    queue.headReady(0);
    expect(effects()).toEqual(['answer a', 'cancel lane 0']);
    queue.headStopped(0);
    queue.headReady(0);
    expect(effects()).toEqual(['canceled b']);
  });

  it('that comes too late does nothing', () => {
    const { queue, member, effects } = running();
    queue.headReady(0);
    effects();
    queue.cancel(member('a'));
    expect(effects()).toEqual([]);
  });
});

describe('who is queued', () => {
  it('stays so when a lane is lost', () => {
    const { queue, submit, effects } = running();
    submit('d');
    queue.cut();
    queue.laneLost(0);
    expect(effects()).toEqual(['unknown a', 'unknown b', 'unknown c']);
    queue.laneOpened(0);
    expect(effects()).toEqual(['send 0: d']);
  });

  it('is handed back when no lane can have a connection, and not before', () => {
    const { queue, submit, effects } = traced();
    queue.laneOpened(0);
    submit('a');
    queue.cut();
    submit('b');
    queue.laneRefused(1);
    expect(effects()).toEqual(['send 0: a']);
    queue.headReady(0);
    queue.laneReady(0, true);
    queue.laneRefused(1);
    expect(effects()).toEqual(['answer a', 'alone b']);
  });
});

describe('in any history', () => {
  it('each member ends once, and as what became of it at the server', () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: 999 }), { minLength: 1, maxLength: 250 }), (choices) => {
        new PipelineSimulation(choices).run();
      }),
      { numRuns: 400, seed: 20_261_122 },
    );
  });
});
