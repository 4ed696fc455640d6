import { beforeAll, describe, expect, test } from 'vitest';
import { EXAMPLE_MAP, planOf, statementOf } from '../../test/support/example-map.ts';
import { loadParser } from '../sql/parser.ts';

beforeAll(loadParser);

const NOT_KEYED = { schema: undefined, name: 't', table: undefined };
const PLAIN = { returning: false, onConflict: false, multiRow: false, rowParameters: [] };

describe('a write that may share a transaction', () => {
  test.each<[string, object]>([
    ['INSERT INTO t VALUES ($1)', { kind: 'insert', ...NOT_KEYED, ...PLAIN, valuesOnly: true }],
    ['INSERT INTO s.t VALUES (1)', { schema: 's', name: 't', valuesOnly: true }],
    ['INSERT INTO t DEFAULT VALUES', { kind: 'insert', multiRow: false, valuesOnly: false }],
    ['INSERT INTO t VALUES (1), ($1)', { multiRow: true, valuesOnly: false }],
    ['INSERT INTO t VALUES (1) RETURNING *', { returning: true, valuesOnly: true }],
    [
      'INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = excluded.b',
      { onConflict: true, valuesOnly: false, valuesStart: -1, names: ['.b'] },
    ],
    ['UPDATE t SET a = a + $1 WHERE id = $2', { kind: 'update', ...NOT_KEYED, ...PLAIN, rowParameters: [1] }],
    ['DELETE FROM ONLY t WHERE id = $1', { kind: 'delete', rowParameters: [0], valuesOnly: false }],
    ["INSERT INTO t VALUES (nextval('s'), txid_current())", { valuesOnly: false }],
  ])('%s', (text, facts) => {
    expect(statementOf(text).write).toMatchObject(facts);
  });

  test('on a sharded table, keyed', () => {
    const table = EXAMPLE_MAP.tables.get('public')!.get('accounts')!;
    expect(statementOf('UPDATE accounts SET plan = 1 WHERE account_id = $1').write?.table).toBe(table);
    expect(statementOf('INSERT INTO accounts VALUES (1)').write?.table).toBe(table);
    expect(statementOf('UPDATE accounts SET plan = 1').write).toBeUndefined();
  });
});

describe('a write that needs a transaction to itself', () => {
  test.each([
    'INSERT INTO t SELECT 1',
    'INSERT INTO t TABLE u',
    'INSERT INTO t VALUES (1) ORDER BY 1',
    'INSERT INTO t VALUES (1) LIMIT 1',
    'INSERT INTO t VALUES ((SELECT max(a) FROM u))',
    'INSERT INTO t VALUES ((SELECT 1))',
    'INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = (SELECT 1)',
    'WITH x AS (SELECT 1) INSERT INTO t VALUES (1)',
    'WITH x AS (DELETE FROM u RETURNING *) UPDATE t SET a = 1',
    'WITH x AS (INSERT INTO t VALUES (1)) SELECT 1',
    'UPDATE t SET a = 1 FROM u WHERE t.a = u.a',
    'UPDATE t SET a = 1 WHERE a IN (SELECT a FROM u)',
    'UPDATE t SET (a, b) = (SELECT 1, 2)',
    'DELETE FROM t USING u WHERE t.a = u.a',
    'DELETE FROM t WHERE EXISTS (SELECT FROM u)',
    'UPDATE t SET a = 1 WHERE CURRENT OF c',
    'DELETE FROM t WHERE CURRENT OF c',
    'DELETE FROM t WHERE a = 1 RETURNING (SELECT 1)',
    'MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE',
    'SELECT * FROM t FOR UPDATE',
    'EXPLAIN ANALYZE INSERT INTO t VALUES (1)',
    'PREPARE x AS INSERT INTO t VALUES (1)',
    'COPY t FROM STDIN',
    'TRUNCATE t',
    'INSERT INTO t VALUES (f($1))',
    'INSERT INTO t VALUES (s.lower($1))',
    "INSERT INTO t VALUES (pg_notify('a', 'b'))",
    'UPDATE t SET a = 1 WHERE pg_try_advisory_xact_lock(a)',
    "UPDATE t SET a = 1 RETURNING set_config('x.y', '1', true)",
    'INSERT INTO t VALUES (pg_sleep(1))',
    "INSERT INTO t VALUES (currval('s'))",
    "INSERT INTO t VALUES (setval('s', 1))",
    'INSERT INTO t VALUES (lo_create(0))',
    'INSERT INTO pg_temp.t VALUES (1)',
    'UPDATE accounts SET name = 2',
  ])('%s', (text) => {
    expect(statementOf(text).write).toBeUndefined();
  });
});

test.each<[string, number[]]>([
  ['a = $1', [0]],
  ['$3 = a AND t.b = $1::int', [2, 0]],
  ['a::text = $2 AND (b = $1 AND c > $3) AND a = $2', [1, 0]],
  ['a OPERATOR(pg_catalog.=) $1', [0]],
  ['a = $1 OR b = $2', []],
  ['NOT a = $1', []],
  ['(a = $1) IS TRUE', []],
  ['a <> $1', []],
  ['a IN ($1)', []],
  ['a = ANY ($1)', []],
  ['a = $1 + 1', []],
  ['$1 = $2', []],
  ['true', []],
])('rows told by WHERE %s', (where, parameters) => {
  expect(statementOf(`DELETE FROM t WHERE ${where}`).write?.rowParameters).toEqual(parameters);
});

