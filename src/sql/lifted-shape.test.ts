import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { BOUNDS } from '../base/bounds.ts';
import { OID } from '../pg/oid.ts';
import { type Lifted, liftLiterals } from './lift.ts';
import { parametersKeepMeaning, shapeIsSafe } from './lifted-shape.ts';
import { loadParser, parseSql } from './parser.ts';

beforeAll(loadParser);

function isSafe(text: string): boolean {
  const lifted = liftLiterals(text);
  if (!lifted) throw new Error(`nothing is lifted from ${text}`);
  return shapeIsSafe(text, lifted);
}

const list = (length: number) => Array.from({ length }, (_, index) => index).join(',');

describe('safe', () => {
  test.each([
    "INSERT INTO t (a,b) VALUES (17,'x')",
    "INSERT INTO s.t VALUES (-2147483648, 'x', NULL, DEFAULT, true), (0, '', 3.5, now(), nextval('s'));",
    "INSERT INTO t VALUES (5::bigint, '2020-01-01'::date, cast('{}' as pg_catalog.jsonb), '{1,2}'::int[]) RETURNING *",
    "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET n = t.n + 1, b = 'x' WHERE t.c > 5",
    'INSERT INTO t (a) VALUES (1) ON CONFLICT (a) WHERE b IS NULL DO NOTHING',
    'UPDATE t SET n = n + 1 WHERE id = 42',
    "UPDATE t SET a = 'x', b = -1, c = 2 - c, d = d || 'y', e = now(), f = a WHERE NOT (id = 1 OR 2 < x) AND z IS NULL",
    "DELETE FROM ONLY t AS u WHERE u.id IN (1,2,'3') AND d NOT IN (1) RETURNING id",
    `DELETE FROM t WHERE id IN (${list(BOUNDS.liftedListElementsMax)})`,
    "SELECT 1 AS one FROM t WHERE a::text = 'x' AND b BETWEEN 1 AND 2 AND c NOT BETWEEN -1 AND -1.5 LIMIT 1",
    "SELECT count(*), sum(a) FROM t JOIN u USING (id) WHERE t.a <> 0 AND b LIKE 'x%' GROUP BY c ORDER BY 1 LIMIT 5",
    'SELECT a FROM t WHERE b != 5::int8 FOR UPDATE',
  ])('%s', (text) => {
    expect(isSafe(text)).toBe(true);
  });
});

