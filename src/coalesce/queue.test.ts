/** The coalescing queue: its transitions one by one, and its promises (SPEC.md) in a simulated world (test/coalescing/queue-simulation.ts). */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Simulation } from '../../test/coalescing/queue-simulation.ts';
import { COMMIT_FAILED, CoalescingQueue, SOMEBODY_FAILED } from './queue.ts';

interface Name {
  readonly name: string;
}

/** A queue whose effects are a list of lines; members are made by their names. */
function traced(
  options: { lanes?: number; batchMax?: number; tenantOf?: (name: string) => string | undefined } = {},
) {
  const lines: string[] = [];
  const members = new Map<string, Name>();
  const member = (name: string): Name => {
    const known = members.get(name) ?? { name };
    members.set(name, known);
    return known;
  };
  const queue = new CoalescingQueue<Name>(
    {
      send: (lane, batch) => lines.push(`send ${lane}: ${batch.map(({ name }) => name).join(' ')}`),
      answer: ({ name }) => lines.push(`answer ${name}`),
      alone: ({ name }) => lines.push(`alone ${name}`),
      canceled: ({ name }) => lines.push(`canceled ${name}`),
      unknown: ({ name }) => lines.push(`unknown ${name}`),
      cancelLane: (lane) => lines.push(`cancel lane ${lane}`),
    },
    {
      ...{ lanes: options.lanes ?? 2, batchMax: options.batchMax ?? 64 },
      tenantOf: ({ name }) => options.tenantOf?.(name),
    },
  );
  return {
    queue,
    member,
    submit: (names: string, affinity = -1) => {
      for (const name of names.split(' ')) queue.submit(member(name), affinity);
    },
    /** The effects since the last call. */
    effects: () => lines.splice(0),
  };
}

/** One lane that runs a, b and c. */
function running() {
  const world = traced({ lanes: 1 });
  world.submit('a b c');
  world.queue.laneOpened(0);
  expect(world.effects()).toEqual(['send 0: a b c']);
  return world;
}

