/**
 * A node stands still (SIGSTOP of all its processes) for 30 s, 8 s with --quick: once one that is not home, once home. Clients of the
 * other nodes read, update and insert by key, and commit transactions over both of those nodes, each client 50 statements a second
 * whatever the answers take; clients of the frozen node keep trying. What is told is the 99th percentile of the others' latency,
 * from the intended start, during the pause by that just before it; and how many of their statements failed.
 */
import pg from 'pg';
import { freeze, thaw } from '../../test/support/frozen-server.ts';
import type { TestServer } from '../../test/support/servers.ts';
import { makeEvents, startDoorStage } from './stage.ts';

const NODES = 3;
const OTHERS = 12;
const STRUCK = 6;
const PACE_MS = 20;
const KEYS = 2_000;
const KEYS_PER_NODE = 50;

const READ = { name: 'read', text: 'SELECT note FROM events WHERE id = $1' };
const UPDATE = { name: 'update', text: 'UPDATE events SET note = $2 WHERE id = $1' };
const INSERT = {
  name: 'insert',
  text: 'INSERT INTO events (id, note) VALUES ($1, $2) ON CONFLICT DO NOTHING',
};

interface Window {
  readonly latenciesMs: number[];
  failures: number;
}

export async function run(quick: boolean): Promise<Record<string, number>> {
  const { servers, dsn, stop } = await startDoorStage(NODES);
  try {
    const keys = await prepare(dsn, servers);
    return {
      ...(await pause({ name: 'node', frozen: 1, dsn, servers, keys, quick })),
      ...(await pause({ name: 'home', frozen: 0, dsn, servers, keys, quick })),
    };
  } finally {
    for (const server of servers) thaw(server);
    await stop();
  }
}

/** By node, keys that live there. */
async function prepare(dsn: string, servers: readonly TestServer[]): Promise<number[][]> {
  await makeEvents(dsn, KEYS);
  return await Promise.all(
    servers.map(async (server) => {
      const direct = new pg.Client(server.dsn({ database: 'app' }));
      await direct.connect();
      const { rows: leaves } = await direct.query(
        `SELECT c.oid::regclass AS leaf FROM pg_class c WHERE c.relnamespace = 'postern_leaves'::regnamespace
           AND relname LIKE 'events%' AND relkind = 'r'`,
      );
      const text = leaves.map(({ leaf }) => `SELECT id::int FROM ${leaf}`).join(' UNION ALL ');
      const { rows } = await direct.query(`${text} LIMIT ${KEYS_PER_NODE}`);
      await direct.end();
      return rows.map((row) => Number(row.id));
    }),
  );
}

async function pause(options: {
  readonly name: string;
  readonly frozen: number;
  readonly dsn: string;
  readonly servers: readonly TestServer[];
  readonly keys: readonly (readonly number[])[];
  readonly quick: boolean;
}): Promise<Record<string, number>> {
  const { name, frozen, dsn, servers, keys, quick } = options;
  const live = keys.filter((_, node) => node !== frozen);
  const others = await Promise.all(Array.from({ length: OTHERS }, () => Client.connect(dsn)));
  const struck = await Promise.all(Array.from({ length: STRUCK }, () => Client.connect(dsn)));
  const all = [...others, ...struck];
  try {
    for (const [i, client] of others.entries())
      client.start(live[i % live.length]!, live[(i + 1) % live.length]!);
    for (const client of struck) client.start(keys[frozen]!, keys[frozen]!);
    await measure(others, 3_000);
    const before = await measure(others, quick ? 4_000 : 15_000);
    freeze(servers[frozen]!);
    const during = await measure(others, quick ? 8_000 : 30_000);
    thaw(servers[frozen]!);
    return {
      [`frozen_${name}_p99`]: p99(during) / p99(before),
      [`frozen_${name}_failed`]: during.failures,
    };
  } finally {
    thaw(servers[frozen]!);
    await Promise.all(all.map((client) => client.end()));
  }
}

async function measure(clients: readonly Client[], forMs: number): Promise<Window> {
  const window: Window = { latenciesMs: [], failures: 0 };
  for (const client of clients) client.window = window;
  await new Promise((resolve) => setTimeout(resolve, forMs));
  for (const client of clients) client.window = undefined;
  return window;
}

function p99({ latenciesMs }: Window): number {
  const sorted = [...latenciesMs].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length * 0.99)]!;
}

/** One client with a pace of its own: a statement that is late doesn't make the next one's latency shorter. */
class Client {
  window: Window | undefined;
  readonly #client: pg.Client;
  #running: Promise<void> | undefined;
  #ended = false;

  private constructor(client: pg.Client) {
    this.#client = client;
  }

  static async connect(dsn: string): Promise<Client> {
    const client = new pg.Client(dsn);
    client.on('error', () => {});
    await client.connect();
    return new Client(client);
  }

  start(keys: readonly number[], beside: readonly number[]): void {
    this.#running = this.#run(keys, beside);
  }

  async end(): Promise<void> {
    this.#ended = true;
    await this.#running;
    await this.#client.end().catch(() => {});
  }

  async #run(keys: readonly number[], beside: readonly number[]): Promise<void> {
    let intendedMs = performance.now() + Math.random() * PACE_MS;
    for (let i = 0; !this.#ended; i++) {
      const waitMs = intendedMs - performance.now();
      if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
      let failed = false;
      await this.#step(i, keys[i % keys.length]!, beside[i % beside.length]!).catch(() => {
        failed = true;
      });
      this.window?.latenciesMs.push(performance.now() - intendedMs);
      if (failed && this.window) this.window.failures++;
      intendedMs += PACE_MS;
      // Whoever waited for seconds does not make up for all of it.
      if (performance.now() - intendedMs > 1_000) intendedMs = performance.now();
    }
  }

  async #step(i: number, key: number, other: number): Promise<void> {
    if (i % 4 === 0) await this.#client.query({ ...READ, values: [key] });
    else if (i % 4 === 1) await this.#client.query({ ...UPDATE, values: [key, `n${i}`] });
    else if (i % 4 === 2 || i % 16 !== 3) await this.#client.query({ ...INSERT, values: [key, 'y'] });
    else await this.#transaction(key, other);
  }

  async #transaction(key: number, other: number): Promise<void> {
    try {
      await this.#client.query('BEGIN');
      // In one order for all, so that nobody waits in a circle.
      for (const id of [Math.min(key, other), Math.max(key, other)])
        await this.#client.query({ ...UPDATE, values: [id, 'both'] });
      await this.#client.query('COMMIT');
    } catch (error) {
      await this.#client.query('ROLLBACK').catch(() => {});
      throw error;
    }
  }
}
