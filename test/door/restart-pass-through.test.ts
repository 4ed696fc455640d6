/** A restart, of a role whose password no router knows: what it has shown at its login has to go along with its session. */
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { RouterProcess } from '../support/router-process.ts';
import { startTestServer, type TestServer } from '../support/servers.ts';

const PASSWORD = 'open sesame';
let server: TestServer;
let router: RouterProcess;

beforeAll(async () => {
  server = await startTestServer({ auth: 'scram-sha-256' });
  await server.query(`CREATE ROLE passed LOGIN PASSWORD '${PASSWORD}'`);
  await server.query('CREATE DATABASE app OWNER passed');
  router = await RouterProcess.start([{ name: 'n1', dsn: server.dsn({ database: 'app' }) }], {
    ...{ workers: 1, users: undefined, authentication: { from_nodes: true } },
    hba: 'host all all all scram-sha-256',
  });
});
afterAll(async () => {
  await router?.stop();
  await server?.stop();
});

it('logs in at the nodes in the new process, and in the one after that', async () => {
  const login = { user: 'passed', password: PASSWORD, database: 'app' };
  // The role's only session: a new process has no other way to its keys.
  const client = new pg.Client({ ...login, host: '127.0.0.1', port: router.port });
  await client.connect();
  for (let i = 0; i < 2; i++) {
    await router.restart();
    const { rows } = await client.query('SELECT session_user::text AS name');
    expect(rows).toEqual([{ name: 'passed' }]);
  }
  await client.end();
  expect(router.output).not.toContain(PASSWORD);
});