describe('a lane', () => {
  it('without a connection takes nothing; when it opens it takes all that waits', () => {
    const { queue, submit, effects } = traced();
    submit('a b');
    queue.cut();
    expect(effects()).toEqual([]);
    queue.laneOpened(1);
    expect(effects()).toEqual(['send 1: a b']);
  });

  it('hands back all who wait when the node answers nothing, and none that are under way', () => {
    const { queue, submit, effects } = running();
    submit('d', 0);
    submit('e');
    queue.refuseAll();
    expect(effects()).toEqual(['alone e', 'alone d']);
    expect(queue.memberCount).toBe(3);
    queue.laneLost(0);
    expect(effects().sort()).toEqual(['unknown a', 'unknown b', 'unknown c']);
    queue.refuseAll();
    expect([effects(), queue.memberCount]).toEqual([[], 0]);
  });

  it('takes tenants in turns where more wait than a batch takes, and of one tenant those that came first', () => {
    const { queue, submit, effects } = traced({ lanes: 1, batchMax: 4, tenantOf: (name) => name[0] });
    submit('a1 a2 a3 a4 a5', 0);
    submit('a6 b1');
    submit('b2 c1', 0);
    queue.laneOpened(0);
    queue.laneReady(0);
    queue.laneReady(0);
    expect(effects().filter((line) => line.startsWith('send'))).toEqual([
      'send 0: a1 a2 b1 c1',
      'send 0: a3 a4 a5 b2',
      'send 0: a6',
    ]);
  });

  it('that is idle takes what there is at the cut, and nothing before', () => {
    const { queue, submit, effects } = traced();
    queue.laneOpened(0);
    submit('a b');
    expect(effects()).toEqual([]);
    queue.cut();
    expect(effects()).toEqual(['send 0: a b']);
  });

  it('sends again who was not carried out, before those that came later, and answers the others', () => {
    const { queue, submit, member, effects } = running();
    submit('d');
    queue.memberMissed(0, 0);
    queue.memberMissed(0, 1);
    queue.cancel(member('b'));
    expect(effects()).toEqual(['cancel lane 0']);
    queue.laneReady(0);
    expect(effects()).toEqual(['canceled b', 'answer c', 'send 0: a d']);
    queue.laneReady(0);
    expect(effects()).toEqual(['answer a', 'answer d']);
  });

  it('that is undone forgets who was not carried out', () => {
    const { queue, effects } = running();
    queue.memberMissed(0, 0);
    queue.memberFailed(0, 1);
    queue.laneReady(0);
    expect(effects()).toEqual(['alone b', 'send 0: a c']);
    queue.laneReady(0);
    expect(effects()).toEqual(['answer a', 'answer c']);
  });

  it('that is idle beside a running one leaves few to wait for it, and takes more at once', () => {
    const { queue, submit, effects } = traced();
    queue.laneOpened(0);
    queue.laneOpened(1);
    for (let i = 0; i < 40; i++) {
      submit(`a${i} b${i} c${i} d${i}`);
      queue.cut();
      queue.laneReady(0);
    }
    submit('a b c d');
    queue.cut();
    submit('e');
    queue.cut();
    effects();
    // A usual batch has four: three wait, four go.
    submit('f g');
    queue.cut();
    expect(effects()).toEqual([]);
    submit('h');
    queue.cut();
    expect(effects()).toEqual(['send 1: e f g h']);
  });

  it('that is idle takes the few that have waited when another one ends, whichever they are bound to', () => {
    const { queue, submit, effects } = traced();
    queue.laneOpened(0);
    queue.laneOpened(1);
    for (let i = 0; i < 40; i++) {
      submit(`a${i} b${i} c${i} d${i}`);
      queue.cut();
      queue.laneReady(0);
    }
    submit('a b c d');
    queue.cut();
    effects();
    submit('e', 1);
    queue.cut();
    expect(effects()).toEqual([]);
    queue.laneReady(0);
    expect(effects()).toEqual(['answer a', 'answer b', 'answer c', 'answer d', 'send 1: e']);
  });

  it('that runs takes what came meanwhile when it is ready, and answers first', () => {
    const { queue, submit, effects } = running();
    submit('d e');
    queue.cut();
    expect(effects()).toEqual([]);
    queue.laneReady(0);
    expect(effects()).toEqual(['answer a', 'answer b', 'answer c', 'send 0: d e']);
    queue.laneReady(0);
    expect(effects()).toEqual(['answer d', 'answer e']);
    expect(queue.isIdle(0)).toBe(true);
    expect(queue.memberCount).toBe(0);
  });

  it('that fails hands the failed member back, and runs the others again in their order, before later ones', () => {
    const { queue, submit, effects } = running();
    submit('d');
    queue.memberFailed(0, 1);
    expect(effects()).toEqual([]);
    queue.laneReady(0);
    expect(effects()).toEqual(['alone b', 'send 0: a c d']);
  });

  it('whose commit fails hands all back', () => {
    const { queue, effects } = running();
    queue.memberFailed(0, COMMIT_FAILED);
    queue.laneReady(0);
    expect(effects().sort()).toEqual(['alone a', 'alone b', 'alone c']);
  });

  it('in which somebody failed who is not known runs all again', () => {
    const { queue, effects } = running();
    queue.memberFailed(0, SOMEBODY_FAILED);
    queue.laneReady(0);
    expect(effects()).toEqual(['send 0: a b c']);
  });

  it('that is lost while running has members of unknown fate, and never runs them again', () => {
    const { queue, submit, effects } = running();
    submit('d');
    queue.laneLost(0);
    expect(effects().sort()).toEqual(['unknown a', 'unknown b', 'unknown c']);
    queue.laneOpened(0);
    expect(effects()).toEqual(['send 0: d']);
  });

  it('that is lost after a member had failed has lost nothing: all run again, in order', () => {
    const { queue, submit, effects } = running();
    submit('d');
    queue.memberFailed(0, 1);
    queue.laneLost(0);
    expect(effects()).toEqual([]);
    queue.laneOpened(0);
    expect(effects()).toEqual(['send 0: a b c d']);
  });

  it('that is lost after an error of the commit has members of unknown fate', () => {
    const { queue, effects } = running();
    queue.memberFailed(0, COMMIT_FAILED);
    queue.laneLost(0);
    expect(effects().sort()).toEqual(['unknown a', 'unknown b', 'unknown c']);
  });

  it('that fails hears of a second error without harm: the server may go down as well', () => {
    const { queue, effects } = running();
    queue.memberFailed(0, 0);
    queue.memberFailed(0, COMMIT_FAILED);
    queue.laneReady(0);
    expect(effects()).toEqual(['alone a', 'send 0: b c']);
  });

  it('that is lost passes what waited for it to the others', () => {
    const { queue, submit, effects } = traced();
    queue.laneOpened(0);
    queue.laneOpened(1);
    submit('a', 0);
    submit('b', 1);
    queue.cut();
    submit('c d', 0);
    queue.laneReady(1);
    expect(effects()).toEqual(['send 0: a', 'send 1: b', 'answer b']);
    queue.laneLost(0);
    expect(effects()).toEqual(['unknown a', 'send 1: c d']);
  });

  it('that gives its connection back after a batch passes what waited for it on', () => {
    const { queue, submit, effects } = traced();
    queue.laneOpened(0);
    queue.laneOpened(1);
    submit('a', 0);
    queue.cut();
    submit('b', 0);
    expect(effects()).toEqual(['send 0: a']);
    queue.laneReady(0, true);
    expect(effects()).toEqual(['answer a', 'send 1: b']);
    expect(queue.isIdle(0)).toBe(false);
    queue.laneOpened(0);
    expect(queue.isIdle(0)).toBe(true);
  });

  it('that is idle and closed can be opened again', () => {
    const { queue, submit, effects } = traced({ lanes: 1 });
    queue.laneOpened(0);
    queue.laneClosed(0);
    submit('a', 0);
    queue.cut();
    expect(effects()).toEqual([]);
    queue.laneOpened(0);
    expect(effects()).toEqual(['send 0: a']);
  });

  it('that is refused a connection hands back who waits only if no other has one', () => {
    const { queue, submit, effects } = traced();
    queue.laneOpened(0);
    submit('a', 0);
    queue.cut();
    submit('b', 1);
    queue.laneRefused(1);
    expect(effects()).toEqual(['send 0: a']);
    queue.laneReady(0);
    expect(effects()).toEqual(['answer a', 'send 0: b']);
    submit('c', 0);
    submit('d', 1);
    queue.laneLost(0);
    expect(effects()).toEqual(['unknown b']);
    queue.laneRefused(0);
    expect(effects()).toEqual(['alone c', 'alone d']);
  });

  it('takes the oldest first, its own and those for any lane alike', () => {
    const { queue, submit, effects } = traced({ batchMax: 3 });
    queue.laneOpened(0);
    submit('a', 0);
    queue.cut();
    submit('b c', 0);
    submit('d');
    submit('e f', 0);
    queue.laneReady(0);
    queue.laneReady(0);
    expect(effects()).toEqual(['send 0: a', 'answer a', 'send 0: b c d', ...answers('b c d'), 'send 0: e f']);
  });

  it('refuses what can only be a bug', () => {
    const { queue, submit } = traced();
    submit('a');
    expect(() => submit('a')).toThrow('once');
    expect(() => queue.laneReady(0)).toThrow('runs nothing');
    expect(() => queue.laneClosed(0)).toThrow('idle');
    expect(() => queue.memberFailed(0, 0)).toThrow('running batch');
    queue.laneOpened(0);
    expect(() => queue.laneOpened(0)).toThrow('opens');
    expect(() => queue.laneRefused(0)).toThrow('refused');
  });
});

