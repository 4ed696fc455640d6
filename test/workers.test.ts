/** `--workers`: several processes behind one port. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BOUNDS } from '../src/base/bounds.ts';
import { workerOf as placeOf } from '../src/session/session-ids.ts';
import { startTestServer, type TestServer } from './support/servers.ts';

const MAIN = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const WORKERS = 3;
/** As many as fill the batches of one worker; no reason to begin with the next before. */
const CLIENTS_EACH = BOUNDS.coalescingLanes * BOUNDS.coalescingBatchMax;

interface Running {
  readonly child: ChildProcess;
  readonly port: number;
  output(): string;
}

let server: TestServer;
/** It fills one worker after the other. */
let filling: Running;
/** It merges nothing, so it has no reason to. */
let spreading: Running;

beforeAll(async () => {
  server = await startTestServer();
  await server.query('CREATE TABLE events (id bigserial PRIMARY KEY, payload text)');
  [filling, spreading] = await Promise.all([start(), start('--no-coalesce')]);
});

afterAll(async () => {
  await Promise.all([filling, spreading].filter(Boolean).map(stop));
  await server.stop();
});

async function start(...args: string[]): Promise<Running> {
  const child = spawn(
    process.execPath,
    [MAIN, 'front', server.dsn(), '--port', '0', '--workers', String(WORKERS), ...args],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let output = '';
  const gather = (chunk: Buffer) => {
    output += chunk.toString();
  };
  child.stdout?.on('data', gather);
  child.stderr?.on('data', gather);
  const port = Number(
    await until(
      () => /listening on [^",:]*:(\d+)/.exec(output)?.[1],
      () => output,
    ),
  );
  return { child, port, output: () => output };
}

async function stop({ child }: Running): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  await ended;
}

/** Waits for a condition, with a bound. */
async function until<T>(
  condition: () => T | undefined | false | Promise<T | undefined | false>,
  describe = () => `${filling.output()}\n${spreading.output()}`,
): Promise<T> {
  for (let tries = 0; tries < 300; tries++) {
    const value = await condition();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`it did not happen:\n${describe()}`);
}

type Client = pg.Client & { processID: number };

async function connect({ port }: Running): Promise<Client> {
  const client = new pg.Client({ host: '127.0.0.1', port, user: 'postgres', database: 'postgres' });
  client.on('error', () => {});
  await client.connect();
  return client as Client;
}

function connectMany(router: Running, count: number): Promise<Client[]> {
  return Promise.all(Array.from({ length: count }, () => connect(router)));
}

/** Until each worker has one. */
async function connectToAll(router: Running): Promise<Client[]> {
  const clients: Client[] = [];
  await until(async () => {
    clients.push(await connect(router));
    return !countByWorker(clients).includes(0);
  });
  return clients;
}

async function endAll(clients: readonly pg.Client[]): Promise<void> {
  await Promise.all(clients.map((client) => client.end().catch(() => {})));
}

function workerOf(client: Client): number {
  return placeOf(client.processID);
}

/** How many of them each worker has. */
function countByWorker(clients: readonly Client[]): number[] {
  const counts = Array.from({ length: WORKERS }, () => 0);
  for (const client of clients) counts[workerOf(client)]!++;
  return counts;
}

function pidsOfWorkers({ child }: Running): number[] {
  const pids = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim();
  return pids === '' ? [] : pids.split(' ').map(Number);
}

function pidOfWorker(router: Running, index: number): number {
  return pidsOfWorkers(router).find((pid) =>
    readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(`POSTERN_WORKER_INDEX=${index}`),
  )!;
}

describe('workers', () => {
  it('share out the connections to the server, and never open more', async () => {
    const clients = await connectMany(filling, 20);
    expect(countByWorker(clients)).toEqual([20, 0, 0]);
    // One worker has nearly all of the 20.
    const held = clients.map((client) => client.query('BEGIN; SELECT pg_sleep(0)').catch(() => {}));
    const inTransaction = async () => {
      const [row] = await server.query(
        `SELECT count(*)::int AS n FROM pg_stat_activity WHERE query LIKE 'BEGIN%pg_sleep(0)%'`,
      );
      return row?.n;
    };
    await until(async () => (await inTransaction()) === BOUNDS.connectionsPerNode - 2 * (WORKERS - 1));
    // Each that ends lets the next one in.
    await Promise.all(clients.map((client, i) => held[i]!.then(() => client.end())));
  });

  it('keep the clients together that share commits, and each client is served', async () => {
    const clients = await connectMany(filling, 20);
    expect(countByWorker(clients)).toEqual([20, 0, 0]);
    await Promise.all(
      clients.map((client, i) => client.query('INSERT INTO events (payload) VALUES ($1)', [`from ${i}`])),
    );
    expect((await server.query('SELECT count(*)::int AS n FROM events'))[0]).toEqual({ n: 20 });
    await endAll(clients);
  });

  it('share out a burst of logins, of which none is lost', async () => {
    const clients = await connectMany(filling, CLIENTS_EACH * 2 + 40);
    const counts = countByWorker(clients);
    expect(Math.max(...counts)).toBeLessThanOrEqual(CLIENTS_EACH);
    expect(Math.min(...counts)).toBeGreaterThan(0);
    const answers = await Promise.all(clients.map((client, i) => client.query('SELECT $1::int AS i', [i])));
    expect(answers.map(({ rows }) => rows[0].i)).toEqual(clients.map((_, i) => i));
    await endAll(clients);
  });

  it('share the clients evenly where nothing is merged', async () => {
    const clients = await connectMany(spreading, 9);
    expect(countByWorker(clients)).toEqual([3, 3, 3]);
    await endAll(clients);
  });

  it('pass a cancel request on to the worker whose session it is', async () => {
    const clients = await connectToAll(spreading);
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
      const canceler = new pg.Client({ host: '127.0.0.1', port: spreading.port }) as unknown as {
        cancel(target: unknown, query: unknown): void;
      };
      const active = client as unknown as { _activeQuery?: unknown };
      canceler.cancel(client, active._activeQuery);
    }
    expect(await Promise.all(sleeping)).toEqual(clients.map(() => '57014'));
    await endAll(clients);
  });

  it('go on when one of them dies, and it comes back', async () => {
    const clients = await connectToAll(spreading);
    const victim = workerOf(clients[0]!);
    process.kill(pidOfWorker(spreading, victim), 'SIGKILL');
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
    expect(outcomes).toEqual(clients.map((client) => workerOf(client) !== victim));
    await until(() => spreading.output().includes('restarting it'));
    await endAll([...clients, ...(await connectToAll(spreading))]);
  });

  it('let new clients wait while none of them is ready', async () => {
    for (const pid of pidsOfWorkers(filling)) process.kill(pid, 'SIGKILL');
    await until(() => pidsOfWorkers(filling).length === 0);
    const clients = await connectMany(filling, 5);
    expect((await clients[4]!.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    await endAll(clients);
  });

  it('are passed over while they do not move, with those that are on their way to them', async () => {
    await until(() => pidsOfWorkers(filling).length === WORKERS);
    await until(async () => {
      const client = await connect(filling);
      await client.end();
      return workerOf(client) === 0;
    });
    const frozen = pidOfWorker(filling, 0);
    process.kill(frozen, 'SIGSTOP');
    try {
      const sent = Array.from({ length: 5 }, () => connect(filling));
      // The one that was under way is its own; the others are chosen again.
      const moved = await Promise.all(sent.slice(1));
      expect(moved.map(workerOf)).not.toContain(0);
      process.kill(frozen, 'SIGCONT');
      await endAll([await sent[0]!, ...moved]);
    } finally {
      process.kill(frozen, 'SIGCONT');
    }
  });

  it('all end when the first process is told to', async () => {
    const { child } = filling;
    const pids = await until(() => {
      const found = pidsOfWorkers(filling);
      return found.length === WORKERS && found;
    });
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
    expect(said).toMatch(/\(Check the address and the password, and that the server runs\.\)\n$/);
  });

  it('say once that the port is taken', async () => {
    const failing = spawn(
      process.execPath,
      [MAIN, 'front', server.dsn(), '--port', String(spreading.port), '--workers', '2'],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    let said = '';
    failing.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    const code = await new Promise((resolve) => failing.once('close', resolve));
    expect(code).toBe(1);
    expect(said).toMatch(/^postern: port \d+ is in use \(Choose another one with --port[^\n]*\)\n$/);
  });
});