describe('unsafe', () => {
  test.each([
    ['a result column', "SELECT a, 'x' FROM t"],
    ['a position', 'SELECT a, b FROM t WHERE c = 1 ORDER BY b, 1'],
    ['another of a GROUP BY', 'SELECT a, b FROM t WHERE c = 1 GROUP BY b, 1'],
    ['HAVING', 'SELECT a FROM t GROUP BY a HAVING count(*) > 1'],
    ['a join condition', 'SELECT a FROM t JOIN u ON t.a = u.a AND t.b = 1'],
    ['RETURNING', 'DELETE FROM t WHERE a = 1 RETURNING a + 1'],
    ['an expression beside a literal', 'DELETE FROM t WHERE a + b = 1'],
    ['a function beside a literal', "DELETE FROM t WHERE lower(a) = 'x'"],
    ['an expression of a column and a literal', 'DELETE FROM t WHERE a + 1 = b'],
    ['two literals', 'UPDATE t SET a = 1 + 2'],
    ['arithmetic over arithmetic', 'UPDATE t SET a = (a + 1) * 2'],
    ['another operator', "UPDATE t SET a = a -> 'x'"],
    ['a qualified operator', 'UPDATE t SET a = 1 OPERATOR(pg_catalog.+) a'],
    ['a condition that is another operator', "DELETE FROM t WHERE a ~ 'x'"],
    ['a row', 'UPDATE t SET (a, b) = (1, 2)'],
    ['a subscript', 'UPDATE t SET a[b] = 1, c = d WHERE f[2-1] = 1 AND (g = 1) IS TRUE'],
    ['a subquery', 'DELETE FROM t WHERE a IN (SELECT b FROM u WHERE c = 1)'],
    ['a CASE', 'UPDATE t SET a = CASE WHEN b = 1 THEN c END'],
    ['a long list', `DELETE FROM t WHERE id IN (${list(BOUNDS.liftedListElementsMax + 1)})`],
    ['a list of expressions', 'DELETE FROM t WHERE id IN (b + 1, c)'],
    ['a list that is asked for a row', 'DELETE FROM t WHERE (a, b) IN ((1, 2))'],
    ['a cast to a length', "INSERT INTO t VALUES ('abc'::varchar(2))"],
    ['a cast to a type that may be a domain', "INSERT INTO t VALUES ('abc'::short)"],
    ['a cast to a type of a schema', "INSERT INTO t VALUES ('abc'::s.text)"],
    ['a cast to an interval of fields', "INSERT INTO t VALUES ('5'::interval minute)"],
    ['a minus before a cast', 'INSERT INTO t VALUES (-5::int2)'],
    ['a minus after a keyword', 'DELETE FROM t WHERE a = 1 OR -1 = b'],
    ['a minus apart from its number', 'INSERT INTO t VALUES (- 1)'],
    ['VALUES as a query', 'INSERT INTO t VALUES (1), (2) LIMIT 1'],
    ['VALUES in a query', 'INSERT INTO t SELECT a FROM u, (VALUES (1)) v(a)'],
    ['INSERT of a query', 'INSERT INTO t SELECT a FROM u WHERE b = 1'],
    ['the predicate of an index', 'INSERT INTO t VALUES (1) ON CONFLICT (a) WHERE b = 1 DO NOTHING'],
    ['SELECT INTO', 'SELECT a INTO u FROM t WHERE b = 1'],
    ['UNION', 'SELECT a FROM t WHERE b = 1 UNION SELECT a FROM t WHERE b = 2'],
    ['a syntax error', 'SELECT a FROM t WHERE b = 1 1'],
    ['a text that ends too early', 'SELECT a FROM t WHERE (b = 1'],
  ])('%s', (_, text) => {
    expect(isSafe(text)).toBe(false);
  });

  test('values that the lexer has read otherwise than the parser', () => {
    const original = "INSERT INTO t VALUES (1, 'x', 1.5)";
    const { text, values, oids } = liftLiterals(original)!;
    const { int4, int8, numeric, unspecified: none } = OID;
    const verdict = (changed: Partial<Lifted>) => shapeIsSafe(original, { text, values, oids, ...changed });
    expect(verdict({})).toBe(true);
    expect(verdict({ values: ['2', 'x', '1.5'] })).toBe(false);
    expect(verdict({ values: ['1', 'y', '1.5'] })).toBe(false);
    expect(verdict({ values: ['1', 'x', '1.6'] })).toBe(false);
    expect(verdict({ values: ['1', 'x'] })).toBe(false);
    expect(verdict({ values: ['1', 'x', '1.5', '2'] })).toBe(false);
    expect(verdict({ oids: [none, none, numeric] })).toBe(false);
    expect(verdict({ oids: [int8, none, numeric] })).toBe(false);
    expect(verdict({ oids: [int4, int4, numeric] })).toBe(false);
    expect(verdict({ oids: [int4, none, none] })).toBe(false);
    expect(verdict({ text: 'INSERT INTO t VALUES ($1, $3, $2)' })).toBe(false);
    expect(verdict({ text: 'INSERT INTO u VALUES ($1, $2, $3)' })).toBe(false);
    expect(verdict({ text: 'INSERT INTO t VALUES ($1, $2)' })).toBe(false);
    expect(verdict({ text: 'INSERT INTO t VALUES ($1, $2, $3) RETURNING a' })).toBe(false);
  });
});

test('a string that became an interval, which only the server can tell', () => {
  const lifted = liftLiterals("INSERT INTO t VALUES (1, '5')")!;
  expect(parametersKeepMeaning(lifted, [OID.int4, OID.text])).toBe(true);
  expect(parametersKeepMeaning(lifted, [OID.int4, OID.interval])).toBe(false);
});

