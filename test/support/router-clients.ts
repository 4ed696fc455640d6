/** Clients of a test's router that are closed with the test, whatever becomes of it. */
import pg from 'pg';
import { onTestFinished } from 'vitest';
import type { TestCluster } from './router.ts';

/** A logged-in client of the router; `options` as in the start-up packet's. */
export async function connectClient(
  cluster: Pick<TestCluster, 'dsn'>,
  settings: pg.ClientConfig = {},
  user = 'app',
): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: cluster.dsn(user), ...settings });
  client.on('error', () => {});
  onTestFinished(() => client.end().catch(() => {}));
  await client.connect();
  return client;
}

/** The first column of the first row, or the SQLSTATE of the error as `!…`. */
export async function value(client: pg.Client, sql: string, parameters?: unknown[]): Promise<unknown> {
  const rows = await values(client, sql, parameters);
  return typeof rows === 'string' ? rows : rows[0]?.[0];
}

/** All rows as arrays, or `!SQLSTATE`. */
export async function values(
  client: pg.Client,
  sql: string,
  parameters?: unknown[],
): Promise<unknown[][] | string> {
  try {
    const result = await client.query({
      text: sql,
      rowMode: 'array',
      ...(parameters && { values: parameters }),
    });
    const last = Array.isArray(result) ? result.at(-1) : result;
    return last.rows;
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    return `!${code ?? message}`;
  }
}
