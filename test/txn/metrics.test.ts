/** What a router tells Prometheus of its transactions: the figures are those of what was done. */
import pg from 'pg';
import { expect, it, vi } from 'vitest';
import { startRouter } from '../../src/cli/router.ts';
import { startTestCluster } from '../support/router.ts';

it('counts commits over nodes, and prepared transactions', async () => {
  const cluster = await startTestCluster({ settings: { max_prepared_transactions: '10' } });
  const router = await startRouter({ ...cluster.routerOptions, http: { host: '127.0.0.1', port: 0 } });
  const client = new pg.Client({ connectionString: `postgres://app@127.0.0.1:${router.port}/app` });
  try {
    await client.connect();
    await client.query(
      "CREATE TABLE k (id int8 PRIMARY KEY, n int) WITH (postern.door = 'sharded', postern.key = 'id')",
    );
    const url = `http://127.0.0.1:${router.httpPort}`;
    const figures = async (): Promise<Map<string, string>> => {
      const text = await (await fetch(`${url}/metrics`)).text();
      return new Map([...text.matchAll(/^(postern_\w+) (\S+)$/gm)].map(([, name, value]) => [name!, value!]));
    };
    await client.query('INSERT INTO k SELECT i, 0 FROM generate_series(1, 40) i');
    await client.query('BEGIN');
    await client.query('UPDATE k SET n = 1 WHERE id = 1');
    await client.query('COMMIT');
    const before = await figures();
    // CREATE TABLE and INSERT.
    expect(before.get('postern_commits_two_phase_total')).toBe('2');
    expect(before.get('postern_clients')).toBe('1');
    await client.query('UPDATE k SET n = n + 1');
    expect((await figures()).get('postern_commits_two_phase_total')).toBe('3');
    await vi.waitFor(async () => expect((await figures()).get('postern_prepared_transactions')).toBe('0'), {
      timeout: 10_000,
    });
    expect((await fetch(`${url}/`)).status).toBe(404);
  } finally {
    await client.end();
    await router.close();
    await cluster.stop();
  }
}, 60_000);