/** A tree without its places in the text, and with `parameters` in place of ParamRefs. */
function plain(value: unknown, parameters: readonly unknown[]): unknown {
  if (Array.isArray(value)) return value.map((item) => plain(item, parameters));
  if (typeof value !== 'object' || value === null) return value;
  const tree = value as Record<string, unknown>;
  const reference = tree.ParamRef as { number: number } | undefined;
  if (reference) return { A_Const: parameters[reference.number - 1] };
  return Object.fromEntries(
    Object.entries(tree)
      .filter(([key]) => key !== 'location' && !key.startsWith('rexpr_list'))
      .map(([key, item]) => [key, plain(item, parameters)]),
  );
}

function treeOf(text: string, parameters: readonly unknown[]): unknown {
  const outcome = parseSql(text);
  if (outcome.kind !== 'parsed') throw new Error(`${outcome.kind}: ${text}`);
  return plain(
    outcome.statements.map(({ node }) => node),
    parameters,
  );
}

function constantOf(value: string, oid: number): unknown {
  if (oid === OID.unspecified) return { sval: { sval: value } };
  if (oid === OID.numeric || oid === OID.int8 || value === '-2147483648') return { fval: { fval: value } };
  return { ival: value === '0' ? {} : { ival: Number(value) } };
}

const literal = fc.oneof(
  fc.integer().map(String),
  fc.bigInt({ min: -(2n ** 66n), max: 2n ** 66n }).map(String),
  fc.constantFrom(
    '0',
    '1.5',
    '.5',
    '-1e5',
    "''",
    'NULL',
    'true',
    "'a'::text",
    '5::int8',
    "lower('X')",
    'b',
    'b + c',
  ),
  fc.string({ maxLength: 5 }).map((text) => `'${text.replaceAll('\0', '').replaceAll("'", "''")}'`),
);
const operator = fc.constantFrom('=', ' = ', '<', ' >= ', ' <> ', '+', ' - ', '-', ' * ', ' || ', '~', '->');
const term = fc.oneof(
  fc.tuple(fc.constantFrom('a', 't.b', '"C"', 'a::int'), operator, literal).map((parts) => parts.join('')),
  fc.tuple(literal, operator, fc.constantFrom('a', 't.b')).map((parts) => parts.join('')),
  fc.array(literal, { minLength: 1, maxLength: 10 }).map((items) => `a IN (${items.join(',')})`),
  fc.tuple(literal, literal).map(([low, high]) => `a BETWEEN ${low} AND ${high}`),
);
const condition = fc
  .array(fc.tuple(term, fc.constantFrom(' AND ', ' OR ', ' and not ')), { minLength: 1, maxLength: 4 })
  .map((terms) => terms.flat().slice(0, -1).join(''));
const statement = fc.oneof(
  fc
    .array(literal, { minLength: 1, maxLength: 5 })
    .map((items) => `INSERT INTO t VALUES (${items.join(', ')})`),
  fc
    .tuple(term, literal, condition)
    .map((parts) => `UPDATE t SET n = ${parts[0]}, m=${parts[1]} WHERE ${parts[2]}`),
  condition.map((text) => `DELETE FROM t WHERE ${text};`),
  condition.map((text) => `SELECT a, 1 FROM t WHERE ${text} ORDER BY 1`),
);

test('the tree of a safe shape, with its values put back in, is that of the original', () => {
  let safe = 0;
  fc.assert(
    fc.property(statement, (text) => {
      const lifted = liftLiterals(text);
      if (!lifted || !shapeIsSafe(text, lifted)) return;
      safe++;
      const constants = lifted.values.map((value, index) => constantOf(value!, lifted.oids[index]!));
      expect(treeOf(lifted.text, constants)).toEqual(treeOf(text, []));
    }),
    { numRuns: 2_000 },
  );
  expect(safe).toBeGreaterThan(200);
});
