/** `--workers`: several processes behind one port. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestServer, type TestServer } from './support/servers.ts';

const MAIN = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const WORKERS = 3;

let server: TestServer;
let child: ChildProcess;
let port: number;
let output = '';

beforeAll(async () => {
  server = await startTestServer();
  await server.query('CREATE TABLE events (id bigserial PRIMARY KEY, payload text)');
  child = spawn(
    process.execPath,
    [MAIN, 'front', server.dsn(), '--port', '0', '--workers', String(WORKERS)],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  const gather = (chunk: Buffer) => {
    output += chunk.toString();
  };
  child.stdout?.on('data', gather);
  child.stderr?.on('data', gather);
  port = Number(await until(() => /listening on [^",:]*:(\d+)/.exec(output)?.[1]));
});

afterAll(async () => {
  if (child.exitCode === null && child.signalCode === null) {
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await ended;
  }
  await server.stop();
});

/** Waits for a condition, with a bound. */
async function until<T>(condition: () => T | undefined | false | Promise<T | undefined | false>): Promise<T> {
  for (let tries = 0; tries < 300; tries++) {
    const value = await condition();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`it did not happen:\n${output}`);
}

async function connect(): Promise<pg.Client & { processID: number }> {
  const client = new pg.Client({ host: '127.0.0.1', port, user: 'postgres', database: 'postgres' });
  client.on('error', () => {});
  await client.connect();
  return client as pg.Client & { processID: number };
}

function workerOf(client: { processID: number }): number {
  return client.processID >>> 24;
}

describe('workers', () => {
  it('share the clients among them, and each serves', async () => {
    const clients = await Promise.all(Array.from({ length: 9 }, connect));
    expect(new Set(clients.map(workerOf)).size).toBe(WORKERS);
    await Promise.all(
      clients.map((client, i) => client.query('INSERT INTO events (payload) VALUES ($1)', [`from ${i}`])),
    );
    expect((await server.query('SELECT count(*)::int AS n FROM events'))[0]).toEqual({ n: 9 });
    await Promise.all(clients.map((client) => client.end()));
  });

  it('pass a cancel request on to the worker whose session it is', async () => {
    const clients = await Promise.all(Array.from({ length: WORKERS * 2 }, connect));
    const sleeping = clients.map((client) =>
      client.query('SELECT pg_sleep(60)').then(
        () => 'slept',
        (error) => error.code,
      ),
    );
    await until(async () => {
      const [row] = await server.query(
        `SELECT count(*)::int AS n FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'`,
      );
      return row?.n === clients.length;
    });
    // Each request is a connection of its own, which any worker may get.
    for (const client of clients) {
      const canceler = new pg.Client({ host: '127.0.0.1', port }) as unknown as {
        cancel(target: unknown, query: unknown): void;
      };
      const active = client as unknown as { _activeQuery?: unknown };
      canceler.cancel(client, active._activeQuery);
    }
    expect(await Promise.all(sleeping)).toEqual(clients.map(() => '57014'));
    await Promise.all(clients.map((client) => client.end()));
  });

  it('go on when one of them dies, and it comes back', async () => {
    const clients = await Promise.all(Array.from({ length: WORKERS }, connect));
    const pids = (await import('node:fs')).readFileSync(
      `/proc/${child.pid}/task/${child.pid}/children`,
      'utf8',
    );
    const victim = Number(pids.trim().split(' ')[0]);
    process.kill(victim, 'SIGKILL');
    const outcomes = await until(async () => {
      const answers = await Promise.all(
        clients.map((client) =>
          client.query('SELECT 1').then(
            () => true,
            () => false,
          ),
        ),
      );
      return answers.includes(false) ? answers : undefined;
    });
    expect(outcomes.filter((alive) => alive).length).toBe(WORKERS - 1);
    await until(() => output.includes('restarting it'));
    await until(async () => {
      const fresh = await Promise.all(
        Array.from({ length: WORKERS * 2 }, () => connect().catch(() => undefined)),
      );
      const workers = new Set(fresh.filter((client) => client !== undefined).map(workerOf));
      await Promise.all(fresh.map((client) => client?.end()));
      return workers.size === WORKERS;
    });
    await Promise.all(clients.map((client) => client.end().catch(() => {})));
  });

  it('all end when the first process is told to', async () => {
    const pids = (await import('node:fs'))
      .readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8')
      .trim()
      .split(' ')
      .map(Number);
    expect(pids.length).toBe(WORKERS);
    const ended = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
    child.kill('SIGTERM');
    expect(await ended).toBe(0);
    for (const pid of pids) expect(() => process.kill(pid, 0)).toThrow();
  });

  it('say once why they cannot start, and leave nothing behind', async () => {
    const failing = spawn(
      process.execPath,
      [MAIN, 'front', 'postgres://nobody@127.0.0.1:1/x', '--port', '0', '--workers', '2'],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    let said = '';
    failing.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    const code = await new Promise((resolve) => failing.once('exit', resolve));
    expect(code).toBe(1);
    expect(said.match(/cannot be reached/g)?.length).toBe(1);
  });
});
