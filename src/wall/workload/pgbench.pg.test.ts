/** The same scripts by PostgreSQL's own pgbench: what they compute is equal, and what they draw is distributed alike. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runTransactions } from '../../../test/support/load-run.ts';
import { startTestServer, type TestServer } from '../../../test/support/servers.ts';
import type { Protocol } from '../load/transaction-template.ts';
import { workloadFromScript } from './workload.ts';

const PGBENCH = '/usr/lib/postgresql/15/bin/pgbench';
const run = promisify(execFile);

const EXPRESSIONS = `1 + 2 * 3 - 4 / 3 % 2
-7 / 2
-7 % 4
7 / 2.0
1.5e3 * 2
~5 + 1
-2 * -3 + - 4
6 & 3 | 8 # 1 << 2
-9 >> 1
1 << 62
not false and 1 < 2 or null
case when null then 1 when 2 then 3 else 4 end
case when 1 > 2 then 1 end
null is null and true is not false
1 isnull or 2 notnull
abs(-5) + abs(-2.5)
greatest(1, 2.5, -3)
least(4, 2, 3)
int(2.5)
int(3.5)
int(-2.5)
double(3) / 4
sqrt(2)
exp(1)
ln(10)
pi()
pow(2, 0.5)
power(10, 20)
1e-5
0.1 + 0.2
1e15
123456789012345678
-9223372036854775808
abs(-9223372036854775807)
mod(17, 5)
hash(0)
hash(1)
hash(-1)
hash(123456789012345)
hash_murmur2(42, 7)
hash_murmur2(-9223372036854775808, -1)
hash_fnv1a(0)
hash_fnv1a(42, 7)
hash_fnv1a(-1, 123456789)
hash_fnv1a(9223372036854775807, -9223372036854775808)
permute(0, 1)
permute(1, 2)
permute(3, 10, 5)
permute(999, 1000)
permute(123, 1000000, 42)
permute(5, 9223372036854775807, 99)
permute(-1, 77, -5)
permute(4611686018427387904, 4611686018427387905, 1)
:scale + :client_id`.split('\n');

const SHAPES = [
  ['uniform', 'random(1, 12)'],
  ['gaussian', 'random_gaussian(1, 12, 2.5)'],
  ['exponential', 'random_exponential(1, 12, 3.0)'],
  ['zipfian', 'random_zipfian(1, 12, 1.3)'],
] as const;
const DRAWS_PER_STATEMENT = 100;
const STATEMENTS = 100;
/** Of two samples over 12 classes (11 degrees of freedom): passed once in a thousand seeds, and both seeds are fixed. */
const CHI_SQUARED_MAX = 31.3;

