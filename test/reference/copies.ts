/** What the nodes themselves say of the copies of a reference table, asked directly. */
import pg from 'pg';
import type { TestCluster } from '../support/router.ts';

/** The rows of the same query on each node, as arrays. */
export async function queryCopies(cluster: TestCluster, query: string): Promise<unknown[][][]> {
  return await Promise.all(cluster.servers.map((_, at) => rowsOf(cluster, at, query)));
}

export async function rowsOf(cluster: TestCluster, at: number, query: string): Promise<unknown[][]> {
  const client = new pg.Client({ connectionString: cluster.servers[at]!.dsn({ database: 'app' }) });
  await client.connect();
  try {
    return (await client.query({ text: query, rowMode: 'array' })).rows;
  } finally {
    await client.end();
  }
}

/** The nodes whose copy is not byte for byte that of the first one. */
export async function unequalNodes(cluster: TestCluster, table: string): Promise<readonly number[]> {
  const sums = await queryCopies(
    cluster,
    `SELECT count(*)::int, md5(coalesce(string_agg(whole_row::text, chr(10) ORDER BY whole_row::text COLLATE "C"), '')) FROM ${table} AS whole_row`,
  );
  const [home] = sums;
  return sums.flatMap((sum, at) => (JSON.stringify(sum) === JSON.stringify(home) ? [] : [at]));
}
