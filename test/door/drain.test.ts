/** How a router ends, reloads its configuration, and takes a port over from whoever opened it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { RouterProcess, until } from '../support/router-process.ts';

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startTestCluster();
  const client = new pg.Client(cluster.dsn());
  await client.connect();
  await client.query(`
    CREATE TABLE accounts (id int8 PRIMARY KEY, n int8 NOT NULL DEFAULT 0)
      WITH (postern.door = 'sharded', postern.key = 'id')`);
  await client.query('INSERT INTO accounts (id) SELECT generate_series(1, 20)');
  await client.end();
});

const started: RouterProcess[] = [];

afterAll(async () => {
  // Of tests that have failed: the others have stopped theirs.
  for (const router of started) router.child.kill('SIGKILL');
  await cluster?.stop();
});

interface Ending {
  readonly client: pg.Client;
  /** SQLSTATE of what ended it. */
  readonly ended: Promise<string | undefined>;
}

async function connect(port: number): Promise<Ending> {
  const client = new pg.Client({ host: '127.0.0.1', port, user: 'app', database: 'app' });
  await client.connect();
  const ended = new Promise<string | undefined>((resolve) => {
    client.on('error', (error) => resolve((error as { code?: string }).code));
    client.on('end', () => resolve(undefined));
  });
  return { client, ended };
}

async function start(extra: object): Promise<RouterProcess> {
  const router = await RouterProcess.start(cluster.routerOptions.nodes, extra);
  started.push(router);
  return router;
}

async function sumOf(): Promise<number> {
  const client = new pg.Client(cluster.dsn());
  await client.connect();
  const { rows } = await client.query('SELECT sum(n)::int AS n FROM accounts');
  await client.end();
  return rows[0].n;
}

describe('draining', () => {
  it('ends idle clients at once, others when their transaction is over, and lets nobody in', async () => {
    const before = await sumOf();
    const router = await start({ workers: 2 });
    const idle = await connect(router.port);
    const busy = await connect(router.port);
    await busy.client.query('BEGIN; UPDATE accounts SET n = n + 1 WHERE id = 1');
    // A transaction over two nodes as well.
    const both = await connect(router.port);
    await both.client.query('BEGIN; UPDATE accounts SET n = n + 1 WHERE id > 2');
    const stopped = router.stop();
    expect(await idle.ended).toBe('57P01');
    await expect(connect(router.port)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    await busy.client.query('UPDATE accounts SET n = n + 1 WHERE id = 2');
    await busy.client.query('COMMIT');
    await both.client.query('COMMIT');
    expect([await busy.ended, await both.ended]).toEqual(['57P01', '57P01']);
    expect(await stopped).toBe(0);
    expect(await sumOf()).toBe(before + 20);
  });

  it('does not wait for a replacement that is only starting', async () => {
    const router = await start({ drain: { timeout: '90s' } });
    const idle = await connect(router.port);
    const before = router.workerPids;
    router.signal('SIGUSR2');
    await until(() => router.workerPids.length > before.length);
    const stopped = router.stop();
    expect(await idle.ended).toBe('57P01');
    expect(await stopped).toBe(0);
  }, 60_000);

  it('waits no more after a second signal', async () => {
    const router = await start({});
    const idle = await connect(router.port);
    const busy = await connect(router.port);
    await busy.client.query('BEGIN; UPDATE accounts SET n = n + 1');
    const stopped = router.stop();
    expect(await idle.ended).toBe('57P01');
    // Twice within a moment is the same request.
    const again = setInterval(() => router.signal('SIGTERM'), 400);
    expect(await stopped).toBe(0);
    clearInterval(again);
    expect(await busy.ended).toBe('57P01');
  });

  it('tells load balancers before it closes the port; ends the rest when the time is up, and rolls it back', async () => {
    const before = await sumOf();
    const router = await start({ drain: { delay: '600ms', timeout: '300ms' }, http: { port: 0 } });
    const ready = `http://127.0.0.1:${/health and metrics on [^"]*:(\d+)/.exec(router.output)?.[1]}/readyz`;
    expect((await fetch(ready)).status).toBe(200);
    const busy = await connect(router.port);
    await busy.client.query('BEGIN; UPDATE accounts SET n = n + 1');
    const stopped = router.stop();
    await until(async () => (await fetch(ready)).status === 503);
    const late = await connect(router.port);
    expect(await late.ended).toBe('57P01');
    expect(await stopped).toBe(0);
    expect(await busy.ended).toBe('57P01');
    expect(await sumOf()).toBe(before);
  });
});

describe('a reload', () => {
  it('changes what can be changed, says what needs more, and a bad file changes nothing', async () => {
    const router = await start({ log: { connections: false } });
    await router.configure({ log: { connections: true }, connections_per_node: 7 });
    router.signal('SIGHUP');
    await router.untilWritten('the configuration is reloaded');
    expect(lineOf(router, 'the configuration is reloaded')).toMatchObject({ changed: 'logging' });
    await router.untilWritten('holds once the router is started again');
    expect(lineOf(router, 'holds once the router is started again')).toMatchObject({
      keys: 'connectionsPerNode',
    });
    const { client } = await connect(router.port);
    await router.untilWritten('client logged in');
    await router.configure({ log: { connections: false }, nonsense: 1 });
    router.signal('SIGHUP');
    await router.untilWritten('the configuration is not reloaded: ');
    expect(router.output.split('the configuration is reloaded').length).toBe(2);
    await client.end();
    await router.untilWritten('client left');
    expect(await router.stop()).toBe(0);
  });
});

function lineOf(router: RouterProcess, text: string): object {
  return JSON.parse(router.output.split('\n').find((line) => line.includes(text))!);
}

describe('socket activation', () => {
  it('serves on a socket that is open already, and clients that came before wait in it', async () => {
    const first = await start({});
    const { configPath } = first;
    const door = createServer();
    door.listen({ host: '127.0.0.1', port: 0, backlog: 100 });
    await once(door, 'listening');
    const { port } = door.address() as { port: number };
    const { fd } = (door as unknown as { _handle: { fd: number } })._handle;
    const main = join(import.meta.dirname, '../../dist/cli/main.js');
    const child = spawn('sh', ['-c', `LISTEN_PID=$$ LISTEN_FDS=1 exec node ${main} serve -c ${configPath}`], {
      stdio: ['ignore', 'pipe', 'inherit', fd],
    });
    // From here on nobody accepts in this process.
    door.close();
    let said = '';
    child.stdout!.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    const early = await connect(port);
    expect((await early.client.query('SELECT 1 AS v')).rows).toEqual([{ v: 1 }]);
    expect(said).toContain('listening on');
    await early.client.end();
    const exited = once(child, 'exit');
    child.kill('SIGTERM');
    expect((await exited)[0]).toBe(0);
    await first.stop();
  });
});
