/** One plain PostgreSQL and a router over three nodes, with the same tables: what the tests of COPY compare. */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import pg from 'pg';
import { from as copyFrom, to as copyTo } from 'pg-copy-streams';
import { afterAll, beforeAll } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';

export let cluster: TestCluster;
export let direct: pg.Client;
export let routed: pg.Client;

/** Name, shard key, columns. */
const SHARDED: readonly (readonly [string, string, string])[] = [
  ['t', 'k', '(k int8 NOT NULL, id int4 NOT NULL, v text, n numeric CHECK (n < 1000), PRIMARY KEY (k, id))'],
  [
    'words',
    'w',
    "(w text PRIMARY KEY, n int, total int GENERATED ALWAYS AS (n * 2) STORED, note text DEFAULT 'none')",
  ],
  ['times', 'at', '(at timestamptz, v text)'],
  ['days', 'day', '(day date, v text)'],
  ['serials', 'id', '(id bigserial PRIMARY KEY, note text, n int)'],
  ['noted', 'k', '(k int8, id serial, note text)'],
  ['nullable', 'k', '(k int4, v text)'],
  ['types', 'u', '(u uuid, b bytea, a text[], j jsonb, f float8, at timestamp, ok bool, i interval)'],
];

export function startCopyPair(): void {
  beforeAll(async () => {
    cluster = await startTestCluster({ nodes: 3, settings: { max_prepared_transactions: '50' } });
    const [home] = cluster.servers;
    await home!.query('CREATE DATABASE plain OWNER app');
    direct = await connect(`postgres://app@127.0.0.1:${home!.port}/plain`);
    routed = await connect(cluster.dsn());
    for (const [name, key, columns] of SHARDED) {
      await direct.query(`CREATE TABLE ${name} ${columns}`);
      await routed.query(
        `CREATE TABLE ${name} ${columns} WITH (postern.door = 'sharded', postern.key = '${key}', postern.buckets = 8)`,
      );
    }
  });
  afterAll(async () => {
    await direct?.end();
    await routed?.end();
    await cluster?.stop();
  });
}

export async function connect(connectionString: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString });
  // What a test does to its connection is its own affair.
  client.on('error', () => {});
  await client.connect();
  return client;
}

/** The command's count of rows, or its error with all that a client sees of it. */
export async function copyIn(
  client: pg.Client,
  text: string,
  pieces: readonly (string | Buffer)[],
): Promise<Record<string, unknown>> {
  const stream = client.query(copyFrom(text));
  try {
    await pipeline(Readable.from(pieces.map((piece) => Buffer.from(piece))), stream);
    return { rows: stream.rowCount };
  } catch (error) {
    return errorOf(error);
  }
}

export function errorOf(error: unknown): Record<string, unknown> {
  const { code, message, detail, hint, where, table, column, constraint } = error as Record<string, unknown>;
  return { code, message, detail, hint, where, table, column, constraint };
}

export async function copyOut(client: pg.Client, text: string): Promise<Buffer | Record<string, unknown>> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of client.query(copyTo(text))) chunks.push(chunk as Buffer);
  } catch (error) {
    return errorOf(error);
  }
  return Buffer.concat(chunks);
}

/** All rows of a table, in an order of their own. */
export async function rowsOf(client: pg.Client, table: string): Promise<unknown[]> {
  const { rows } = await client.query({ text: `SELECT * FROM ${table}`, rowMode: 'array' });
  return rows.map((row) => JSON.stringify(row)).sort();
}

/** The same COPY to both, and what they hold afterwards. */
export async function copyToBoth(text: string, pieces: readonly (string | Buffer)[], table: string) {
  const results = [];
  for (const client of [direct, routed]) {
    const result = await copyIn(client, text, pieces);
    results.push({ result, rows: await rowsOf(client, table) });
  }
  return { expected: results[0]!, actual: results[1]! };
}
