import { beforeAll, expect, test } from 'vitest';
import { statementOf } from '../../test/support/example-map.ts';
import { loadParser } from '../sql/parser.ts';

beforeAll(() => loadParser());

function stepOf(text: string) {
  const { placement, refusal } = statementOf(text);
  expect(refusal).toBeUndefined();
  if (placement.kind !== 'everywhere') return placement.kind;
  expect(placement.change.mode).toBe('locks');
  const [step] = placement.change.steps([]);
  if (step?.kind !== 'leafList') throw new Error('it locks leaves');
  const { tables, others, homeOnly, before, after } = step;
  return { tables: tables.map(({ name }) => name), others, homeOnly, before, after };
}

test('of tables with a door on all nodes, of others on the home node', () => {
  expect(
    stepOf('LOCK TABLE public.events, ONLY plain, other.plain *, countries IN ACCESS SHARE MODE NOWAIT'),
  ).toEqual({
    tables: ['events'],
    others: ['"public"."countries"'],
    homeOnly: ['ONLY plain', 'other.plain'],
    before: 'LOCK TABLE ',
    after: ' IN ACCESS SHARE MODE NOWAIT',
  });
  expect(stepOf('lock events')).toMatchObject({ tables: ['events'], after: '' });
  expect(stepOf('LOCK TABLE plain')).toBe('home');
});