describe('a canceled member', () => {
  it('that waits ends at once', () => {
    const { queue, member, submit, effects } = running();
    submit('d e');
    queue.cancel(member('d'));
    expect(effects()).toEqual(['canceled d']);
    queue.laneReady(0);
    expect(effects()).toEqual([...answers('a b c'), 'send 0: e']);
  });

  it('that runs has its lane canceled; undone, it ends and the others run again, whomever the cancel has struck', () => {
    for (const struck of [0, 1, 2]) {
      const { queue, member, effects } = running();
      queue.cancel(member('b'));
      expect(effects()).toEqual(['cancel lane 0']);
      queue.memberFailed(0, struck);
      queue.laneReady(0);
      expect(effects()).toEqual(['canceled b', 'send 0: a c']);
    }
  });

  it('that is committed all the same is answered', () => {
    const { queue, member, effects } = running();
    queue.cancel(member('b'));
    queue.laneReady(0);
    expect(effects()).toEqual(['cancel lane 0', ...answers('a b c')]);
  });

  it('on a lane that fails already needs no cancel', () => {
    const { queue, member, effects } = running();
    queue.memberFailed(0, 0);
    queue.cancel(member('b'));
    expect(effects()).toEqual([]);
    queue.laneReady(0);
    expect(effects()).toEqual(['canceled b', 'send 0: a c']);
  });

  it('whose lane is lost after a failure does not run again; after none, its fate is unknown', () => {
    const failed = running();
    failed.queue.cancel(failed.member('b'));
    failed.queue.memberFailed(0, 0);
    failed.queue.laneLost(0);
    failed.queue.laneOpened(0);
    expect(failed.effects()).toEqual(['cancel lane 0', 'canceled b', 'send 0: a c']);
    const unsure = running();
    unsure.queue.cancel(unsure.member('b'));
    unsure.queue.laneLost(0);
    expect(unsure.effects()).toEqual(['cancel lane 0', 'unknown c', 'unknown b', 'unknown a']);
  });

  it('is told OK alone when its cancel has cut the wait for standbys short', () => {
    const { queue, member, effects } = running();
    queue.cancel(member('b'));
    queue.commitUnconfirmed(0);
    queue.laneReady(0);
    expect(effects()).toEqual(['cancel lane 0', 'unknown a', 'answer b', 'unknown c']);
  });

  it('whose cancel comes late harms nobody: who is struck runs alone', () => {
    const { queue, member, submit, effects } = running();
    queue.cancel(member('b'));
    submit('d e');
    queue.laneReady(0);
    queue.memberFailed(0, 0);
    queue.laneReady(0);
    expect(effects().slice(-3)).toEqual(['send 0: d e', 'alone d', 'send 0: e']);
  });

  it('that has ended is not known', () => {
    const { queue, member, effects } = running();
    queue.laneReady(0);
    effects();
    queue.cancel(member('a'));
    expect(effects()).toEqual([]);
  });
});

