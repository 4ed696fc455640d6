/** SELECTs of every kind over several nodes: as the same data in one PostgreSQL answer them. */
import { describe, it } from 'vitest';
import { startMeshPair } from './mesh-pair.ts';

const pair = startMeshPair(3);

/** Ordered by what they say themselves, wholly. */
const ORDERED: readonly string[] = [
  'SELECT o.customer, o.id, l.item, l.line FROM orders o JOIN lines l ON l.customer = o.customer ORDER BY 1, 2, 3, 4',
  'SELECT c.id, o.id FROM customers c LEFT JOIN orders o ON o.id = c.id ORDER BY 1, 2',
  'SELECT c.id, l.line FROM customers c FULL JOIN lines l ON l.line = c.id + 20 ORDER BY 1, 2',
  'SELECT a.id, b.id FROM customers a RIGHT JOIN customers b ON a.id = b.id + 1 ORDER BY 2, 1',
  'SELECT c.id, r.rate FROM customers c JOIN rates r USING (region) ORDER BY 1',
  'SELECT c.id, r.name, t.rate FROM customers c NATURAL JOIN (SELECT id AS region, name AS rname FROM regions) x JOIN regions r ON r.id = c.region LEFT JOIN rates t ON t.region = r.id ORDER BY 1',
  'SELECT t.tone, count(*), sum(c.id) FROM customers c JOIN rates t ON t.tone = c.tone GROUP BY t.tone ORDER BY 1',
  'SELECT c.name, count(DISTINCT o.note), array_agg(o.id ORDER BY o.id DESC) FROM customers c JOIN orders o ON o.customer = c.id GROUP BY c.name ORDER BY 1 NULLS FIRST',
  "SELECT string_agg(name, ',' ORDER BY id) FROM customers",
  'SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY total), stddev(total), mode() WITHIN GROUP (ORDER BY note) FROM orders',
  'SELECT region, tone, count(*) FROM customers GROUP BY GROUPING SETS ((region, tone), (region), ()) ORDER BY 1, 2, 3',
  'SELECT region, tone, grouping(region, tone), max(id) FROM customers GROUP BY CUBE (region, tone) ORDER BY 3, 1, 2',
  'SELECT customer, id, rank() OVER (ORDER BY total DESC NULLS LAST), sum(total) OVER w FROM orders WINDOW w AS (ORDER BY at, id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) ORDER BY 2',
  'SELECT id, row_number() OVER (PARTITION BY note ORDER BY id), lag(id) OVER (ORDER BY id) FROM orders ORDER BY id',
  'SELECT DISTINCT ON (note) note, id, customer FROM orders ORDER BY note, id DESC',
  'WITH spent AS (SELECT customer, sum(total) AS s FROM orders GROUP BY customer) SELECT c.id, s FROM customers c LEFT JOIN spent ON customer = c.id AND s > (SELECT avg(s) FROM spent) ORDER BY 1',
  'WITH RECURSIVE walk(id, depth) AS (SELECT id, 0 FROM customers WHERE id = 1 UNION ALL SELECT c.id, depth + 1 FROM walk w JOIN customers c ON c.id = w.id * 2 WHERE depth < 4) SELECT * FROM walk ORDER BY 2',
  'SELECT id FROM customers WHERE region IN (SELECT region FROM rates WHERE rate IS NOT NULL) ORDER BY 1',
  'SELECT id FROM customers c WHERE EXISTS (SELECT FROM lines l WHERE l.customer = c.id AND l.amount > 10) ORDER BY 1',
  'SELECT id, (SELECT count(*) FROM lines l WHERE l.customer = c.id) FROM customers c ORDER BY 1',
  'SELECT id FROM customers WHERE id > ALL (SELECT region FROM rates) ORDER BY 1',
  'SELECT id FROM customers UNION SELECT customer FROM orders ORDER BY 1',
  'SELECT id FROM customers INTERSECT SELECT customer FROM lines ORDER BY 1',
  'SELECT id FROM customers EXCEPT ALL SELECT customer FROM orders ORDER BY 1',
  '(SELECT id FROM customers ORDER BY id DESC LIMIT 3) UNION ALL (SELECT line FROM lines ORDER BY line LIMIT 2) ORDER BY 1',
  'SELECT c.id, x.id FROM customers c CROSS JOIN LATERAL (SELECT id FROM orders o WHERE o.customer = c.id ORDER BY id LIMIT 1) x ORDER BY 1',
  'SELECT note, count(*) FROM orders GROUP BY note HAVING count(*) > (SELECT count(*) FROM regions) ORDER BY 2, 1',
  'SELECT id, note FROM orders JOIN lines ON line = id ORDER BY note NULLS FIRST, id FETCH FIRST 5 ROWS WITH TIES',
  'SELECT l.line FROM lines l JOIN orders o ON o.id = l.line ORDER BY 1 LIMIT 5 OFFSET 3',
  'SELECT v.x, c.name FROM (VALUES (1::bigint), (2), (99)) v(x) LEFT JOIN customers c ON c.id = v.x LEFT JOIN lines ON line = c.id ORDER BY 1',
  'SELECT x, (SELECT name FROM customers WHERE id = x) FROM generate_series(0, 3) x ORDER BY 1',
  'SELECT c::text FROM customers c JOIN lines l ON l.line = c.id ORDER BY c.id',
  'SELECT o.* FROM orders o JOIN lines l ON l.line = o.id WHERE l.amount IS NULL ORDER BY o.id',
  'SELECT CASE WHEN sum(amount) > 10 THEN item ELSE -item END FROM lines GROUP BY item ORDER BY item',
  'SELECT avg(total)::numeric(10, 3), min(note), max(at) FROM orders JOIN lines ON line = id',
  "SELECT json_agg(name ORDER BY id), bool_or(tone = 'low') FROM customers",
  "SELECT count(*) FILTER (WHERE tone = 'low'), count(*) FROM customers JOIN rates USING (tone)",
  'SELECT a.id FROM (customers a JOIN lines b ON a.id = b.line) AS j JOIN regions a ON a.id = j.region ORDER BY 1',
];

describe('a read over nodes answers as one PostgreSQL does', () => {
  it.each(ORDERED)('%s', async (text) => {
    await pair.compare(text, true);
  });

  it.each<[string, readonly string[]]>([
    [
      'SELECT o.id FROM orders o JOIN lines l ON l.customer = o.customer WHERE o.total > $1 ORDER BY 1',
      ['7.5'],
    ],
    ['SELECT c.id FROM customers c JOIN rates r USING (region) WHERE c.tone = $1 ORDER BY 1', ['low']],
    ['SELECT a.name, b.name FROM customers a, customers b WHERE a.id = $1 AND b.id = $2', ['3', '4']],
    [
      'SELECT count(*) FROM lines WHERE customer = ANY ($1) AND item IN (SELECT region FROM rates)',
      ['{1,2,3,7}'],
    ],
    ['SELECT o.id FROM orders o JOIN lines l ON l.line = o.id ORDER BY 1 LIMIT $1 OFFSET $2', ['4', '2']],
  ])('%s with values', async (text, values) => {
    await pair.compare(text, true, values);
  });
});
