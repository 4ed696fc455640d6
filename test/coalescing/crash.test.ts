/**
 * The server, and the router, killed under a load of merged or pipelined writes: what was answered OK is there, what was answered with an
 * error is not, and what may be either was told so: by 08007, or by the loss of the client's connection.
 * CRASH_ROUNDS: how often each is killed.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import * as path from 'node:path';
import pg from 'pg';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startFront } from '../../src/cli/run-front.ts';
import { startTestServer, type TestServer } from '../support/servers.ts';
import { execute, until } from './front.ts';

const ROUNDS = Number(process.env.CRASH_ROUNDS ?? 3);
const CLIENTS = 24;
/** Answers before each kill, and a few at random more. */
const ANSWERS = 400;
const SCHEMA = `
  CREATE TABLE writes (id int8 PRIMARY KEY, filler text);
  CREATE TABLE tallies (client int PRIMARY KEY, n int NOT NULL);
  INSERT INTO tallies SELECT i, 0 FROM generate_series(0, ${CLIENTS - 1}) i`;

type Fate = 'ok' | 'refused' | 'unknown';

class Load {
  readonly fates = new Map<number, Fate>();
  readonly tallies = Array.from({ length: CLIENTS }, () => ({ ok: 0, unknown: 0 }));
  readonly codes = new Map<string, number>();
  answers = 0;
  #lastId = 0;
  #onAnswers: (() => void) | undefined;

  /** Writes until a write finds no server. Resolves when every client has heard of its last one. */
  async run(port: number): Promise<void> {
    await Promise.all(Array.from({ length: CLIENTS }, (_, client) => this.#runClient(port, client)));
  }

  /** Resolves when that many more writes have been answered. */
  async answered(count: number): Promise<void> {
    const goal = this.answers + count;
    while (this.answers < goal)
      await new Promise<void>((resolve) => {
        this.#onAnswers = resolve;
      });
  }

  async #runClient(port: number, index: number): Promise<void> {
    const client = new pg.Client({ host: '127.0.0.1', port, user: 'app', database: 'app' });
    client.on('error', () => {});
    await client.connect();
    const tally = this.tallies[index]!;
    try {
      for (let step = 0, goesOn = true; goesOn; step++) {
        if (step % 4 === 3) {
          const fate = this.#judge(
            await execute(client, 'UPDATE tallies SET n = n + 1 WHERE client = $1', [index]),
          );
          if (fate !== 'refused') tally[fate]++;
          goesOn = fate === 'ok';
        } else {
          // A duplicate now and then: its batch is undone, and the others of it go again.
          const isDuplicate = step % 12 === 10 && this.#lastId > 0;
          const id = isDuplicate ? [...this.fates].find(([, fate]) => fate === 'ok')?.[0] : undefined;
          const own = id ?? ++this.#lastId;
          const outcome = await execute(client, 'INSERT INTO writes (id, filler) VALUES ($1, $2)', [
            own,
            `by ${index}`,
          ]);
          const fate = this.#judge(outcome);
          if (id === undefined) this.fates.set(own, fate);
          else expect(fate, 'a duplicate').not.toBe('ok');
          goesOn = fate === 'ok' || outcome === '!23505 writes_pkey';
        }
        this.answers++;
        this.#onAnswers?.();
      }
    } finally {
      await client.end().catch(() => {});
    }
  }

  #judge(outcome: unknown): Fate {
    if (typeof outcome !== 'string') return 'ok';
    this.codes.set(outcome, (this.codes.get(outcome) ?? 0) + 1);
    // Without an SQLSTATE of five characters it is pg that has seen the connection end.
    return outcome === '!08007' || !/^![0-9A-Z]{5}( |$)/.test(outcome) ? 'unknown' : 'refused';
  }

  async check(server: TestServer): Promise<void> {
    const client = new pg.Client(server.dsn({ database: 'app' }));
    await client.connect();
    try {
      const { rows } = await client.query<{ id: string }>('SELECT id FROM writes');
      const there = new Set(rows.map(({ id }) => Number(id)));
      const wrong = [...this.fates].filter(
        ([id, fate]) => (fate === 'ok' && !there.has(id)) || (fate === 'refused' && there.has(id)),
      );
      expect(wrong).toEqual([]);
      for (const id of there) expect(this.fates.has(id)).toBe(true);
      const tallies = await client.query<{ client: number; n: number }>('SELECT client, n FROM tallies');
      for (const row of tallies.rows) {
        const { ok, unknown } = this.tallies[row.client]!;
        expect(row.n).toBeGreaterThanOrEqual(ok);
        expect(row.n).toBeLessThanOrEqual(ok + unknown);
      }
    } finally {
      await client.end();
    }
  }

  get unknownCount(): number {
    return [...this.fates.values()].filter((fate) => fate === 'unknown').length;
  }
}

