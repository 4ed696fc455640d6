import { beforeAll, describe, expect, it } from 'vitest';
import { statementOf } from '../../test/support/example-map.ts';
import { loadParser } from '../sql/parser.ts';

beforeAll(loadParser);

/** Like `leaves of all`, `rows 2`, or an SQLSTATE; `keyed, else …` if it may be of one bucket. */
function wayOf(text: string): string {
  const { placement, refusal } = statementOf(text);
  if (refusal) return refusal.sqlState;
  if (placement.kind === 'keyed') return `keyed, else ${placement.several?.kind ?? 'refused'}`;
  if (placement.kind !== 'scattered') return placement.kind;
  const { scatter } = placement;
  if (scatter.kind === 'rows') return `rows ${scatter.rows.length}`;
  if (scatter.kind === 'leaves' || scatter.kind === 'move')
    return `${scatter.kind} of ${Array.isArray(scatter.keys) ? scatter.keys.length : 'all'}`;
  return scatter.kind;
}

describe('INSERT … VALUES', () => {
  it.each([
    ['INSERT INTO accounts VALUES (1), (2)', 'keyed, else rows'],
    ['INSERT INTO accounts VALUES ($1), ($2)', 'keyed, else rows'],
    ['INSERT INTO users (name) VALUES (1), (2)', 'keyed, else rows'],
    ['INSERT INTO accounts VALUES (1)', 'keyed, else refused'],
    ['INSERT INTO accounts VALUES (1), (1 + 1)', '0A000'],
    [
      'WITH x AS (DELETE FROM accounts WHERE account_id = 1) INSERT INTO accounts VALUES (1), (2)',
      'keyed, else refused',
    ],
  ])('%s → %s', (text, way) => expect(wayOf(text)).toBe(way));
});

describe('UPDATE and DELETE', () => {
  it.each([
    ['UPDATE accounts SET name = 1', 'leaves of all'],
    ['DELETE FROM accounts WHERE account_id > 5', 'leaves of all'],
    ['DELETE FROM accounts WHERE account_id IN (1, 2)', 'keyed, else leaves'],
    ['DELETE FROM accounts WHERE account_id = ANY (ARRAY[1, 2])', 'keyed, else leaves'],
    ["DELETE FROM accounts WHERE account_id = ANY ('{1,2}')", 'leaves of all'],
    ['DELETE FROM accounts WHERE account_id = 1 OR account_id = 2', 'leaves of all'],
    ['UPDATE accounts a SET name = 1 FROM events e WHERE e.account_id = a.account_id', 'leaves of all'],
    [
      'UPDATE accounts a SET name = 1 FROM events e WHERE e.account_id = a.account_id AND e.account_id IN (1, 2)',
      'keyed, else leaves',
    ],
    [
      'DELETE FROM accounts a WHERE EXISTS (SELECT FROM events e WHERE e.account_id = a.account_id)',
      'leaves of all',
    ],
    ['DELETE FROM accounts WHERE account_id IN (SELECT account_id FROM events)', '0A000'],
    ['DELETE FROM accounts a USING events e WHERE e.id = a.name', '0A000'],
    [
      'DELETE FROM accounts WHERE account_id IN (1, 2) AND EXISTS (SELECT FROM events e WHERE e.account_id = 3)',
      'keyed, else refused',
    ],
    ['DELETE FROM accounts a USING docs d WHERE d.body = a.name', '0A000'],
    ['DELETE FROM accounts a USING h WHERE h.id = a.account_id', '0A000'],
    ['DELETE FROM accounts a USING ranged r WHERE r.k = a.account_id', '0A000'],
    ['UPDATE accounts a SET name = 1 FROM ranged r WHERE r.k = a.account_id', '0A000'],
    ['UPDATE accounts a SET account_id = 7 FROM ranged r WHERE r.k = a.account_id', '0A000'],
    ['DELETE FROM accounts a WHERE EXISTS (SELECT FROM ranged r WHERE r.k = a.account_id)', '0A000'],
    ["DELETE FROM accounts WHERE ctid = '(0,1)'", '0A000'],
    ['DELETE FROM accounts WHERE CURRENT OF c', '0A000'],
    [
      'WITH x AS (UPDATE accounts SET name = 1 WHERE account_id = 1 RETURNING 1) DELETE FROM accounts',
      '0A000',
    ],
    ['WITH x AS (SELECT 1 AS y) DELETE FROM accounts USING x WHERE name = y', 'leaves of all'],
    ["UPDATE accounts SET name = set_config('a.b', 'c', false)", '0A000'],
  ])('%s → %s', (text, way) => expect(wayOf(text)).toBe(way));
});

