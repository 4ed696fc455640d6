import { beforeAll, describe, expect, test } from 'vitest';
import { loadParser } from '../sql/parser.ts';
import { type ColumnsOf, type CorrelatedColumn, joinCorrelated } from './correlated.ts';

beforeAll(loadParser);

const column = (type: string, leadsIndex = false): CorrelatedColumn => ({
  type,
  collation: null,
  leadsIndex,
});
const TABLES: Readonly<Record<string, Readonly<Record<string, CorrelatedColumn>>>> = {
  part: { id: column('bigint', true), brand: column('character varying(10)'), size: column('integer') },
  lines: {
    part: column('integer'),
    n: column('numeric(12,2)'),
    open: column('boolean'),
    brand: column('text'),
  },
  shop: { shop: column('bigint'), part: column('bigint'), place: column('point') },
};
const columnsOf: ColumnsOf = (schema, name) => {
  const columns = schema === undefined || schema === 'public' ? TABLES[name] : undefined;
  return columns && new Map(Object.entries(columns));
};

describe('a correlated subquery is joined as a grouped table', () => {
  test.each([
    [
      'SELECT id FROM part WHERE size < (SELECT 2 * avg(n) FROM lines WHERE part = id)',
      'SELECT id FROM part LEFT JOIN (SELECT part AS postern_k1, avg(n) AS postern_a1 FROM lines WHERE true GROUP BY 1) postern_d1 ON postern_d1.postern_k1 = id WHERE size < (SELECT  2 * postern_d1.postern_a1 )',
    ],
    [
      'SELECT 1 FROM shop s, public.part AS "Ü" WHERE s.part = 1 OR (SELECT count(*) + max ( l.n ) AS x FROM lines l WHERE open AND "Ü".id = l.part) > $1',
      'SELECT 1 FROM shop s, public.part AS "Ü" LEFT JOIN (SELECT l.part AS postern_k1, count(*) AS postern_a1, max ( l.n ) AS postern_a2 FROM lines l WHERE open AND true GROUP BY 1) postern_d1 ON postern_d1.postern_k1 = "Ü".id WHERE s.part = 1 OR (SELECT  coalesce(postern_d1.postern_a1, 0) + postern_d1.postern_a2 AS x ) > $1',
    ],
    [
      'SELECT 1 FROM lines WHERE part IN (SELECT s.part FROM shop s WHERE s.shop > (SELECT sum(size) FROM part p WHERE p.id = s.part AND p.id = shop))',
      'SELECT 1 FROM lines WHERE part IN (SELECT s.part FROM shop s LEFT JOIN (SELECT p.id AS postern_k1, p.id AS postern_k2, sum(size) AS postern_a1 FROM part p WHERE true AND true GROUP BY 1, 2) postern_d1 ON postern_d1.postern_k1 = s.part AND postern_d1.postern_k2 = shop WHERE s.shop > (SELECT  postern_d1.postern_a1 ))',
    ],
  ])('%s', (text, joined) => {
    expect(joinCorrelated(text, columnsOf)).toBe(joined);
  });

  test('two of one statement', () => {
    const one = '(SELECT max(n) FROM lines WHERE part = id)';
    const joined = joinCorrelated(
      `EXPLAIN SELECT id FROM part WHERE size < ${one} AND size > ${one}`,
      columnsOf,
    );
    expect(joined).toMatch(
      /^EXPLAIN SELECT id FROM part LEFT JOIN .* postern_d1 ON .* LEFT JOIN .* postern_d2 ON /,
    );
  });
});

describe('is left as it is', () => {
  const where = (condition: string) => `SELECT id FROM part WHERE ${condition}`;
  test.each<[why: string, text: string]>([
    ['an index finds the outer rows', where('id = $1 AND size < (SELECT avg(n) FROM lines WHERE part = id)')],
    ['an index finds them (IN)', where('id IN (1, 2) AND size < (SELECT avg(n) FROM lines WHERE part = id)')],
    ['another comparison', where('size < (SELECT avg(n) FROM lines WHERE part < id)')],
    ['other types', where('size < (SELECT avg(n) FROM lines WHERE lines.brand = part.brand)')],
    [
      'a type without an order',
      'SELECT 1 FROM shop WHERE shop < (SELECT count(*) FROM shop s WHERE s.place = shop.place)',
    ],
    ['no aggregate', where('size < (SELECT n FROM lines WHERE part = id)')],
    ['an aggregate of an expression', where('size < (SELECT sum(1 / n) FROM lines WHERE part = id)')],
    [
      'an aggregate with a filter',
      where('size < (SELECT sum(n) FILTER (WHERE open) FROM lines WHERE part = id)'),
    ],
    ['an outer column elsewhere', where('size < (SELECT sum(n) + id FROM lines WHERE part = id)')],
    [
      'an outer column in another condition',
      where('size < (SELECT sum(n) FROM lines WHERE part = id AND n > size)'),
    ],
    ['a function', where('size < (SELECT sum(n) FROM lines WHERE part = id AND n > random())')],
    ['groups', where('size < (SELECT sum(n) FROM lines WHERE part = id GROUP BY open)')],
    ['a limit', where('size < (SELECT sum(n) FROM lines WHERE part = id LIMIT 0)')],
    ['no condition', where('size < (SELECT sum(n) FROM lines)')],
    ['not correlated', where('size < (SELECT sum(n) FROM lines WHERE open)')],
    ['EXISTS', where('EXISTS (SELECT sum(n) FROM lines WHERE part = id)')],
    ['two tables', where('size < (SELECT sum(n) FROM lines, shop WHERE lines.part = id)')],
    ['a CTE', `WITH lines AS (SELECT 1) ${where('size < (SELECT sum(n) FROM lines WHERE part = id)')}`],
    ['an unknown table', where('size < (SELECT sum(n) FROM other WHERE part = id)')],
    ['another schema', where('size < (SELECT sum(n) FROM x.lines WHERE part = id)')],
    [
      'of two outer tables',
      'SELECT 1 FROM part p, shop s WHERE 1 < (SELECT sum(n) FROM lines WHERE lines.part = id AND lines.part = s.shop)',
    ],
    [
      'a column of both outer tables',
      'SELECT 1 FROM shop a, shop b WHERE 1 < (SELECT sum(n) FROM lines WHERE lines.part = shop)',
    ],
    [
      'all columns are asked for',
      'SELECT * FROM part WHERE size < (SELECT avg(n) FROM lines WHERE part = id)',
    ],
    [
      'names of columns are given',
      'SELECT 1 FROM part p (id) WHERE 1 < (SELECT avg(n) FROM lines WHERE part = id)',
    ],
    [
      'a join',
      'SELECT 1 FROM part JOIN shop ON true WHERE 1 < (SELECT avg(n) FROM lines WHERE lines.part = id)',
    ],
    ['in the list of columns', 'SELECT (SELECT avg(n) FROM lines WHERE part = id) FROM part WHERE size > 1'],
  ])('%s', (_, text) => {
    expect(joinCorrelated(text, columnsOf)).toBe(text);
  });
});
