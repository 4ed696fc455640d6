/** Logins that go round the routers: told of once, and never the routers' own connections, the mesh's or Postern's own. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Router, startRouter } from '../../src/cli/router.ts';
import type { LogFields } from '../../src/observe/log.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

const PSQL = '/usr/lib/postgresql/15/bin/psql';
const EVERY_MS = 400;
const WAIT_MS = 20_000;

let cluster: TestCluster;
let second: Router;
let third: Router;
const told: { readonly router: string; readonly message: string; readonly fields: LogFields | undefined }[] =
  [];
const opened: pg.Client[] = [];

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 2 });
  const more = (router: string, allowed: readonly string[]) =>
    startRouter({
      ...cluster.routerOptions,
      heartbeatMs: EVERY_MS / 2,
      bypass: { allowed, everyMs: EVERY_MS },
      log: {
        info() {},
        warn: (message, fields) => told.push({ router, message, fields }),
        error() {},
      },
    });
  second = await more('second', []);
  third = await more('third', ['watchman']);
  await cluster.servers[1]!.query('CREATE ROLE watchman LOGIN');
});

afterAll(async () => {
  for (const client of opened) await client.end();
  await second?.close();
  await third?.close();
  await cluster?.stop();
});

async function open(dsn: string, applicationName?: string): Promise<pg.Client> {
  const client = new pg.Client({
    connectionString: dsn,
    ...(applicationName !== undefined && { application_name: applicationName }),
  });
  client.on('error', () => {});
  await client.connect();
  opened.push(client);
  return client;
}

function logins(router: string): readonly LogFields[] {
  return told
    .filter((one) => one.router === router && one.message.includes('round the routers'))
    .map(({ fields }) => fields!);
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + WAIT_MS;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`not within ${WAIT_MS} ms: ${JSON.stringify(told)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function bypassLogins(router: Router): Promise<number> {
  const { families } = router.answer('metrics');
  const family = families.find(({ name }) => name === 'postern_bypass_logins_total');
  return family?.values[0]?.value ?? 0;
}

it('tells of a direct session once, and of nothing else', async () => {
  // The cluster's own router says only every five seconds what is its own: it has no clients here.
  const app = await open(`postgres://app@127.0.0.1:${second.port}/app`);
  await app.query(
    `CREATE TABLE t (id int PRIMARY KEY, v int) WITH (postern.door = 'sharded', postern.key = 'id')`,
  );
  await app.query('INSERT INTO t SELECT n, n FROM generate_series(1, 50) n');
  for (const { port } of [second, third]) {
    const client = await open(`postgres://app@127.0.0.1:${port}/app`);
    await client.query('UPDATE t SET v = 2 WHERE id = 3');
    // Answered by the mesh.
    await client.query('SELECT count(*) FROM t a JOIN t b ON a.v = b.id WHERE a.id < b.v + 100');
  }
  const direct = cluster.servers[1]!.dsn({ user: 'app', database: 'app' });
  await open(direct, 'rogue');
  await open(direct, 'rogue');
  await open(cluster.servers[1]!.dsn({ user: 'watchman', database: 'app' }), 'exporter');
  await until(() => logins('second').length >= 2 && logins('third').length >= 1);
  // Whatever else would be taken for a stranger has been seen in some looks more by now.
  await open(direct, 'rogue');
  await until(async () => (await bypassLogins(second)) >= 4 && (await bypassLogins(third)) >= 3);
  const one = (role: string, application_name: string) =>
    expect.objectContaining({ node: 'n2', role, address: '127.0.0.1', application_name });
  expect([...logins('second')].sort((a, b) => String(a.role).localeCompare(String(b.role)))).toEqual([
    one('app', 'rogue'),
    one('watchman', 'exporter'),
  ]);
  expect(logins('third')).toEqual([one('app', 'rogue')]);
  expect(await bypassLogins(second)).toBe(4);
  expect(await bypassLogins(third)).toBe(3);
});

it.skipIf(!existsSync(PSQL))('sees psql, by its own name', async () => {
  const dsn = cluster.servers[0]!.dsn({ user: 'app', database: 'app' });
  const psql = spawn(PSQL, ['-X', '-c', 'SELECT pg_sleep(30)', dsn], { stdio: 'ignore' });
  await until(() => logins('second').some((one) => one.application_name === 'psql' && one.node === 'n1'));
  psql.kill();
});
