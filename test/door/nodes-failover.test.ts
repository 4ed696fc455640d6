/**
 * A node with several hosts: the router follows a promotion, whether the old primary is dead or stands still, and never goes back
 * to an old primary that turns up again.
 */
import pg from 'pg';
import { expect, it, onTestFinished } from 'vitest';
import { type Router, startRouter } from '../../src/cli/router.ts';
import type { RouterOptions } from '../../src/cli/router-options.ts';
import { freeze, thaw } from '../support/frozen-server.ts';
import { TRUSTED_USERS } from '../support/router.ts';
import { connectClient, value } from '../support/router-clients.ts';
import { startTestServer, startTestStandby, type TestServer } from '../support/servers.ts';

const HEALTH = { intervalMs: 250, unresponsiveAfterMs: 1_500, cutAfterMs: 5_000 };
const POLL = { timeout: 20_000, interval: 50 };

interface World {
  readonly router: Router;
  readonly old: TestServer;
  readonly standby: TestServer;
  readonly lines: string[];
  readonly through: { dsn(user?: string): string };
  /** A key on the node with two hosts. */
  readonly key: number;
}

async function startWorld(): Promise<World> {
  const [home, old] = await Promise.all([startTestServer(), startTestServer()]);
  const stop: TestServer[] = [home, old];
  let router: Router | undefined;
  onTestFinished(async () => {
    await router?.close();
    await Promise.all(stop.map((server) => server.stop()));
  });
  for (const server of [home, old]) {
    await server.query('CREATE ROLE app LOGIN');
    await server.query('CREATE DATABASE app OWNER app');
  }
  const standby = await startTestStandby(old, { name: 'standby' });
  stop.push(standby);
  const lines: string[] = [];
  const say = (message: string) => void lines.push(message);
  router = await startRouter({
    listen: { host: '127.0.0.1', port: 0 },
    database: 'app',
    nodes: [
      { name: 'n1', dsn: home.dsn({ database: 'app' }) },
      // The standby first: the order says nothing.
      { name: 'n2', dsn: `postgres://postgres@127.0.0.1:${standby.port},127.0.0.1:${old.port}/app` },
    ],
    home: 'n1',
    users: TRUSTED_USERS,
    health: HEALTH,
    log: { info: say, warn: say, error: say },
  });
  const { port } = router;
  const through = { dsn: (user = 'app') => `postgres://${user}@127.0.0.1:${port}/app` };
  const client = await connectClient(through);
  await client.query(
    `CREATE TABLE events (id bigint PRIMARY KEY, note text) WITH (postern.door = 'sharded', postern.key = 'id')`,
  );
  await client.query(`INSERT INTO events SELECT id, 'before' FROM generate_series(1, 200) AS id`);
  const direct = new pg.Client(old.dsn({ database: 'app' }));
  await direct.connect();
  const { rows } = await direct.query(
    `SELECT c.oid::regclass AS leaf FROM pg_class c WHERE c.relnamespace = 'postern_leaves'::regnamespace
       AND relname LIKE 'events%' AND relkind = 'r' AND pg_relation_size(c.oid) > 0`,
  );
  const { rows: found } = await direct.query(`SELECT id::int FROM ${rows[0].leaf} LIMIT 1`);
  // All of it is on the standby before anything happens to the primary.
  const { rows: at } = await direct.query('SELECT pg_current_wal_lsn() AS lsn');
  await direct.end();
  await expect
    .poll(
      () => standby.query(`SELECT pg_last_wal_replay_lsn() >= '${at[0].lsn}' AS is`).then(([row]) => row!.is),
      POLL,
    )
    .toBe(true);
  return { router, old, standby, lines, through, key: found[0].id };
}

const READ = 'SELECT note FROM events WHERE id = $1';
const WRITE = 'UPDATE events SET note = $2 WHERE id = $1 RETURNING note';

it('the router follows a promotion after a SIGKILL, and an old primary that comes back is left alone', async () => {
  const { old, standby, lines, through, key } = await startWorld();
  const [client, home] = await Promise.all([connectClient(through), connectClient(through)]);
  expect(await value(client, WRITE, [key, 'first'])).toBe('first');
  old.kill();
  await expect.poll(() => value(client, WRITE, [key, 'x']), POLL).toMatch(/^!08/);
  expect(await value(home, 'SELECT 1')).toBe(1);
  await standby.query('SELECT pg_promote()');
  await expect.poll(() => value(client, WRITE, [key, 'second']), POLL).toBe('second');
  expect(await standby.query('SELECT pg_is_in_recovery() AS is')).toEqual([{ is: false }]);
  await old.restart();
  await expect.poll(() => lines.some((line) => line.includes('two primaries')), POLL).toBe(true);
  for (let i = 0; i < 5; i++) {
    const one = await connectClient(through);
    expect(await value(one, READ, [key])).toBe('second');
  }
  // It stays so when the new one goes: what it has is not on the old one.
  standby.kill();
  await expect.poll(() => value(client, READ, [key]), POLL).toMatch(/^!08/);
  await expect.poll(() => lines.some((line) => line.includes('is on an older timeline')), POLL).toBe(true);
  expect(await value(client, READ, [key])).toBe('!08001');
}, 90_000);

