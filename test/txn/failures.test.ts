/** Transactions over several nodes whose branches are lost, stand in line for connections, or are left by their client. */
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';

let cluster: TestCluster;
/** Keys of rows on different nodes, by node. */
const keys: number[] = [];
const clients: pg.Client[] = [];

beforeAll(async () => {
  cluster = await startTestCluster({
    nodes: 3,
    connectionsPerNode: 4,
    settings: { max_prepared_transactions: '20' },
  });
  const client = await connect();
  await client.query(
    "CREATE TABLE k (id int8 PRIMARY KEY, n int, v text) WITH (postern.door = 'sharded', postern.key = 'id')",
  );
  for (let id = 0; id < 40; id++) await client.query('INSERT INTO k VALUES ($1, 0)', [id]);
  for (const server of cluster.servers) {
    const leaves = await onNode(
      server,
      "SELECT relname FROM pg_class WHERE relname ~ '^k_b' AND relkind = 'r'",
    );
    const [row] = await onNode(
      server,
      leaves.map(({ relname }) => `SELECT id FROM postern_leaves."${relname}"`).join(' UNION ALL '),
    );
    keys.push(Number(row!.id));
  }
}, 60_000);

beforeEach(async () => {
  const client = await connect();
  for (const key of keys) await client.query('UPDATE k SET n = 0 WHERE id = $1', [key]);
});

afterAll(async () => {
  await Promise.all(clients.map((client) => client.end().catch(() => {})));
  await cluster?.stop();
});

async function connect(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: cluster.dsn() });
  client.on('error', () => {});
  await client.connect();
  clients.push(client);
  return client;
}

async function onNode(
  server: TestCluster['servers'][number],
  text: string,
): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: server.dsn({ database: 'app' }) });
  await client.connect();
  try {
    return (await client.query(text)).rows as Record<string, unknown>[];
  } finally {
    await client.end();
  }
}

const increment = (client: pg.Client, at: number): Promise<unknown> =>
  client.query('UPDATE k SET n = n + 1 WHERE id = $1', [keys[at]]);

async function values(): Promise<number[]> {
  const client = await connect();
  const found: number[] = [];
  for (const key of keys)
    found.push(Number((await client.query('SELECT n FROM k WHERE id = $1', [key])).rows[0].n));
  await client.end();
  return found;
}

async function nothingIsOpen(): Promise<void> {
  await vi.waitFor(
    async () => {
      for (const server of cluster.servers) {
        const rows = await onNode(
          server,
          `SELECT state FROM pg_stat_activity WHERE usename = 'app' AND backend_type = 'client backend' AND state <> 'idle'
           UNION ALL SELECT gid FROM pg_prepared_xacts`,
        );
        expect(rows).toEqual([]);
      }
    },
    { timeout: 20_000, interval: 50 },
  );
}

/** Ends the backends that are idle in a transaction on this node. */
async function killIdle(at: number): Promise<void> {
  const rows = await onNode(
    cluster.servers[at]!,
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle in transaction'",
  );
  expect(rows.length).toBe(1);
}

describe('a transaction over several nodes', () => {
  it.each([0, 1, 2])('fails as a whole when its branch on node %d is lost while it is idle', async (at) => {
    const client = await connect();
    await client.query('BEGIN');
    for (const other of [0, 1, 2]) await increment(client, other);
    await killIdle(at);
    await vi.waitFor(() => expect(increment(client, (at + 1) % 3)).rejects.toMatchObject({ code: '25P02' }), {
      timeout: 5_000,
    });
    expect((await client.query('COMMIT')).command).toBe('ROLLBACK');
    expect(await values()).toEqual([0, 0, 0]);
    await client.query('BEGIN');
    for (const other of [0, 1, 2]) await increment(client, other);
    await client.query('COMMIT');
    expect(await values()).toEqual([1, 1, 1]);
    await nothingIsOpen();
  });

  it.each([0, 2])(
    'fails as a whole when the branch on node %d is lost while another one works',
    async (at) => {
      const client = await connect();
      await client.query('BEGIN');
      for (const other of [0, 1, 2]) await increment(client, other);
      await client.query('SELECT n FROM k WHERE id = $1', [keys[1]]);
      const slow = client.query('SELECT n, pg_sleep(20) FROM k WHERE id = $1', [keys[1]]);
      const told = expect(slow).rejects.toMatchObject({ code: '08006' });
      await vi.waitFor(async () => {
        const [row] = await onNode(
          cluster.servers[1]!,
          "SELECT count(*)::int AS n FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
        );
        expect(row!.n).toBe(1);
      });
      await killIdle(at);
      await told;
      await client.query('ROLLBACK');
      expect(await values()).toEqual([0, 0, 0]);
      await nothingIsOpen();
    },
  );

  it('leaves nothing when its client goes away', async () => {
    const client = await connect();
    await client.query('BEGIN');
    for (const other of [0, 1, 2]) await increment(client, other);
    (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
    await nothingIsOpen();
    expect(await values()).toEqual([0, 0, 0]);
  });

  it('can be canceled where it works, and goes on after ROLLBACK TO', async () => {
    const client = await connect();
    const other = await connect();
    await other.query('BEGIN');
    await increment(other, 1);
    await client.query('BEGIN');
    await increment(client, 0);
    await client.query('SAVEPOINT s');
    const blocked = increment(client, 1);
    const told = expect(blocked).rejects.toMatchObject({ code: '57014' });
    await new Promise((resolve) => setTimeout(resolve, 100));
    const canceling = new pg.Client({ connectionString: cluster.dsn() }) as unknown as {
      cancel(client: pg.Client, query: unknown): void;
    };
    const active = client as unknown as { activeQuery?: unknown; _activeQuery?: unknown };
    canceling.cancel(client, active._activeQuery ?? active.activeQuery);
    await told;
    await client.query('ROLLBACK TO s');
    await increment(client, 2);
    await client.query('COMMIT');
    await other.query('ROLLBACK');
    expect(await values()).toEqual([1, 0, 1]);
    await nothingIsOpen();
  });

  it('does not wait for ever when all connections are others’ first ones', async () => {
    const many = await Promise.all(Array.from({ length: 12 }, () => connect()));
    const transfer = async (client: pg.Client, from: number, to: number): Promise<boolean> => {
      try {
        await client.query('BEGIN');
        await client.query('SELECT n FROM k WHERE id = $1', [keys[from]]);
        await client.query('SELECT n FROM k WHERE id = $1', [keys[to]]);
        await client.query('COMMIT');
        return true;
      } catch {
        await client.query('ROLLBACK');
        return false;
      }
    };
    const done = await Promise.all(
      many.map(async (client, i) => {
        const results: boolean[] = [];
        for (let round = 0; round < 5; round++)
          results.push(await transfer(client, i % 3, (i + 1 + (i % 2)) % 3));
        return results;
      }),
    );
    expect(done.flat().filter((ok) => !ok)).toEqual([]);
    await nothingIsOpen();
  });

  it('that is a victim of a deadlock over nodes hears so, and the other one commits', async () => {
    const [a, b] = [await connect(), await connect()];
    await a.query('BEGIN');
    await b.query('BEGIN');
    await increment(a, 0);
    await increment(b, 1);
    const outcomes = await Promise.allSettled([increment(a, 1), increment(b, 0)]);
    const failed = outcomes.filter((outcome) => outcome.status === 'rejected');
    expect(failed.map(({ reason }) => (reason as { code: string }).code)).toEqual(['40P01']);
    for (const client of [a, b]) await client.query('COMMIT');
    expect(await values()).toEqual([1, 1, 0]);
    await nothingIsOpen();
  }, 15_000);
});
