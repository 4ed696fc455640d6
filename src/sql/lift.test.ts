import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BOUNDS } from '../base/bounds.ts';
import { OID } from '../pg/oid.ts';
import { type Lifted, liftLiterals, mapPosition } from './lift.ts';

const { int4, int8, numeric, unspecified: none } = OID;

/** The dumb way back: each $n, from left to right, by the literal that it stands for. */
function lowered(lifted: Lifted): string {
  let text = '';
  let rest = lifted.text;
  lifted.values.forEach((value, index) => {
    const parameter = `$${index + 1}`;
    const at = rest.indexOf(parameter);
    text += rest.slice(0, at);
    text += lifted.oids[index] === none ? `'${value?.replaceAll("'", "''")}'` : value;
    rest = rest.slice(at + parameter.length);
  });
  return text + rest;
}

describe('lifted', () => {
  test.each<[string, string, string[], number[]]>([
    ["INSERT INTO t (a,b) VALUES (17,'x')", 'INSERT INTO t (a,b) VALUES ($1,$2)', ['17', 'x'], [int4, none]],
    [
      ' update t set n=n+1 where id = 42 ;\n',
      ' update t set n=n+$1 where id = $2 ',
      ['1', '42'],
      [int4, int4],
    ],
    ['DELETE FROM t WHERE a=1and b=2', '', [], []],
    ['DELETE FROM t WHERE a IN(1,2)', 'DELETE FROM t WHERE a IN($1,$2)', ['1', '2'], [int4, int4]],
    [
      "SELECT 1 FROM t WHERE (a = 'it''s''') ORDER BY 1 LIMIT 5 OFFSET 10",
      'SELECT 1 FROM t WHERE (a = $1) ORDER BY 1 LIMIT 5 OFFSET 10',
      ["it's'"],
      [none],
    ],
    ["SELECT a FROM t WHERE b = ''", 'SELECT a FROM t WHERE b = $1', [''], [none]],
    [
      "SELECT a FROM t WHERE b BETWEEN 'a' AND 'b' and 3=c",
      'SELECT a FROM t WHERE b BETWEEN $1 AND $2 and $3=c',
      ['a', 'b', '3'],
      [none, none, int4],
    ],
    ["SELECT a FROM t WHERE b='a\\'", 'SELECT a FROM t WHERE b=$1', ['a\\'], [none]],
    // Comments stay, and so do the literals in them.
    ['SELECT a /* = 5 */ FROM t WHERE b=/**/5', 'SELECT a /* = 5 */ FROM t WHERE b=/**/$1', ['5'], [int4]],
    // What is in a name is no literal, and a name is no keyword.
    [
      `UPDATE "t = 1 ""x" SET "and" = 'x', a1$2 = 3`,
      `UPDATE "t = 1 ""x" SET "and" = $1, a1$2 = $2`,
      ['x', '3'],
      [none, int4],
    ],
    ['UPDATE é SET ü1=1', 'UPDATE é SET ü1=$1', ['1'], [int4]],
    // Where a parameter could mean something else, the literal stays.
    [
      "INSERT INTO t VALUES (nextval('s'), DATE '2020-01-01', 5::numeric(5,2), ARRAY[1,(2)], now() - interval '1' day, 'x')",
      "INSERT INTO t VALUES (nextval('s'), DATE '2020-01-01', $1::numeric(5,2), ARRAY[1,(2)], now() - interval '1' day, $2)",
      ['5', 'x'],
      [int4, none],
    ],
    [
      "SELECT a FROM t WHERE b LIKE 'x%' AND f((1), 'x') = 2",
      "SELECT a FROM t WHERE b LIKE 'x%' AND f((1), 'x') = $1",
      ['2'],
      [int4],
    ],
    [
      `SELECT a FROM t WHERE b = "date" '2020' OR c=1`,
      `SELECT a FROM t WHERE b = "date" '2020' OR c=$1`,
      ['1'],
      [int4],
    ],
    // Signs.
    [
      'UPDATE t SET n=-5, m = n -5, o=o- -5',
      'UPDATE t SET n=$1, m = n -$2, o=o- $3',
      ['-5', '5', '-5'],
      [int4, int4, int4],
    ],
    [
      'UPDATE t SET n=n-5,m=(m)-5 WHERE a<-5',
      'UPDATE t SET n=n-$1,m=(m)-$2 WHERE a<$3',
      ['5', '5', '-5'],
      [int4, int4, int4],
    ],
    [
      'UPDATE t SET n=n@-5,m = - 5,o=-.5',
      'UPDATE t SET n=n@-$1,m = - $2,o=$3',
      ['5', '5', '-.5'],
      [int4, int4, numeric],
    ],
    ['UPDATE t SET n=5*-3-2+-a', 'UPDATE t SET n=$1*$2-$3+-a', ['5', '-3', '2'], [int4, int4, int4]],
  ])('%s', (text, shape, values, oids) => {
    expect(liftLiterals(text)).toEqual(shape === '' ? undefined : { text: shape, values, oids });
  });

  test.each([
    ['0', int4],
    ['007', int4],
    ['2147483647', int4],
    ['2147483648', int8],
    ['-2147483648', int4],
    ['-2147483649', int8],
    ['9999999999', int8],
    ['9223372036854775807', int8],
    ['9223372036854775808', numeric],
    ['-9223372036854775808', int8],
    ['-9223372036854775809', numeric],
    ['99999999999999999999', numeric],
    ['1.5', numeric],
    ['1.', numeric],
    ['.5', numeric],
    ['1e5', numeric],
    ['-1.E-5', numeric],
    ['.5e+5', numeric],
  ])('%s is typed as PostgreSQL types it', (literal, oid) => {
    expect(liftLiterals(`INSERT INTO t VALUES (${literal})`)).toEqual({
      text: 'INSERT INTO t VALUES ($1)',
      values: [literal],
      oids: [oid],
    });
  });
});

