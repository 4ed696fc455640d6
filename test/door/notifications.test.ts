/** LISTEN outside of a transaction: by one connection for all sessions, with what PostgreSQL promises a session that listens. */
import { once } from 'node:events';
import type { Socket } from 'node:net';
import fc from 'fast-check';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { type Message, RawClient, run } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient } from '../support/router-clients.ts';

const CONNECTIONS = 4;
let cluster: TestCluster;
let speaker: pg.Client;
const listeners: Listener[] = [];

beforeAll(async () => {
  cluster = await startTestCluster({ connectionsPerNode: CONNECTIONS });
  speaker = new pg.Client({ connectionString: cluster.dsn() });
  await speaker.connect();
  await speaker.query(
    `CREATE TABLE events (id int8 PRIMARY KEY) WITH (postern.door = 'sharded', postern.key = 'id', postern.buckets = 4)`,
  );
});
afterEach(async () => {
  await Promise.all(listeners.splice(0).map(({ client }) => client.end().catch(() => {})));
});
afterAll(async () => {
  await speaker?.end();
  await cluster?.stop();
});

/** A session, and what it has heard: notifications, `ended SQLSTATE`, and whatever the test notes between them. */
class Listener {
  readonly client: pg.Client;
  readonly heard: string[] = [];

  constructor(client: pg.Client) {
    this.client = client;
    client.on('notification', ({ channel, payload }) => this.heard.push(`${channel} ${payload}`));
    client.on('error', (error: Error & { code?: string }) => {
      if (error.code !== undefined) this.heard.push(`ended ${error.code}`);
    });
  }

  static async start(...statements: string[]): Promise<Listener> {
    const listener = new Listener(await connectClient(cluster));
    listeners.push(listener);
    for (const statement of statements) await listener.client.query(statement);
    return listener;
  }

  /** Once it has heard so many. */
  async told(count: number): Promise<readonly string[]> {
    await expect.poll(() => this.heard.length, { timeout: 10_000 }).toBeGreaterThanOrEqual(count);
    return this.heard;
  }
}

async function notify(...payloads: string[]): Promise<void> {
  for (const payload of payloads) await speaker.query("SELECT pg_notify('news', $1)", [payload]);
}

async function listeningBackends(node: number): Promise<number> {
  const rows = await cluster.servers[node]!.query(
    `SELECT FROM pg_stat_activity WHERE application_name = 'postern listen'`,
  );
  return rows.length;
}

test('many sessions listen, and each hears each notification, in order, from its sender', async () => {
  const many = await Promise.all(
    Array.from({ length: 10 * CONNECTIONS }, () => Listener.start('LISTEN news')),
  );
  const processIds = new Set<number>();
  many[0]!.client.on('notification', ({ processId }) => processIds.add(processId));
  await speaker.query('BEGIN');
  const { rows } = await speaker.query('SELECT pg_backend_pid() AS pid');
  await speaker.query("NOTIFY news, 'one'; NOTIFY news");
  await speaker.query('COMMIT');
  for (const listener of many) expect(await listener.told(2)).toEqual(['news one', 'news ']);
  expect([...processIds]).toEqual([rows[0].pid]);
  expect(await listeningBackends(0)).toBe(1);
  // They are ordinary sessions otherwise.
  const answers = await Promise.all(many.map(({ client }) => client.query('SELECT 1 AS one')));
  expect(answers.map((answer) => answer.rows)).toEqual(many.map(() => [{ one: 1 }]));
});

test('what is notified on another node than home is heard as well', async () => {
  const listener = await Listener.start('LISTEN news');
  const ids = Array.from({ length: 8 }, (_, i) => i + 1);
  await speaker.query('INSERT INTO events SELECT generate_series(1, 8)');
  for (const id of ids)
    await speaker.query(`SELECT pg_notify('news', current_setting('port')) FROM events WHERE id = ${id}`);
  const ports = cluster.servers.map(({ port }) => `news ${port}`);
  expect(new Set(await listener.told(8))).toEqual(new Set(ports));
});

test('inside a transaction nothing is told, and all of it after', async () => {
  const listener = await Listener.start('LISTEN news', 'BEGIN', 'SELECT 1');
  await notify('one', 'two');
  const beside = await Listener.start('LISTEN news');
  await notify('three');
  await beside.told(1);
  await listener.client.query('SELECT 1');
  expect(listener.heard).toEqual([]);
  await listener.client.query('COMMIT');
  expect(await listener.told(3)).toEqual(['news one', 'news two', 'news three']);
});

