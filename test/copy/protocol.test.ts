/** COPY … FROM STDIN message by message, in both protocols: a router and one PostgreSQL answer the same. */
import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Message, RawClient, run } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connect, rowsOf } from './copy-pair.ts';

let cluster: TestCluster;
let direct: pg.Client;
let routed: pg.Client;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 2, settings: { max_prepared_transactions: '50' } });
  const [home] = cluster.servers;
  await home!.query('CREATE DATABASE plain OWNER app');
  direct = await connect(`postgres://app@127.0.0.1:${home!.port}/plain`);
  routed = await connect(cluster.dsn());
  await direct.query('CREATE TABLE t (k int8, v text)');
  await routed.query(
    "CREATE TABLE t (k int8, v text) WITH (postern.door = 'sharded', postern.key = 'k', postern.buckets = 8)",
  );
});
afterAll(async () => {
  await direct?.end();
  await routed?.end();
  await cluster?.stop();
});
beforeEach(async () => {
  for (const client of [direct, routed]) await client.query('DELETE FROM t');
});

const open = async () => [
  await RawClient.connect({ port: cluster.servers[0]!.port, database: 'plain' }),
  await RawClient.connect({ port: cluster.port }),
];

/** What each answers to the script, and the rows that it has then. */
async function expectSame(script: readonly Message[]): Promise<readonly string[]> {
  const answers: string[][] = [];
  for (const client of await open()) {
    answers.push(await client.play(script));
    client.end();
  }
  expect(answers[1]).toEqual(answers[0]);
  expect(await rowsOf(routed, 't')).toEqual(await rowsOf(direct, 't'));
  return answers[1]!;
}

const COPY = 'COPY t FROM STDIN';
const SYNC: Message = ['sync'];
const FLUSH: Message = ['flush'];
const DONE: Message = ['copyDone'];
const rows = (text: string): Message => ['copyData', text];
const COUNT = run('SELECT count(*) FROM t');

describe('the extended protocol', () => {
  test.each<[string, readonly Message[]]>([
    ['rows, and Sync behind', [...run(COPY), rows('1\ta\n'), rows('2\tb\n'), DONE, SYNC]],
    ['Sync ahead of the rows', [...run(COPY), SYNC, rows('1\ta\n'), DONE, SYNC]],
    [
      'Sync and Flush between rows',
      [...run(COPY), SYNC, rows('1\ta\n'), FLUSH, rows('2\tb\n'), SYNC, FLUSH, DONE, SYNC],
    ],
    ['empty messages', [...run(COPY), rows(''), rows('1\ta\n'), rows(''), DONE, SYNC]],
    ['no rows', [...run(COPY), DONE, SYNC]],
    ['no Describe', [['parse', 's', COPY], ['bind', 'p', 's'], ['execute', 'p'], rows('1\ta\n'), DONE, SYNC]],
    [
      'a limit of rows',
      [['parse', '', COPY], ['bind', '', ''], ['execute', '', 1], rows('1\ta\n2\tb\n'), DONE, SYNC],
    ],
    [
      'the same statement again',
      [
        ['parse', 's', COPY],
        ['bind', '', 's'],
        ['execute', ''],
        rows('1\ta\n'),
        DONE,
        SYNC,
        ['bind', '', 's'],
        ['execute', ''],
        rows('2\tb\n'),
        DONE,
        SYNC,
      ],
    ],
    ['the client gives up', [...run(COPY), rows('1\ta\n'), ['copyFail', 'no more'], SYNC, ...COUNT, SYNC]],
    ['the client gives up with nothing sent', [...run(COPY), ['copyFail', ''], ...COUNT, SYNC]],
    ['a bad row', [...run(COPY), rows('1\ta\nx\tb\n'), DONE, ...COUNT, SYNC, ...COUNT, SYNC]],
    ['a bad last row', [...run(COPY), rows('1\ta\n2'), DONE, SYNC]],
    ['a statement behind it, before Sync', [...run(COPY), rows('1\ta\n'), DONE, ...COUNT, SYNC]],
    [
      'a statement ahead of it, in one pipeline',
      [...run("INSERT INTO t VALUES (7, 'x')"), ...run(COPY), rows('1\ta\n'), DONE, SYNC],
    ],
    [
      'it fails, and takes along what is ahead of it',
      [...run("INSERT INTO t VALUES (7, 'x')"), ...run(COPY), rows('x\ta\n'), DONE, SYNC],
    ],
    [
      'a block',
      [['query', 'BEGIN'], ...run(COPY), rows('1\ta\n'), DONE, SYNC, ...COUNT, SYNC, ['query', 'COMMIT']],
    ],
    [
      'a block that is rolled back',
      [['query', 'BEGIN'], ...run(COPY), rows('1\ta\n'), DONE, SYNC, ['query', 'ROLLBACK']],
    ],
    [
      'a block that has failed by it',
      [['query', 'BEGIN'], ...run(COPY), rows('x\ta\n'), DONE, SYNC, ...COUNT, SYNC, ['query', 'COMMIT']],
    ],
    [
      'a block with a savepoint',
      [
        ['query', 'BEGIN'],
        ['query', 'SAVEPOINT s'],
        ...run(COPY),
        rows('1\ta\n'),
        ['copyFail', 'x'],
        SYNC,
        ['query', 'ROLLBACK TO s'],
        ...run(COPY),
        rows('2\tb\n'),
        DONE,
        SYNC,
        ['query', 'COMMIT'],
      ],
    ],
    ['rows without a COPY', [rows('1\ta\n'), DONE, ['copyFail', ''], ...COUNT, SYNC]],
    ['rows behind its end', [...run(COPY), rows('1\ta\n'), DONE, rows('2\tb\n'), DONE, SYNC, ...COUNT, SYNC]],
    [
      'a table that is not there',
      [...run('COPY nothing FROM STDIN'), rows('1\ta\n'), DONE, SYNC, ...COUNT, SYNC],
    ],
  ])('%s', async (_, script) => {
    await expectSame(script);
  });

  test('data that are cut anywhere', async () => {
    const data = '1\ta\\\nb\n22\tc\n';
    for (let cut = 1; cut < data.length; cut++) {
      const script = [...run(COPY), rows(data.slice(0, cut)), rows(data.slice(cut)), DONE, SYNC];
      expect(await expectSame(script)).toContain('Complete COPY 2');
    }
  });
});