test.each([
  ['nothing to lift', 'SELECT a FROM t'],
  ['only what stays', "SELECT 1, lower('x') FROM t LIMIT 1"],
  ['another statement', "SET x = 'y'"],
  ['a longer word', 'SELECTED = 1'],
  ['an empty text', ''],
  ['WITH', 'WITH x AS (SELECT 1) SELECT a FROM t WHERE b = 1'],
  ['several statements', 'DELETE FROM t WHERE a=1; DELETE FROM t WHERE a=2'],
  ['parameters', 'DELETE FROM t WHERE a=1 AND b=$1'],
  ['a dollar string', 'DELETE FROM t WHERE a=1 AND b=$$x$$'],
  ['an escape string', "DELETE FROM t WHERE a=1 AND b=E'x\\'' --'"],
  ['a national string', "DELETE FROM t WHERE a=1 AND b=N'x'"],
  ['a bit string', "DELETE FROM t WHERE a=1 AND b=b'1'"],
  ['a Unicode string', "DELETE FROM t WHERE a=1 AND b=U&'x'"],
  ['a keyword that touches a string', "DELETE FROM t WHERE b BETWEEN'a'AND'b'"],
  ['a string over two lines', "DELETE FROM t WHERE b = 'a' \n 'b'"],
  ['an open string', "DELETE FROM t WHERE b = 'a"],
  ['an open name', 'DELETE FROM t WHERE b = 1 AND "a'],
  ['a line comment', 'DELETE FROM t WHERE b = 1 -- AND c = 2'],
  ['a line comment in an operator', 'DELETE FROM t WHERE b = 1 +-- AND c = 2\n 3'],
  ['a nested comment', 'DELETE FROM t WHERE b = 1 /* /* */ */'],
  ['an open comment', 'DELETE FROM t WHERE b = 1 /* '],
  ['a hexadecimal number', 'DELETE FROM t WHERE b = 0x1F'],
  ['a number with underscores', 'DELETE FROM t WHERE b = 1_000'],
  ['a number that touches a word', 'DELETE FROM t WHERE b = 1OR c = 2'],
  ['half an exponent', 'DELETE FROM t WHERE b = 1e'],
  ['two dots', 'DELETE FROM t WHERE b = 1..2'],
  ['a dot after a word', 'DELETE FROM t WHERE b.5 = 1'],
  ['a long number that begins with 0', 'DELETE FROM t WHERE b = 0000000000'],
  ['literals that touch', "DELETE FROM t WHERE b = 'x'5"],
  ['an unknown character', 'DELETE FROM t WHERE b = 1 \\ 2'],
  ['too many values', `INSERT INTO t VALUES (${'1,'.repeat(BOUNDS.liftedValuesMax)}1)`],
])('not lifted: %s', (_, text) => {
  expect(liftLiterals(text)).toBeUndefined();
});