test.each([
  ['UNLISTEN news'],
  ['UNLISTEN *'],
  ['DISCARD ALL'],
  // As asyncpg and Npgsql put a connection back into their pools.
  ['SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL'],
  ['BEGIN; UNLISTEN news; COMMIT'],
  ['BEGIN', 'UNLISTEN *', 'COMMIT'],
])('%s ends it', async (...statements) => {
  const listener = await Listener.start('LISTEN news', ...statements, 'LISTEN other');
  await notify('x');
  await speaker.query('NOTIFY other');
  expect(await listener.told(1)).toEqual(['other ']);
});

test.each([['BEGIN', 'UNLISTEN *', 'ROLLBACK'], ['UNLISTEN something_else'], ['LISTEN news']])(
  '%s does not',
  async (...statements) => {
    const listener = await Listener.start('LISTEN news', ...statements);
    await notify('x');
    await notify('y');
    expect(await listener.told(2)).toEqual(['news x', 'news y']);
  },
);

test('LISTEN inside a transaction is its backend’s, from its COMMIT', async () => {
  const listener = await Listener.start('BEGIN', 'LISTEN news');
  await notify('before');
  await listener.client.query('COMMIT');
  await notify('after');
  expect(await listener.told(1)).toEqual(['news after']);
});

test('what the extended protocol is answered is what PostgreSQL answers', async () => {
  const messages: readonly (readonly Message[])[] = [
    [...run('LISTEN news'), ['sync']],
    [['parse', 's', 'LISTEN news'], ['describe', 'S', 's'], ['sync']],
    [['bind', '', 's'], ['execute', ''], ['sync']],
    [...run('UNLISTEN news'), ...run('LISTEN other'), ...run('UNLISTEN *'), ['sync']],
    [['query', 'LISTEN a; LISTEN b']],
    [['query', 'LISTEN news']],
    [['query', 'UNLISTEN *']],
  ];
  const [router, server] = await Promise.all(
    [cluster.port, cluster.servers[0]!.port].map((port) =>
      RawClient.connect({ port, user: 'app', database: 'app' }),
    ),
  );
  for (const group of messages)
    expect(await router!.exchange(group), JSON.stringify(group)).toEqual(await server!.exchange(group));
  router!.socket.destroy();
  server!.socket.destroy();
});

test.each([0, 1])('whoever may have missed something is told so: node %i', async (node) => {
  const listener = await Listener.start('LISTEN news');
  const other = await Listener.start('SELECT 1');
  await cluster.servers[node]!.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'postern listen'`,
  );
  expect(await listener.told(1)).toEqual(['ended 57P01']);
  expect((await other.client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  await other.client.query('LISTEN news');
  await notify('again');
  expect(await other.told(1)).toEqual(['news again']);
});

test('whoever leaves leaves nothing behind, also when a connection is lost while it begins to listen', async () => {
  for (let i = 0; i < 10; i++) {
    const { client } = await Listener.start('LISTEN news');
    await Promise.allSettled([
      ...['LISTEN a', 'LISTEN b', 'LISTEN c'].map((text) => client.query(text)),
      cluster.servers[i % 2]!.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'postern listen'`,
      ),
    ]);
    await client.end().catch(() => {});
  }
  const channels = () =>
    cluster.router
      .answer('metrics')
      .families.find(({ name }) => name === 'postern_notification_channels')!
      .values.map(({ value }) => value);
  await expect.poll(channels, { timeout: 10_000 }).toEqual([0]);
});

test('a node that is away holds nobody up; when it is back, who listened without it is told so', async () => {
  const [, away] = cluster.servers;
  away!.kill();
  const listener = await Listener.start('LISTEN news');
  await notify('still');
  expect(await listener.told(1)).toEqual(['news still']);
  await away!.restart();
  expect(await listener.told(2)).toEqual(['news still', 'ended 57P01']);
});

test('a session that never takes what it is told is ended, and the rest hear all', async () => {
  const deaf = await Listener.start('LISTEN news', 'BEGIN', 'SELECT 1');
  const other = await Listener.start('LISTEN news');
  const long = 'x'.repeat(7_900);
  await speaker.query(`SELECT pg_notify('news', i || $1) FROM generate_series(1, 600) i`, [long]);
  await other.told(600);
  await deaf.client.query('COMMIT').catch(() => {});
  await expect.poll(() => deaf.heard.at(-1), { timeout: 10_000 }).toBe('ended 57P01');
});

test('LISTEN hears nothing that was notified before it, and up to UNLISTEN all of it', async () => {
  const first = await Listener.start('LISTEN news');
  const { client, heard } = await Listener.start();
  const expected: string[] = [];
  for (let i = 0; i < 60; i++) {
    await notify(`before ${i}`);
    await client.query('LISTEN news');
    await notify(`between ${i}`);
    await client.query(i % 2 === 0 ? 'UNLISTEN *' : 'DISCARD ALL');
    expected.push(`news between ${i}`);
  }
  await first.told(120);
  expect(heard).toEqual(expected);
});