describe('the simple protocol', () => {
  test.each<[string, readonly Message[]]>([
    ['Sync and Flush between rows', [['query', COPY], rows('1\ta\n'), SYNC, FLUSH, rows('2\tb\n'), DONE]],
    [
      'two in one text',
      [['query', `${COPY}; SELECT 1; ${COPY}`], rows('1\ta\n'), DONE, rows('2\tb\n'), DONE],
    ],
    ['the first of two fails', [['query', `${COPY}; ${COPY}`], rows('x\ta\n'), DONE, ['query', 'SELECT 1']]],
    [
      'the client gives up',
      [['query', COPY], rows('1\ta\n'), ['copyFail', 'no more'], ['query', 'SELECT 1']],
    ],
  ])('%s', async (_, script) => {
    await expectSame(script);
  });
});

test.each<[string, readonly Message[]]>([
  ['a Query', [['query', 'SELECT 1']]],
  ['a Parse', [['parse', '', 'SELECT 1'], SYNC]],
])('%s in the middle ends the connection', async (_, strange) => {
  for (const begin of [[['query', COPY]] as const, run(COPY)]) {
    const ends: string[][] = [];
    for (const client of await open()) {
      client.send(...begin, FLUSH);
      await client.readUntil(/^CopyIn/);
      client.send(rows('1\ta\n'), ...strange);
      ends.push((await client.readToEnd()).map((line) => line.replace(/ W=.*/, '')));
    }
    expect(ends[1]!.at(-1)).toMatch(/^Error FATAL C=08P01/);
    expect(ends[0]!.at(-1)).toMatch(/^Error FATAL C=08P01/);
  }
  expect(await rowsOf(routed, 't')).toEqual([]);
});

test('Terminate in the middle leaves nothing, on no node', async () => {
  for (const begin of [[['query', COPY]] as const, run(COPY)]) {
    const client = await RawClient.connect({ port: cluster.port });
    client.send(...begin, FLUSH);
    await client.readUntil(/^CopyIn/);
    client.send(rows('1\ta\n2\tb\n'), ['terminate']);
    expect(await client.readToEnd()).toEqual([]);
    await expect.poll(openTransactions).toBe(0);
  }
  expect(await rowsOf(routed, 't')).toEqual([]);
});

async function openTransactions(): Promise<number> {
  const query = "SELECT FROM pg_stat_activity WHERE usename = 'app' AND state LIKE '%in transaction%'";
  return (await Promise.all(cluster.servers.map((server) => server.query(query)))).flat().length;
}

test.each([
  ['simple', [['query', COPY]] as readonly Message[], 'Ready I'],
  ['extended', [...run(COPY), FLUSH], undefined],
])('a node that dies is told once to a client that sends without reading (%s)', async (_, begin, behind) => {
  const client = await RawClient.connect({ port: cluster.port });
  const block = `${Array.from({ length: 200 }, (_, i) => `${i}\t${'x'.repeat(500)}`).join('\n')}\n`;
  client.send(...begin);
  await client.readUntil(/^CopyIn/);
  let told: string[] | undefined;
  const reading = client.readUntil(/^Error/).then((lines) => {
    told = lines;
  });
  for (let sent = 0; !told && sent < 1000; sent++) {
    // Rows are on their way to it.
    if (sent === 40) {
      await expect.poll(openTransactions).toBeGreaterThan(1);
      cluster.servers[1]!.kill();
    }
    client.send(rows(block));
    await new Promise((resolve) => setImmediate(resolve));
  }
  await reading;
  expect(told).toEqual([expect.stringMatching(/^Error ERROR C=08006 M=.*n2/)]);
  client.send(DONE, SYNC);
  if (behind !== undefined) expect(await client.readUntil(/^Ready/)).toEqual([behind]);
  expect(await client.readUntil(/^Ready/)).toEqual(['Ready I']);
  await cluster.servers[1]!.restart();
  await expect.poll(() => rowsOf(routed, 't').catch(() => 'away'), { timeout: 20_000 }).toEqual([]);
  expect((await client.query('SELECT 1')).at(-1)).toBe('Ready I');
  client.end();
});