describe.skipIf(!existsSync(PGBENCH))('a script, by pgbench and by the load generator', () => {
  let server: TestServer;
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'postern-pgbench-'));
    server = await startTestServer();
    await server.query('CREATE TABLE computed (who text, i int, v text)');
    await server.query('CREATE TABLE drawn (who text, shape text, v bigint[])');
    await server.query('CREATE TABLE steps (who text, step text)');
    await server.query('CREATE TABLE pairs (a int, b text)');
  });
  afterAll(async () => {
    await server?.stop();
    await rm(directory, { recursive: true, force: true });
  });

  /** The script has `{who}` where the rows' maker goes. */
  async function both(script: string, options: { protocol: Protocol; transactions: number }): Promise<void> {
    const file = path.join(directory, 'script.sql');
    await writeFile(file, script.replaceAll('{who}', 'pgbench'));
    await run(PGBENCH, [
      ...['-n', '-h', '127.0.0.1', '-p', String(server.port), '-U', 'postgres', '-M', options.protocol],
      ...['-t', String(options.transactions), '-s', '3', '-D', 'default_seed=5432', '--random-seed=42'],
      ...['-f', file, 'postgres'],
    ]);
    const workload = workloadFromScript(script.replaceAll('{who}', 'us'), { name: 'script.sql', scale: 3 });
    const ours = await runTransactions({ server, workload, schema: '', clients: 1, ...options });
    expect(ours.errors).toEqual([]);
  }

  it('computes the same', async () => {
    const sets = EXPRESSIONS.map((expression, i) => `\\set v${i} ${expression}`);
    // Within quotes, so that the values are seen as they are written; pgbench has that in the simple protocol only.
    const inserts = EXPRESSIONS.map((_, i) => `INSERT INTO computed VALUES ('{who}', ${i}, ':v${i}');`);
    await both([...sets, ...inserts].join('\n'), { protocol: 'simple', transactions: 1 });
    const rows = await server.query(
      `SELECT i, max(v) FILTER (WHERE who = 'pgbench') AS theirs, max(v) FILTER (WHERE who = 'us') AS ours
         FROM computed GROUP BY i ORDER BY i`,
    );
    expect(rows).toHaveLength(EXPRESSIONS.length);
    const named = (key: string) => rows.map((row) => `${EXPRESSIONS[row.i as number]} = ${row[key]}`);
    expect(named('ours')).toEqual(named('theirs'));
  });

  it.each(SHAPES)('draws alike: %s', async (shape, expression) => {
    const names = Array.from({ length: DRAWS_PER_STATEMENT }, (_, index) => `v${index}`);
    const sets = names.map((name) => `\\set ${name} ${expression}`);
    const array = `ARRAY[${names.map((name) => `:${name}`).join(', ')}]::bigint[]`;
    const insert = `INSERT INTO drawn VALUES ('{who}', '${shape}', ${array});`;
    await both([...sets, insert].join('\n'), { protocol: 'extended', transactions: STATEMENTS });
    const rows = await server.query(
      `SELECT x::int, count(*) FILTER (WHERE who = 'us')::int AS ours, count(*) FILTER (WHERE who = 'pgbench')::int AS theirs
         FROM drawn, unnest(v) AS x WHERE shape = '${shape}' GROUP BY x`,
    );
    expect(rows.every(({ x }) => (x as number) >= 1 && (x as number) <= 12)).toBe(true);
    expect(rows.reduce((sum, row) => sum + (row.ours as number), 0)).toBe(DRAWS_PER_STATEMENT * STATEMENTS);
    const chiSquared = rows.reduce((sum, row) => {
      const [ours, theirs] = [row.ours as number, row.theirs as number];
      return sum + (ours - theirs) ** 2 / (ours + theirs);
    }, 0);
    expect(chiSquared).toBeLessThan(CHI_SQUARED_MAX);
  });

  const flow = `\\set n 0
\\if :n = 1
INSERT INTO steps VALUES ('{who}', 'no');
\\elif :n = 0
INSERT INTO steps VALUES ('{who}', 'elif');
\\if true
INSERT INTO steps VALUES ('{who}', 'nested');
\\else
INSERT INTO steps VALUES ('{who}', 'no');
\\endif
\\else
INSERT INTO steps VALUES ('{who}', 'no');
\\endif
SELECT 5 AS five, 'six' AS six, null AS nothing \\gset p_
\\set five :p_five + 1
INSERT INTO steps SELECT '{who}', 'gset ' || :five::int || :p_six::text || coalesce(:n::int, 7);
SELECT 1 AS one WHERE false \\aset
SELECT x AS last FROM generate_series(1, 4) AS x \\aset
INSERT INTO steps SELECT '{who}', 'aset ' || :last::int;
\\sleep 1 ms
INSERT INTO steps VALUES ('{who}', 'end');
`;

  const stepsOf = async (who: string): Promise<unknown[]> =>
    (await server.query(`SELECT step FROM steps WHERE who = '${who}' ORDER BY ctid`)).map(({ step }) => step);

  it('goes the same way through conditions and results', async () => {
    await both(flow, { protocol: 'prepared', transactions: 2 });
    const ours = await stepsOf('us');
    expect(ours).toEqual(await stepsOf('pgbench'));
    expect(ours).toEqual(Array(2).fill(['elif', 'nested', 'gset 6six0', 'aset 4', 'end']).flat());
    await server.query('TRUNCATE steps');
  });

  it('sends the same pipeline', async () => {
    const script = `\\set a 1
\\startpipeline
BEGIN;
INSERT INTO steps VALUES ('{who}', 'a' || :a::int);
\\set a 2
INSERT INTO steps VALUES ('{who}', 'b' || :a::int);
COMMIT;
\\endpipeline
INSERT INTO steps VALUES ('{who}', 'c');
`;
    await both(script, { protocol: 'extended', transactions: 2 });
    const ours = await stepsOf('us');
    expect(ours).toEqual(await stepsOf('pgbench'));
    expect(ours).toEqual(['a1', 'b2', 'c', 'a1', 'b2', 'c']);
    await server.query('TRUNCATE steps');
  });

  it('goes on after errors, rolled back, within a pipeline too, and after a result that is missing', async () => {
    const runOurs = (script: string, protocol: Protocol) => {
      const workload = workloadFromScript(script, { name: 'script.sql' });
      return runTransactions({ server, workload, protocol, schema: '', clients: 2, transactions: 20 });
    };
    const pipeline = await runOurs(
      "\\set n random(0, 1)\n\\startpipeline\nBEGIN;\nINSERT INTO pairs VALUES (1 / :n, 'x');\n\\syncpipeline\nINSERT INTO pairs VALUES (2, 'y');\nCOMMIT;\n\\endpipeline\n",
      'prepared',
    );
    const succeeded = pipeline.succeeded.get('script.sql')!;
    expect(new Set(pipeline.errors.map(({ sqlState }) => sqlState))).toEqual(new Set(['22012']));
    expect(succeeded + pipeline.errors.length).toBe(20);
    const [counts] = await server.query(
      `SELECT count(*) FILTER (WHERE b = 'x')::int AS x, count(*) FILTER (WHERE b = 'y')::int AS y FROM pairs`,
    );
    expect(counts).toEqual({ x: succeeded, y: succeeded });

    const missing = await runOurs(
      "BEGIN;\nSELECT 1 AS a WHERE false \\gset\nSELECT ':a';\nCOMMIT;\n",
      'simple',
    );
    expect(missing.errors.map(({ sqlState }) => sqlState)).toEqual(Array(20).fill('P0002'));
    await expect(runOurs('BEGIN;\n', 'simple')).rejects.toThrow(
      'script.sql: the script ended inside a transaction',
    );
    await expect(runOurs('\\set a 1 / (1 - 1)\nSELECT 1;\n', 'simple')).rejects.toThrow(
      'script.sql:1: division by zero',
    );
  });
});
