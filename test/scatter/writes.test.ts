/**
 * Writes over several buckets and nodes, beside the same statements on one plain PostgreSQL: the same tags, the same rows
 * (as sets, but for the RETURNING of INSERT … VALUES) and the same SQLSTATEs.
 */
import { describe, expect, it } from 'vitest';
import {
  compare as compareSteps,
  compareTables,
  fill,
  routed,
  type Step,
  startWritePair,
} from './write-pair.ts';

startWritePair();

async function compare(...steps: (string | Step)[]): Promise<void> {
  await compareSteps(...steps);
  await compareTables();
}

describe('INSERT … VALUES', () => {
  it('puts each row into its bucket', async () => {
    await fill();
    await compare(
      "INSERT INTO t VALUES (100, 1, 'a', 1), (101, 1, 'b', 2), (102, 1, 'c', 3), (103, 1, 'd', 4)",
      {
        text: 'INSERT INTO t (id, k) VALUES (2, 100), (2, 101), (3, 102) RETURNING k, id, v, k + id AS sum',
        ordered: true,
      },
      {
        text: 'INSERT INTO t (k, id, v, n) VALUES ($1, $2, $3, $4), ($5, 1, $3, $6), ($7, $2, upper($8), DEFAULT) RETURNING *',
        values: [200, 7, 'x', 5, 201, 6, 202, 'y'],
        ordered: true,
      },
      'INSERT INTO t VALUES (300, 1), (301, 1) ON CONFLICT DO NOTHING',
      "INSERT INTO t VALUES (300, 1, 'again'), (301, 1, 'again'), (302, 1, 'new') ON CONFLICT (k, id) DO UPDATE SET v = excluded.v || t.k RETURNING k, v",
      'INSERT INTO t VALUES (300, 1, NULL, 6), (304, 1) ON CONFLICT (k, id) DO UPDATE SET k = excluded.k, n = excluded.n',
      'INSERT INTO t VALUES (400, 1), (401, 1), (402, 1) ON CONFLICT ON CONSTRAINT t_pkey DO NOTHING RETURNING k',
      'INSERT INTO t VALUES (400, 1), (499, 1), (402, 1) ON CONFLICT ON CONSTRAINT t_pkey DO NOTHING RETURNING k',
    );
  });

  it('fails as one statement, and undoes all', async () => {
    await fill();
    await compare(
      'INSERT INTO t VALUES (100, 1), (5, 1), (101, 1)',
      'INSERT INTO t VALUES (100, 1), (101, NULL), (102, 1)',
      "INSERT INTO t VALUES (100, 1, 'a', 5), (101, 1, 'b', 5000), (102, 1, 'c', 6)",
      "INSERT INTO t VALUES (100, 1), (101, 'x'), (102, 1)",
      'INSERT INTO t VALUES (100, 1), (101, 1 / 0), (102, 1)',
      'INSERT INTO t VALUES (100, 1), (101), (102, 1)',
      'INSERT INTO t (k, nope) VALUES (100, 1), (101, 1)',
      'INSERT INTO t VALUES ($1, 1), (101, 1)',
      'INSERT INTO t VALUES (700, 1), (700, 1) ON CONFLICT (k, id) DO UPDATE SET n = 1',
      { text: 'INSERT INTO t VALUES ($1, 1), ($2, 1)', values: [500, 'x'] },
      "INSERT INTO u (slug) VALUES ('a'), ('b'), (NULL)",
    );
  });

  it('supplies ids that are left out', async () => {
    const { rows } = await routed.query(
      "INSERT INTO serials (k, note) VALUES (1, 'a'), (2, DEFAULT), (3, 'c') RETURNING id, note",
    );
    expect(rows.map(({ note }) => note)).toEqual(['a', 'none', 'c']);
    const mixed = await routed.query(
      "INSERT INTO serials VALUES (DEFAULT, 1, 'd'), (1000001, 2, 'e'), (1000002, 2, 'f'), (1000003, 2, 'g') RETURNING id, note",
    );
    expect(mixed.rows.map(({ note }) => note)).toEqual(['d', 'e', 'f', 'g']);
    expect(new Set([...rows, ...mixed.rows].map(({ id }) => id)).size).toBe(7);
    await routed.query("INSERT INTO serials (k, note) SELECT k, 'from s' FROM s");
    const all = await routed.query('SELECT id FROM serials');
    expect(new Set(all.rows.map(({ id }) => id)).size).toBe(7 + 20);
  });
});

