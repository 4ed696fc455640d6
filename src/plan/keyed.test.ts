import { beforeAll, describe, expect, test } from 'vitest';
import { rewrittenOf, routeOf, statementOf } from '../../test/support/example-map.ts';
import { loadParser } from '../sql/parser.ts';

beforeAll(loadParser);

/** What routeOf says of each text. */
describe.each<[string, [string, string][]]>([
  [
    'values of the key',
    [
      ['SELECT * FROM accounts WHERE account_id = 5', '5'],
      ['SELECT * FROM accounts WHERE 5 = account_id', '5'],
      ['SELECT * FROM accounts WHERE account_id = -5', '-5'],
      ['SELECT * FROM accounts WHERE account_id = 0', '0'],
      ['SELECT * FROM accounts WHERE account_id = 3000000000', '3000000000'],
      ['SELECT * FROM accounts WHERE account_id = 0x1_F', '31'],
      ['SELECT * FROM accounts WHERE account_id = 0xFFFFFFFFFF', '1099511627775'],
      ["SELECT * FROM accounts WHERE account_id = '5'", '5'],
      ['SELECT * FROM accounts WHERE account_id = NULL', 'NULL'],
      ['SELECT * FROM accounts WHERE account_id = $2', '$2'],
      ['SELECT * FROM accounts WHERE account_id = $1::bigint', '$1::int8'],
      ['SELECT * FROM accounts WHERE account_id = CAST($1 AS integer)', '$1::int4'],
      ["SELECT * FROM accounts WHERE account_id = '5'::int8", '5'],
      ["SELECT * FROM accounts WHERE account_id = int '7'", '7'],
      ['SELECT * FROM accounts WHERE account_id IN (7)', '7'],
      ['SELECT * FROM accounts WHERE account_id IN (7, $1)', '7 $1'],
      ["SELECT * FROM accounts WHERE (account_id, name) = ($1, 'x')", '$1'],
      ['SELECT * FROM accounts WHERE account_id OPERATOR(pg_catalog.=) 5', '5'],
      ["SELECT * FROM accounts WHERE name = 'x' AND (plan = 1 AND account_id = 5)", '5'],
      ["SELECT * FROM docs WHERE slug = 'a''b'", "a'b"],
      ["SELECT * FROM docs WHERE slug = ''", ''],
      ['SELECT * FROM docs WHERE slug = $1::text', '$1::text'],
      ["SELECT * FROM docs WHERE slug = 'a'::varchar", 'a'],
      ["SELECT * FROM dated WHERE day = date '2020-01-02'", '2020-01-02'],
      ['SELECT * FROM amounts WHERE amount = 1.50', '1.50'],
      ['SELECT * FROM amounts WHERE amount = 1::numeric', '1'],
    ],
  ],
  [
    'no value of the key',
    [
      ['SELECT * FROM accounts', 'scattered'],
      ['SELECT count(*) FROM accounts', 'scattered'],
      ['TABLE accounts', 'scattered'],
      ['SELECT * FROM accounts WHERE account_id > 5', 'scattered'],
      ['SELECT * FROM accounts WHERE account_id <> 5', 'scattered'],
      ['SELECT * FROM accounts WHERE account_id NOT IN (5)', 'scattered'],
      ['SELECT * FROM accounts WHERE NOT account_id = 5', 'scattered'],
      ['SELECT * FROM accounts WHERE account_id = 5 OR true', 'scattered'],
      ['SELECT * FROM accounts WHERE account_id = 5 + 1', 'scattered'],
      ['SELECT * FROM accounts WHERE account_id = 5.0', 'scattered'],
      ['SELECT * FROM accounts WHERE account_id = $1::numeric', 'scattered'],
      ['SELECT * FROM accounts WHERE account_id = $1::text::int8', 'scattered'],
      ['SELECT * FROM accounts WHERE account_id = ANY($1)', 'scattered'],
      ['SELECT * FROM accounts WHERE account_id = (SELECT 5)', 'scattered'],
      ['SELECT * FROM accounts WHERE account_id IN (5, random())', 'scattered'],
      ['SELECT * FROM accounts WHERE account_id = true', 'scattered'],
      ['SELECT * FROM accounts WHERE account_id IS NOT DISTINCT FROM 5', 'scattered'],
      ['SELECT * FROM accounts WHERE account_id OPERATOR(mine.=) 5', 'scattered'],
      ['SELECT * FROM accounts WHERE account_id = name', 'scattered'],
      ['SELECT * FROM accounts WHERE name = 5', 'scattered'],
      ["SELECT * FROM docs WHERE slug = 'a'::char(5)", 'scattered'],
      ["SELECT * FROM docs WHERE slug = 'a'::varchar(1)", 'scattered'],
      ['SELECT * FROM docs WHERE slug = $1::text[]', 'scattered'],
      ["SELECT * FROM docs WHERE slug || '' = 'a'", 'scattered'],
      ['SELECT * FROM docs WHERE slug COLLATE "C" = \'a\'', 'scattered'],
      ["SELECT * FROM dated WHERE day = timestamp '2020-01-02'", 'scattered'],
      ['SELECT count(*) FROM accounts HAVING account_id = 5', 'mesh'],
    ],
  ],
  [
    'names',
    [
      ['SELECT * FROM public.accounts WHERE account_id = 5', '5'],
      ['SELECT * FROM PUBLIC . Accounts a WHERE a.account_id = 5', '5'],
      ['SELECT * FROM accounts a WHERE accounts.account_id = 5', 'scattered'],
      ['SELECT * FROM accounts a(x, y) WHERE x = 5', '5'],
      ['SELECT * FROM accounts a(name, account_id) WHERE account_id = 5', 'scattered'],
      ['SELECT * FROM accounts a(name, account_id) WHERE a.name = 5', '5'],
      ['SELECT * FROM public.accounts WHERE public.accounts.account_id = 5', '5'],
      ['SELECT * FROM "Odd ""Name""" WHERE "Key" = 5', '5'],
      ['SELECT * FROM other.accounts WHERE account_id = 5', 'home'],
      ['SELECT * FROM Accounts WHERE account_id = 5', '5'],
      ['SELECT * FROM "Accounts" WHERE account_id = 5', 'home'],
      ['SELECT * FROM accounts * WHERE account_id = 5', '5'],
      ['SELECT * FROM ONLY accounts WHERE account_id = 5', '5'],
      ['SELECT * FROM ONLY (accounts) WHERE account_id = 5', '0A000'],
      ['SELECT * FROM U&"\\0061ccounts" WHERE account_id = 5', 'mesh'],
      ['SELECT * FROM accounts TABLESAMPLE system(50) WHERE account_id = 5', '5'],
      ['SELECT * FROM postern_leaves.accounts_b1_g7', '42501'],
      ['UPDATE postern_leaves.accounts_b1_g7 SET name = 1', '42501'],
      ['DROP TABLE postern_leaves.accounts_b1_g7', '42501'],
      ['SELECT postern_leaves.f()', '42501'],
      ["SELECT postern_commit.mark(gen_random_uuid(), 1, '{}')", '42501'],
      ['SET search_path = public, postern_commit', '42501'],
      ["SELECT 'postern_leaves'", 'anywhere'],
      ["SELECT relname FROM pg_class WHERE relname = 'accounts'", 'home'],
      ['SELECT * FROM information_schema.tables', 'home'],
    ],
  ],
  [
    'joins',
    [
      ['SELECT * FROM events e JOIN accounts a ON a.account_id = e.account_id WHERE e.account_id = 5', '5'],
      ['SELECT * FROM events e, accounts a WHERE a.account_id = e.account_id AND a.account_id = $1', '$1'],
      ['SELECT * FROM events JOIN accounts USING (account_id) WHERE account_id = 5', '5 5'],
      ['SELECT * FROM events e JOIN accounts a USING (account_id) WHERE e.account_id = 5', '5'],
      ['SELECT * FROM events NATURAL JOIN accounts WHERE account_id = 5', '5 5'],
      ['SELECT * FROM events e NATURAL JOIN accounts a WHERE e.account_id = 5', 'mesh'],
      ['SELECT * FROM events e JOIN accounts a ON e.account_id = 5 AND a.account_id = 5', '5 5'],
      ['SELECT * FROM events e, accounts a WHERE e.account_id = 5', 'mesh'],
      ['SELECT * FROM events e JOIN accounts a ON a.name = e.payload WHERE e.account_id = 5', 'mesh'],
      [
        'SELECT * FROM events e LEFT JOIN accounts a ON a.account_id = e.account_id WHERE e.account_id = 5',
        '5',
      ],
      [
        'SELECT * FROM events e LEFT JOIN accounts a ON a.account_id = e.account_id WHERE a.account_id = 5',
        'scattered',
      ],
      ['SELECT * FROM events e LEFT JOIN accounts a ON e.account_id = 5 AND a.account_id = 5', 'mesh'],
      ['SELECT * FROM events e LEFT JOIN accounts a ON a.account_id = 5 WHERE e.account_id = 5', '5 5'],
      ['SELECT * FROM events e LEFT JOIN accounts a USING (account_id) WHERE e.account_id = 5', '5'],
      ['SELECT * FROM events e RIGHT JOIN accounts a USING (account_id) WHERE a.account_id = 5', '5'],
      ['SELECT * FROM events e RIGHT JOIN accounts a USING (account_id) WHERE e.account_id = 5', 'scattered'],
      ['SELECT * FROM events e FULL JOIN accounts a USING (account_id) WHERE e.account_id = 5', 'mesh'],
      ['SELECT * FROM events e FULL JOIN accounts a USING (account_id) WHERE account_id = 5', '5 5'],
      ['SELECT * FROM events e FULL JOIN accounts a ON e.account_id = 5 AND a.account_id = 5', 'mesh'],
      [
        'SELECT * FROM generate_series(1, 9) v(account_id) LEFT JOIN (events e JOIN generate_series(1, 2) x ON e.account_id = 5) USING (account_id) JOIN accounts a USING (account_id)',
        'mesh',
      ],
      [
        'SELECT * FROM generate_series(1, 9) v(account_id) LEFT JOIN (events e JOIN generate_series(1, 2) x ON e.account_id = 5) USING (account_id), users u WHERE u.id = account_id',
        'scattered',
      ],
      ['SELECT * FROM (events e JOIN accounts a USING (account_id)) AS j WHERE j.account_id = 5', 'mesh'],
      ['SELECT * FROM events e CROSS JOIN generate_series(1, 3) g WHERE account_id = 5', '5'],
      ['SELECT * FROM events e, (VALUES (1)) v(x) WHERE e.account_id = 5', '5'],
      ['SELECT * FROM events e, notes n WHERE e.account_id = 5', 'mesh'],
      ['SELECT * FROM events e, pg_class c WHERE e.account_id = 5', '0A000'],
      ["SELECT * FROM events e, docs d WHERE e.account_id = 5 AND d.slug = 'x'", 'mesh'],
      ['SELECT * FROM events a, events b WHERE a.account_id = 1 AND b.account_id = 2', '1 2'],
      ['SELECT * FROM events e FOR UPDATE', 'scattered'],
      ['SELECT * FROM events e WHERE account_id = 5 FOR UPDATE OF e', '5'],
    ],
  ],
  [
    'subqueries and CTEs',
    [
      ['SELECT * FROM (SELECT * FROM events WHERE account_id = 5) x', '5'],
      ['SELECT * FROM (SELECT * FROM events) x WHERE account_id = 5', 'scattered'],
      [
        'SELECT (SELECT max(name) FROM accounts a WHERE a.account_id = e.account_id) FROM events e WHERE account_id = 5',
        '5',
      ],
      [
        'SELECT * FROM accounts a WHERE account_id = 5 AND EXISTS (SELECT 1 FROM events e WHERE e.account_id = a.account_id)',
        '5',
      ],
      [
        'SELECT * FROM accounts a WHERE account_id = 5 AND EXISTS (SELECT 1 FROM generate_series(1, 3) g(account_id), users u WHERE u.id = account_id)',
        'mesh',
      ],
      [
        'SELECT * FROM accounts a WHERE EXISTS (SELECT 1 FROM events e WHERE e.account_id = a.account_id AND e.account_id = 5)',
        'scattered',
      ],
      ['SELECT * FROM accounts a WHERE account_id = 5 AND name IN (SELECT payload FROM events)', 'mesh'],
      [
        'SELECT * FROM accounts a, LATERAL (SELECT * FROM events e WHERE e.account_id = a.account_id LIMIT 1) x WHERE a.account_id = 5',
        '5',
      ],
      [
        'SELECT * FROM accounts WHERE account_id = 5 UNION ALL SELECT * FROM accounts WHERE account_id = $1',
        '5 $1',
      ],
      ['SELECT * FROM accounts WHERE account_id = 5 UNION ALL SELECT * FROM accounts', 'mesh'],
      ['SELECT * FROM accounts WHERE account_id = 5 ORDER BY (SELECT max(id) FROM events)', 'mesh'],
      ['WITH x AS (SELECT * FROM events WHERE account_id = 5) SELECT * FROM x', '5'],
      ['WITH events AS (SELECT 1 AS account_id) SELECT * FROM events', 'home'],
      ['WITH events AS (SELECT * FROM events WHERE account_id = 5) SELECT * FROM events', '5'],
      [
        'WITH RECURSIVE events AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM events WHERE n < 3) SELECT * FROM events',
        'home',
      ],
      ['WITH events AS (SELECT 1) SELECT * FROM public.events', 'scattered'],
      ['WITH accounts AS (SELECT 1) DELETE FROM accounts WHERE account_id = 5', '5'],
      ['WITH x AS (INSERT INTO events (account_id) VALUES (5) RETURNING *) SELECT * FROM x', '5'],
      ['WITH x AS (DELETE FROM events RETURNING *) SELECT * FROM x', '0A000'],
      [
        'WITH x AS (INSERT INTO notes VALUES (1) RETURNING *) SELECT * FROM events WHERE account_id = 5',
        '0A000',
      ],
      ['INSERT INTO notes SELECT * FROM events WHERE account_id = 5', '0A000'],
      ['UPDATE notes SET x = 1 WHERE y IN (SELECT id FROM events WHERE account_id = 5)', '0A000'],
      ['SELECT * INTO copy FROM events WHERE account_id = 5', '0A000'],
    ],
  ],
  [
    'UPDATE and DELETE',
    [
      ['UPDATE accounts SET name = $1 WHERE account_id = $2', '$2'],
      [
        'UPDATE accounts a SET name = e.payload FROM events e WHERE e.account_id = a.account_id AND a.account_id = 5',
        '5',
      ],
      ['UPDATE accounts SET name = 1', 'scattered'],
      ['UPDATE accounts SET account_id = 6 WHERE account_id = 5', '5 6'],
      ['UPDATE accounts SET (name, account_id) = (1, 6) WHERE account_id = 5', '0A000'],
      ['UPDATE accounts SET name = n.x FROM notes n WHERE account_id = 5', '0A000'],
      ['UPDATE accounts SET name = 1 WHERE CURRENT OF c', '0A000'],
      ['DELETE FROM accounts WHERE account_id = 5 RETURNING *', '5'],
      ['DELETE FROM accounts a USING events e WHERE e.account_id = a.account_id AND e.account_id = 5', '5'],
      ['DELETE FROM accounts', 'scattered'],
      ['DELETE FROM notes', 'home'],
      ['MERGE INTO accounts a USING (VALUES (1)) v(x) ON a.account_id = 1 WHEN MATCHED THEN DELETE', '0A000'],
      ['MERGE INTO notes USING events ON true WHEN MATCHED THEN DELETE', '0A000'],
      ['DECLARE c CURSOR FOR SELECT * FROM accounts WHERE account_id = 5', '5'],
      ['DECLARE c CURSOR FOR SELECT * FROM accounts', 'mesh'],
    ],
  ],
])('%s', (_title, cases) => {
  test.each(cases)('%s → %s', (text, expected) => {
    expect(routeOf(text)).toBe(expected);
  });
});

