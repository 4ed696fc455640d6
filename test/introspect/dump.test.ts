/** pg_dump of a sharded database through the router, and what comes of the dump: whole, or refused. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { type Pair, run, startPair } from './pair.ts';
import { programsAreThere, psql, runProgram } from './programs.ts';

const there = await programsAreThere();

const ROWS = [
  "INSERT INTO countries VALUES ('DE', 'Germany'), ('FR', 'France')",
  `INSERT INTO accounts (id, email, country, created, extra, tags) SELECT i, 'a' || i, CASE WHEN i % 2 = 0 THEN 'DE' END, '2026-01-01',
     '{"a": [1, null]}', ARRAY['x', NULL, 'a "b"'] FROM generate_series(1, 300) i`,
  "INSERT INTO orders (account_id, total, note, placed) SELECT i, i, 'né\t' || i, '2026-02-03' FROM generate_series(1, 50) i",
  "INSERT INTO logged (account_id, line) SELECT i, 'x' FROM generate_series(1, 20) i",
  "INSERT INTO notes (body) VALUES ('one'), (E'two\\nlines')",
];

/** Row counts and sums by which databases with the same rows are told from others. */
const CONTENT = [
  'SELECT count(*)::int, sum(id)::int, min(tags::text), max(extra::text) FROM accounts',
  'SELECT count(*)::int, sum(account_id)::int, sum(doubled)::int, min(note) FROM orders',
  'SELECT count(*)::int, min(line), sum(account_id)::int FROM logged',
  'SELECT code, name FROM countries ORDER BY code',
  'SELECT id, body FROM notes ORDER BY id',
];

