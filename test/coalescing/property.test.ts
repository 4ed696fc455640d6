/**
 * Many clients write at random through a router that merges or pipelines their writes: every answer, and the tables at the end, are those
 * of a serial order that PostgreSQL could have chosen. COALESCING_SEED repeats a run, as far as the timing of several
 * clients can be repeated.
 */
import pg from 'pg';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startTestCluster } from '../support/router.ts';
import { startTestFront } from './front.ts';
import { checkIncrements, checkKey } from './history.ts';
import { COUNTERS, type History, KEYS, runWorkload, workloadSchema } from './workload.ts';

const CLIENTS = 24;
const STEPS = Number(process.env.COALESCING_STEPS ?? 150);

const seed = Number(process.env.COALESCING_SEED ?? 20_261_122);

describe('clients that write at random', () => {
  it.each([
    { name: 'before one server, merged,', coalesce: true },
    { name: 'before one server, each write by itself,', coalesce: false },
  ])('$name are answered as in a serial order', { timeout: 120_000 }, async ({ coalesce }) => {
    console.log(`COALESCING_SEED=${seed}`);
    const front = await startTestFront({
      coalesce,
      schema: `SET ROLE app; ${workloadSchema(() => '', true).join('; ')}`,
    });
    onTestFinished(() => front.stop());
    const admin = await front.connectDirectly();
    await fill(admin);
    const history = await runWorkload({
      connect: front.connect,
      port: front.router.port,
      clients: CLIENTS,
      steps: STEPS,
      seed,
      secondKey: true,
    });
    await check(history, admin, true);
    const [row] = await front.server.query(
      `SELECT deadlocks::int, xact_commit::int AS commits FROM pg_stat_database WHERE datname = 'app'`,
    );
    expect(row!.deadlocks).toBe(0);
    const { rows } = await admin.query(
      'SELECT count(DISTINCT xmin::text)::int AS batches, count(*)::int AS rows FROM stamps',
    );
    if (coalesce) expect(rows[0].batches).toBeLessThan(rows[0].rows);
    else expect(rows[0].batches).toBe(rows[0].rows);
  });

  it('to sharded tables are answered as in a serial order', { timeout: 120_000 }, async () => {
    console.log(`COALESCING_SEED=${seed}`);
    const cluster = await startTestCluster({ nodes: 2 });
    onTestFinished(() => cluster.stop());
    const connect = async (settings: pg.ClientConfig = {}): Promise<pg.Client> => {
      const client = new pg.Client({ connectionString: cluster.dsn(), ...settings });
      client.on('error', () => {});
      onTestFinished(() => client.end().catch(() => {}));
      await client.connect();
      return client;
    };
    const admin = await connect();
    const door = (key: string) => `WITH (postern.door = 'sharded', postern.key = '${key}')`;
    for (const text of workloadSchema(door, false)) await admin.query(text);
    await fill(admin);
    const history = await runWorkload({
      connect,
      port: cluster.port,
      clients: CLIENTS,
      steps: STEPS,
      seed,
      secondKey: false,
    });
    await check(history, admin, false);
  });
});

async function fill(admin: pg.Client): Promise<void> {
  for (let id = 0; id < COUNTERS; id++)
    await admin.query('INSERT INTO counters (id, n) VALUES ($1, 0)', [id]);
  for (let index = 0; index < CLIENTS; index++)
    await admin.query('INSERT INTO chain (client, last) VALUES ($1, 1)', [index]);
}

async function check(history: History, admin: pg.Client, secondKey: boolean): Promise<void> {
  console.log(`${history.statements} statements: ${JSON.stringify(Object.fromEntries(history.outcomes))}`);
  expect(history.violations).toEqual([]);
  for (let id = 0; id < COUNTERS; id++) {
    const { rows } = await admin.query('SELECT n FROM counters WHERE id = $1', [id]);
    const increments = history.increments.get(id) ?? [];
    expect(checkIncrements(increments, rows[0].n), `counter ${id}`).toBeUndefined();
  }
  for (let k = 0; k < KEYS; k++) {
    const { rows } = await admin.query('SELECT owner FROM claims WHERE k = $1', [k]);
    expect(checkKey(history.claims.get(k) ?? [], rows[0]?.owner), `key ${k}`).toBeUndefined();
    if (!secondKey) continue;
    const others = await admin.query('SELECT owner FROM claims WHERE other = $1', [1000 + k]);
    expect(checkKey(history.claims.get(1000 + k) ?? [], others.rows[0]?.owner), `other ${k}`).toBeUndefined();
  }
  for (const kind of ['OK', '!57014', '!23505 claims_pkey', '!23514 counters_n_check', '!22P02', '!22003'])
    expect([...history.outcomes.keys()]).toContain(kind);
}