describe('UPDATE and DELETE', () => {
  it('go to all buckets, or to those that are named', async () => {
    await fill();
    await compare(
      "UPDATE t SET v = v || '!'",
      'UPDATE t SET n = n + 1 WHERE k IN (1, 2, 3, 4) RETURNING k, n',
      { text: 'UPDATE t SET n = n + $1 WHERE k IN ($2, $3) RETURNING *', values: [7, 5, 9] },
      { text: 'UPDATE t AS x SET n = $1 WHERE x.n > $2', values: ['3', '15'] },
      'UPDATE public.t SET n = 0 WHERE public.t.k = 3 OR public.t.k = 4',
      'UPDATE t SET n = 1 WHERE k = ANY (ARRAY[1, 2, 3])',
      { text: 'UPDATE t SET n = 2 WHERE k = ANY ($1)', values: [[1, 2, 3]] },
      'DELETE FROM t WHERE n = 2 RETURNING k',
      'DELETE FROM t WHERE k IN (10, 11, 12)',
      "DELETE FROM t WHERE v LIKE 'v1%'",
      'UPDATE t SET n = n + 1 WHERE false RETURNING k',
      'DELETE FROM t',
    );
  });

  it('join tables by the key', async () => {
    await fill();
    await compare(
      'UPDATE t SET v = w FROM s WHERE s.k = t.k AND s.id = t.id AND s.f > 1',
      'UPDATE t SET n = x.n FROM (VALUES (1, 50), (2, 60), (3, 70)) AS x(k, n) WHERE t.k = x.k RETURNING t.k, x.n',
      'UPDATE t SET n = (SELECT count(*) FROM s WHERE s.k = t.k) WHERE EXISTS (SELECT FROM s WHERE s.k = t.k AND s.k > 10)',
      'DELETE FROM t USING s WHERE s.k = t.k AND s.f > 2 RETURNING t.k, s.w',
      'DELETE FROM s WHERE NOT EXISTS (SELECT FROM t WHERE t.k = s.k)',
      'WITH big AS (SELECT 3 AS least) DELETE FROM t USING big WHERE t.n > big.least',
    );
  });

  it('fail as one statement', async () => {
    await fill();
    await compare(
      'UPDATE t SET n = n + 985',
      'UPDATE t SET n = 10 / (n - 7)',
      'UPDATE t SET nope = 1',
      'DELETE FROM t WHERE v = 1',
      'UPDATE t SET id = NULL',
      { text: 'UPDATE t SET n = $1', values: ['x'] },
    );
  });
});

describe('INSERT … SELECT', () => {
  it('within buckets', async () => {
    await fill();
    await compare(
      'INSERT INTO t (k, id, v) SELECT k, 2, w FROM s',
      'INSERT INTO t SELECT k, id + 10, w FROM s WHERE f > 1 RETURNING k, id',
      'INSERT INTO s (k, id, f) SELECT k, 100, avg(n) FROM t GROUP BY k',
      {
        text: 'INSERT INTO t (k, id, n) SELECT s.k, $1::int, count(*) FROM s JOIN t ON t.k = s.k WHERE s.k IN ($2, $3) GROUP BY s.k',
        values: [77, 3, 4],
      },
      'INSERT INTO t SELECT * FROM t ON CONFLICT DO NOTHING',
      'INSERT INTO t (k, id) SELECT 5, g FROM generate_series(1000, 1010) g',
    );
  });

  it('across buckets and from other tables', async () => {
    await fill();
    await compare(
      'INSERT INTO t (k, id, v, n) SELECT id + 1000, 1, v, n FROM h',
      "INSERT INTO t (k, id, v) SELECT k + 2000, 1, 'moved' FROM t WHERE k < 10 RETURNING k, v",
      "INSERT INTO u (slug, body) SELECT 'slug ' || id, jsonb_build_object('v', v) FROM h WHERE n < 10",
      'INSERT INTO s SELECT k + 3000, id, w, at, f FROM s',
      "INSERT INTO t (k, id, v) SELECT g, 1, '5' FROM generate_series(5000, 5050) g RETURNING k",
      {
        text: 'INSERT INTO t (k, id, v) SELECT g, $1, $2 FROM generate_series(6000, $3::int) g',
        values: [3, 'p', 6030],
      },
      'INSERT INTO t (k, id, n) SELECT g, 1, 3 FROM generate_series(6000, 6010) g ON CONFLICT (k, id) DO UPDATE SET n = excluded.n',
      'WITH x AS (SELECT 7000 AS base) INSERT INTO t (k, id) SELECT base + g, 1 FROM x, generate_series(1, 9) g',
      'INSERT INTO t (k, id, n) SELECT g, 1, 3.7 FROM generate_series(8000, 8010) g',
      'INSERT INTO t (k, id, v) SELECT n, 500, NULL FROM h',
      'INSERT INTO t (k, id, n) SELECT sum(k)::int8, 600, count(*) FROM t WHERE k < 20',
      {
        text: 'INSERT INTO t (k, id, v) SELECT DISTINCT id + $1::int, 1, $2 FROM t WHERE id < 500',
        values: [9000, 'd'],
      },
      'INSERT INTO t (k, id, v) SELECT k + 20000, id, v FROM t ORDER BY k, id LIMIT 7',
      'INSERT INTO u (slug, total) SELECT v, DEFAULT FROM t',
    );
  });

  it('fails as one statement', async () => {
    await fill();
    await compare(
      'INSERT INTO t (k, id, n) SELECT id + 1000, 1, n * 100 FROM h',
      'INSERT INTO t (k, id) SELECT k, id FROM s',
      'INSERT INTO t (k, id, nope) SELECT k, id, 1 FROM s',
      'INSERT INTO t (k, id) SELECT n, 1 / (n - 20) FROM h',
      "INSERT INTO t (k, id, v) SELECT id, NULL, 'x' FROM h",
    );
  });

  it('of many rows', async () => {
    await fill();
    await compare(
      "INSERT INTO h SELECT g, repeat('x', 500), g FROM generate_series(1000, 6000) g",
      'INSERT INTO t (k, id, v, n) SELECT id, 9, v, n % 1000 FROM h WHERE id >= 1000',
      'DELETE FROM h WHERE id >= 1000',
      'INSERT INTO t (k, id, v) SELECT k + 100000, id, v FROM t WHERE id = 9',
      'DELETE FROM t WHERE id = 9',
    );
  }, 30_000);
});