describe.skipIf(!there)('pg_dump', () => {
  let pair: Pair;
  let fresh: TestCluster | undefined;
  let directory: string;

  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'postern-dump-'));
    pair = await startPair(15);
    for (const dsn of [pair.sharded, pair.plain]) for (const text of ROWS) await run(dsn, text);
    fresh = await startTestCluster({ version: 15 });
    for (const server of fresh.servers) await server.query('CREATE ROLE reader LOGIN');
  });
  afterAll(async () => {
    await fresh?.stop();
    await pair?.stop();
    await rm(directory, { recursive: true, force: true });
  });

  async function dump(dsn: string, ...args: string[]): Promise<string> {
    const { stdout, stderr, status } = await runProgram('pg_dump', [...args, dsn]);
    expect(stderr).toBe('');
    expect(status).toBe(0);
    return stdout;
  }

  async function content(dsn: string): Promise<unknown[]> {
    const all: unknown[] = [];
    for (const text of CONTENT) all.push(await run(dsn, text));
    return all;
  }

  /** The database of a cluster, empty again. */
  async function emptied(): Promise<string> {
    const dsn = fresh!.dsn();
    const tables = await run(dsn, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'");
    for (const { tablename } of tables) await run(dsn, `DROP TABLE "${String(tablename)}" CASCADE`);
    await run(dsn, 'DROP FUNCTION IF EXISTS add_one(int)');
    await run(dsn, 'DROP FUNCTION IF EXISTS upper_line()');
    await run(dsn, 'DROP TYPE IF EXISTS mood');
    await run(dsn, 'DROP DOMAIN IF EXISTS amount');
    return dsn;
  }

  /** Statements and rows, in an order of their own. */
  function sorted(dumped: string): string[] {
    const lines = dumped.split('\n').filter((line) => line !== '' && !/^(--|\\(un)?restrict)/.test(line));
    return lines.map((line) => line.replace(/,$/, '')).sort();
  }

  test('is that of one PostgreSQL, but for the doors', async () => {
    const sharded = await dump(pair.sharded);
    const doors = /^WITH \("postern\..*\);$/;
    const isDoor = (line: string) => doors.test(line);
    expect(sorted(sharded).filter(isDoor)).toEqual([
      'WITH ("postern.door"=reference);',
      'WITH ("postern.door"=sharded, "postern.key"=\'Key\', "postern.buckets"=\'4\');',
      'WITH ("postern.door"=sharded, "postern.key"=account_id, "postern.buckets"=\'4\');',
      'WITH ("postern.door"=sharded, "postern.key"=account_id, "postern.buckets"=\'4\');',
      'WITH ("postern.door"=sharded, "postern.key"=id, "postern.buckets"=\'4\');',
    ]);
    const ends = (line: string) => line !== ')' && line !== ');' && !isDoor(line);
    const withoutSetval = (line: string) => !line.startsWith('SELECT pg_catalog.setval');
    const plain = sorted(await dump(pair.plain));
    expect(sorted(sharded).filter(ends).filter(withoutSetval)).toEqual(
      plain.filter(ends).filter(withoutSetval),
    );
  });

  test('goes through psql into an empty cluster, and comes out of it again', async () => {
    const file = path.join(directory, 'dump.sql');
    const before = await dump(pair.sharded, '-f', file);
    expect(before).toBe('');
    const dsn = await emptied();
    const restored = await runProgram('psql', ['-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', file, dsn]);
    expect(restored.stderr).toBe('');
    expect(await content(dsn)).toEqual(await content(pair.sharded));
    expect(sorted(await dump(dsn))).toEqual(sorted(await dump(pair.sharded)));
    const [order] = await run(
      dsn,
      "INSERT INTO orders (account_id, note) VALUES (1, 'new') RETURNING id::int",
    );
    expect(order!.id).toBeGreaterThan(50);
    await expect(
      run(dsn, "INSERT INTO accounts (id, email, country) VALUES (999, 'x', 'XX')"),
    ).rejects.toMatchObject({
      code: '23503',
      constraint: 'accounts_country_fkey',
    });
    expect(await psql(dsn, '\\d orders')).toContain('"orders_pkey" PRIMARY KEY, btree (account_id, id)');
  });

  test('goes through pg_restore', async () => {
    const file = path.join(directory, 'dump.custom');
    await dump(pair.sharded, '-Fc', '-f', file);
    const dsn = await emptied();
    const restored = await runProgram('pg_restore', ['--exit-on-error', '-d', dsn, file]);
    expect(restored.stderr).toBe('');
    expect(await content(dsn)).toEqual(await content(pair.plain));
  });

  test('of one PostgreSQL goes into a cluster', async () => {
    const file = path.join(directory, 'plain.sql');
    await dump(pair.plain, '-f', file);
    const dsn = await emptied();
    const restored = await runProgram('psql', ['-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', file, dsn]);
    expect(restored.stderr).toBe('');
    expect(await content(dsn)).toEqual(await content(pair.plain));
  });

  test('is of one moment on all nodes', async () => {
    // A transfer between accounts of two nodes never changes the sum, at whatever moment it is looked at.
    await run(pair.sharded, 'UPDATE accounts SET score = 100');
    const client = new pg.Client({ connectionString: pair.sharded });
    await client.connect();
    let stopped = false;
    const transfers = (async () => {
      for (let i = 0; !stopped; i++) {
        await client.query('BEGIN');
        await client.query(`UPDATE accounts SET score = score - 1 WHERE id = ${1 + (i % 90)}`);
        await client.query(`UPDATE accounts SET score = score + 1 WHERE id = ${101 + (i % 90)}`);
        await client.query('COMMIT');
      }
    })();
    try {
      for (let i = 0; i < 3; i++) {
        const dumped = await dump(pair.sharded, '--data-only', '-t', 'accounts');
        const rows = dumped.split('\n').filter((line) => /^\d+\ta\d+\t/.test(line));
        const scores = rows.map((line) => Number(line.split('\t')[5]));
        expect(rows).toHaveLength(300);
        expect(scores.reduce((sum, score) => sum + score, 0)).toBe(300 * 100);
      }
    } finally {
      stopped = true;
      await transfers.catch(() => {});
      await client.end();
    }
  });

  test('with several jobs, or with a node away, is refused', async () => {
    const jobs = await runProgram('pg_dump', [
      '-j',
      '2',
      '-Fd',
      '-f',
      path.join(directory, 'jobs'),
      pair.sharded,
    ]);
    expect(jobs.status).not.toBe(0);
    expect(jobs.stderr).toContain('a snapshot of sharded tables cannot be given to another transaction');
    // It reads by a cursor, and there is none over several nodes that agree.
    const inserts = await runProgram('pg_dump', ['--inserts', pair.sharded]);
    if (inserts.status !== 0) expect(inserts.stderr).toContain('is not supported on sharded table');
    else expect(inserts.stdout.match(/^INSERT INTO public.accounts/gm)).toHaveLength(300);
    const [, other] = fresh!.servers;
    other!.kill();
    const dumped = await runProgram('pg_dump', [fresh!.dsn()]);
    expect(dumped.status).not.toBe(0);
    expect(dumped.stderr).toContain('n2');
    await other!.restart();
  });
});