test('as many values as the bound', () => {
  const text = `INSERT INTO t VALUES (1${',1'.repeat(BOUNDS.liftedValuesMax - 1)})`;
  expect(liftLiterals(text)?.values).toHaveLength(BOUNDS.liftedValuesMax);
});

/** Tokens in no order; none has a $ in a place that stays, so that `lowered` needs no lexer. */
const token = fc.oneof(
  fc.constantFrom(
    ...'VALUES IN AND BETWEEN WHERE and a b1 é "x" "y""z" ( ) [ ] , = < - + -- * /* */ /*c*/ :: . ; ~ @ & U E N B'.split(
      ' ',
    ),
    ' ',
    '\n',
    "'",
  ),
  fc.constantFrom(
    '1',
    '-2',
    '3.5',
    '.5',
    '1e3',
    '4.',
    '99999999999',
    "'x'",
    "''",
    "'it''s'",
    "'é😀'",
    "'a\\'",
    "'-- ('",
  ),
);
const soup = fc
  .array(fc.tuple(token, fc.constantFrom('', ' ', ' ')), { maxLength: 25 })
  .map((tokens) => `SELECT ${tokens.flat().join('')}`);

test('the values put back in give the original, but for its end', () => {
  let lifted = 0;
  fc.assert(
    fc.property(soup, (text) => {
      const result = liftLiterals(text);
      if (!result) return;
      lifted++;
      const back = lowered(result);
      expect(text.startsWith(back)).toBe(true);
      expect(text.slice(back.length)).toMatch(/^(;\s*)?$/);
    }),
    { numRuns: 5_000 },
  );
  expect(lifted).toBeGreaterThan(100);
});

describe('positions', () => {
  test('a table', () => {
    const original = "INSERT INTO tä (a) VALUES ('😀😀''x', -500, nope) ;";
    const lifted = liftLiterals(original)!;
    expect(lifted.text).toBe('INSERT INTO tä (a) VALUES ($1, $2, nope) ');
    const map = mapPosition(original, lifted);
    const characters = [...original];
    const mapped = [...lifted.text].map((_, index) => characters[map(index + 1) - 1]).join('');
    expect(mapped).toBe("INSERT INTO tä (a) VALUES ('', --, nope) ");
    // An error at the end of the input.
    expect(map([...lifted.text].length + 1)).toBe(characters.length);
  });

  test('every character outside of a literal is found again', () => {
    fc.assert(
      fc.property(soup, (text) => {
        const lifted = liftLiterals(text);
        if (!lifted) return;
        const map = mapPosition(text, lifted);
        const original = [...text];
        let last = 0;
        [...lifted.text].forEach((character, index) => {
          const position = map(index + 1);
          expect(position).toBeGreaterThanOrEqual(last);
          last = position;
          if (character !== '$' && !/\d/.test(character)) expect(original[position - 1]).toBe(character);
        });
      }),
      { numRuns: 1_000 },
    );
  });
});