async function startServer(): Promise<TestServer> {
  const server = await startTestServer({ durable: true });
  onTestFinished(() => server.stop());
  await server.query('CREATE ROLE app LOGIN');
  await server.query('CREATE DATABASE app OWNER app');
  const client = new pg.Client(server.dsn({ user: 'app', database: 'app' }));
  await client.connect();
  await client.query(SCHEMA);
  await client.end();
  return server;
}

/** For a moment after a failed connect, the router refuses what needs the server: waits until it serves again. */
async function served(port: number): Promise<void> {
  for (let tries = 0; ; tries++) {
    const client = new pg.Client({ host: '127.0.0.1', port, user: 'app', database: 'app' });
    client.on('error', () => {});
    try {
      await client.connect();
      await client.query('SELECT count(*) FROM writes');
      return;
    } catch (error) {
      if (tries === 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    } finally {
      await client.end().catch(() => {});
    }
  }
}

/** SIGKILL to the postmaster and all its processes. */
function killAll(server: TestServer): void {
  const { pid } = server;
  const children = spawnSync('ps', ['-o', 'pid=', '--ppid', String(pid)], { encoding: 'utf8' });
  server.kill();
  for (const child of children.stdout.split('\n').map(Number).filter(Boolean)) {
    try {
      process.kill(child, 'SIGKILL');
    } catch {
      // It has seen its postmaster go.
    }
  }
}

async function startRouterProcess(dsn: string): Promise<{ child: ChildProcess; port: number }> {
  const main = path.resolve('dist/cli/main.js');
  const child = spawn(process.execPath, [main, 'front', dsn, '--port', '0', '--workers', '1'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  let output = '';
  for await (const chunk of child.stdout!) {
    output += String(chunk);
    const port = /listening on 127\.0\.0\.1:(\d+)/.exec(output)?.[1];
    if (port !== undefined) return { child, port: Number(port) };
  }
  throw new Error(`the router has not started: ${output}`);
}

describe('after SIGKILL', () => {
  it.each([
    { name: 'of the server, writes merged,', coalesce: true },
    { name: 'of the server, writes pipelined,', coalesce: false },
  ])('$name what was told is true', { timeout: 60_000 + ROUNDS * 20_000 }, async ({ coalesce }) => {
    const server = await startServer();
    const dsn = server.dsn({ user: 'app', database: 'app' });
    const router = await startFront(
      dsn,
      { host: '127.0.0.1', port: 0, connections: undefined, coalesce, workers: undefined },
      { info() {}, warn() {}, error: (line) => console.error(line) },
    );
    onTestFinished(() => router.close());
    const load = new Load();
    for (let round = 0; round < ROUNDS; round++) {
      const running = load.run(router.port);
      await load.answered(ANSWERS + Math.floor(Math.random() * 100));
      killAll(server);
      await running;
      await server.restart();
      await served(router.port);
      await load.check(server);
    }
    console.log(`${load.answers} answers, ${load.unknownCount} unknown:`, Object.fromEntries(load.codes));
    expect(load.codes.get('!08007')).toBeGreaterThan(0);
    expect(load.codes.get('!23505 writes_pkey')).toBeGreaterThan(0);
  });

  it('of the router, what was told is true', { timeout: 60_000 + ROUNDS * 20_000 }, async () => {
    const server = await startServer();
    const load = new Load();
    for (let round = 0; round < ROUNDS; round++) {
      const { child, port } = await startRouterProcess(server.dsn({ user: 'app', database: 'app' }));
      const running = load.run(port);
      await load.answered(ANSWERS + Math.floor(Math.random() * 100));
      child.kill('SIGKILL');
      await running;
      // What the server had already been given it still carries out.
      await until(server, `SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'app'`);
      await load.check(server);
    }
    console.log(`${load.answers} answers, ${load.unknownCount} unknown:`, Object.fromEntries(load.codes));
    expect(load.unknownCount).toBeGreaterThan(0);
  });
});
