/** What becomes of clients, transactions and statements that take too long, wherever they wait. */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { type RouterTimeouts, TIMEOUTS } from '../../src/admission/limits.ts';
import { type Router, startRouter } from '../../src/cli/router.ts';
import type { RouterOptions } from '../../src/cli/router-options.ts';
import { type Message, RawClient, run } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value } from '../support/router-clients.ts';

let cluster: TestCluster;
/** Over the same nodes, with short time-outs. */
let short: Timed;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 2 });
  const client = new pg.Client({ connectionString: cluster.dsn() });
  await client.connect();
  await client.query(
    "CREATE TABLE events (id int8 PRIMARY KEY, n int) WITH (postern.door = 'sharded', postern.key = 'id')",
  );
  await client.query('INSERT INTO events SELECT i, 0 FROM generate_series(1, 40) i');
  await client.end();
  short = await startTimed({ idle: 400, idleInTransaction: 400, statement: 400, stalled: 500 });
});
afterAll(async () => {
  await short?.router.close();
  await cluster?.stop();
});

interface Timed {
  readonly router: Router;
  readonly port: number;
  dsn(user?: string): string;
}

async function startTimed(
  timeouts: Partial<RouterTimeouts>,
  more: Partial<RouterOptions> = {},
): Promise<Timed> {
  const router = await startRouter({
    ...cluster.routerOptions,
    ...{ listen: { host: '127.0.0.1', port: 0 }, timeouts: { ...TIMEOUTS, ...timeouts }, ...more },
  });
  return {
    router,
    port: router.port,
    dsn: (user = 'app') => `postgres://${user}@127.0.0.1:${router.port}/app`,
  };
}

async function routerWith(...of: Parameters<typeof startTimed>): Promise<Timed> {
  const timed = await startTimed(...of);
  onTestFinished(() => timed.router.close());
  return timed;
}

/** What the router says before it closes. */
async function lastWords(timed: { readonly port: number }, ...messages: readonly Message[]): Promise<string> {
  const client = await RawClient.connect({ port: timed.port });
  onTestFinished(() => void client.socket.destroy());
  if (messages.length > 0) client.send(...messages);
  const lines = await client.readUntil(/FATAL/);
  await expect.poll(() => client.closed).toBe(true);
  return lines.at(-1)!;
}

/** Transactions of the role that are open and idle, over both nodes. */
async function idleTransactions(): Promise<number> {
  const text = `SELECT count(*)::int AS n FROM pg_stat_activity WHERE state LIKE 'idle in tr%' AND usename = 'app'`;
  const counts = await Promise.all(cluster.servers.map((server) => server.query(text)));
  return counts.reduce((sum, [row]) => sum + (row!.n as number), 0);
}

const failure = (work: Promise<unknown>) =>
  work.then(
    () => expect.unreachable('it was carried out'),
    (error: pg.DatabaseError) => `${error.code} ${error.message}`,
  );

const CANCELED = '57014 canceling statement due to statement timeout';

