/** TPC-H's 22 queries over four nodes: each gives the answer that one PostgreSQL gives of the same rows. */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { startTestServer, type TestServer } from '../support/servers.ts';
import { insertTexts, TPCH_REFERENCES, TPCH_SHARDED, TPCH_TABLES, tpchRows } from './tpch-data.ts';
import { TPCH_QUERIES } from './tpch-queries.ts';

let plain: TestServer;
let cluster: TestCluster;
let direct: pg.Client;
let routed: pg.Client;

beforeAll(async () => {
  [plain, cluster] = await Promise.all([startTestServer(), startTestCluster({ nodes: 4 })]);
  direct = new pg.Client(plain.dsn());
  await direct.connect();
  routed = new pg.Client(cluster.dsn('app'));
  await routed.connect();
  const rows = tpchRows();
  for (const client of [direct, routed]) {
    for (const [table, columns] of Object.entries(TPCH_TABLES))
      await client.query(`CREATE TABLE ${table} (${columns})`);
    if (client === routed) {
      for (const table of TPCH_REFERENCES) await client.query(`SELECT create_reference_table('${table}')`);
      for (const { table, key, beside } of TPCH_SHARDED)
        await client.query(
          `SELECT create_distributed_table('${table}', '${key}', colocate_with := '${beside}')`,
        );
    }
    for (const table of Object.keys(TPCH_TABLES))
      for (const text of insertTexts(table, rows[table]!)) await client.query(text);
  }
}, 240_000);

afterAll(async () => {
  await direct?.end();
  await routed?.end();
  await cluster?.stop();
  await plain?.stop();
});

describe('TPC-H over four nodes', () => {
  it.each(TPCH_QUERIES)('$name', async ({ text }) => {
    const expected = await direct.query({ text, rowMode: 'array' });
    const answer = await routed.query({ text, rowMode: 'array' });
    // With nothing in it, an answer would prove nothing.
    expect(expected.rows.length).toBeGreaterThan(0);
    expect(expected.rows.flat().some((value) => value !== null)).toBe(true);
    expect(answer.fields.map(({ name, dataTypeID }) => [name, dataTypeID])).toEqual(
      expected.fields.map(({ name, dataTypeID }) => [name, dataTypeID]),
    );
    expect(answer.rows).toEqual(expected.rows);
  });
});
