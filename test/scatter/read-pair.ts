/**
 * The same SELECT to a plain PostgreSQL and through a router over several nodes, with the same rows: what the tests of reads
 * over several buckets have in common.
 */
import pg from 'pg';
import { afterAll, beforeAll, expect } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';

export type Mode = 'simple' | 'extended' | 'binary';
export const MODES: readonly Mode[] = ['simple', 'extended', 'binary'];

export interface Answer {
  /** Names, types and modifiers of the columns. */
  readonly columns: readonly string[];
  readonly rows: readonly (readonly (string | null)[])[];
  readonly tag: string;
}

/** How far the order of an answer's rows is decided. */
export type Order =
  /** Not at all. */
  | { readonly kind: 'none' }
  /** Wholly. */
  | { readonly kind: 'total' }
  /** By these columns, 0-based; rows that are equal in them come in any order. */
  | { readonly kind: 'columns'; readonly columns: readonly number[] }
  /** Not even which rows there are: as many of those of `of`. */
  | { readonly kind: 'any'; readonly of: string };

export interface Pair {
  readonly cluster: TestCluster;
  readonly direct: pg.Client;
  readonly routed: pg.Client;
  compare(text: string, order: Order, parameters?: readonly string[]): Promise<void>;
}

const KEYS = 37;
const ITEMS = `(k bigint, id int, n numeric, f float8, r real, t text, c text COLLATE "und-x-icu", at timestamptz, d date,
  b boolean, s smallint, w bigint, v varchar(20), u uuid, j jsonb, a int[], i interval, e tone, x char(4), PRIMARY KEY (k, id))`;
const PARTS = '(k bigint, p int, label text, weight int, PRIMARY KEY (k, p))';

/** Rows with NULLs, numbers of several scales, texts that collations order differently, and equal values all over. */
function itemsOf(key: number): string {
  const rows: string[] = [];
  for (let id = 0; id < 1 + (key % 5); id++) {
    const x = key * 7 + id * 3;
    const pick = (values: readonly string[], salt: number) => values[(x * 31 + salt * 17) % values.length]!;
    const texts = ["'a'", "'B'", "'b'", "'A b'", "'ab'", "'é'", "'Z'", "'z'", "'_x'", "''", 'NULL', "'ß'"];
    rows.push(
      `(${key}, ${id}, ${pick(['1.5', '1.50', '-2', '0.000', 'NULL', '12345678901234567890.123', '7'], 1)},` +
        ` ${pick(['0.5', '-1.25', 'NULL', '1024', '0', '3.75'], 2)}, ${pick(['0.5', '2.25', 'NULL', '-8'], 3)},` +
        ` ${pick(texts, 4)}, ${pick(texts, 5)},` +
        ` ${pick(["'2024-03-10 02:30:00+00'", "'2024-10-27 01:30:00+01'", 'NULL', "'infinity'", "'1999-12-31 23:59:59.999999Z'"], 6)},` +
        ` ${pick(["'2024-02-29'", "'0044-03-15 BC'", 'NULL', "'2030-01-01'"], 7)}, ${pick(['true', 'false', 'NULL'], 8)},` +
        ` ${pick(['1', '2', '32767', 'NULL', '-5'], 9)}, ${pick(['9223372036854775807', '-3', '10', 'NULL'], 10)},` +
        ` ${pick(["'x'", "'Y '", 'NULL', "'yy'"], 11)}, ${pick(["'00000000-0000-0000-0000-000000000001'", 'NULL'], 12)},` +
        ` ${pick([`'{"z": 1, "a": [1.0, null]}'`, 'NULL', "'3'"], 13)}, ${pick(["'{1,2}'", "'{}'", 'NULL', "'{3,NULL}'"], 14)},` +
        ` ${pick(["'1 mon -2 days'", "'03:04:05.6'", 'NULL'], 15)}, ${pick(["'low'", "'high'", 'NULL'], 16)}, ${pick(["'p'", "'q '", 'NULL'], 17)})`,
    );
  }
  return `INSERT INTO items VALUES ${rows.join(', ')}`;
}

function partsOf(key: number): string | undefined {
  const count = key % 3;
  if (count === 0) return undefined;
  const rows = Array.from(
    { length: count },
    (_, p) => `(${key}, ${p}, 'part ${(key + p) % 4}', ${(key * p) % 7})`,
  );
  return `INSERT INTO parts VALUES ${rows.join(', ')}`;
}