describe('a client', () => {
  it('that is idle is closed, and one that works is not', async () => {
    const busy = await connectClient(short);
    const worked = busy.query('BEGIN').then(() => busy.query('SELECT pg_sleep(0.1)'));
    const words = /57P05.*terminating connection due to idle-session timeout/;
    expect(
      await Promise.all([lastWords(short), lastWords(short, ['query', 'CREATE TEMP TABLE kept (x int)'])]),
    ).toEqual([expect.stringMatching(words), expect.stringMatching(words)]);
    await worked;
  });

  it('may have a shorter time-out of its own', async () => {
    const [idle, open] = await Promise.all([
      lastWords(cluster, ['query', `SET idle_session_timeout = '300ms'`]),
      lastWords(cluster, ['query', `SET idle_in_transaction_session_timeout = '300ms'`], ['query', 'BEGIN']),
    ]);
    expect(idle).toContain('57P05');
    expect(open).toContain('25P03');
  });

  it('that has one keeps it to itself: no server ends a connection by it that others share', async () => {
    const pids = () =>
      Promise.all(
        cluster.servers.map((server) =>
          server.query("SELECT pid FROM pg_stat_activity WHERE usename = 'app' ORDER BY pid"),
        ),
      );
    const own = await connectClient(cluster);
    own.on('error', () => {});
    const closed = new Promise<void>((resolve) => own.once('end', () => resolve()));
    await own.query(`SET idle_session_timeout = '250ms'`);
    await own.query('SELECT n FROM events WHERE id = 1');
    await own.query('UPDATE events SET n = n WHERE id = 2');
    const before = await pids();
    expect(before.flat().length).toBeGreaterThan(0);
    await closed;
    const other = await connectClient(cluster);
    await other.query('SELECT pg_sleep(0.4)');
    expect(await pids()).toEqual(before);
    expect(await value(other, 'SHOW idle_session_timeout')).toBe('0');
  });

  it('that leaves a transaction open is closed, and the transaction rolled back', async () => {
    const cases: Message[][] = [
      // No node knows of it; one has it; it has failed; it is on two; it is a pipeline without its end.
      [['query', 'BEGIN']],
      [['query', 'BEGIN; UPDATE events SET n = 1 WHERE id = 1']],
      [
        ['query', 'BEGIN'],
        ['query', 'SELECT 1/0'],
      ],
      [
        ['query', 'BEGIN'],
        ['query', 'UPDATE events SET n = 1 WHERE id > 2'],
      ],
      [...run('UPDATE events SET n = 1 WHERE id = 2'), ['flush']],
    ];
    const words = 'terminating connection due to idle-in-transaction timeout';
    const all = await Promise.all(cases.map((messages) => lastWords(short, ...messages)));
    expect(all).toEqual(cases.map(() => expect.stringMatching(`25P03.*${words}`)));
    await expect.poll(idleTransactions).toBe(0);
    expect(await value(await connectClient(cluster), 'SELECT sum(n)::int FROM events')).toBe(0);
  });

  it('that takes none of its rows for too long is closed', async () => {
    const client = await RawClient.connect({ port: short.port });
    onTestFinished(() => void client.socket.destroy());
    client.socket.pause();
    client.send(['query', `SELECT repeat('x', 100000) FROM generate_series(1, 500)`]);
    await expect.poll(() => short.router.clientCount).toBe(0);
  });
});

describe('a statement', () => {
  it('that runs too long is canceled wherever it is, and its client goes on', async () => {
    const runs = [
      'SELECT pg_sleep(5)',
      'SELECT pg_sleep(5) FROM events',
      'INSERT INTO events SELECT 1000, 1 FROM pg_sleep(5)',
    ].map(async (text) => {
      const client = await connectClient(short);
      expect(await failure(client.query(text))).toBe(CANCELED);
      expect(await failure(client.query(text, []))).toBe(CANCELED);
      expect(await value(client, 'SELECT 1')).toBe(1);
      await client.query('BEGIN');
      expect(await failure(client.query(text))).toBe(CANCELED);
      expect(await value(client, 'SELECT 1')).toBe('!25P02');
      await client.query('ROLLBACK');
    });
    await Promise.all(runs);
  });

  it('counts its wait for a connection, by the router’s time-out and by the client’s own', async () => {
    const narrow = { connectionsPerNode: 2, coalesce: false };
    for (const [timeouts, setting] of [
      [{ statement: 400 }, 'SET statement_timeout = 0'],
      [{}, `SET statement_timeout = '400ms'`],
    ] as const) {
      const timed = await routerWith(timeouts, narrow);
      const [waiting, ...keepers] = await Promise.all([0, 1, 2].map(() => connectClient(timed)));
      await waiting!.query(setting);
      for (const keeper of keepers) await keeper.query('CREATE TEMP TABLE kept (x int)');
      expect(await failure(waiting!.query('SELECT 1'))).toBe(CANCELED);
    }
  });

  it('has its time for itself: many short ones that are sent together are not one long one', async () => {
    const client = await RawClient.connect({ port: short.port });
    onTestFinished(() => void client.socket.destroy());
    const sent: Message[] = [];
    for (let i = 0; i < 6; i++)
      sent.push(['query', 'SELECT pg_sleep(0.1)'], ...run('SELECT pg_sleep(0.1)'), ['sync']);
    client.send(...sent);
    for (let i = 0; i < 12; i++) expect((await client.readUntil(/^Ready/)).join()).not.toContain('Error');
  });
});
