/** SELECT over several buckets: what is taken answers as one PostgreSQL does, in all protocols; the rest is refused. */
import { describe, expect, it } from 'vitest';
import { type Order, startReadPair } from './read-pair.ts';

const NONE: Order = { kind: 'none' };
const TOTAL: Order = { kind: 'total' };

describe('a SELECT over several buckets', () => {
  const pair = startReadPair(2, 18);

  it.each<[string, Order]>([
    ['SELECT * FROM items', NONE],
    ['TABLE items', NONE],
    ['SELECT k, id AS x, upper(t) || c, n + 1 FROM items WHERE b', NONE],
    ['SELECT i.*, 1 FROM items i WHERE i.k % 2 = 0 AND f > 0', NONE],
    ['SELECT public.items.k FROM public.items WHERE public.items.id = 0', NONE],
    ['SELECT k FROM items WHERE false', NONE],
    ['SELECT k, id FROM items WHERE k IN (1, 2, 3, 30)', NONE],
    ['SELECT k, id, k FROM items ORDER BY k DESC, id', TOTAL],
    ['SELECT t, k, id FROM items ORDER BY 1, 2, 3', TOTAL],
    ['SELECT c, k, id FROM items ORDER BY c NULLS FIRST, k, id', TOTAL],
    [
      'SELECT k FROM items ORDER BY t COLLATE "C" DESC, lower(c), n DESC NULLS LAST, items.k, id LIMIT 20',
      TOTAL,
    ],
    ['SELECT -k AS k, id FROM items ORDER BY k, id LIMIT 7', TOTAL],
    ['SELECT k AS z, id FROM items ORDER BY z DESC, id DESC OFFSET 5', TOTAL],
    ['SELECT k, id FROM items ORDER BY k, id LIMIT 3 OFFSET 4', TOTAL],
    ['SELECT k, id FROM items ORDER BY k, id LIMIT ALL OFFSET 100', TOTAL],
    ['SELECT k, id FROM items ORDER BY k, id FETCH FIRST 2 ROWS ONLY', TOTAL],
    ['SELECT k, id FROM items WHERE k IN (1, 9, 17) ORDER BY k, id', TOTAL],
    ['SELECT k, id FROM items LIMIT 0', TOTAL],
    ['SELECT id FROM items LIMIT 4', { kind: 'any', of: 'SELECT id FROM items' }],
    ['SELECT DISTINCT t FROM items', NONE],
    ['SELECT DISTINCT b, d FROM items ORDER BY d DESC, b', TOTAL],
    ['SELECT DISTINCT lower(t) AS l FROM items ORDER BY l LIMIT 3', TOTAL],
    ['SELECT count(*) FROM items', TOTAL],
    ['SELECT count(*) FROM items WHERE k < 0', TOTAL],
    ['SELECT sum(k), min(k), max(t), avg(n) FROM items WHERE k < 0', TOTAL],
    [
      'SELECT count(t), count(*) AS all, sum(s), sum(id), sum(w), sum(n), sum(f), sum(r), sum(i) FROM items',
      TOTAL,
    ],
    ['SELECT avg(s), avg(id), avg(w), avg(n), avg(f), avg(r) FROM items', TOTAL],
    [
      'SELECT min(t), max(t), min(c), max(c), min(at), max(d), min(n), max(v), min(e), max(a) FROM items',
      TOTAL,
    ],
    ['SELECT bool_and(b), bool_or(b), every(k >= 0) FROM items', TOTAL],
    ['SELECT count(*) FILTER (WHERE b), avg(n) FILTER (WHERE n > 0) FROM items', TOTAL],
    ['SELECT count(*) * 2 + coalesce(sum(id), 0) AS x, now() > max(at) FROM items', TOTAL],
    ['SELECT t, count(*) FROM items GROUP BY t', NONE],
    ['SELECT t, c, count(*), sum(n), avg(id) FROM items GROUP BY c, t ORDER BY t, c', TOTAL],
    ['SELECT lower(t) AS l, max(c) FROM items GROUP BY l ORDER BY 1', TOTAL],
    ["SELECT lower(t) || '!', max(c) FROM items GROUP BY lower(t) ORDER BY lower(t)", TOTAL],
    ['SELECT items.b, sum(n) FROM items GROUP BY b HAVING count(*) > 20 ORDER BY sum(n) DESC, b', TOTAL],
    ['SELECT d, count(*) AS count FROM items GROUP BY 1 ORDER BY count DESC, d LIMIT 2 OFFSET 1', TOTAL],
    ['SELECT DISTINCT count(*) FROM items GROUP BY t ORDER BY 1', TOTAL],
    [
      "SELECT date_trunc('year', at) AS y, avg(f) FROM items GROUP BY date_trunc('year', at) ORDER BY y",
      TOTAL,
    ],
    ['SELECT e, a, j, u, count(*) FROM items GROUP BY e, a, j, u', NONE],
    ['SELECT e, k, id FROM items ORDER BY e DESC, k, id', TOTAL],
    ['SELECT count(*) FROM items HAVING count(*) > 1000', TOTAL],
    ['SELECT k, array_agg(id ORDER BY id), count(DISTINCT t) FROM items GROUP BY k', NONE],
    [
      'SELECT k, string_agg(t, id::text ORDER BY id) FROM items GROUP BY k HAVING count(*) > 2 ORDER BY k DESC LIMIT 4',
      TOTAL,
    ],
    ['SELECT k, id, row_number() OVER (PARTITION BY k ORDER BY id) FROM items ORDER BY k, id', TOTAL],
    ['SELECT i.k, i.id, p.label FROM items i JOIN parts p ON p.k = i.k', NONE],
    ['SELECT * FROM items i JOIN parts p USING (k) ORDER BY k, id, p LIMIT 9', TOTAL],
    ['SELECT i.k, p.label FROM items i LEFT JOIN parts p ON p.k = i.k AND p.weight > 2', NONE],
    [
      'SELECT p.label, count(*), avg(i.n) FROM items i, parts p WHERE p.k = i.k GROUP BY p.label ORDER BY 1',
      TOTAL,
    ],
    [
      'SELECT k, id FROM items i WHERE EXISTS (SELECT FROM parts p WHERE p.k = i.k AND p.weight = i.id)',
      NONE,
    ],
    ['SELECT count(*) FROM items i WHERE NOT EXISTS (SELECT FROM parts p WHERE p.k = i.k)', TOTAL],
    [
      'SELECT k, (SELECT max(weight) FROM parts p WHERE p.k = i.k) AS m FROM items i ORDER BY m, k, id',
      TOTAL,
    ],
    ['SELECT count(*), max(x) FROM (SELECT k + id AS x FROM items WHERE b) q', TOTAL],
    ['WITH q AS (SELECT k, t FROM items WHERE id = 1) SELECT t, count(*) FROM q GROUP BY t', NONE],
    ['SELECT i.k, g FROM items i, generate_series(1, 2) g WHERE i.id = 0', NONE],
    ['SELECT k, id FROM items WHERE random() >= 0', NONE],
    ['SELECT k, random() < 1 FROM items ORDER BY k, random(), id', { kind: 'columns', columns: [0] }],
    [
      'SELECT k /* FROM x */ -- , y\n, id -- z\n FROM items -- q\n WHERE b ORDER BY k -- , k\n, id -- end',
      TOTAL,
    ],
    ['SELECT t IS DISTINCT FROM \'a\' AS "from", count(*) AS group FROM items GROUP BY 1 ORDER BY 1', TOTAL],
    ['SELECT t FROM items GROUP BY t ORDER BY count(*) DESC, t', TOTAL],
    ['SELECT 1 FROM items GROUP BY b', NONE],
    ["SELECT 'x' AS y, count(*) FROM items GROUP BY y", NONE],
    ['SELECT b AS t, count(*) FROM items GROUP BY t, b', NONE],
    ['SELECT k + 1 AS k2, count(*) FROM items GROUP BY k2 ORDER BY k2', TOTAL],
    ['SELECT b, count(*) AS "Sum, of" FROM items GROUP BY b ORDER BY b IS NULL, b', TOTAL],
    ["SELECT date_trunc('year', at)::date + 1, count(*) FROM items GROUP BY date_trunc('year', at)", NONE],
    [
      'SELECT extract(year FROM at) AS y, count(*) FROM items GROUP BY extract(year FROM at) ORDER BY y',
      TOTAL,
    ],
    ["SELECT at AT TIME ZONE 'UTC' AS z, min(id) FROM items GROUP BY 1 ORDER BY 1 DESC NULLS LAST", TOTAL],
    ["SELECT sum(id) FILTER (WHERE t <> 'FROM x, (y') AS s, ARRAY[count(*), 2] FROM items", TOTAL],
    [
      "SELECT CASE WHEN b THEN 'x' ELSE t END, greatest(max(id), 2) FROM items GROUP BY CASE WHEN b THEN 'x' ELSE t END",
      NONE,
    ],
    [
      'SELECT i.k, j.id FROM items i JOIN items j ON i.k = j.k WHERE i.id < j.id ORDER BY i.k, i.id, j.id',
      TOTAL,
    ],
    [
      'SELECT i.t, count(*) FROM items i JOIN items j USING (k) JOIN parts p USING (k) GROUP BY i.t ORDER BY i.t',
      TOTAL,
    ],
    ['SELECT generate_series(1, id) AS g, k, id FROM items ORDER BY k, id, g LIMIT 9', TOTAL],
    ['SELECT DISTINCT b FROM items ORDER BY items.b DESC', TOTAL],
    ['(SELECT k FROM items WHERE b)', NONE],
  ])('%s', async (text, order) => {
    await pair.compare(text, order);
  });

  it.each<[string, string[]]>([
    ['SELECT k, id FROM items WHERE id = $1 ORDER BY k', ['1']],
    ['SELECT k, id FROM items WHERE k IN ($1, $2, $3) ORDER BY k, id', ['1', '2', '30']],
    ['SELECT k, id FROM items WHERE k IN ($1, $2) ORDER BY k, id', ['4', '4']],
    ['SELECT k, id, $3 FROM items WHERE b = $4 ORDER BY k, id LIMIT $1 OFFSET $2', ['5', '2', 'x', 't']],
    ['SELECT count(*) + $1 AS n, $2 FROM items HAVING count(*) > $3', ['5', 'x', '1']],
    ['SELECT e, count(*) FROM items WHERE n < $1 GROUP BY e ORDER BY e', ['7.5']],
    ['SELECT k FROM items ORDER BY k + $1, id LIMIT $2::int', ['3', '4']],
  ])('%s with values', async (text, values) => {
    await pair.compare(text, TOTAL, values);
  });

  it.each([
    'SELECT k FROM items ORDER BY k LIMIT -1',
    'SELECT k FROM items ORDER BY k OFFSET -1',
    'SELECT sum(t) FROM items',
  ])('%s fails alike', async (text) => {
    const expected = await pair.direct.query(text).catch((error) => error);
    await expect(pair.routed.query(text)).rejects.toMatchObject({
      code: expected.code,
      message: expected.message,
    });
  });

  it('sees what its own transaction has written, and nothing of it after ROLLBACK', async () => {
    for (const client of [pair.direct, pair.routed]) await client.query('BEGIN');
    for (const client of [pair.direct, pair.routed]) {
      for (const key of [1, 2, 3]) await client.query(`UPDATE items SET n = 1000 WHERE k = ${key}`);
    }
    await pair.compare('SELECT count(*), sum(n) FROM items WHERE n = 1000', TOTAL);
    await pair.compare('SELECT k, id FROM items WHERE n = 1000 ORDER BY k, id LIMIT 3', TOTAL);
    for (const client of [pair.direct, pair.routed]) await client.query('ROLLBACK');
    await pair.compare('SELECT count(*), sum(n) FROM items WHERE n = 1000', TOTAL);
  });

  it('locks rows where it is asked to', async () => {
    await pair.routed.query('BEGIN');
    const { rows } = await pair.routed.query('SELECT k, id FROM items WHERE id = 3 FOR UPDATE');
    expect(rows.length).toBeGreaterThan(5);
    for (const { k } of rows) {
      const other = pair.cluster.servers;
      expect(other.length).toBe(2);
      expect(k).toBeDefined();
    }
    await pair.routed.query('ROLLBACK');
  });

  it('tells errors in the names of the table, at the place in the text', async () => {
    const text = 'SELECT 1 / (k - k) FROM items ORDER BY t';
    await expect(pair.routed.query(text)).rejects.toMatchObject({ code: '22012' });
    const missing = 'SELECT count(*), nope FROM items';
    const direct = await pair.direct.query(missing).catch((error) => error);
    await expect(pair.routed.query(missing)).rejects.toMatchObject({
      code: expect.stringMatching(/0A000|42703/),
    });
    expect(direct.code).toBe('42703');
    await pair.compare('SELECT count(*) FROM items', TOTAL);
  });
});
