import { beforeAll, expect, test } from 'vitest';
import { EXAMPLE_MAP } from '../../test/support/example-map.ts';
import type { ClusterMap } from '../catalog/map.ts';
import { loadParser } from '../sql/parser.ts';
import { planQuery } from './planner.ts';

beforeAll(loadParser);

const MAP: ClusterMap = {
  ...EXAMPLE_MAP,
  schemas: new Map(
    [
      { name: 't1', nodeId: 2, relations: new Set(['orders', 'numbers']), plain: true },
      { name: 't2', nodeId: 1, relations: new Set(['orders']), plain: true },
      { name: 't3', nodeId: 2, relations: new Set(['others']), plain: false },
    ].map((schema) => [schema.name, schema]),
  ),
};

/** `node 2`, another kind of place, or the SQLSTATE. */
function placeOf(text: string, searchPath: string[]): string {
  const { statements } = planQuery(text, { map: MAP, searchPath });
  const [only] = statements;
  if (only?.refusal) return only.refusal.sqlState;
  const { placement } = only!;
  return placement.kind === 'node' ? `node ${placement.nodeId}` : placement.kind;
}

test.each([
  ['SELECT * FROM t1.orders', 'node 2'],
  ['SELECT * FROM t2.orders', 'node 1'],
  ['SELECT t1.orders.id FROM t1.orders', 'node 2'],
  ['SELECT t1.id FROM elsewhere t1', 'home'],
  ['SELECT * FROM t1.orders JOIN countries USING (code)', 'node 2'],
  ['SELECT * FROM t1.orders a JOIN t3.others b USING (id)', 'node 2'],
  ['SELECT * FROM t1.orders JOIN t2.orders USING (id)', '0A000'],
  ['SELECT * FROM t1.orders JOIN events USING (id)', '0A000'],
  ['SELECT * FROM t1.orders JOIN public.single USING (id)', '0A000'],
  ['SELECT * FROM t1.orders WHERE id IN (SELECT oid FROM pg_class)', 'node 2'],
  ["SELECT 'good'::t1.mood", 'node 2'],
  ['SELECT t1.f()', 'node 2'],
  ["SELECT nextval('t1.numbers')", 'node 2'],
  ['INSERT INTO t1.orders VALUES (1)', 'node 2'],
  ['CREATE TABLE t1.new (id int)', 'node 2'],
  ['CREATE TABLE t1.events (id int)', '0A000'],
  ['CREATE INDEX ON t1.orders (id)', 'node 2'],
  ['CREATE TYPE t1.mood AS ENUM ()', 'node 2'],
  ['DROP TABLE t1.orders', 'node 2'],
  ['GRANT USAGE ON SCHEMA t1 TO reader', 'node 2'],
  ['GRANT SELECT ON ALL TABLES IN SCHEMA t1 TO reader', 'node 2'],
  ['DROP SCHEMA t1', '0A000'],
  ['ALTER SCHEMA t1 RENAME TO x', '0A000'],
  ['EXPLAIN SELECT * FROM t1.orders', 'node 2'],
  ['SELECT * FROM orders', 'home'],
])('%s → %s', (text, expected) => {
  expect(placeOf(text, ['public'])).toBe(expected);
});

test.each([
  ['SELECT * FROM orders', 'node 2'],
  ['SELECT * FROM not_known_yet', 'node 2'],
  ['SELECT * FROM events', 'scattered'],
  ['SELECT * FROM countries', 'reference'],
  ['SELECT * FROM orders JOIN countries USING (code)', 'node 2'],
  ['SELECT * FROM orders JOIN events USING (id)', '0A000'],
  ['WITH q AS (SELECT 1) SELECT * FROM q', 'home'],
  ['SELECT * FROM pg_class', 'home'],
  ['SELECT 1', 'anywhere'],
  ['SELECT f()', 'node 2'],
  ["SELECT nextval('numbers')", 'node 2'],
  ['CREATE TABLE new (id int)', 'node 2'],
  ['CREATE TABLE countries (id int)', '0A000'],
  ['COPY orders FROM STDIN', 'node 2'],
  ['SET search_path = public', 'anywhere'],
  ['LISTEN x', 'home'],
])('with the schema first in the path: %s → %s', (text, expected) => {
  expect(placeOf(text, ['t1', 'public'])).toBe(expected);
});

test('behind another schema, its names are refused rather than guessed', () => {
  expect(placeOf('SELECT * FROM orders', ['public', 't1'])).toBe('0A000');
  expect(placeOf('SELECT * FROM elsewhere', ['public', 't1'])).toBe('home');
});

test('a session that may reach functions there has a backend of its own', () => {
  const effects = (text: string) =>
    planQuery(text, { map: MAP, searchPath: ['public'] }).statements[0]!.effects.map(({ kind }) => kind);
  expect(effects('SELECT * FROM t3.others')).toEqual(['pin']);
  expect(effects('SELECT * FROM t1.orders')).toEqual([]);
});
