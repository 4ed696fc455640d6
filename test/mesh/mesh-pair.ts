/**
 * The same SELECT to a plain PostgreSQL and through a router over several nodes: tables that are sharded by several keys, a
 * reference table and one without a door, with the same rows.
 */
import type pg from 'pg';
import { afterAll, beforeAll, expect } from 'vitest';
import { type Answer, ask, MODES, open } from '../scatter/read-pair.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

export interface MeshPair {
  readonly cluster: TestCluster;
  readonly direct: pg.Client;
  readonly routed: pg.Client;
  /** `ordered`: the statement says in which order its rows come. */
  compare(text: string, ordered: boolean, parameters?: readonly string[]): Promise<void>;
}

const TABLES: readonly [name: string, columns: string, door: string][] = [
  [
    'customers',
    'id bigint PRIMARY KEY, name text, tone tone, region int',
    "postern.door = 'sharded', postern.key = 'id', postern.buckets = 6",
  ],
  [
    'orders',
    'customer bigint, id int, at timestamptz, total numeric(12,2), note text, PRIMARY KEY (customer, id)',
    "postern.door = 'sharded', postern.key = 'customer', postern.buckets = 6",
  ],
  [
    'lines',
    'item int, line int, customer bigint, amount numeric, PRIMARY KEY (item, line)',
    "postern.door = 'sharded', postern.key = 'item', postern.buckets = 6",
  ],
  ['regions', 'id int PRIMARY KEY, name text', "postern.door = 'reference'"],
  ['rates', 'region int PRIMARY KEY, rate numeric, tone tone', ''],
];

const ROWS: readonly string[] = [
  `INSERT INTO customers VALUES ${rows(23, (i) => `(${i}, ${i % 7 === 0 ? 'NULL' : `'c${(i * 5) % 11}'`}, '${i % 3 === 0 ? 'low' : 'high'}', ${i % 4})`)}`,
  `INSERT INTO orders VALUES ${rows(41, (i) => `(${(i * 3) % 29}, ${i}, '2024-03-${1 + (i % 28)} 10:00+00', ${i % 6 === 0 ? 'NULL' : `${i}.50`}, ${i % 5 === 0 ? 'NULL' : `'n${i % 3}'`})`)}`,
  `INSERT INTO lines VALUES ${rows(37, (i) => `(${i % 13}, ${i}, ${(i * 7) % 25}, ${i % 9 === 0 ? 'NULL' : `${i} * 1.1`})`)}`,
  "INSERT INTO regions VALUES (0, 'north'), (1, 'south'), (2, 'east'), (5, 'none')",
  "INSERT INTO rates VALUES (0, 1.5, 'low'), (1, NULL, 'high'), (3, 2.25, 'low')",
];

function rows(count: number, row: (index: number) => string): string {
  return Array.from({ length: count }, (_, i) => row(i)).join(', ');
}

/** Before all tests of the file. */
export function startMeshPair(nodes: number, version: 15 | 18 = 18): MeshPair {
  let cluster: TestCluster;
  let direct: pg.Client;
  let routed: pg.Client;
  beforeAll(async () => {
    cluster = await startTestCluster({ nodes, version });
    const [home] = cluster.servers;
    await home!.query('CREATE DATABASE plain OWNER app');
    direct = await open(home!.dsn({ user: 'app', database: 'plain' }));
    for (const [i, server] of cluster.servers.entries()) {
      const client = await open(server.dsn({ user: 'app', database: 'app' }));
      // Other numbers on each node.
      for (let n = 0; n <= i; n++) await client.query(`CREATE TYPE unused${n} AS ENUM ('x')`);
      await client.query("CREATE TYPE tone AS ENUM ('low', 'high')");
      await client.end();
    }
    await direct.query("CREATE TYPE tone AS ENUM ('low', 'high')");
    routed = await open(cluster.dsn());
    for (const [name, columns, door] of TABLES) {
      await direct.query(`CREATE TABLE ${name} (${columns})`);
      await routed.query(`CREATE TABLE ${name} (${columns})${door === '' ? '' : ` WITH (${door})`}`);
    }
    for (const client of [direct, routed]) for (const text of ROWS) await client.query(text);
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
    async compare(text, ordered, parameters = []) {
      for (const mode of MODES) {
        if (mode === 'simple' && parameters.length > 0) continue;
        const where = `${mode}: ${text} [${parameters.join(', ')}]`;
        const expected = await ask(direct, text, mode, parameters);
        const answer = await ask(routed, text, mode, parameters).catch((error: Error) => {
          throw new Error(`${where}: ${error.message}`, { cause: error });
        });
        expect(typesOf(answer), where).toEqual(typesOf(expected));
        expect(answer.tag, where).toBe(expected.tag);
        expect(ordered ? answer.rows : sorted(answer), where).toEqual(
          ordered ? expected.rows : sorted(expected),
        );
      }
    },
  };
}

const sorted = (answer: Answer) => answer.rows.map((row) => JSON.stringify(row)).sort();

/** User-defined types have other numbers elsewhere. */
const typesOf = (answer: Answer) => answer.columns.map((column) => column.replace(/ \d{5,} /, ' user '));
