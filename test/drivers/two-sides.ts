/** One PostgreSQL and a router over three nodes with the same tables and rows: what a driver does is done to both. */
import pg from 'pg';
import { afterAll, beforeAll } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { startTestServer, type TestServer } from '../support/servers.ts';

export interface Sides {
  readonly cluster: TestCluster;
  readonly plain: TestServer;
  /** What to connect to, as role app: the plain server, then the router. */
  readonly dsns: readonly [string, string];
}

const TABLES = [
  'CREATE TABLE things (id int PRIMARY KEY, name text, price numeric(10,2), made timestamptz, tags text[], doc jsonb, raw bytea, ok boolean, f float8, big bigint, u uuid, d date, t time, i interval)',
  'CREATE TABLE words (word text PRIMARY KEY, n int NOT NULL CHECK (n >= 0))',
  'CREATE TABLE home (id serial PRIMARY KEY, note text)',
];

function rowsText(count: number): string {
  const rows = Array.from({ length: count }, (_, at) => {
    const g = at + 1;
    const name = g % 7 === 0 ? 'NULL' : `'thing ${g}'`;
    const tags = `ARRAY['a', NULL, 'with "quotes", and ${g}']`;
    return `(${g}, ${name}, ${g * 1.25}, '2026-01-01 00:00:00Z'::timestamptz + interval '${g} hour', ${tags}, '{"g": ${g}, "x": [1, null]}',
      '\\x${g.toString(16).padStart(8, '0')}', ${g % 2 === 0}, ${g / 4}, ${g * 2 ** 40}, '00000000-0000-0000-0000-${String(g).padStart(12, '0')}',
      '2026-01-01'::date + ${g}, '00:${String(g % 60).padStart(2, '0')}:00', '${g} day 2 hours')`;
  });
  return `INSERT INTO things VALUES ${rows.join(', ')}`;
}

/** Started before the tests of the file, and stopped after them. */
export function useSides(): Sides {
  const sides: { -readonly [K in keyof Sides]?: Sides[K] } = {};
  beforeAll(async () => {
    const [plain, cluster] = await Promise.all([startTestServer(), startTestCluster({ nodes: 3 })]);
    await plain.query('CREATE ROLE app LOGIN; GRANT ALL ON SCHEMA public TO app');
    sides.plain = plain;
    sides.cluster = cluster;
    sides.dsns = [plain.dsn({ user: 'app' }), cluster.dsn('app')];
    for (const [at, dsn] of sides.dsns.entries()) {
      const client = new pg.Client(dsn);
      await client.connect();
      try {
        for (const text of TABLES) await client.query(text);
        if (at === 1) {
          await client.query("SELECT create_distributed_table('things', 'id')");
          await client.query("SELECT create_distributed_table('words', 'word')");
        }
        await client.query(rowsText(60));
      } finally {
        await client.end();
      }
    }
  }, 180_000);
  afterAll(async () => {
    await sides.cluster?.stop();
    await sides.plain?.stop();
  });
  return sides as Sides;
}
