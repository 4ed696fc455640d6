import type { RangeVar } from '@pgsql/types';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { planOf, rewrittenOf } from '../../test/support/example-map.ts';
import { loadParser, parseSql } from '../sql/parser.ts';
import type { QueryPlan } from './plan.ts';
import { rewriteQuery } from './rewrite.ts';

beforeAll(loadParser);

const BUCKET = 3;
const LEAF = /"postern_leaves"\."((?:[^"]|"")*)_b3_g7"(?: AS "(?:[^"]|"")*")?/g;

function rewrite(plan: QueryPlan) {
  const bindings = plan.statements.map(() => ({ bucket: BUCKET, ids: [100, 101, 102, 103] }));
  return rewriteQuery(plan, bindings, 'literal');
}

/** The tree without what the rewriting may change: places, the names of tables, and schemas before columns. */
function essence(text: string): unknown {
  const parsed = parseSql(text);
  if (parsed.kind !== 'parsed') throw new Error(`${parsed.kind}: ${text}`);
  return parsed.statements.map(({ node }) => withoutPlaces(node));
}

function withoutPlaces(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutPlaces);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(
    ([key]) => !/location|_start$|_end$/.test(key) || key === 'stmt_location',
  );
  const plain = Object.fromEntries(entries.map(([key, child]) => [key, withoutPlaces(child)]));
  if (typeof plain.relname === 'string') return plainRangeVar(plain as RangeVar);
  const fields = plain.fields;
  if (Array.isArray(fields) && fields.length === 3) plain.fields = fields.slice(1);
  return plain;
}

/** Both sides get the visible name as alias, and the table's own name. */
function plainRangeVar({ schemaname: _schemaname, ...rangeVar }: RangeVar): RangeVar {
  const relname = (rangeVar.relname ?? '').replace(/_b3_g7$/, '');
  return { ...rangeVar, relname, alias: { aliasname: relname, ...rangeVar.alias } };
}

const space = fc.constantFrom(' ', '\n', ' /* é */ ', ' -- 😀 "events"\n ', '\t');
const name = fc.constantFrom(
  'accounts',
  'public.accounts',
  '"accounts"',
  'PUBLIC . Accounts',
  'public/**/.accounts',
);
const literal = fc.constantFrom(
  "'é😀'",
  "E'\\'accounts'",
  '$$public.accounts.$$',
  '7',
  '$1',
  '"é".x',
  'NULL',
);

/** Keyed statements with everything between tokens that may be there. */
const keyedText = fc
  .tuple(
    fc.nat({ max: 6 }),
    name,
    literal,
    fc.array(space, { minLength: 12, maxLength: 12 }),
    fc.nat({ max: 2 }),
  )
  .map(([kind, table, value, spaces, aliasStyle]) => {
    let index = 0;
    const alias = ['', 'a', 'AS a'][aliasStyle]!;
    const visible = alias === '' ? 'public.accounts' : 'a';
    const words = [
      ['SELECT', `${visible}.name,`, value, 'FROM', table, alias, 'WHERE', `${visible}.account_id`, '= 5'],
      ['SELECT', `${visible}.*`, 'FROM', table, '*', alias, 'WHERE', `(account_id)`, '= 5', 'FOR UPDATE'],
      [
        'UPDATE',
        table,
        alias,
        'SET',
        'name=',
        value,
        'WHERE',
        `${visible}.account_id`,
        '=5',
        'RETURNING',
        value,
      ],
      ['DELETE FROM', table, alias, 'WHERE', value, 'IS NULL', 'AND account_id=', '5', 'RETURNING *'],
      [
        'INSERT INTO',
        table,
        alias && 'AS a',
        '(account_id, name)',
        'VALUES',
        '(5,',
        value,
        '),(5,',
        value,
        ')',
      ],
      [
        'WITH c AS (SELECT',
        value,
        ') SELECT * FROM c,',
        table,
        alias,
        'WHERE',
        `${visible}.account_id`,
        '= 5',
      ],
      [
        'SELECT',
        value,
        '; UPDATE',
        table,
        alias,
        'SET name =',
        value,
        'WHERE account_id = 5;',
        'SELECT',
        value,
      ],
    ];
    return words[kind]!.map((word) => word + (spaces[index++] ?? ' ')).join('');
  });

