import { beforeAll, expect, test } from 'vitest';
import { statementOf } from '../../test/support/example-map.ts';
import { bucketsWithin } from '../execute/route.ts';
import { loadParser } from '../sql/parser.ts';

beforeAll(loadParser);

/** The buckets of a statement over table ranged: below 10, 10 to 19, 20 to 29, from 30 on. */
function bucketsOf(text: string): string {
  const { placement, refusal } = statementOf(text);
  if (refusal) return refusal.sqlState;
  if (placement.kind !== 'scattered' || !('keys' in placement.scatter)) return placement.kind;
  const { keys } = placement.scatter;
  if (!keys || !('limits' in keys)) return keys ? 'keys' : 'all';
  return bucketsWithin(placement.table, keys.limits, { bind: undefined, ids: [] }).join(' ');
}

test.each([
  ['k >= 10', '1 2 3'],
  ['k > 9', '0 1 2 3'],
  ['k < 10', '0'],
  ['k <= 10', '0 1'],
  ['k < 11', '0 1'],
  ['k BETWEEN 12 AND 19', '1'],
  ['k BETWEEN 12 AND 20', '1 2'],
  ['12 <= k AND 25 > ranged.k', '1 2'],
  ["k >= '20'::int8 AND v = 5", '2 3'],
  ['k >= 20 OR v = 5', 'all'],
  ['NOT k >= 20', 'all'],
  ['k > 25 AND k < 5', '2'],
  ['k NOT BETWEEN 12 AND 19', 'all'],
  ['k BETWEEN SYMMETRIC 19 AND 12', 'all'],
  ['k >= 2.5', 'all'],
  ['k >= NULL', '0 1 2 3'],
  ['k >= v', 'all'],
  ['k + 1 >= 30', 'all'],
  ['k OPERATOR(pg_catalog.>=) 30', '3'],
  ['k OPERATOR(public.>=) 30', 'all'],
  ['k >= 30 AND k IN (31, 5)', 'keyed'],
  ['k >= $1', '0 1 2 3'],
])('WHERE %s → %s', (condition, expected) => {
  expect(bucketsOf(`SELECT * FROM ranged WHERE ${condition}`)).toBe(expected);
});

test.each([
  ['SELECT count(*) FROM ranged WHERE k < 10', '0'],
  ['SELECT * FROM ranged a JOIN ranged b USING (k) WHERE b.k >= 30', '3'],
  ['SELECT * FROM ranged a LEFT JOIN ranged b ON a.k = b.k AND b.k >= 30', 'all'],
  ['SELECT * FROM ranged a LEFT JOIN ranged b ON a.k = b.k WHERE a.k >= 30', '3'],
  ['UPDATE ranged SET v = 1 WHERE k >= 30', '3'],
  ['DELETE FROM ranged WHERE k < 10', '0'],
  ['SELECT * FROM accounts WHERE account_id >= 30', 'all'],
])('%s → %s', (text, expected) => {
  expect(bucketsOf(text)).toBe(expected);
});
