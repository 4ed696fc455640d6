/** COPY … TO STDOUT through a router and on one PostgreSQL: the same data, but for the order of rows. */
import { beforeAll, describe, expect, test } from 'vitest';
import { cluster, connect, copyIn, copyOut, direct, routed, startCopyPair } from './copy-pair.ts';

startCopyPair();

beforeAll(async () => {
  const rows = Array.from(
    { length: 300 },
    (_, i) => `${i}\t${i}\t${VALUES[i % VALUES.length]}\t${i % 7 === 0 ? '\\N' : i}\n`,
  );
  const words = 'a\t1\nb\t\\N\n\\\\.\t3\n"q"\t4\nx,y\t5\n\\tz\t6\n';
  for (const client of [direct, routed]) {
    await copyIn(client, 'COPY t FROM STDIN', [rows.join('')]);
    await copyIn(client, 'COPY words (w, n) FROM STDIN', [words]);
  }
});

const VALUES = [
  'plain',
  '\\N',
  '',
  'tab\\tand\\nline',
  '\\\\backslash',
  '"quoted"',
  'a,b;c',
  'Grüße',
  '\\r\\b\\f\\v',
];

/** Lines in an order of their own; a header stays first. */
function sorted(data: unknown, hasHeader: boolean): unknown {
  if (!Buffer.isBuffer(data)) return data;
  const lines = data.toString().split('\n');
  return hasHeader ? [lines[0], ...lines.slice(1).sort()] : lines.sort();
}

describe('data', () => {
  test.each([
    'COPY t TO STDOUT',
    'COPY public.t (v, k) TO STDOUT',
    'COPY words TO STDOUT',
    "COPY t TO STDOUT (DELIMITER '|', NULL 'nil')",
    'COPY t TO STDOUT (HEADER)',
    'COPY (SELECT k, upper(v) AS loud FROM t WHERE id > 10) TO STDOUT',
    'COPY (SELECT w FROM words) TO STDOUT CSV',
    'COPY (SELECT k, v FROM t WHERE k IN (1, 2, 3, 250)) TO STDOUT (HEADER)',
    'COPY (SELECT k, v FROM t WHERE k = 17) TO STDOUT CSV HEADER',
    'COPY (SELECT k, v, n FROM t ORDER BY k) TO STDOUT',
    "COPY (SELECT k, v, n FROM t ORDER BY k LIMIT 40) TO STDOUT (FORMAT csv, HEADER, NULL 'nil', FORCE_QUOTE (v))",
    'COPY (SELECT v, n FROM t ORDER BY k LIMIT 40) TO STDOUT (FORMAT csv, FORCE_QUOTE *)',
    "COPY (SELECT v, k FROM t ORDER BY k LIMIT 40) TO STDOUT (FORMAT csv, QUOTE '''', ESCAPE '\\', DELIMITER ';')",
    "COPY (SELECT v, k FROM t ORDER BY k LIMIT 40) TO STDOUT (DELIMITER 'x')",
    'COPY (SELECT w FROM words ORDER BY w COLLATE "C") TO STDOUT CSV',
    'COPY (SELECT n, count(*) FROM t GROUP BY n) TO STDOUT',
    'COPY (SELECT count(*), sum(n) FROM t) TO STDOUT',
    'COPY (SELECT k FROM t WHERE k < 0) TO STDOUT CSV HEADER',
    'COPY t (nothing) TO STDOUT',
    'COPY t (k, k) TO STDOUT',
    'COPY words (total) TO STDOUT',
    'COPY t TO STDOUT (NONSENSE)',
    "COPY (SELECT k FROM t ORDER BY k) TO STDOUT (DELIMITER 'ab')",
  ])('%s', async (text) => {
    const hasHeader = /HEADER/.test(text);
    const actual = await copyOut(routed, text);
    expect(sorted(actual, hasHeader)).toEqual(sorted(await copyOut(direct, text), hasHeader));
    if (/ORDER BY/.test(text)) expect(actual).toEqual(await copyOut(direct, text));
  });

  test.each(['COPY t TO STDOUT', 'COPY (SELECT k, id, v, n FROM t ORDER BY k) TO STDOUT'])(
    '%s, in binary',
    async (text) => {
      const binary = (await copyOut(routed, `${text} (FORMAT binary)`)) as Buffer;
      const expected = (await copyOut(direct, `${text} (FORMAT binary)`)) as Buffer;
      expect(binary.length).toBe(expected.length);
      await direct.query('CREATE TEMP TABLE back (LIKE t)');
      expect(await copyIn(direct, 'COPY back FROM STDIN (FORMAT binary)', [binary])).toEqual({ rows: 300 });
      const { rows } = await direct.query('SELECT * FROM back EXCEPT SELECT * FROM t');
      expect(rows).toEqual([]);
      await direct.query('DROP TABLE back');
    },
  );

  test('more than a client reads at once', async () => {
    const client = await connect(cluster.dsn());
    await client.query(
      "CREATE TABLE large (k int8, v text) WITH (postern.door = 'sharded', postern.key = 'k', postern.buckets = 8)",
    );
    const line = (i: number) => `${i}\t${'x'.repeat(1000)}\n`;
    const data = Array.from({ length: 8000 }, (_, i) => line(i)).join('');
    expect(await copyIn(client, 'COPY large FROM STDIN', [data])).toEqual({ rows: 8000 });
    expect(((await copyOut(client, 'COPY large TO STDOUT')) as Buffer).length).toBe(data.length);
    const { rows } = await client.query('SELECT v FROM large');
    expect(rows).toHaveLength(8000);
    await client.end();
  });

  test('of a transaction are what it has written', async () => {
    await routed.query('BEGIN');
    await routed.query("INSERT INTO t (k, id, v) VALUES (100000, 1, 'new')");
    expect(String(await copyOut(routed, 'COPY (SELECT v FROM t WHERE k >= 100000) TO STDOUT'))).toBe('new\n');
    await routed.query('ROLLBACK');
    expect(String(await copyOut(routed, 'COPY (SELECT v FROM t WHERE k >= 100000) TO STDOUT'))).toBe('');
  });
});
