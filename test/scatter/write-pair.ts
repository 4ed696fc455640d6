/**
 * One plain PostgreSQL and a router over three nodes, with the same tables and rows: what the tests of writes over several
 * buckets compare.
 */
import pg from 'pg';
import { afterAll, beforeAll, expect } from 'vitest';
import { type Message, RawClient } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

export let cluster: TestCluster;
let direct: pg.Client;
export let routed: pg.Client;

const SHARDED = [
  ['t', 'k', '(k int8 NOT NULL, id int4 NOT NULL, v text, n int CHECK (n < 1000), PRIMARY KEY (k, id))'],
  ['s', 'k', '(k int8 NOT NULL, id int4 NOT NULL, w text, at timestamptz, f float8, PRIMARY KEY (k, id))'],
  ['u', 'slug', '(slug text PRIMARY KEY, body jsonb, total int GENERATED ALWAYS AS (length(slug)) STORED)'],
  ['serials', 'id', "(id bigserial PRIMARY KEY, k int8, note text DEFAULT 'none')"],
] as const;
const COMPARED = ['t', 's', 'u', 'h'];

export interface Step {
  readonly text: string;
  readonly values?: unknown[];
  /** Its rows come in this order. */
  readonly ordered?: boolean;
}

export function startWritePair(): void {
  beforeAll(async () => {
    cluster = await startTestCluster({ nodes: 3 });
    const [home] = cluster.servers;
    await home!.query('CREATE DATABASE plain OWNER app');
    direct = new pg.Client({ host: '127.0.0.1', port: home!.port, user: 'app', database: 'plain' });
    routed = new pg.Client({ connectionString: cluster.dsn() });
    for (const client of [direct, routed]) {
      await client.connect();
      await client.query('CREATE TABLE h (id int8 PRIMARY KEY, v text, n int)');
    }
    for (const [name, key, columns] of SHARDED) {
      await direct.query(`CREATE TABLE ${name} ${columns}`);
      await routed.query(
        `CREATE TABLE ${name} ${columns}
         WITH (postern.door = 'sharded', postern.key = '${key}', postern.buckets = 8)`,
      );
    }
  });
  afterAll(async () => {
    await direct?.end();
    await routed?.end();
    await cluster?.stop();
  });
}

/** The same messages to both, each on a connection of its own: what they answer, runs of rows sorted. */
export async function answersTo(
  messages: readonly Message[],
): Promise<{ expected: string[]; actual: string[] }> {
  const [home] = cluster.servers;
  const clients = [
    await RawClient.connect({ port: home!.port, database: 'plain' }),
    await RawClient.connect({ port: cluster.port }),
  ];
  const answers = [];
  for (const client of clients) {
    answers.push(sortedRows(await client.play(messages)));
    client.end();
  }
  const [expected = [], actual = []] = answers;
  return { expected, actual };
}

function sortedRows(lines: readonly string[]): string[] {
  const sorted: string[] = [];
  let rows: string[] = [];
  for (const line of [...lines, '']) {
    if (line.startsWith('Row ')) rows.push(line);
    else {
      sorted.push(...rows.sort(), line);
      rows = [];
    }
  }
  return sorted;
}

/** The rows that each test begins with. */
export async function fill(): Promise<void> {
  const numbers = Array.from({ length: 20 }, (_, i) => i);
  const ts = numbers.map((i) => `(${i}, 1, 'v${i}', ${i})`);
  const ss = numbers.map((i) => `(${i}, 1, 'w${i}', '2024-01-${i + 1} 10:00+00', ${i} / 7.0)`);
  for (const client of [direct, routed]) {
    await client.query('ROLLBACK');
    for (const name of COMPARED) await client.query(`DELETE FROM ${name}`);
    await client.query(`INSERT INTO t VALUES ${ts.join(', ')}`);
    await client.query(`INSERT INTO s VALUES ${ss.join(', ')}`);
    await client.query(`INSERT INTO h SELECT i, 'h' || i, i FROM generate_series(1, 30) i`);
  }
}

/** Fails unless both answer each step alike and have the same rows at the end. */
export async function compare(...steps: (string | Step)[]): Promise<void> {
  for (const one of steps) {
    const step = typeof one === 'string' ? { text: one } : one;
    const expected = await outcome(direct, step);
    const actual = await outcome(routed, step);
    if (areOfRows(expected) && areOfRows(actual)) continue;
    expect([step.text, actual]).toEqual([step.text, expected]);
  }
}

export async function compareTables(): Promise<void> {
  expect(await contents(routed)).toEqual(await contents(direct));
}

/** Of two rows that are wrong, another one may be told of first. */
function areOfRows(one: unknown): boolean {
  return typeof one === 'string' && /^(2[23]|21000)/.test(one);
}

async function outcome(client: pg.Client, { text, values, ordered }: Step): Promise<unknown> {
  try {
    const result = await client.query({ text, rowMode: 'array', ...(values && { values }) });
    const rows = result.rows.map((row) => JSON.stringify(row));
    const names = result.fields.map(({ name }) => name);
    return [result.command, result.rowCount, names, ordered ? rows : rows.sort()];
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

async function contents(client: pg.Client): Promise<unknown> {
  const tables: unknown[] = [];
  for (const name of COMPARED) {
    const { rows } = await client.query({ text: `SELECT * FROM ${name}`, rowMode: 'array' });
    tables.push(rows.map((row) => JSON.stringify(row)).sort());
  }
  return tables;
}
