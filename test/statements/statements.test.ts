/** postern.statements: what was sent through the router, by role and text, however it was sent and wherever it went. */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value } from '../support/router-clients.ts';

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 2, statementsEveryMs: 200 });
});
afterAll(() => cluster?.stop());

interface Counted {
  query: string;
  calls: number;
  errors: number;
  rows: number;
  nodes: string[];
  placements: string[];
}

async function counted(client: pg.Client, like: string): Promise<Counted[]> {
  const { rows } = await client.query<Counted>(
    `SELECT query, calls::int, errors::int, rows::int, nodes, placements FROM postern.statements
     WHERE query LIKE '${like}' AND min_ms <= mean_ms AND mean_ms <= max_ms AND total_ms > 0 ORDER BY query`,
  );
  return rows;
}

/** What was counted is written every few seconds. */
async function whenCounted(client: pg.Client, like: string, calls: number): Promise<Counted[]> {
  return await expect
    .poll(
      async () => {
        const found = await counted(client, like);
        return found.reduce((sum, row) => sum + row.calls, 0) >= calls ? found : undefined;
      },
      { timeout: 15_000, interval: 250 },
    )
    .toBeDefined()
    .then(() => counted(client, like));
}

describe('postern.statements', () => {
  it('counts calls, rows, errors, nodes and placements of each text', async () => {
    const client = await connectClient(cluster);
    await client.query(
      `CREATE TABLE counted (k int8 NOT NULL, id int8 NOT NULL, PRIMARY KEY (k, id))
       WITH (postern.door = 'sharded', postern.key = 'k', postern.buckets = 4)`,
    );
    await client.query('CREATE TABLE home_only (id int PRIMARY KEY)');
    for (let i = 1; i <= 12; i++) await client.query(`INSERT INTO counted VALUES (${i}, 1)`);
    for (let i = 1; i <= 5; i++) await client.query('INSERT INTO counted VALUES ($1, 2)', [i]);
    for (let i = 1; i <= 3; i++) await client.query('SELECT id FROM counted WHERE k = $1', [i]);
    await client.query('SELECT k FROM counted ORDER BY k');
    await client.query({ name: 'named', text: 'UPDATE counted SET id = id WHERE k > $1', values: [0] });
    for (let i = 1; i <= 2; i++) await client.query('INSERT INTO home_only VALUES (1)').catch(() => {});
    await client.query('BEGIN');
    await client.query('DELETE FROM counted WHERE k = $1', [1]);
    await client.query('ROLLBACK');
    const found = await whenCounted(client, '%counted%', 23);
    const byText = new Map(found.map((row) => [row.query, row]));
    const values = [...byText]
      .filter(([text]) => text.startsWith('INSERT INTO counted'))
      .map(([, row]) => row);
    expect(values.reduce((sum, { calls }) => sum + calls, 0)).toBe(17);
    expect(values.reduce((sum, { rows }) => sum + rows, 0)).toBe(17);
    expect(values).toHaveLength(1);
    expect(values[0]).toMatchObject({ errors: 0, nodes: ['n1', 'n2'], placements: ['keyed'] });
    expect(byText.get('SELECT id FROM counted WHERE k = $1')).toMatchObject({ calls: 3, rows: 6 });
    expect(byText.get('SELECT k FROM counted ORDER BY k')).toMatchObject({
      ...{ calls: 1, rows: 17, nodes: ['n1', 'n2'], placements: ['scattered'] },
    });
    expect(byText.get('UPDATE counted SET id = id WHERE k > $1')).toMatchObject({ rows: 17 });
    expect(byText.get('DELETE FROM counted WHERE k = $1')).toMatchObject({ calls: 1, rows: 2 });
    await client.query('CREATE INDEX counted_index ON counted (id)');
    expect(await whenCounted(client, 'CREATE INDEX counted%', 1)).toMatchObject([
      { nodes: ['n1', 'n2'], placements: ['everywhere'] },
    ]);
    const [home] = await whenCounted(client, '%home\\_only VALUES%', 2);
    expect(home).toMatchObject({ calls: 2, errors: 1, rows: 1, nodes: ['n1'], placements: ['home'] });
  });

  it('shows texts of other roles to members of pg_read_all_stats alone, and forgets when it is told to', async () => {
    const client = await connectClient(cluster);
    const superuser = await connectClient(cluster, {}, 'postgres');
    await superuser.query("SELECT 'of the superuser' AS mine");
    await client.query("SELECT 'of the application' AS mine");
    await whenCounted(superuser, '%AS mine', 2);
    const texts = 'SELECT count(*)::int FROM postern.statements WHERE role = $1 AND query LIKE $2';
    expect(await value(superuser, texts, ['app', '%AS mine'])).toBe(1);
    expect(await value(client, texts, ['app', '%AS mine'])).toBe(1);
    expect(await value(client, texts, ['postgres', '%AS mine'])).toBe(0);
    expect(await value(client, texts, ['postgres', '<insufficient privilege>'])).toBeGreaterThan(0);
    await client.query('SELECT postern.reset_statements()');
    expect(await value(superuser, texts, ['app', '%AS mine'])).toBe(0);
    expect(await value(superuser, texts, ['postgres', '%AS mine'])).toBe(1);
    await superuser.query('SELECT postern.reset_statements()');
    expect(await value(superuser, texts, ['postgres', '%AS mine'])).toBe(0);
    await client.query("SELECT 'of the application' AS mine");
    const [again] = await whenCounted(superuser, '%AS mine', 1);
    expect(again).toMatchObject({ calls: 1 });
  });

  it('does no harm to anybody when it can’t be written', async () => {
    const client = await connectClient(cluster);
    const [home] = cluster.servers;
    const inApp = cluster.servers[0]!.dsn({ database: 'app' });
    expect(inApp).toContain(String(home!.port));
    const owner = await connectClient({ dsn: () => inApp });
    await owner.query('ALTER TABLE postern_internal.statements RENAME TO statements_away');
    try {
      for (let i = 0; i < 3; i++) await client.query("SELECT 'while it is away' AS nobody");
      // Several flushes fail meanwhile.
      const end = performance.now() + 700;
      while (performance.now() < end) expect(await value(client, 'SELECT 1')).toBe(1);
    } finally {
      await owner.query('ALTER TABLE postern_internal.statements_away RENAME TO statements');
    }
    expect(await whenCounted(client, '%AS nobody', 3)).toMatchObject([{ calls: 3 }]);
  });
});