describe('a member', () => {
  it('with too large an answer leaves when its batch is undone, whomever the cancel has struck', () => {
    const { queue, effects } = running();
    queue.memberTooLarge(0, 1);
    queue.memberTooLarge(0, 1);
    expect(effects()).toEqual(['cancel lane 0']);
    queue.memberFailed(0, 2);
    queue.laneReady(0);
    expect(effects()).toEqual(['alone b', 'send 0: a c']);
  });

  it('runs alone when its batch was undone eight times', () => {
    const { queue, submit, effects } = traced({ lanes: 1 });
    submit('a');
    queue.laneOpened(0);
    const alone: string[] = [];
    for (let round = 1; round <= 8; round++) {
      submit(`f${round}`);
      queue.memberFailed(0, SOMEBODY_FAILED);
      queue.laneReady(0);
      alone.push(...effects().filter((line) => line.startsWith('alone')));
      expect(alone).toEqual(round < 8 ? [] : ['alone a']);
    }
  });

  it('may bring the next one while it ends', () => {
    const sent: string[] = [];
    const queue: CoalescingQueue<Name> = new CoalescingQueue<Name>(
      {
        send: (_lane, batch) => sent.push(batch.map(({ name }) => name).join(' ')),
        answer: ({ name }) => name.length < 3 && queue.submit({ name: `${name}'` }, 0),
        alone: ({ name }) => queue.submit({ name: `${name}*` }, 0),
        canceled: () => {},
        unknown: () => {},
        cancelLane: () => {},
      },
      { lanes: 1, batchMax: 64 },
    );
    queue.laneOpened(0);
    for (const name of ['a', 'b', 'c']) queue.submit({ name }, 0);
    queue.cut();
    queue.memberFailed(0, 1);
    queue.laneReady(0);
    queue.laneReady(0);
    expect(sent).toEqual(['a b c', 'a c b*', "a' c' b*'"]);
  });
});

