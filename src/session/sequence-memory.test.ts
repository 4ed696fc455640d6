import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SequenceMemory } from './sequence-memory.ts';

const nothing = () => new SequenceMemory();
const known = () => {
  const memory = nothing();
  memory.note('s', '7');
  memory.onTransactionEnd();
  return memory;
};
const doubtful = (where: 'own' | 'shared') => {
  const memory = known();
  memory.mayHaveAdvanced(undefined, where);
  return memory;
};

describe('what is remembered', () => {
  test.each([
    ['nothing', nothing(), 'undefined', 'undefined', 'undefined'],
    ['known', known(), { value: '7' }, { value: '7' }, { value: '7' }],
    ['in doubt', doubtful('shared'), { value: '7' }, 'doubtful', 'doubtful'],
  ] as const)('%s', (_, memory, supplied, other, last) => {
    expect(memory.current('s', true)).toEqual(supplied);
    expect(memory.current('s', false)).toEqual(other);
    expect(memory.last()).toEqual(last);
  });

  test('a sequence that was advanced by name is in doubt, and no other', () => {
    const memory = known();
    memory.mayHaveAdvanced('t', 'shared');
    expect(memory.current('t', true)).toBe('doubtful');
    expect(memory.current('s', true)).toEqual({ value: '7' });
    memory.note('t', '1');
    expect(memory.current('t', true)).toEqual({ value: '1' });
    expect(memory.last()).toEqual({ value: '1' });
  });

  test('DISCARD ALL', () => {
    const memory = doubtful('shared');
    memory.clear();
    expect(memory.last()).toBe('undefined');
    expect(memory.current('s', true)).toBe('undefined');
  });
});

describe('a doubtful lastval', () => {
  test('of the session’s own backend, if all that is in doubt was there, and it knows all', () => {
    const own = nothing();
    own.mayHaveAdvanced(undefined, 'own');
    expect(own.lastIsOwn).toBe(true);
    own.mayHaveAdvanced(undefined, 'shared');
    expect(own.lastIsOwn).toBe(false);
    expect(doubtful('own').lastIsOwn).toBe(false);
  });

  test.each([
    ['advanced in it', () => doubtful('shared'), true, 'thatBranch'],
    ['not advanced in it, known before', () => doubtful('shared'), false, { value: '7' }],
    [
      'in doubt before it',
      () => {
        const memory = doubtful('shared');
        memory.onTransactionEnd();
        return memory;
      },
      false,
      'doubtful',
    ],
    [
      'both in it',
      () => {
        const memory = nothing();
        memory.note('s', '1');
        memory.mayHaveAdvanced(undefined, 'shared');
        return memory;
      },
      true,
      'doubtful',
    ],
  ] as const)('in a transaction: %s', (_, make, hasAdvanced, expected) => {
    expect(make().lastInTransaction(hasAdvanced)).toEqual(expected);
  });
});

test('what it gives is what one PostgreSQL session would, or it is in doubt', () => {
  const event = fc.oneof(
    fc.record({ kind: fc.constant('supplied' as const), key: fc.constantFrom('s', 't') }),
    fc.record({ kind: fc.constant('seen' as const), key: fc.constantFrom('h', 'i') }),
    fc.record({ kind: fc.constant('unseen' as const), key: fc.constantFrom('h', 'i', undefined) }),
    fc.record({ kind: fc.constant('ends' as const) }),
  );
  fc.assert(
    fc.property(fc.array(event, { maxLength: 12 }), (events) => {
      const memory = nothing();
      const current = new Map<string, string>();
      let last: string | undefined;
      let next = 1;
      for (const one of events) {
        if (one.kind === 'ends') memory.onTransactionEnd();
        else {
          const value = String(next++);
          if (one.kind === 'unseen') memory.mayHaveAdvanced(undefined, 'shared');
          else memory.note(one.key, value);
          if (one.key === undefined) continue;
          current.set(one.key, value);
          last = value;
        }
      }
      const remembered = memory.last();
      if (remembered !== 'doubtful')
        expect(remembered).toEqual(last === undefined ? 'undefined' : { value: last });
      for (const key of ['s', 't', 'h', 'i']) {
        const found = memory.current(key, key === 's' || key === 't');
        const truth = current.get(key);
        if (found !== 'doubtful') expect(found).toEqual(truth === undefined ? 'undefined' : { value: truth });
      }
    }),
  );
});

test('a session that goes on in another process gives what it would have given', () => {
  const step = fc.record({
    kind: fc.constantFrom('note', 'own', 'shared', 'end'),
    key: fc.constantFrom('s', 't', undefined),
  });
  fc.assert(
    fc.property(fc.array(step), fc.array(step), (before, after) => {
      const stays = new SequenceMemory();
      const play = (memory: SequenceMemory, steps: typeof before): void => {
        for (const [i, { kind, key }] of steps.entries()) {
          if (kind === 'end') memory.onTransactionEnd();
          else if (kind === 'note') memory.note(key ?? 's', `${i}`);
          else memory.mayHaveAdvanced(key, kind);
        }
      };
      play(stays, before);
      stays.onTransactionEnd();
      const moves = new SequenceMemory();
      moves.unpack(JSON.parse(JSON.stringify(stays.pack())));
      for (const memory of [stays, moves]) play(memory, after);
      const seen = (memory: SequenceMemory) => [
        ...['s', 't', 'u'].flatMap((key) => [memory.current(key, true), memory.current(key, false)]),
        ...['s', 't', undefined].map((key) => memory.isOwn(key)),
        ...[memory.last(), memory.lastIsOwn, memory.lastInTransaction(true), memory.lastInTransaction(false)],
      ];
      expect(seen(moves)).toEqual(seen(stays));
    }),
  );
});
