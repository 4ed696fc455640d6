/** Keys that are compared outside of the subquery whose columns they are. */
import { beforeAll, describe, expect, test } from 'vitest';
import { routeOf } from '../../test/support/example-map.ts';
import { loadParser } from '../sql/parser.ts';

beforeAll(loadParser);

const A = '(SELECT account_id AS a, name FROM accounts)';
const E = '(SELECT e.account_id FROM events e WHERE e.id > 1)';

describe('a condition on a column of a subquery', () => {
  test.each([
    `SELECT * FROM ${A} v WHERE v.a = 5`,
    `SELECT * FROM ${A} v WHERE a = 5 AND v.name = 'x'`,
    `SELECT * FROM ${E} v WHERE 5 = account_id`,
    `SELECT * FROM (SELECT w.a FROM ${A} w) v, accounts c WHERE c.account_id = 5 AND EXISTS (SELECT FROM ${A} x WHERE x.a = c.account_id) AND v.a = 5`,
    `SELECT * FROM ${A} v JOIN ${E} w ON w.account_id = v.a WHERE v.a = 5`,
    `SELECT * FROM ${A} v LEFT JOIN ${E} w ON w.account_id = v.a WHERE v.a = 5`,
    `SELECT * FROM events e LEFT JOIN ${A} v ON v.a = 5 WHERE e.account_id = 5`,
    `SELECT * FROM ${A} v LEFT JOIN (SELECT 1) n ON true WHERE v.a = 5`,
  ])('%s binds the table inside', (text) => {
    expect(new Set(routeOf(text).split(' '))).toEqual(new Set(['5']));
  });

  test.each([
    'SELECT * FROM (SELECT name AS account_id FROM accounts) v WHERE v.account_id = 5',
    'SELECT * FROM (SELECT account_id + 1 AS a FROM accounts) v WHERE a = 5',
    'SELECT * FROM (SELECT max(account_id) AS a FROM accounts) v WHERE a = 5',
    'SELECT * FROM (SELECT account_id AS a FROM accounts LIMIT 3) v WHERE a = 5',
    'SELECT * FROM (SELECT account_id AS a FROM accounts UNION ALL SELECT 5) v WHERE a = 5',
    'SELECT * FROM (SELECT account_id AS a, name AS b FROM accounts) v (b, a) WHERE a = 5',
    'SELECT * FROM (SELECT a.account_id AS a FROM events e LEFT JOIN accounts a ON a.account_id = e.id) v WHERE a = 5',
    `SELECT * FROM ${A} v LEFT JOIN events e ON v.a = 5 AND e.account_id = v.a`,
    `SELECT * FROM ${A} v WHERE v.a = 5 OR v.name = 'x'`,
    `SELECT * FROM accounts WHERE EXISTS (SELECT FROM ${A} v WHERE v.a = 5)`,
  ])('%s does not', (text) => {
    expect(routeOf(text)).not.toBe('5');
  });
});