test.each<[string, string[]]>([
  ['UPDATE t SET a = lower(b) || t.c', ['||', 'lower', '.c']],
  ['UPDATE t SET a = (t).f, b = (c).d.e', ['.f', '.d', '.e']],
  ["UPDATE t SET a = 'x'::s.mood", ['type mood']],
  ['DELETE FROM t WHERE a BETWEEN 1 AND 2', ['BETWEEN', '<', '<=', '>', '>=']],
  ["DELETE FROM t WHERE a LIKE 'x'", ['~~']],
  ['UPDATE t SET a = CASE b WHEN 1 THEN greatest(c, 2) END', ['=', '<']],
])('names of %s', (text, names) => {
  expect(statementOf(text).write?.names).toEqual(names);
});

/** The row as it stands in the text. */
function rowOf(text: string): string | undefined {
  const write = planOf(text).statements.at(-1)?.write;
  if (!write) throw new Error(`not a write: ${text}`);
  const { valuesOnly, valuesStart, valuesEnd } = write;
  if (!valuesOnly) {
    expect([valuesStart, valuesEnd]).toEqual([-1, -1]);
    return undefined;
  }
  return Buffer.from(text).subarray(valuesStart, valuesEnd).toString();
}

test.each<[string, string | undefined]>([
  ["INSERT INTO t VALUES (1, $1, 'a', DEFAULT, NULL, -1.5)", "(1, $1, 'a', DEFAULT, NULL, -1.5)"],
  ["INSERT INTO t (a, b) VALUES ($1::int, E'\\')')", "($1::int, E'\\')')"],
  ['INSERT INTO "é""t" AS values ("values", b) OVERRIDING USER VALUE VALUES (1) RETURNING a', '(1)'],
  ['INSERT INTO t VALUES /* ( */ (1 -- )\n, 2) -- (3)', '(1 -- )\n, 2)'],
  [
    "SELECT 'é'; INSERT INTO s.t VALUES (now(), CURRENT_DATE, lower($1)); ",
    '(now(), CURRENT_DATE, lower($1))',
  ],
  [
    'INSERT INTO values (values) VALUES (coalesce($1, 0), to_jsonb($2::text))',
    '(coalesce($1, 0), to_jsonb($2::text))',
  ],
  ['INSERT INTO accounts (account_id, name) VALUES ($1, $2)', '($1, $2)'],
  ['INSERT INTO t (a) (VALUES (1))', undefined],
  ['INSERT INTO t VALUES (generate_series(1, 3))', undefined],
  ['INSERT INTO t VALUES (lower(unnest($1::text[])))', undefined],
  ['INSERT INTO t VALUES ($1 + 1)', undefined],
  ['INSERT INTO t VALUES (ARRAY[$1])', undefined],
  ['INSERT INTO t VALUES (1), (2)', undefined],
  ['INSERT INTO t DEFAULT VALUES', undefined],
])('the row of %s', (text, row) => {
  expect(rowOf(text)).toBe(row);
});

test.each<[string, boolean]>([
  ['UPDATE t SET a = a + $1 WHERE id = $2', true],
  ['UPDATE t SET (a, b) = ($1, $2) WHERE t.id = $3 AND $4::int = kind', true],
  ['UPDATE t AS u SET a = lower($1) WHERE u.id = $2', true],
  ['UPDATE t SET a = $1', false],
  ['UPDATE t SET id = $1 WHERE id = $2', false],
  ['UPDATE t SET (a, id) = ($1, $2) WHERE id = $3', false],
  ['UPDATE t SET a = $1 WHERE id = 1', false],
  ['UPDATE t SET a = $1 WHERE id = $2 AND a < $1', false],
  ['UPDATE t SET a = $1 WHERE id = $2 OR id = $3', false],
  ['UPDATE t SET a = $1 WHERE id < $2', false],
  ['UPDATE t SET a = $1 WHERE id = $2 AND xmin = $3', false],
  ['UPDATE t SET a = $1 WHERE t.row_to_json = $2', false],
  // The whole row, which changes with each of its columns.
  ['UPDATE t SET a = $1 WHERE t = $2', false],
  ['UPDATE t AS u SET a = $1 WHERE u = $2', false],
  ['UPDATE t AS u SET a = $1 WHERE u.* = $2', false],
  ['UPDATE t SET a = current_query() WHERE id = $1', false],
  ['UPDATE t SET a = $1 WHERE id = $2 RETURNING a', false],
  ['DELETE FROM t WHERE id = $1', false],
  ['INSERT INTO t VALUES ($1)', false],
])('an update by key: %s: %s', (text, expected) => {
  expect(statementOf(text).write?.updatesByKey ?? false).toBe(expected);
});