describe('the size of a batch', () => {
  /** Runs `count` batches, each member failing with probability `share`. Gives the mean size of the last half. */
  function meanSize(queue: CoalescingQueue<Name>, sizes: number[], share: number, count: number): number {
    let seed = 12_345;
    const random = () => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff;
      return seed / 0x7fffffff;
    };
    sizes.length = 0;
    for (let i = 0; i < count; i++) {
      while (queue.queuedCount < 64) queue.submit({ name: '' }, -1);
      queue.cut();
      const size = sizes.at(-1)!;
      for (let at = 0; at < size; at++) {
        if (random() >= share) continue;
        queue.memberFailed(0, at);
        break;
      }
      queue.laneReady(0);
    }
    const last = sizes.slice(count / 2);
    return last.reduce((sum, size) => sum + size, 0) / last.length;
  }

  it('shrinks with the share of failing members to about 3/√p − 2, and grows back', () => {
    const sizes: number[] = [];
    const ignore = () => {};
    const queue = new CoalescingQueue<Name>(
      {
        send: (_lane, batch) => sizes.push(batch.length),
        answer: ignore,
        alone: ignore,
        canceled: ignore,
        unknown: ignore,
        cancelLane: ignore,
      },
      { lanes: 1, batchMax: 64 },
    );
    queue.laneOpened(0);
    expect(meanSize(queue, sizes, 0, 20)).toBe(64);
    for (const share of [0.01, 0.05, 0.25]) {
      const mean = meanSize(queue, sizes, share, 4_000);
      expect(mean).toBeGreaterThan(0.4 * (3 / Math.sqrt(share) - 2));
      expect(mean).toBeLessThan(2.5 * (3 / Math.sqrt(share) - 2));
    }
    expect(meanSize(queue, sizes, 1, 400)).toBeLessThan(2);
    expect(meanSize(queue, sizes, 0, 1_000)).toBe(64);
  });
});

describe('in a world where everything goes wrong', () => {
  it('every member ends once, as what the server did with it allows', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat({ max: 5039 }), { size: 'max', maxLength: 700 }),
        fc.integer({ min: 1, max: 3 }),
        fc.constantFrom(1, 3, 64),
        (choices, lanes, batchMax) => {
          new Simulation({
            choices,
            lanes,
            batchMax,
            makeQueue: (effects, options) =>
              new CoalescingQueue(effects, {
                ...options,
                tenantOf: ({ key }) => (key < 0 ? undefined : key),
              }),
          }).run();
        },
      ),
      { numRuns: 1_500 },
    );
  });

  it('all ends are reached', () => {
    const ends = new Set<string>();
    for (const choices of fc.sample(fc.array(fc.nat({ max: 5039 }), { minLength: 500, maxLength: 700 }), {
      numRuns: 20,
      seed: 1,
    })) {
      const simulation = new Simulation({
        choices,
        lanes: 2,
        batchMax: 8,
        makeQueue: (effects, options) =>
          new CoalescingQueue(effects, { ...options, tenantOf: ({ key }) => (key < 0 ? undefined : key) }),
      });
      simulation.run();
      for (const { end } of simulation.members) ends.add(end!);
    }
    expect([...ends].sort()).toEqual(['alone', 'answered', 'canceled', 'unknown']);
  });
});

function answers(names: string): string[] {
  return names.split(' ').map((name) => `answer ${name}`);
}
