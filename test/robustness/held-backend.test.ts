/**
 * A backend that a session holds although nothing is under way there: one that passes over what it is sent up to a Sync, and
 * one whose transaction was begun for a statement that then goes to another node. Nobody else gets the former; the latter is
 * given up for the other, and not waited for.
 */
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { type Message, RawClient, run } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';

let cluster: TestCluster;
/** A key whose row is on the node that is not home. */
let keyAway: number;

beforeAll(async () => {
  // Whoever comes next gets the very connection that was used before.
  cluster = await startTestCluster({ nodes: 2, connectionsPerNode: 1, coalesce: false });
  const client = await RawClient.connect({ port: cluster.port });
  await client.query('CREATE TABLE plain (note text)');
  await client.query('CREATE VIEW over_plain AS SELECT note FROM plain');
  await client.query(
    `CREATE TABLE keyed (id int8 PRIMARY KEY, n int) WITH (postern.door = 'sharded', postern.key = 'id')`,
  );
  await client.query(
    `CREATE TABLE numbered (id bigserial PRIMARY KEY, n int) WITH (postern.door = 'sharded', postern.key = 'id')`,
  );
  for (let id = 1; id <= 20; id++) await client.query(`INSERT INTO keyed VALUES (${id}, 0)`);
  client.end();
  keyAway = await keyOn(cluster.servers[1]!);
});

afterAll(() => cluster?.stop());

async function keyOn(server: { readonly port: number }): Promise<number> {
  const admin = await RawClient.connect({ port: server.port, user: 'postgres' });
  const leaves = await rowsOf(
    admin,
    `SELECT relname FROM pg_class WHERE relname LIKE 'keyed\\_b%' AND relkind = 'r'`,
  );
  for (const leaf of leaves) {
    const [id] = await rowsOf(admin, `SELECT id FROM postern_leaves.${leaf}`);
    if (id === undefined) continue;
    admin.end();
    return Number(id);
  }
  throw new Error('no key is on this server');
}

async function rowsOf(client: RawClient, text: string): Promise<string[]> {
  const lines = await client.query(text);
  return lines.filter((line) => line.startsWith('Row ')).map((line) => line.slice('Row '.length));
}

/** Through the router, or to the home node. */
async function connect({ port }: { readonly port: number } = cluster): Promise<RawClient> {
  const client = await RawClient.connect({ port });
  onTestFinished(() => client.end());
  return client;
}

/** The server takes the Sync for one of the COPY, and ignores it. */
const FAILED_COPY: Message[] = [
  ...run('COPY plain FROM STDIN'),
  ['sync'],
  ['copyData', 'a row\tof too many\n'],
  ['copyDone'],
];

describe('after a COPY that has failed, all is skipped up to a Sync', () => {
  it.each([
    ['on its own node', () => 'SELECT 2'],
    ['on another node', () => `SELECT n FROM keyed WHERE id = ${keyAway}`],
    ['refused', () => 'SELECT n FROM keyed WHERE id = $1'],
    ['a write', () => 'INSERT INTO numbered (n) VALUES (1)'],
  ])('what would be %s', async (_where, text) => {
    await compare(async (client) => {
      client.send(...FAILED_COPY);
      const lines = await client.readUntil(/^Error/);
      client.send(['query', text()], ['sync'], ['query', 'SELECT 3']);
      lines.push(...(await client.readUntil(/^Row 3/)), ...(await client.readUntil(/^Ready/)));
      return lines;
    });
  });

  it.each([
    ['vanishes', (client: RawClient) => client.socket.destroy()],
    ['takes its leave', (client: RawClient) => client.end()],
  ])('which the next client is spared when its client %s', async (_how, leave) => {
    const one = await connect();
    one.send(...FAILED_COPY);
    await one.readUntil(/^Error/);
    leave(one);
    await expectNextToWork();
  });
});

describe('what comes right behind a COPY FROM STDIN', () => {
  it.each<[string, Message[]]>([
    ['Syncs, simple', [['query', 'COPY plain FROM STDIN'], ['sync'], ['sync'], ['copyDone']]],
    ['Syncs', [...run('COPY plain FROM STDIN'), ['sync'], ['sync'], ['copyDone'], ['sync']]],
    ['a Sync, and the COPY is refused when it has begun', [...run('COPY over_plain FROM STDIN'), ['sync']]],
    ['a Sync, and the COPY is refused before', [...run('COPY nowhere FROM STDIN'), ['sync']]],
  ])('means what it does to a server: %s', async (_what, messages) => {
    await compare(async (client) => {
      client.send(...messages);
      const lines = await client.readUntil(/^(Complete|Error)/);
      // What is too much would be met here.
      lines.push(...(await client.readUntil(/^Ready/)));
      for (const text of ['SELECT 3', 'BEGIN', 'ROLLBACK']) lines.push(...(await client.query(text)));
      return lines;
    });
  });

  it('ends the connection if it is a Query, and the next client is spared', async () => {
    const client = await connect();
    client.send(...run('COPY plain FROM STDIN'), ['sync'], ['query', 'SELECT 1'], ['copyDone']);
    client.send(['query', `SELECT n FROM keyed WHERE id = ${keyAway}`]);
    expect((await client.readToEnd()).at(-1)).toMatch(/^Error FATAL C=08P01/);
    await expectNextToWork();
  });
});

/** Asks a server and the router, and expects the same of both. */
async function compare(talk: (client: RawClient) => Promise<string[]>): Promise<void> {
  const direct = await talk(await connect(cluster.servers[0]));
  expect(await talk(await connect())).toEqual(direct);
}

async function expectNextToWork(): Promise<void> {
  const next = await connect();
  for (const note of ['a', 'b'])
    expect(await next.exchange([...run('SELECT $1::text', [note]), ['sync']])).toContain(`Row ${note}`);
  expect(await next.query(`SELECT 'c'`)).toContain('Row c');
  await next.query(`SET app.tenant = 'next'`);
  expect(await next.query(`SELECT current_setting('app.tenant')`)).toContain('Row next');
}

it('a first statement that fails, and would go to another node when it is tried again as it came, is told its error', async () => {
  const client = await connect();
  // More often than a text is looked at before its literals are lifted.
  for (let i = 0; i < 6; i++) await client.query(`INSERT INTO numbered (n) VALUES ('${i}')`);
  for (let i = 0; i < 6; i++) {
    expect(await client.query('BEGIN')).toEqual(['Complete BEGIN', 'Ready T']);
    expect(await client.query(`INSERT INTO numbered (n) VALUES ('not a number')`)).toEqual([
      expect.stringMatching(/^Error ERROR C=22P02 M=invalid input syntax for type integer: "not a number"/),
      'Ready E',
    ]);
    expect(await client.query('ROLLBACK')).toEqual(['Complete ROLLBACK', 'Ready I']);
  }
});
