/** EXPLAIN: where the query begins in the text, what its options say, and what it may leave in the session. */
import { beforeAll, describe, expect, it } from 'vitest';
import { statementOf } from '../../test/support/example-map.ts';
import { loadParser } from '../sql/parser.ts';
import type { ExplainPlacement } from './explain.ts';
import type { StatementPlan } from './plan.ts';

beforeAll(() => loadParser());

function planned(text: string): StatementPlan {
  const statement = statementOf(text);
  if (statement.refusal) throw statement.refusal;
  return statement;
}

function placementOf(text: string): ExplainPlacement {
  const { placement } = planned(text);
  if (placement.kind !== 'explain') throw new Error(placement.kind);
  return placement;
}

describe('EXPLAIN', () => {
  it.each<[string, string]>([
    ['EXPLAIN SELECT 1', 'EXPLAIN '],
    ['EXPLAIN (SELECT 1)', 'EXPLAIN '],
    ['explain /* why */ analyze verbose SELECT 1', 'explain /* why */ analyze verbose '],
    ['EXPLAIN (COSTS OFF, FORMAT text) SELECT 1', 'EXPLAIN (COSTS OFF, FORMAT text) '],
    ['EXPLAIN (FORMAT yaml) (SELECT 1)', 'EXPLAIN (FORMAT yaml, FORMAT JSON) '],
    ["EXPLAIN (FORMAT 'xml') SELECT ')'", "EXPLAIN (FORMAT 'xml', FORMAT JSON) "],
  ])('%s', (text, prefix) => {
    const placement = placementOf(text);
    expect(placement.prefix).toBe(prefix);
    expect(text.endsWith(placement.query)).toBe(true);
    expect(placement.query).toMatch(/^\(?SELECT/);
  });

  it('finds the query of a cursor, and counts characters before it', () => {
    const placement = placementOf(
      'EXPLAIN /* äöü 😀 */ DECLARE "for" CURSOR WITH HOLD FOR SELECT id FROM events',
    );
    expect(placement.query).toBe('SELECT id FROM events');
    expect(placement.charactersBefore).toBe('EXPLAIN /* äöü x */ DECLARE "for" CURSOR WITH HOLD FOR '.length);
  });

  it.each<[string, Partial<ExplainPlacement>]>([
    ['EXPLAIN (ANALYZE) SELECT 1', { analyzes: true, verbose: false, format: 'text' }],
    ['EXPLAIN (ANALYZE off, VERBOSE 1) SELECT 1', { analyzes: false, verbose: true }],
    ['EXPLAIN (ANALYZE, ANALYZE false) SELECT 1', { analyzes: false }],
    ['EXPLAIN ANALYSE SELECT 1', { analyzes: true }],
    ['EXPLAIN (FORMAT JSON) SELECT 1', { format: 'json' }],
  ])('%s', (text, options) => expect(placementOf(text)).toMatchObject(options));

  it('carries nothing out without ANALYZE, and keeps what the query leaves with it', () => {
    expect(planned('EXPLAIN SELECT f() FROM notes')).toMatchObject({ readOnly: true, unknownFunctions: [] });
    const analyzed = planned('EXPLAIN ANALYZE SELECT f() FROM notes');
    expect(analyzed).toMatchObject({ readOnly: false, unknownFunctions: ['f'], placement: { kind: 'home' } });
    expect(planned('EXPLAIN ANALYZE SELECT f() FROM events WHERE account_id = 5')).toMatchObject({
      unknownFunctions: ['f'],
      placement: { kind: 'explain' },
    });
    expect(() =>
      planned("EXPLAIN ANALYZE SELECT set_config('a.b', 'c', false) FROM events WHERE account_id = 5"),
    ).toThrow(/leaves state/);
  });

  it('does not read what a session has of sequences', () => {
    expect(() => planned("EXPLAIN ANALYZE SELECT currval('s')")).toThrow(/currval/);
  });

  it('is of the home node for what is no query', () => {
    expect(planned('EXPLAIN EXECUTE p').placement.kind).toBe('home');
    expect(planned('EXPLAIN CREATE TABLE x AS SELECT 1').placement.kind).toBe('home');
    expect(() => planned('EXPLAIN CREATE TABLE x AS SELECT * FROM events')).toThrow();
  });
});
