/** Deadlocks over nodes as clients meet them: through one router and through two, in rows and in the lines of pools. */
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Router, startRouter } from '../../src/cli/router.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

let cluster: TestCluster;
let second: Router;
/** Two keys of each node. */
let keys: [string, string][];
const clients: pg.Client[] = [];

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 3, connectionsPerNode: 1 });
  second = await startRouter(cluster.routerOptions);
  const client = await connect();
  await client.query(
    `CREATE TABLE k (id int8 PRIMARY KEY, n int NOT NULL) WITH (postern.door = 'sharded', postern.key = 'id')`,
  );
  for (let id = 1; id <= 100; id++) await client.query('INSERT INTO k VALUES ($1, 0)', [id]);
  keys = await Promise.all(
    cluster.servers.map(async (server) => {
      const database = new pg.Client({ connectionString: server.dsn({ database: 'app' }) });
      await database.connect();
      const { rows: leaves } = await database.query(
        'SELECT leaf::text AS leaf FROM postern_internal.local_leaves',
      );
      const texts = leaves.map(({ leaf }) => `SELECT id FROM ${leaf}`);
      const { rows } = await database.query(`${texts.join(' UNION ALL ')} ORDER BY id LIMIT 2`);
      await database.end();
      return [rows[0].id, rows[1].id] as [string, string];
    }),
  );
  await forget();
});
afterEach(forget);
afterAll(async () => {
  await second?.close();
  await cluster?.stop();
});

async function connect(port = cluster.port): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: `postgres://app@127.0.0.1:${port}/app` });
  client.on('error', () => {});
  clients.push(client);
  await client.connect();
  return client;
}

async function forget(): Promise<void> {
  await Promise.all(clients.splice(0).map((client) => client.end()));
}

const update = (client: pg.Client, node: number, at: 0 | 1 = 0) =>
  client.query(`UPDATE k SET n = n + 1 WHERE id = ${keys[node - 1]![at]}`);

/** Sends the statement of each; whoever is the victim rolls back, and the others commit. */
async function play(asks: readonly [pg.Client, () => Promise<unknown>][]): Promise<pg.DatabaseError[]> {
  const errors: pg.DatabaseError[] = [];
  await Promise.all(
    asks.map(async ([client, ask]) => {
      try {
        await ask();
        await client.query('COMMIT');
      } catch (error) {
        errors.push(error as pg.DatabaseError);
        await client.query('ROLLBACK');
      }
    }),
  );
  return errors;
}

async function sum(): Promise<number> {
  const client = await connect();
  let total = 0;
  for (const key of keys.flat()) total += (await client.query(`SELECT n FROM k WHERE id = ${key}`)).rows[0].n;
  return total;
}

describe('a deadlock over nodes', () => {
  it.each([
    ['one router', () => cluster.port],
    ['two routers', () => second.port],
  ])('through %s: one client hears 40P01, the other goes on', async (_, port) => {
    const before = await sum();
    const [first, other] = [await connect(), await connect(port())];
    for (const client of [first, other]) await client.query('BEGIN');
    await update(first, 1);
    await update(other, 2);
    const errors = await play([
      [first, () => update(first, 2)],
      [other, () => update(other, 1)],
    ]);
    expect(errors).toHaveLength(1);
    expect(errors[0]).toMatchObject({ code: '40P01', message: 'deadlock detected' });
    expect(errors[0]!.detail).toMatch(
      /^Transaction (\w+) waits on node "n([12])" for transaction (\w+)\.\nTransaction \3 waits on node "n(?!\2)[12]" for transaction \1\.$/,
    );
    expect(await sum()).toBe(before + 2);
  });

  it('in the extended protocol, of three over three nodes', async () => {
    const before = await sum();
    const all = [await connect(), await connect(second.port), await connect()];
    for (const [i, client] of all.entries()) {
      await client.query('BEGIN');
      await update(client, i + 1);
    }
    const errors = await play(
      all.map((client, i) => [
        client,
        () => client.query('UPDATE k SET n = n + $1 WHERE id = $2', [1, keys[(i + 1) % 3]![0]]),
      ]),
    );
    expect(errors.map(({ code }) => code)).toEqual(['40P01']);
    expect(await sum()).toBe(before + 4);
  });

  it('of statements over all nodes', async () => {
    const before = await sum();
    const [first, other] = [await connect(), await connect(second.port)];
    for (const client of [first, other]) await client.query('BEGIN');
    await update(first, 1);
    await update(other, 2);
    const errors = await play([
      [first, () => first.query('UPDATE k SET n = n + 1')],
      [other, () => other.query('UPDATE k SET n = n + 1')],
    ]);
    expect(errors.map(({ code }) => code)).toEqual(['40P01']);
    expect(await sum()).toBe(before + 1 + keys.flat().length);
  });

  it('of a statement by itself, over all nodes', async () => {
    const before = await sum();
    const told: unknown[] = [];
    // Either may be the victim: whoever is, hears of the deadlock.
    for (let round = 0; round < 6; round++) {
      const [first, other] = [await connect(), await connect(second.port)];
      await first.query('BEGIN');
      await update(first, 2);
      const alone = other.query('UPDATE k SET n = n + 1').then(
        () => 'done',
        (error: { code: string }) => error.code,
      );
      await expect
        .poll(
          async () =>
            (
              await cluster.servers[1]!.query(
                "SELECT count(*)::int AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
              )
            )[0]!.n,
        )
        .toBeGreaterThan(0);
      const ended = await update(first, 1).then(
        () => first.query('COMMIT').then(() => 'done'),
        (error: { code: string }) => first.query('ROLLBACK').then(() => error.code),
      );
      told.push([ended, await alone].sort().join(' '));
    }
    expect(told).toEqual(told.map(() => '40P01 done'));
    expect(await sum()).toBeGreaterThan(before);
  });

  it('through the lines of two pools, all of whose connections are held', async () => {
    const before = await sum();
    // Each node may have two connections at once, for transactions over nodes.
    const [blocker, waiter, stranger] = [await connect(), await connect(), await connect()];
    for (const client of [blocker, waiter, stranger]) await client.query('BEGIN');
    await update(blocker, 1);
    await update(waiter, 2);
    await update(stranger, 3);
    await stranger.query(`SELECT n FROM k WHERE id = ${keys[1]![0]}`);
    const errors = await play([
      // Waits for the row of `blocker`, on the second connection of node 1.
      [waiter, () => update(waiter, 1)],
      // Finds no connection to node 2: `waiter` and `stranger` have them.
      [blocker, () => update(blocker, 2, 1)],
      // Finds none to node 1: `blocker` and `waiter` have them.
      [stranger, () => update(stranger, 1)],
    ]);
    expect(errors.map(({ code }) => code)).toEqual(['40P01']);
    expect(await sum()).toBe(before + 4);
  });
});