/** Before all tests of the file. */
export function startReadPair(nodes: number, version: 15 | 18): Pair {
  let cluster: TestCluster;
  let direct: pg.Client;
  let routed: pg.Client;
  beforeAll(async () => {
    cluster = await startTestCluster({ nodes, version });
    const [home] = cluster.servers;
    await home!.query('CREATE DATABASE plain OWNER app');
    direct = await open(home!.dsn({ user: 'app', database: 'plain' }));
    for (const server of cluster.servers) {
      const client = await open(server.dsn({ user: 'app', database: 'app' }));
      await client.query("CREATE TYPE tone AS ENUM ('low', 'high')");
      await client.end();
    }
    routed = await open(cluster.dsn());
    await direct.query("CREATE TYPE tone AS ENUM ('low', 'high')");
    const sharded = (key: string) =>
      `WITH (postern.door = 'sharded', postern.key = '${key}', postern.buckets = 6)`;
    await direct.query(`CREATE TABLE items ${ITEMS}; CREATE TABLE parts ${PARTS}`);
    await routed.query(`CREATE TABLE items ${ITEMS} ${sharded('k')}`);
    await routed.query(`CREATE TABLE parts ${PARTS} ${sharded('k')}`);
    for (const client of [direct, routed]) {
      for (let key = 0; key < KEYS; key++) {
        await client.query(itemsOf(key));
        const parts = partsOf(key);
        if (parts !== undefined) await client.query(parts);
      }
    }
  }, 120_000);
  afterAll(async () => {
    await direct?.end();
    await routed?.end();
    await cluster?.stop();
  });
  return {
    get cluster() {
      return cluster;
    },
    get direct() {
      return direct;
    },
    get routed() {
      return routed;
    },
    async compare(text, order, parameters = []) {
      for (const mode of MODES) {
        if (mode === 'simple' && parameters.length > 0) continue;
        const expected = await ask(direct, text, mode, parameters);
        const answer = await ask(routed, text, mode, parameters);
        const where = `${mode}: ${text} [${parameters.join(', ')}]`;
        expect(typesOf(answer), where).toEqual(typesOf(expected));
        expect(answer.tag, where).toBe(expected.tag);
        if (order.kind === 'any') {
          const all = new Set(
            (await ask(direct, order.of, mode, parameters)).rows.map((row) => JSON.stringify(row)),
          );
          for (const row of answer.rows) expect(all, where).toContain(JSON.stringify(row));
          continue;
        }
        if (order.kind === 'total') {
          expect(answer.rows, where).toEqual(expected.rows);
          continue;
        }
        expect(sorted(answer), where).toEqual(sorted(expected));
        if (order.kind !== 'columns') continue;
        const keysOf = ({ rows }: Answer) => rows.map((row) => order.columns.map((column) => row[column]));
        expect(keysOf(answer), where).toEqual(keysOf(expected));
      }
    },
  };
}

export async function open(dsn: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: dsn });
  await client.connect();
  return client;
}

const sorted = (answer: Answer) => answer.rows.map((row) => JSON.stringify(row)).sort();

/** User-defined types have other numbers elsewhere. */
const typesOf = (answer: Answer) => answer.columns.map((column) => column.replace(/ \d{5,} /, ' user '));

/** Values as they came: text, or hexadecimal digits of the bytes. */
export async function ask(
  client: pg.Client,
  text: string,
  mode: Mode,
  parameters: readonly string[] = [],
): Promise<Answer> {
  const raw = (value: string | Buffer) => (typeof value === 'string' ? value : value.toString('hex'));
  const result = await client.query<(string | null)[]>({
    text,
    ...(mode !== 'simple' && { values: [...parameters], queryMode: 'extended' }),
    rowMode: 'array',
    ...(mode === 'binary' && { binary: true }),
    types: { getTypeParser: () => raw },
  } as pg.QueryArrayConfig);
  return {
    columns: result.fields.map(
      ({ name, dataTypeID, dataTypeModifier, format }) =>
        `${name} ${dataTypeID} ${dataTypeModifier} ${format}`,
    ),
    rows: result.rows,
    tag: `${result.command} ${result.rowCount}`,
  };
}
