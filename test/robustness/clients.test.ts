/** Clients that don't do their part: half a packet, no reading, backends kept. Each is bounded, and costs the others nothing. */
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import { startRouter } from '../../src/cli/router.ts';
import { FrameWriter } from '../../src/wire/frame-writer.ts';
import { encodeExecute, encodeParse, encodeQuery, encodeTerminate } from '../../src/wire/frontend.ts';
import { encodeStartup } from '../../src/wire/startup.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value } from '../support/router-clients.ts';

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 1 });
});

afterAll(() => cluster.stop());

/** Another router over the same node. */
async function routerWith(options: {
  acquireTimeoutMs?: number;
  loginTimeoutMs?: number;
  connectionsPerNode?: number;
}) {
  const router = await startRouter({
    ...cluster.routerOptions,
    listen: { host: '127.0.0.1', port: 0 },
    ...options,
  });
  onTestFinished(() => router.close());
  return {
    router,
    port: router.port,
    dsn: (user = 'app') => `postgres://${user}@127.0.0.1:${router.port}/app`,
  };
}

function bytesOf(write: (writer: FrameWriter) => void): Buffer {
  const writer = new FrameWriter(1024);
  write(writer);
  return Buffer.from(writer.take());
}

const STARTUP = bytesOf((writer) =>
  encodeStartup(writer, [
    ['user', 'app'],
    ['database', 'app'],
  ]),
);

async function connectRaw(port: number): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port });
  socket.on('error', () => {});
  onTestFinished(() => void socket.destroy());
  await new Promise<void>((resolve) => socket.once('connect', () => resolve()));
  return socket;
}

async function loggedIn(port: number): Promise<Socket> {
  const socket = await connectRaw(port);
  socket.write(STARTUP);
  await new Promise<void>((resolve) => {
    socket.on('data', (chunk: Buffer) => {
      if (chunk.includes(Buffer.from('Z\0\0\0\u0005I', 'latin1'))) resolve();
    });
  });
  socket.removeAllListeners('data');
  return socket;
}

it.each([
  ['nothing', Buffer.alloc(0)],
  ['half a start-up packet', STARTUP.subarray(0, STARTUP.length - 5)],
  [
    'a start-up packet and half a SASL message',
    Buffer.concat([
      Buffer.from(STARTUP.toString('latin1').replace('user\0app', 'user\0xyz'), 'latin1'),
      Buffer.from('p\0\0\0', 'latin1'),
    ]),
  ],
])('who sends %s is closed at the login time-out', async (_what, bytes) => {
  const { router, port } = await routerWith({ loginTimeoutMs: 300 });
  const socket = await connectRaw(port);
  if (bytes.length > 0) socket.write(bytes);
  socket.resume();
  await new Promise<void>((resolve) => socket.on('close', () => resolve()));
  expect(router.clientCount).toBe(0);
});

it('sessions that keep all backends: the next one hears 53300 and what to do', async () => {
  const limited = await routerWith({ acquireTimeoutMs: 500, connectionsPerNode: 2 });
  const keepers = await Promise.all([connectClient(limited), connectClient(limited)]);
  for (const keeper of keepers) await keeper.query('CREATE TEMP TABLE kept (x int)');
  const next = await connectClient({ dsn: limited.dsn }).catch((error) => error);
  // Whether the login or its first statement has to wait for a backend is the router's business.
  const refused = next instanceof Error ? next : await next.query('SELECT 1').catch((error: Error) => error);
  expect(refused).toMatchObject({ code: '53300', hint: expect.stringContaining('backend of their own') });
  await keepers[0]!.end();
  const after = await connectClient(limited);
  await expect.poll(() => value(after, 'SELECT 1')).toBe(1);
});

it('who sends without end and reads nothing is stopped, and the memory stays', {
  timeout: 60_000,
}, async () => {
  const beside = await connectClient(cluster);
  const before = process.memoryUsage().rss;
  const texts = [
    bytesOf((writer) => encodeQuery(writer, `SELECT repeat('x', 2000)`)),
    bytesOf((writer) => encodeQuery(writer, 'SET TRANSACTION READ WRITE')),
    bytesOf((writer) => encodeParse(writer, '', 'SELECT 1', [])),
    bytesOf((writer) => encodeExecute(writer, 'nothing', 0)),
  ];
  for (const text of texts) {
    const batch = Buffer.concat(Array.from({ length: 500 }, () => text));
    const socket = await loggedIn(cluster.port);
    socket.pause();
    let bytes = 0;
    // Until the router takes no more, or has taken what it could only have skipped.
    while (bytes < 64 * 1024 * 1024) {
      bytes += batch.length;
      if (socket.write(batch)) continue;
      const stalled = await Promise.race([
        new Promise<boolean>((resolve) => socket.once('drain', () => resolve(false))),
        new Promise<boolean>((resolve) => setTimeout(() => resolve(true), 1_000)),
      ]);
      if (stalled || socket.destroyed) break;
    }
    expect(await value(beside, 'SELECT 1')).toBe(1);
    socket.destroy();
  }
  expect(process.memoryUsage().rss - before).toBeLessThan(200 * 1024 * 1024);
  await expect.poll(() => cluster.router.clientCount, { timeout: 20_000 }).toBe(1);
  await expect.poll(busyBackends, { timeout: 20_000 }).toBe(0);
});

it.each([
  ['a pipeline without its Sync', [bytesOf((writer) => encodeParse(writer, '', 'SELECT 42', []))]],
  ['a COPY without its rows', [bytesOf((writer) => encodeQuery(writer, 'COPY taken FROM STDIN'))]],
])('Terminate behind %s ends the session', async (_what, frames) => {
  const client = await connectClient(cluster);
  await client.query('CREATE TABLE IF NOT EXISTS taken (x int)');
  await client.end();
  const socket = await loggedIn(cluster.port);
  socket.resume();
  socket.write(Buffer.concat([...frames, bytesOf(encodeTerminate)]));
  await new Promise<void>((resolve) => socket.on('close', () => resolve()));
  await expect.poll(() => cluster.router.clientCount, { timeout: 10_000 }).toBe(0);
  await expect.poll(busyBackends, { timeout: 10_000 }).toBe(0);
});

async function busyBackends(): Promise<number> {
  const [row] = await cluster.servers[0]!.query(
    `SELECT count(*)::int AS n FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'`,
  );
  return Number(row!.n);
}
