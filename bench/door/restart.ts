/**
 * The workers are replaced, one after the other, while clients work: each sends 12 statements a second whatever the answers take
 * (reads, updates and inserts by key, transactions over both nodes), and others connect, ask, and leave. What is told is how many
 * transactions failed and how many connections were refused, which has to be none; and the 99th percentile of the latency, from the
 * intended start, during the restarts by that just before them.
 */
import pg from 'pg';
import type { RouterProcess } from '../../test/support/router-process.ts';
import { makeEvents, startDoorStage } from './stage.ts';

const NODES = 2;
const WORKERS = 2;
const STAYING = 24;
const COMING = 4;
const PACE_MS = 80;
const KEYS = 500;
const BEFORE_MS = 5_000;
/** Behind each restart, and part of it: what is slow at first is slow then. */
const REST_MS = 1_000;

interface Window {
  readonly latenciesMs: number[];
  transactions: number;
  failed: number;
  refused: number;
}

export async function run(quick: boolean): Promise<Record<string, number>> {
  const { router, dsn, stop } = await startDoorStage(NODES, {
    workers: WORKERS,
    log: { connections: false },
  });
  try {
    await makeEvents(dsn, KEYS);
    return await restartUnderLoad({ router, dsn, restarts: quick ? 2 : 6 });
  } finally {
    await stop();
  }
}

async function restartUnderLoad(of: {
  readonly router: RouterProcess;
  readonly dsn: string;
  readonly restarts: number;
}): Promise<Record<string, number>> {
  const { router, dsn, restarts } = of;
  const load = { isOver: false, window: newWindow() };
  const running = [
    ...Array.from({ length: STAYING }, (_, i) => stay(dsn, i, load)),
    ...Array.from({ length: COMING }, () => comeAndGo(dsn, load)),
  ];
  await sleep(2_000);
  load.window = newWindow();
  await sleep(BEFORE_MS);
  const before = load.window;
  load.window = newWindow();
  const beganMs = performance.now();
  for (let i = 0; i < restarts; i++) {
    await router.restart();
    await sleep(REST_MS);
  }
  const tookMs = performance.now() - beganMs - restarts * REST_MS;
  const during = load.window;
  load.isOver = true;
  await Promise.all(running);
  return {
    restart_failed: during.failed,
    restart_refused: during.refused,
    restart_p99: p99(during) / p99(before),
    restart_seconds_per_worker: tookMs / 1_000 / restarts / WORKERS,
  };
}

interface Load {
  isOver: boolean;
  window: Window;
}

/** One connection, with a pace of its own: a statement that is late doesn't make the next one's latency shorter. */
async function stay(dsn: string, seed: number, load: Load): Promise<void> {
  const client = new pg.Client(dsn);
  client.on('error', () => {});
  await client.connect();
  let intendedMs = performance.now() + (seed * PACE_MS) / STAYING;
  for (let i = seed; !load.isOver; i++) {
    await sleep(intendedMs - performance.now());
    const failed = await step(client, i).then(
      () => 0,
      () => 1,
    );
    const { window } = load;
    window.latenciesMs.push(performance.now() - intendedMs);
    window.transactions++;
    window.failed += failed;
    intendedMs += PACE_MS;
  }
  await client.end();
}

async function step(client: pg.Client, i: number): Promise<void> {
  const id = 1 + ((i * 7_919) % KEYS);
  const update = { name: 'update', text: 'UPDATE events SET note = $2 WHERE id = $1' };
  if (i % 4 === 0)
    await client.query({ name: 'read', text: 'SELECT note FROM events WHERE id = $1', values: [id] });
  else if (i % 4 === 1) await client.query({ ...update, values: [id, `n${i}`] });
  else if (i % 4 === 2)
    await client.query(`INSERT INTO events (id, note) VALUES (${KEYS + i}, 'y') ON CONFLICT DO NOTHING`);
  else {
    await client.query('BEGIN');
    // In one order for all, so that nobody waits in a circle.
    for (const key of [id, id + 1].sort((a, b) => a - b))
      await client.query({ ...update, values: [key, 'both'] });
    await client.query('COMMIT');
  }
}

async function comeAndGo(dsn: string, load: Load): Promise<void> {
  while (!load.isOver) {
    const client = new pg.Client(dsn);
    client.on('error', () => {});
    try {
      await client.connect();
      await client.query('SELECT 1');
      await client.end();
    } catch {
      load.window.refused++;
    }
    await sleep(PACE_MS);
  }
}

function newWindow(): Window {
  return { latenciesMs: [], transactions: 0, failed: 0, refused: 0 };
}

function p99({ latenciesMs }: Window): number {
  const sorted = [...latenciesMs].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length * 0.99)]!;
}

function sleep(ms: number): Promise<void> {
  return ms > 0 ? new Promise((resolve) => setTimeout(resolve, ms)) : Promise.resolve();
}
