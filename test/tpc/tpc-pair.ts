/** The tables and rows of a benchmark in one PostgreSQL and, sharded, behind a router. */
import pg from 'pg';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { startTestServer, type TestServer } from '../support/servers.ts';
import { insertTexts, type Row } from './tpch-data.ts';

export interface TpcSchema {
  /** Columns by table, in an order in which each one's references are there. */
  readonly tables: Readonly<Record<string, string>>;
  readonly indexes: readonly string[];
  readonly references: readonly string[];
  readonly sharded: readonly { readonly table: string; readonly key: string; readonly beside: string }[];
  readonly rows: Readonly<Record<string, readonly Row[]>>;
}

export interface TpcPair {
  readonly cluster: TestCluster;
  readonly direct: pg.Client;
  readonly routed: pg.Client;
  stop(): Promise<void>;
}

export async function startTpcPair(nodes: number, schema: TpcSchema): Promise<TpcPair> {
  const [plain, cluster]: [TestServer, TestCluster] = await Promise.all([
    startTestServer(),
    startTestCluster({ nodes }),
  ]);
  const direct = new pg.Client(plain.dsn());
  await direct.connect();
  const routed = new pg.Client(cluster.dsn('app'));
  await routed.connect();
  for (const client of [direct, routed]) {
    for (const [table, columns] of Object.entries(schema.tables))
      await client.query(`CREATE TABLE ${table} (${columns})`);
    for (const text of schema.indexes) await client.query(text);
    if (client === routed) {
      for (const table of schema.references) await client.query(`SELECT create_reference_table('${table}')`);
      for (const { table, key, beside } of schema.sharded)
        await client.query(
          `SELECT create_distributed_table('${table}', '${key}', colocate_with := '${beside}')`,
        );
    }
    for (const table of Object.keys(schema.tables))
      for (const text of insertTexts(table, schema.rows[table]!)) await client.query(text);
  }
  const stop = async (): Promise<void> => {
    await direct.end();
    await routed.end();
    await cluster.stop();
    await plain.stop();
  };
  return { cluster, direct, routed, stop };
}