test('a pipeline that fails takes its LISTEN and UNLISTEN back', async () => {
  const answersOf = async (port: number) => {
    const client = await RawClient.connect({ port, user: 'app', database: 'app' });
    const told: string[] = [];
    const exchange = async (...messages: Message[]) => void told.push(...(await client.exchange(messages)));
    await exchange(['query', 'LISTEN kept']);
    await exchange(...run('LISTEN void'), ...run('UNLISTEN *'), ...run('SELECT 1/0'), ['sync']);
    await exchange(...run('LISTEN void'), ['bind', '', 'nothing'], ['sync']);
    await exchange(...run('UNLISTEN *'), ...run('LISTEN other'), ...run('LISTEN kept'), ['sync']);
    for (const channel of ['void', 'kept', 'other']) await exchange(['query', `NOTIFY ${channel}`]);
    const heard = () => told.filter((one) => one.startsWith('Notification'));
    await expect
      .poll(async () => {
        await exchange(['query', 'SELECT 1']);
        return heard();
      })
      .toEqual(['Notification kept||', 'Notification other||']);
    client.socket.destroy();
    return told.filter((one) => /^(Complete [^SN]|Error|Ready)/.test(one)).slice(0, 10);
  };
  expect(await answersOf(cluster.port)).toEqual(await answersOf(cluster.servers[0]!.port));
});

test('who still reads a large row is not ended by a notification, and hears it after', async () => {
  const reader = await Listener.start('LISTEN news');
  const { stream } = (reader.client as unknown as { connection: { stream: Socket } }).connection;
  const row = reader.client.query("SELECT repeat('x', 20000000) AS text");
  await once(stream, 'data');
  stream.pause();
  await notify('late');
  const other = await Listener.start('LISTEN news');
  await notify('later');
  await other.told(1);
  stream.resume();
  expect((await row).rows[0].text.length).toBe(20_000_000);
  expect(await reader.told(2)).toEqual(['news late', 'news later']);
});

/** One after the other, so that on one server it is clear what each session hears. */
type Step = readonly [session: number, statement: string];

const steps: fc.Arbitrary<Step> = fc.tuple(
  fc.nat(2),
  fc.oneof(
    fc.constantFrom('BEGIN', 'COMMIT', 'ROLLBACK', 'UNLISTEN *', 'DISCARD ALL', 'SELECT 1'),
    fc
      .tuple(
        fc.constantFrom('LISTEN', 'LISTEN', 'UNLISTEN', 'NOTIFY', 'NOTIFY', 'NOTIFY'),
        fc.constantFrom('a', 'b'),
      )
      .map((words) => words.join(' ')),
    fc.constantFrom(
      'LISTEN a; SELECT 1',
      'UNLISTEN a; SELECT 1/0',
      'BEGIN; UNLISTEN b; COMMIT',
      'BEGIN; LISTEN b; COMMIT',
    ),
  ),
);

/** What each session has heard of each channel, when all have heard the last there is for them. */
async function heardIn(dsn: string, script: readonly Step[]): Promise<unknown> {
  const clients = await Promise.all(
    [0, 1, 2].map(async () => {
      const client = new pg.Client({ connectionString: dsn });
      const heard: Record<string, string[]> = { a: [], b: [] };
      client.on('notification', ({ channel, payload }) => heard[channel]?.push(payload ?? ''));
      let isFenced = false;
      client.on('notification', ({ channel }) => {
        isFenced ||= channel === 'fence';
      });
      client.on('error', () => {});
      await client.connect();
      return { client, heard, isFenced: () => isFenced };
    }),
  );
  try {
    for (const [i, [session, statement]] of script.entries())
      await clients[session]!.client.query(statement.replace(/^(NOTIFY .)/, `$1, '${i}'`)).catch(() => {});
    for (const { client } of clients) {
      await client.query('ROLLBACK');
      await client.query('LISTEN fence');
    }
    await clients[0]!.client.query('NOTIFY fence');
    await expect.poll(() => clients.every(({ isFenced }) => isFenced()), { timeout: 10_000 }).toBe(true);
    // A backend of its own that listens tells what there is before it answers.
    for (const { client } of clients) await client.query('SELECT 1');
    return clients.map(({ heard }) => heard);
  } finally {
    await Promise.all(clients.map(({ client }) => client.end()));
  }
}

test('whatever is sent, each hears what it would hear of one server', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(steps, { minLength: 4, maxLength: 24 }), async (script) => {
      const expected = await heardIn(cluster.servers[0]!.dsn({ user: 'app', database: 'app' }), script);
      expect(await heardIn(cluster.dsn(), script)).toEqual(expected);
    }),
    { numRuns: 25 },
  );
}, 60_000);