describe('search_path', () => {
  const text = 'SELECT * FROM events WHERE account_id = 5';
  test.each<[readonly string[], string | undefined]>([
    [['public'], 'public'],
    [['archive', 'public'], 'archive'],
    [['app', 'archive'], 'archive'],
    [['app'], undefined],
    [[], undefined],
  ])('%j finds events of %s', (searchPath, schema) => {
    const { placement } = statementOf(text, searchPath);
    expect(placement.kind === 'keyed' ? placement.table.schema : undefined).toBe(schema);
  });

  test('a relation of the same name in an earlier schema comes first', () => {
    const hidden = 'SELECT * FROM hidden WHERE id = 5';
    expect(routeOf(hidden, ['first', 'public'])).toBe('home');
    expect(routeOf(hidden, ['public', 'first'])).toBe('5');
  });

  test('a leaf by its bare name on a path with the schema of leaves', () => {
    expect(routeOf('SELECT * FROM accounts_b1_g7', ['postern_leaves'])).toBe('42501');
  });
});

describe('the text for a bucket', () => {
  test.each<[string, string]>([
    [
      'SELECT * FROM accounts WHERE account_id = 5',
      'SELECT * FROM <accounts> AS "accounts" WHERE account_id = 5',
    ],
    [
      'select public.accounts.name, public.accounts.* from public . /* x */ accounts where public.accounts.account_id=5 order by public.accounts.plan',
      'select accounts.name, accounts.* from <accounts> AS "accounts" where accounts.account_id=5 order by accounts.plan',
    ],
    [
      'SELECT * FROM accounts* WHERE account_id = 5',
      'SELECT * FROM <accounts> AS "accounts" WHERE account_id = 5',
    ],
    ['SELECT * FROM accounts* a WHERE account_id = 5', 'SELECT * FROM <accounts> a WHERE account_id = 5'],
    [
      'SELECT "é", \'é😀\' FROM "Odd ""Name""" WHERE "Key"=$1 AND \'ü\' <> \'\'',
      'SELECT "é", \'é😀\' FROM <Odd ""Name""> AS "Odd ""Name""" WHERE "Key"=$1 AND \'ü\' <> \'\'',
    ],
    [
      'UPDATE ONLY notes SET x = 1; UPDATE accounts SET name = 2 WHERE account_id = 5',
      'UPDATE ONLY notes SET x = 1; UPDATE <accounts> AS "accounts" SET name = 2 WHERE account_id = 5',
    ],
    [
      'SELECT * FROM accounts a JOIN public.events ON a.account_id = public.events.account_id WHERE a.account_id=1',
      'SELECT * FROM <accounts> a JOIN <events> AS "events" ON a.account_id = events.account_id WHERE a.account_id=1',
    ],
    [
      'UPDATE public.accounts SET (name, plan) = (public.accounts.plan, 1) WHERE account_id = 1',
      'UPDATE <accounts> AS "accounts" SET (name, plan) = (accounts.plan, 1) WHERE account_id = 1',
    ],
  ])('%s', (text, expected) => {
    expect(rewrittenOf(text)).toBe(expected);
  });

  test('a schema is taken from a column only where its table is meant', () => {
    expect(
      routeOf(
        'SELECT (SELECT public.events.id FROM archive.events WHERE account_id = 1) FROM public.events WHERE account_id = 1',
      ),
    ).toBe('mesh');
    expect(
      routeOf('SELECT public.events.id FROM public.events e, archive.events WHERE e.account_id = 1'),
    ).toBe('mesh');
    expect(routeOf('SELECT db.public.events.id FROM public.events WHERE account_id = 1')).toBe('mesh');
  });
});