describe('the text for a bucket', () => {
  test('means the same but for its tables', () => {
    fc.assert(
      fc.property(keyedText, (text) => {
        const plan = planOf(text);
        expect(plan.statements.some(({ placement }) => placement.kind === 'keyed')).toBe(true);
        const rewritten = rewrite(plan).text;
        expect(rewritten.match(LEAF)).toHaveLength(1);
        expect(essence(rewritten)).toEqual(essence(text));
      }),
      { numRuns: 1000 },
    );
  });

  test('is the same object of the same text, and follows the bucket', () => {
    const plan = planOf('SELECT * FROM accounts WHERE account_id = $1');
    const texts = [0, 1].map((bucket) => rewriteQuery(plan, [{ bucket, ids: [] }], 'parameter').text);
    expect(texts).toEqual([
      'SELECT * FROM "postern_leaves"."accounts_b0_g7" AS "accounts" WHERE account_id = $1',
      'SELECT * FROM "postern_leaves"."accounts_b1_g7" AS "accounts" WHERE account_id = $1',
    ]);
  });

  test('a bucket that is not there, or an id that is not a number, is a bug and no text', () => {
    const select = planOf('SELECT * FROM accounts WHERE account_id = 1');
    expect(() => rewriteQuery(select, [{ bucket: -1, ids: [] }], 'literal')).toThrow('a bug in Postern');
    const insert = planOf('INSERT INTO users (name) VALUES (1)');
    expect(() => rewriteQuery(insert, [{ bucket: 1, ids: [1] }], 'literal')).toThrow('a bug in Postern');
    expect(() => rewriteQuery(insert, [{ bucket: 1, ids: [1, '2; x'] }], 'literal')).toThrow(
      'a bug in Postern',
    );
  });

  test('without edits it is the text itself', () => {
    expect(rewrittenOf('SELECT 1; ')).toBe('SELECT 1; ');
  });
});

describe('positions of errors', () => {
  test('lead back to the same character, and from a leaf to its table', () => {
    fc.assert(
      fc.property(keyedText, (text) => {
        const { text: rewritten, mapPosition } = rewrite(planOf(text));
        const before = [...text];
        const after = [...rewritten];
        const leaf = [...rewritten.matchAll(LEAF)][0]!;
        const leafStart = [...rewritten.slice(0, leaf.index)].length;
        const leafEnd = leafStart + [...leaf[0]].length;
        let previous = 0;
        for (let position = 1; position <= after.length + 1; position++) {
          const mapped = mapPosition(position);
          expect(mapped).toBeGreaterThanOrEqual(previous);
          previous = mapped;
          if (position > leafStart && position <= leafEnd) {
            expect(before.slice(mapped - 1).join('')).toMatch(/^"?(public|accounts)/i);
          } else if (position <= after.length) expect(before[mapped - 1]).toBe(after[position - 1]);
        }
        expect(previous).toBe(before.length + 1);
      }),
      { numRuns: 300 },
    );
  });

  test('inside what was put in they are those of what comes next', () => {
    const text = "INSERT INTO users (name) VALUES ('é')";
    const { text: rewritten, mapPosition } = rewrite(planOf(text));
    const at = (part: string) => [...rewritten.slice(0, rewritten.indexOf(part))].length + 1;
    expect(rewritten).toContain("('é', 100, 101)");
    expect(mapPosition(at('é'))).toBe(text.indexOf('é') + 1);
    expect(mapPosition(at('100'))).toBe(text.lastIndexOf(')') + 1);
    expect(mapPosition(at('"serial"'))).toBe(text.indexOf(') VALUES') + 1);
    expect(mapPosition(rewritten.length + 1)).toBe(text.length + 1);
  });
});
