/**
 * Routers and nodes killed while several clients write to a table with unique values off the shard key: when all prepared
 * transactions have been settled, the table and what is kept of its values agree exactly, and nothing is there twice. LOOKUP_ROUNDS.
 */
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startTestServer, type TestServer } from '../support/servers.ts';
import { BankRouter } from '../txn/bank-processes.ts';
import { checkLookups } from './agreement.ts';

const ROUNDS = Number(process.env.LOOKUP_ROUNDS ?? 2);
const CLIENTS = 8;
/** Answers before each kill. */
const ANSWERS = 30;
/** So that what was left is settled soon. */
const TIMES = { recoveryAfterMs: 1_000, recoveryIntervalMs: 200, sweepIntervalMs: 400, leftAloneMs: 200 };

let servers: TestServer[];

beforeAll(async () => {
  servers = await Promise.all(Array.from({ length: 3 }, () => startTestServer({ durable: true })));
  for (const server of servers) {
    await server.query('CREATE ROLE app LOGIN');
    await server.query('CREATE DATABASE app OWNER app');
  }
});
afterAll(() => Promise.all(servers.map((server) => server.stop())));

const nodes = () => servers.map((server, i) => ({ name: `n${i + 1}`, dsn: server.dsn({ database: 'app' }) }));

class Load {
  readonly codes = new Map<string, number>();
  #answers = 0;
  #ends = false;
  #onAnswer: () => void = () => {};

  async run(port: () => number): Promise<void> {
    await Promise.all(Array.from({ length: CLIENTS }, (_, client) => this.#write(client, port)));
  }

  end(): void {
    this.#ends = true;
  }

  async answered(count: number): Promise<void> {
    const goal = this.#answers + count;
    while (this.#answers < goal)
      await new Promise<void>((resolve) => {
        this.#onAnswer = resolve;
      });
  }

  async #write(index: number, port: () => number): Promise<void> {
    for (let step = index; !this.#ends; ) {
      const client = new pg.Client({ host: '127.0.0.1', port: port(), user: 'app', database: 'app' });
      client.on('error', () => {});
      try {
        await client.connect();
        for (; !this.#ends; step += 7) await this.#one(client, step);
      } catch {
        // A router that is gone, or not there yet.
        await new Promise((resolve) => setImmediate(resolve));
      } finally {
        await client.end().catch(() => {});
      }
    }
  }

  async #one(client: pg.Client, step: number): Promise<void> {
    const id = step % 60;
    const email = `e${(step * 13) % 45}`;
    const texts = [
      `INSERT INTO t VALUES (${id}, '${email}')`,
      `UPDATE t SET email = '${email}' WHERE id = ${id}`,
      `DELETE FROM t WHERE id = ${id}`,
      `UPDATE t SET id = ${(id + 17) % 60} WHERE id = ${id}`,
    ];
    try {
      if (step % 5 === 0) await client.query(`BEGIN; ${texts[step % 4]}; ${texts[(step + 1) % 4]}; COMMIT`);
      else await client.query(texts[step % 4]!);
    } catch (error) {
      const { code } = error as { code?: string };
      this.codes.set(code ?? 'lost', (this.codes.get(code ?? 'lost') ?? 0) + 1);
      await client.query('ROLLBACK');
      if (code === undefined || !/^[0-9A-Z]{5}$/.test(code)) throw error;
    } finally {
      this.#answers++;
      this.#onAnswer();
    }
  }
}

async function prepared(): Promise<number> {
  const counts = await Promise.all(
    servers.map((server) => server.query('SELECT count(*)::int AS n FROM pg_prepared_xacts')),
  );
  return counts.reduce((sum, [row]) => sum + Number(row!.n), 0);
}

it('agree, whatever was killed', async () => {
  const router = new BankRouter(0);
  await router.start({ nodes: nodes(), faults: {}, times: TIMES });
  const first = new pg.Client({ host: '127.0.0.1', port: router.port, user: 'app', database: 'app' });
  await first.connect();
  await first.query(
    `CREATE TABLE t (id int PRIMARY KEY, email text UNIQUE) WITH (postern.door = 'sharded', postern.key = 'id')`,
  );
  await first.end();
  for (let round = 0; round < ROUNDS; round++) {
    const load = new Load();
    const running = load.run(() => router.port);
    await load.answered(ANSWERS);
    if (round % 2 === 0) await router.kill();
    else {
      servers[round % 3]!.kill();
      await servers[round % 3]!.restart();
    }
    if (!router.isAlive) await router.start({ nodes: nodes(), faults: {}, times: TIMES });
    await load.answered(ANSWERS);
    load.end();
    await running;
    await expect.poll(prepared, { timeout: 30_000, interval: 100 }).toBe(0);
    expect(await checkLookups({ servers })).toEqual([]);
    expect(load.codes.get('23505') ?? 0).toBeGreaterThan(0);
    expect(load.codes.get('XX001')).toBeUndefined();
    expect(load.codes.get('XX000')).toBeUndefined();
  }
  await router.kill();
});
