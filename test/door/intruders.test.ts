/** Who was let in as a role stays that role: one that takes its name over gets nothing of what the old one has left, and gives it nothing. */
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';

let cluster: TestCluster;
let admin: pg.Client;
const clients: pg.Client[] = [];

beforeAll(async () => {
  cluster = await startTestCluster({
    // Whoever is in under a name could open a backend as whatever role has it.
    nodeAuth: 'trust',
    users: [
      { name: 'postgres', password: 'postgres' },
      { name: 'app', password: 'app' },
    ],
    router: { authentication: { fromNodes: true } },
  });
  admin = await logIn('postgres', 'postgres');
  clients.length = 0;
});
afterEach(() => Promise.all(clients.splice(0).map((client) => client.end().catch(() => {}))));
afterAll(async () => {
  await admin?.end();
  await cluster?.stop();
});

async function logIn(role: string, password: string): Promise<pg.Client> {
  const client = new pg.Client(cluster.dsn(role, password));
  clients.push(client);
  client.on('error', () => {});
  await client.connect();
  return client;
}

/** As the node sees it that runs it. */
const whoIs = async (client: pg.Client): Promise<unknown> =>
  (await client.query(`SELECT session_user AS name, current_setting('is_superuser') AS super`)).rows[0];
const ended = (client: pg.Client): Promise<unknown> =>
  expect.poll(() => client.query('SELECT 1').then(String, () => 'ended')).toBe('ended');

describe('a role of another’s name', () => {
  it('gets none of its connections, and no session of the old one goes on as it', async () => {
    await admin.query(`CREATE ROLE boss LOGIN SUPERUSER PASSWORD 'one'`);
    const before = await logIn('boss', 'one');
    expect(await whoIs(before)).toEqual({ name: 'boss', super: 'on' });
    await admin.query('ALTER ROLE boss RENAME TO retired');
    await admin.query(`CREATE ROLE boss LOGIN PASSWORD 'two'`);
    await expect(logIn('boss', 'one')).rejects.toMatchObject({ code: '28P01' });
    expect(await whoIs(await logIn('boss', 'two'))).toEqual({ name: 'boss', super: 'off' });
    await ended(before);
  });

  it('is noticed where it was made round the router, at the next login', async () => {
    for (const server of cluster.servers) await server.query(`CREATE ROLE clerk LOGIN PASSWORD 'one'`);
    const before = await logIn('clerk', 'one');
    expect(await whoIs(before)).toEqual({ name: 'clerk', super: 'off' });
    for (const server of cluster.servers)
      await server.query(`DROP ROLE clerk; CREATE ROLE clerk LOGIN SUPERUSER PASSWORD 'two'`);
    // What was known of the old one may be a second old.
    await expect
      .poll(() => logIn('clerk', 'two').then(whoIs, String), { timeout: 5_000 })
      .toEqual({
        name: 'clerk',
        super: 'on',
      });
    await ended(before);
  });
});