it('the router follows a promotion while the old primary stands still, and ends what waits there', async () => {
  const { old, standby, lines, through, key } = await startWorld();
  const [client, waiting] = await Promise.all([connectClient(through), connectClient(through)]);
  expect(await value(client, WRITE, [key, 'first'])).toBe('first');
  freeze(old);
  try {
    const wait = value(waiting, READ, [key]);
    await standby.query('SELECT pg_promote()');
    await expect.poll(() => value(client, WRITE, [key, 'second']), POLL).toBe('second');
    expect(await wait).toBe('!08006');
    thaw(old);
    await expect.poll(() => lines.some((line) => line.includes('two primaries')), POLL).toBe(true);
    for (let i = 0; i < 5; i++) {
      const one = await connectClient(through);
      expect(await value(one, READ, [key])).toBe('second');
    }
  } finally {
    thaw(old);
  }
}, 90_000);

it('a router that starts takes the primary that was promoted last, whoever answers first, and no other host ever', async () => {
  const [home, old, foreign] = await Promise.all([startTestServer(), startTestServer(), startTestServer()]);
  const stop: TestServer[] = [home, old, foreign];
  onTestFinished(async () => void (await Promise.all(stop.map((server) => server.stop()))));
  for (const server of stop) {
    await server.query('CREATE ROLE app LOGIN');
    await server.query('CREATE DATABASE app OWNER app');
  }
  const standby = await startTestStandby(old, { name: 'standby' });
  stop.push(standby);
  await standby.query('SELECT pg_promote()');
  const lines: string[] = [];
  const say = (message: string) => void lines.push(message);
  const ports = (servers: TestServer[]) => servers.map(({ port }) => port).join(',');
  const options = (dsn: string): RouterOptions => ({
    listen: { host: '127.0.0.1', port: 0 },
    database: 'app',
    nodes: [
      { name: 'n1', dsn: home.dsn({ database: 'app' }) },
      { name: 'n2', dsn: `${dsn} user=postgres dbname=app` },
    ],
    home: 'n1',
    users: TRUSTED_USERS,
    health: HEALTH,
    log: { info: say, warn: say, error: say },
  });
  await expect(
    startRouter(options(`host=127.0.0.1,127.0.0.1 port=${ports([foreign, standby])}`)),
  ).rejects.toThrow('the hosts of node "n2" belong to different clusters of servers');
  // The old primary first, and the new one by two names.
  const router = await startRouter(
    options(`host=127.0.0.1,127.0.0.1,localhost port=${ports([old, standby, standby])}`),
  );
  onTestFinished(() => router.close());
  const client = await connectClient({ dsn: () => `postgres://app@127.0.0.1:${router.port}/app` });
  await client.query(
    `CREATE TABLE events (id bigint PRIMARY KEY) WITH (postern.door = 'sharded', postern.key = 'id')`,
  );
  await client.query('INSERT INTO events SELECT generate_series(1, 50)');
  await expect.poll(() => lines.join(' '), POLL).toContain('two primaries');
  expect(lines.join(' ')).not.toContain('found first');
  const keys = Array.from({ length: 50 }, (_, at) => at + 1);
  standby.kill();
  const write = () => value(client, 'INSERT INTO events VALUES ($1)', [keys.push(keys.length + 1)]);
  const told = new Set<unknown>();
  await expect.poll(async () => told.add(await write()).size, POLL).toBeGreaterThan(1);
  for (let i = 0; i < 60; i++) told.add(await write());
  expect([...told].every((one) => one === undefined || String(one).startsWith('!08'))).toBe(true);
  for (const other of [old, foreign]) {
    const direct = new pg.Client(other.dsn({ database: 'app' }));
    await direct.connect();
    const { rows } = await direct.query(`SELECT FROM pg_namespace WHERE nspname LIKE 'postern%'`);
    await direct.end();
    expect(rows).toHaveLength(0);
  }
}, 90_000);