describe('an UPDATE of the shard key', () => {
  it('moves the rows', async () => {
    await fill();
    await compare(
      'UPDATE t SET k = 777 WHERE k = 5 RETURNING k, id, v, n',
      { text: 'UPDATE t SET k = $1, v = $2 WHERE k = $3 RETURNING *', values: [778, 'p', 6] },
      'UPDATE t SET k = k + 1000, n = n + 1 WHERE n < 10',
      "UPDATE t SET k = 7, v = 'same' WHERE k = 7",
      "UPDATE t AS x SET (v) = ROW('row') WHERE x.k = 8",
      "UPDATE u SET slug = 'none'",
      "INSERT INTO u (slug, body) VALUES ('a', '1'), ('b', '2'), ('c', NULL), ('d', '4')",
      "UPDATE u SET slug = slug || '!', body = '[5]' WHERE slug <> 'c' RETURNING slug, body, total",
      'UPDATE t SET k = s.k + 5000 FROM s WHERE s.k = t.k AND s.f > 2',
      'UPDATE t SET k = k * 2, v = DEFAULT, n = CASE WHEN n IS DISTINCT FROM 3 THEN 1 ELSE 2 END WHERE k IN (777, 778) RETURNING *',
      'UPDATE t SET k = 1',
      'UPDATE t SET k = NULL WHERE k = 12',
      'UPDATE t SET k = k + 1, n = 5000 WHERE k = 12',
      'UPDATE t SET k = k, n = 4 WHERE k > 3',
    );
  });
});

describe('in a transaction', () => {
  it('all or nothing, and seen by what follows', async () => {
    await fill();
    await compare(
      'BEGIN',
      'UPDATE t SET n = 1',
      'INSERT INTO t VALUES (100, 1), (101, 1), (102, 1)',
      'UPDATE t SET k = k + 500 WHERE k > 99',
      'SELECT k, n FROM t WHERE k = 601',
      'ROLLBACK',
      'BEGIN',
      'DELETE FROM t WHERE n > 10',
      'UPDATE t SET n = 10 / (n - 7)',
      'SELECT 1',
      'COMMIT',
      'BEGIN',
      'SAVEPOINT a',
      'DELETE FROM t WHERE n > 10',
      'INSERT INTO t VALUES (1, 1), (2, 1), (3, 1)',
      'ROLLBACK TO a',
      'UPDATE t SET n = 3',
      'COMMIT',
    );
  });
});

describe('refused', () => {
  it.each([
    'DELETE FROM t WHERE v = (SELECT max(w) FROM s)',
    "DELETE FROM t WHERE ctid = '(0,1)'",
    'WITH x AS (DELETE FROM s RETURNING k) DELETE FROM t',
    'UPDATE t SET k = k + 1 FROM s WHERE s.k = t.k RETURNING t.k',
    "UPDATE t SET (k, v) = (1, 'a') WHERE id = 1",
    'DELETE FROM t USING h WHERE h.id = t.k',
    'INSERT INTO t (k, id) SELECT sum(k), 1 FROM s',
    'INSERT INTO t (k, id) SELECT id::numeric, 1 FROM h',
  ])('%s', async (text) => {
    await expect(routed.query(text)).rejects.toMatchObject({ code: '0A000', hint: expect.any(String) });
  });
});