describe('UPDATE of the shard key', () => {
  it.each([
    ['UPDATE accounts SET account_id = 6 WHERE account_id = 5', 'keyed, else move'],
    ['UPDATE accounts SET account_id = 6', 'move of all'],
    ['UPDATE accounts SET account_id = account_id + 1 WHERE account_id = 5', 'move of 1'],
    [
      'UPDATE accounts SET account_id = accounts.account_id, name = 1 WHERE account_id = 5',
      'keyed, else refused',
    ],
    ['UPDATE accounts SET (account_id, name) = (1, 2)', '0A000'],
    ['UPDATE accounts SET account_id = 1 RETURNING old.account_id', '0A000'],
    ['WITH x AS (SELECT 1) UPDATE accounts SET account_id = 1', '0A000'],
    ['INSERT INTO accounts VALUES (1), (2) ON CONFLICT (account_id) DO UPDATE SET account_id = 3', '0A000'],
    [
      'INSERT INTO accounts VALUES (1), (2) ON CONFLICT (account_id) DO UPDATE SET account_id = excluded.account_id',
      'keyed, else rows',
    ],
  ])('%s → %s', (text, way) => expect(wayOf(text)).toBe(way));
});

describe('INSERT … SELECT', () => {
  it.each([
    ['INSERT INTO accounts SELECT account_id, payload FROM events', 'leaves of all'],
    ['INSERT INTO accounts SELECT * FROM accounts WHERE account_id IN (1, 2)', 'keyed, else leaves'],
    [
      'INSERT INTO accounts (name, account_id) SELECT count(*), account_id FROM events GROUP BY account_id',
      'leaves of all',
    ],
    [
      'INSERT INTO accounts (name, account_id) SELECT a.name, e.account_id FROM events e LEFT JOIN accounts a USING (account_id)',
      'leaves of all',
    ],
    [
      'INSERT INTO accounts SELECT a.account_id FROM events e LEFT JOIN accounts a USING (account_id)',
      'copy',
    ],
    ['INSERT INTO accounts SELECT account_id FROM events LIMIT 5', 'copy'],
    ['INSERT INTO accounts SELECT account_id, row_number() OVER () FROM events', 'copy'],
    ['INSERT INTO accounts SELECT account_id + 1 FROM events', 'copy'],
    ['INSERT INTO accounts SELECT * FROM h', 'copy'],
    ['INSERT INTO accounts SELECT $1, g FROM generate_series(1, 9) g', 'keyed, else refused'],
    ['INSERT INTO users (name) SELECT name FROM accounts', 'copy'],
    ['INSERT INTO docs SELECT name FROM accounts', 'copy'],
    ['INSERT INTO accounts (name) SELECT 1', '0A000'],
    ['INSERT INTO accounts OVERRIDING USER VALUE SELECT * FROM h', '0A000'],
  ])('%s → %s', (text, way) => expect(wayOf(text)).toBe(way));

  it('keeps the query and what follows it apart', () => {
    const text =
      'INSERT INTO accounts AS a (account_id) (SELECT id FROM h) ON CONFLICT DO NOTHING RETURNING a.name';
    const { placement } = statementOf(text);
    const scatter = placement.kind === 'scattered' ? placement.scatter : undefined;
    expect(scatter).toMatchObject({
      ...{ kind: 'copy', sourceText: '(SELECT id FROM h) ', sourceAt: text.indexOf('(SELECT') },
      target: { alias: 'a', tail: [{ kind: 'text', text: 'ON CONFLICT DO NOTHING RETURNING a.name' }] },
    });
  });
});

describe('a move', () => {
  it('has the clauses of the UPDATE', () => {
    const { placement } = statementOf(
      "UPDATE accounts SET account_id = (account_id + 1), name = 'a' IS DISTINCT FROM ARRAY[1, 2], plan = DEFAULT " +
        "FROM (VALUES (1)) v(x) WHERE name = 'where' AND plan IS NOT DISTINCT FROM 3",
    );
    const scatter = placement.kind === 'scattered' ? placement.scatter : undefined;
    if (scatter?.kind !== 'move') throw new Error('not a move');
    const written = (parts: typeof scatter.source) =>
      parts.map((part) => (part.kind === 'text' ? part.text : '<leaf>')).join('');
    expect(written(scatter.source)).toBe(
      "DELETE FROM <leaf>\nUSING  (VALUES (1)) v(x) \nWHERE  name = 'where' AND plan IS NOT DISTINCT FROM 3",
    );
    expect([...scatter.assigned].map(([name, parts]) => [name, parts && written(parts)])).toEqual([
      ['account_id', ' (account_id + 1)'],
      ['name', " 'a' IS DISTINCT FROM ARRAY[1, 2]"],
      ['plan', undefined],
    ]);
  });
});
