/** Do tables and what is kept of their unique values agree? By the servers' own catalogs, whatever a router believes. */

import pg from 'pg';
import type { TestCluster } from '../support/router.ts';

interface KeptLookup {
  readonly id: number;
  readonly table_id: number;
  readonly key_column: string;
  readonly columns: readonly string[];
  readonly constraint_name: string;
}

/** What differs, in words; nothing is under way. */
export async function checkLookups(
  { servers }: Pick<TestCluster, 'servers'>,
  database = 'app',
): Promise<string[]> {
  const found: string[] = [];
  const clients = await Promise.all(
    servers.map(async (server) => {
      const client = new pg.Client(server.dsn({ database }));
      await client.connect();
      return client;
    }),
  );
  try {
    const { rows: lookups } = await clients[0]!.query<KeptLookup>(
      `SELECT l.lookup_id AS id, l.table_id, t.key_column, l.columns, l.constraint_name
       FROM postern_internal.lookups l JOIN postern_internal.tables t USING (table_id)`,
    );
    for (const lookup of lookups) found.push(...(await differences(clients, lookup)));
  } finally {
    await Promise.all(clients.map((client) => client.end()));
  }
  return found;
}

async function differences(clients: readonly pg.Client[], lookup: KeptLookup): Promise<string[]> {
  const rows = new Map<string, number>();
  const kept = new Map<string, number>();
  const count = (map: Map<string, number>, key: string) => map.set(key, (map.get(key) ?? 0) + 1);
  const columns = lookup.columns.map((column) => pg.escapeIdentifier(column));
  for (const client of clients) {
    const { rows: leaves } = await client.query(
      `SELECT leaf::text, 'row' AS kind FROM postern_internal.local_leaves WHERE table_id = $1
       UNION ALL SELECT leaf::text, 'kept' FROM postern_internal.local_lookups WHERE lookup_id = $2`,
      [lookup.table_id, lookup.id],
    );
    for (const { leaf, kind } of leaves) {
      const key = kind === 'row' ? pg.escapeIdentifier(lookup.key_column) : 'postern_key';
      const condition = columns.map((column) => `${column} IS NOT NULL`).join(' AND ');
      const { rows: values } = await client.query(
        `SELECT json_build_array(${[...columns, key].join(', ')})::text AS value FROM ${leaf} WHERE ${condition}`,
      );
      for (const { value } of values) count(kind === 'row' ? rows : kept, value);
    }
  }
  const found: string[] = [];
  for (const [value, n] of rows) {
    if (kept.get(value) !== n)
      found.push(
        `${lookup.constraint_name}: ${value} is in ${n} rows and kept ${kept.get(value) ?? 0} times`,
      );
  }
  for (const [value, n] of kept)
    if (!rows.has(value)) found.push(`${lookup.constraint_name}: ${value} is kept ${n} times and in no row`);
  const once = new Set<string>();
  for (const value of rows.keys()) {
    const unique = JSON.stringify((JSON.parse(value) as unknown[]).slice(0, -1));
    if (once.has(unique)) found.push(`${lookup.constraint_name}: ${unique} is in two rows`);
    once.add(unique);
  }
  return found;
}
