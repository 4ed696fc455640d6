/**
 * Attacks on the router's port, one kind after the other, each by a process of its own (attack-load.ts): connections that never log in,
 * guessed cancel keys, rubbish, wrong passwords, large messages that never end, statements without the right to them. Others read and
 * insert by key meanwhile, each 50 statements a second whatever the answers take. What is told is the 99th percentile of their latency
 * while the router is attacked, by that while the same process attacks a server that throws everything away: what an attack takes of
 * a machine that attacker and router share is in both. And how many of the others' statements failed.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import pg from 'pg';
import { RouterProcess } from '../../test/support/router-process.ts';
import { startTestServer } from '../../test/support/servers.ts';
import { makeEvents } from './stage.ts';

const KINDS = ['silent', 'cancels', 'rubbish', 'passwords', 'drip', 'statements'];
const LOAD = join(import.meta.dirname, 'attack-load.ts');
const OTHERS = 12;
const PASSWORD_VARIABLE = 'POSTERN_BENCH_PASSWORD';
const PACE_MS = 20;
const ROWS = 1_000;
/** Until the attack is what it will be. */
const RAMP_MS = { quick: 1_000, whole: 2_000 };

export async function run(quick: boolean): Promise<Record<string, number>> {
  const server = await startTestServer({ settings: { max_connections: '200' } });
  let router: RouterProcess | undefined;
  const clients: Client[] = [];
  try {
    await server.query("CREATE ROLE app LOGIN PASSWORD 'app'; CREATE ROLE mallory LOGIN");
    await server.query('CREATE DATABASE app OWNER app');
    process.env[PASSWORD_VARIABLE] = 'app';
    router = await RouterProcess.start([{ name: 'n1', dsn: server.dsn({ database: 'app' }) }], {
      users: [
        { name: 'app', password_env: PASSWORD_VARIABLE },
        { name: 'mallory', trust: true },
      ],
    });
    const dsn = `postgres://app:app@127.0.0.1:${router.port}/app`;
    await makeEvents(dsn, ROWS);
    for (let i = 0; i < OTHERS; i++) clients.push(await Client.start(dsn));
    const figures: Record<string, number> = {};
    for (const kind of KINDS) {
      const before = await attacked(kind, 0, { clients, quick });
      const during = await attacked(kind, router.port, { clients, quick });
      figures[`attack_${kind}_p99`] = p99(during) / p99(before);
      figures[`attack_${kind}_added_ms`] = p99(during) - p99(before);
      figures[`attack_${kind}_failed`] = during.failures;
    }
    return figures;
  } finally {
    await Promise.all(clients.map((client) => client.end()));
    await router?.stop();
    await server.stop();
  }
}

interface Window {
  readonly latenciesMs: number[];
  failures: number;
}

async function attacked(
  kind: string,
  port: number,
  { clients, quick }: { readonly clients: readonly Client[]; readonly quick: boolean },
): Promise<Window> {
  const attacker = spawn(process.execPath, ['--import', 'tsx', LOAD, kind, String(port)], {
    stdio: 'inherit',
  });
  try {
    await sleep(quick ? RAMP_MS.quick : RAMP_MS.whole);
    const window: Window = { latenciesMs: [], failures: 0 };
    for (const client of clients) client.window = window;
    await sleep(quick ? 2_000 : 10_000);
    for (const client of clients) client.window = undefined;
    if (attacker.exitCode !== null) throw new Error(`the attacker has ended: ${kind}`);
    return window;
  } finally {
    await end(attacker);
  }
}

async function end(attacker: ChildProcess): Promise<void> {
  if (attacker.exitCode !== null) return;
  const exited = once(attacker, 'exit');
  attacker.kill('SIGKILL');
  await exited;
}

function p99({ latenciesMs }: Window): number {
  const sorted = [...latenciesMs].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length * 0.99)]!;
}

function sleep(forMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, forMs));
}

/** One client with a pace of its own: a statement that is late doesn't make the next one's latency shorter. */
class Client {
  window: Window | undefined;
  readonly #client: pg.Client;
  #running: Promise<void> | undefined;
  #isEnded = false;

  private constructor(client: pg.Client) {
    this.#client = client;
  }

  static async start(dsn: string): Promise<Client> {
    const client = new pg.Client(dsn);
    client.on('error', () => {});
    await client.connect();
    const paced = new Client(client);
    paced.#running = paced.#run();
    return paced;
  }

  async #run(): Promise<void> {
    let dueMs = performance.now();
    for (let sent = 0; !this.#isEnded; sent++) {
      dueMs += PACE_MS;
      if (dueMs > performance.now()) await sleep(dueMs - performance.now());
      await this.#send(dueMs, sent % 4 === 0);
    }
  }

  async #send(dueMs: number, isWrite: boolean): Promise<void> {
    const { window } = this;
    const id = 1 + Math.floor(Math.random() * ROWS);
    try {
      await this.#client.query(
        isWrite
          ? { name: 'update', text: 'UPDATE events SET note = $2 WHERE id = $1', values: [id, 'y'] }
          : { name: 'read', text: 'SELECT note FROM events WHERE id = $1', values: [id] },
      );
    } catch {
      if (window) window.failures++;
    }
    window?.latenciesMs.push(performance.now() - dueMs);
  }

  async end(): Promise<void> {
    this.#isEnded = true;
    await this.#running;
    await this.#client.end();
  }
}
