/** Texts by which statements are counted: without values, and alike where only values differ. */
import { describe, expect, it } from 'vitest';
import { NORMALIZED_BYTES_MAX, normalizeText } from './normalize.ts';

describe('a normalized text', () => {
  it.each<[string, string]>([
    ['SELECT 1', 'SELECT $1'],
    ["  select * from t where a = 5 and b = 'x' ;\n", 'select * from t where a = $1 and b = $2'],
    ['SELECT * FROM t WHERE a = $1 LIMIT 10', 'SELECT * FROM t WHERE a = $1 LIMIT $2'],
    ["SELECT E'it''s \\' ', $2, $$do$lar$$, DATE '2020-01-01'", 'SELECT $3, $2, $4, DATE $5'],
    [
      'SELECT * FROM t WHERE a IN (1, -2, 3) AND b IN (4)',
      'SELECT * FROM t WHERE a IN ($1 /*, ... */) AND b IN ($2)',
    ],
    ['SELECT * FROM t WHERE a IN (1, b)', 'SELECT * FROM t WHERE a IN ($1, b)'],
    ["INSERT INTO t VALUES (1, 'a'), (2, 'b')", 'INSERT INTO t VALUES ($1, $2), ($3, $4)'],
    ['SELECT "5", t1.c2 FROM "t 7" t1 -- 5', 'SELECT "5", t1.c2 FROM "t 7" t1 -- 5'],
    ['WITH x AS (SELECT 1.5e3) TABLE x', 'WITH x AS (SELECT $1) TABLE x'],
    ["CREATE ROLE r PASSWORD 'secret'", 'CREATE ROLE r PASSWORD $1'],
    ["CREATE TABLE t (a varchar(20) DEFAULT 'x')", 'CREATE TABLE t (a varchar(20) DEFAULT $1)'],
    ["SET a.b = 'secret'", 'SET a.b = $1'],
  ])('%s', (text, expected) => expect(normalizeText(text)).toBe(expected));

  it('is cut where a text is very long, and the same for all that begin alike', () => {
    const rows = (count: number) =>
      `INSERT INTO t VALUES ${Array.from({ length: count }, (_, i) => `(${100_000 + i}, 'value')`).join(', ')}`;
    const one = normalizeText(rows(5_000));
    expect(one).toBe(normalizeText(rows(9_000)));
    expect(one.endsWith(' …')).toBe(true);
    expect(Buffer.byteLength(one)).toBeLessThan(2 * NORMALIZED_BYTES_MAX);
    expect(one).not.toContain('value');
    expect(normalizeText(`SELECT '${'secret'.repeat(5_000)}'`)).toBe('SELECT …');
  });
});
