/** Several routers on one catalog: the register that they are in, and cancel requests that reach the right one through any other. */
import pg from 'pg';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { type Router, startRouter } from '../../src/cli/router.ts';
import { slotOf } from '../../src/session/session-ids.ts';
import { sendCancel } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

let cluster: TestCluster;
let other: Router;
/** Past the routers, to home's database. */
let home: pg.Client;

beforeAll(async () => {
  cluster = await startTestCluster({ router: { name: 'first', heartbeatMs: 250 } });
  other = await startRouter({ ...cluster.routerOptions, name: 'other' });
  home = new pg.Client({ connectionString: cluster.servers[0]!.dsn({ database: 'app' }) });
  await home.connect();
});

afterAll(async () => {
  await home?.end();
  await other?.close();
  await cluster?.stop();
});

/** By the process id and the key that it was told. */
interface Client extends pg.Client {
  readonly processID: number;
  readonly secretKey: number;
}

async function withClient(port: number, work: (client: Client) => Promise<void>): Promise<void> {
  const client = new pg.Client({ connectionString: `postgres://app@127.0.0.1:${port}/app` });
  await client.connect();
  try {
    await work(client as Client);
  } finally {
    await client.end();
  }
}

async function count(sql: string): Promise<number> {
  return Number((await home.query(sql)).rows[0].count);
}

/** Does `ask` cancel what the client runs? */
async function isCanceled(
  client: pg.Client,
  ask: () => Promise<unknown>,
  sleepSeconds = 20,
): Promise<boolean> {
  const text = `SELECT pg_sleep(${sleepSeconds})`;
  const outcome = client.query(text).then(
    () => false,
    (error: pg.DatabaseError) => error.code === '57014' || Promise.reject(error),
  );
  await vi.waitFor(
    async () => {
      const running = `SELECT count(*) FROM pg_stat_activity WHERE query = '${text}' AND state = 'active'`;
      expect(await count(running)).toBe(1);
    },
    { timeout: 10_000, interval: 20 },
  );
  await ask();
  return await outcome;
}

it('tells which routers there are', async () => {
  await withClient(other.port, async (client) => {
    const read = async () =>
      (await client.query('SELECT router, slot, version, state, processes, clients FROM postern.routers'))
        .rows;
    await vi.waitFor(
      async () =>
        expect(await read()).toEqual([
          { ...{ router: 'first', slot: 1, version: '0.1.0', state: 'serving' }, processes: 1, clients: 0 },
          { ...{ router: 'other', slot: 2, version: '0.1.0', state: 'serving' }, processes: 1, clients: 1 },
        ]),
      { timeout: 10_000, interval: 200 },
    );
    expect(slotOf(client.processID)).toBe(2);
    expect(other.answer('status')).toMatchObject({ slot: 2, clients: 1, isDraining: false });
  });
});

it('says which server processes are the routers’', async () => {
  await withClient(other.port, async (client) => {
    await client.query('SELECT 1');
    const strangers = `SELECT count(*) FROM pg_stat_activity
      WHERE datname = 'app' AND usename = 'app' AND pid NOT IN (SELECT jsonb_array_elements_text(b.value)::int
        FROM postern_internal.router_processes p, jsonb_each(p.backends) b WHERE b.key = 'n1')`;
    await vi.waitFor(async () => expect(await count(strangers)).toBe(0), { timeout: 10_000, interval: 200 });
  });
});

it('cancels through a router what runs at another one, and only with the right key', async () => {
  await withClient(cluster.port, async (client) => {
    const { processID, secretKey } = client;
    expect(await isCanceled(client, () => sendCancel(other.port, processID, secretKey))).toBe(true);
    expect(await isCanceled(client, () => sendCancel(other.port, processID, secretKey ^ 1), 1)).toBe(false);
    expect(await isCanceled(client, () => sendCancel(cluster.port, processID, secretKey))).toBe(true);
    expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  });
});

it('gives nothing to those who listen to the channel, nor lets them repeat it', async () => {
  await withClient(cluster.port, async (client) => {
    const { processID, secretKey } = client;
    const heard: string[] = [];
    // As any role may.
    const listener = new pg.Client({
      connectionString: cluster.servers[0]!.dsn({ user: 'app', database: 'app' }),
    });
    await listener.connect();
    try {
      listener.on('notification', ({ payload }) => heard.push(payload!));
      await listener.query('LISTEN postern_cancel');
      expect(await isCanceled(client, () => sendCancel(other.port, processID, secretKey))).toBe(true);
      await vi.waitFor(() => expect(heard).toHaveLength(1), { timeout: 10_000 });
      const key = Buffer.alloc(4);
      key.writeInt32BE(secretKey);
      expect(Buffer.from(heard[0]!, 'base64url').includes(key)).toBe(false);
      const repeat = () =>
        listener.query(
          "SELECT pg_notify('postern_cancel', $1), pg_notify('postern_cancel', repeat('x', 7999))",
          [heard[0]],
        );
      expect(await isCanceled(client, repeat, 1)).toBe(false);
      const refused = cluster.router
        .answer('metrics')
        .families.find(({ name }) => name === 'postern_cancels_total')!
        .values.find(({ labels }) => labels.result === 'refused');
      expect(refused!.value).toBe(2);
    } finally {
      await listener.end();
    }
  });
});

it('takes its slot again when the register was emptied, as by a crash of home’s server', async () => {
  await home.query('TRUNCATE postern_internal.routers, postern_internal.router_processes');
  await withClient(cluster.port, async (client) => {
    const { processID, secretKey } = client;
    const isThere = 'SELECT count(*) FROM postern_internal.routers WHERE slot IN (1, 2)';
    await vi.waitFor(async () => expect(await count(isThere)).toBe(2), { timeout: 15_000, interval: 100 });
    expect(slotOf(processID)).toBe(1);
    expect(await isCanceled(client, () => sendCancel(other.port, processID, secretKey))).toBe(true);
  });
});

it('leaves its slot when it ends, and to others when it is silent for too long', async () => {
  const third = await startRouter({ ...cluster.routerOptions, name: 'third' });
  expect(third.answer('status').slot).toBe(3);
  // Nobody has heard of it yet.
  await withClient(third.port, async (client) => {
    const { processID, secretKey } = client;
    expect(await isCanceled(client, () => sendCancel(other.port, processID, secretKey))).toBe(true);
  });
  await third.close();
  expect(await count('SELECT count(*) FROM postern_internal.routers')).toBe(2);
  // One that was killed an hour ago, and one that was just now.
  await home.query(`INSERT INTO postern_internal.routers
    SELECT slot, gen_random_uuid(), 'gone', '0', now(), now() - make_interval(secs => 3600 - 28 * (slot - 3))
    FROM generate_series(3, 127) AS slot`);
  await home.query('UPDATE postern_internal.routers SET heartbeat_at = now() WHERE slot BETWEEN 4 AND 127');
  const fourth = await startRouter({ ...cluster.routerOptions, name: 'fourth' });
  try {
    expect(fourth.answer('status').slot).toBe(3);
    // No slot is left: it serves all the same.
    const fifth = await startRouter({ ...cluster.routerOptions, name: 'fifth' });
    expect(fifth.answer('status').slot).toBe(0);
    await withClient(fifth.port, async (client) => {
      expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
      const { processID, secretKey } = client;
      expect(await isCanceled(client, () => sendCancel(fifth.port, processID, secretKey))).toBe(true);
    });
    await fifth.close();
  } finally {
    await fourth.close();
    await home.query("DELETE FROM postern_internal.routers WHERE router_name = 'gone'");
  }
});
