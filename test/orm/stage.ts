/**
 * What an ORM is tested on: the router over two nodes, and one plain PostgreSQL beside it as the oracle. Each test file runs
 * the same migrations and the same program on both; on the plain one, the functions that distribute a table do nothing.
 */
import pg from 'pg';
import { startTestServer, type TestServer } from '../support/servers.ts';

/** Names of describe.each. */
export const TARGETS = ['PostgreSQL', 'Postern'] as const;

export type TargetName = (typeof TARGETS)[number];

export interface OrmTarget {
  readonly dsn: string;
  readonly stop: () => Promise<void>;
}

const DISTRIBUTES_NOTHING = `
CREATE FUNCTION create_distributed_table(table_name text, key text, colocate_with text DEFAULT 'default') RETURNS void
  LANGUAGE sql AS '';
CREATE FUNCTION create_reference_table(table_name text) RETURNS void LANGUAGE sql AS '';`;

export async function startTarget(name: TargetName): Promise<OrmTarget> {
  if (name === 'Postern') {
    // The oracle needs no router.
    const { startTestCluster } = await import('../support/router.ts');
    const cluster = await startTestCluster({ nodes: 2 });
    const stop = async (): Promise<void> => {
      // Pools say good-bye without waiting for an answer.
      for (let tries = 0; cluster.router.clientCount > 0 && tries < 100; tries++)
        await new Promise((resolve) => setTimeout(resolve, 10));
      await cluster.stop();
    };
    return { dsn: cluster.dsn(), stop };
  }
  const server: TestServer = await startTestServer();
  await server.query('CREATE ROLE app LOGIN');
  await server.query('CREATE DATABASE app OWNER app');
  const dsn = server.dsn({ user: 'app', database: 'app' });
  await execute(dsn, DISTRIBUTES_NOTHING);
  return { dsn, stop: () => server.stop() };
}

/** One query of its own, beside the ORM. */
export async function execute(dsn: string, sql: string): Promise<unknown[][]> {
  const client = new pg.Client({ connectionString: dsn });
  await client.connect();
  try {
    const result = await client.query({ text: sql, rowMode: 'array' });
    const last: { rows: unknown[][] } = Array.isArray(result) ? result.at(-1) : result;
    return last.rows;
  } finally {
    await client.end();
  }
}

/** The columns of a table, as information_schema tells them. */
export async function columnsOf(dsn: string, table: string): Promise<string[]> {
  const rows = await execute(
    dsn,
    `SELECT column_name::text FROM information_schema.columns
     WHERE table_schema = 'public' AND table_name = '${table}' ORDER BY ordinal_position`,
  );
  return rows.map(([name]) => String(name));
}
