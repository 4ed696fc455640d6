/**
 * What reaches a router's port and is no client: credentials where none belong, replays, guessed cancel keys, messages that claim to be
 * huge, start-up packets that are none. Each is refused and logged, and an honest client is served all along.
 */
import { connect } from 'node:net';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { LogFields } from '../../src/observe/log.ts';
import { FrameWriter } from '../../src/wire/frame-writer.ts';
import { encodeBind, encodeExecute, encodeParse, encodeSync } from '../../src/wire/frontend.ts';
import { encodeCancelRequest, encodeSslRequest } from '../../src/wire/startup.ts';
import { Attacker, header, startUp, startUpOf, typed } from '../support/attacker.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value } from '../support/router-clients.ts';

const PASSWORD = 'correct horse battery staple';
const log: string[] = [];
let cluster: TestCluster;
let honest: pg.Client;

beforeAll(async () => {
  const note = (level: string) => (message: string, fields?: LogFields) =>
    void log.push(`${level} ${message} ${JSON.stringify(fields)}`);
  cluster = await startTestCluster({
    nodes: 1,
    users: [
      { name: 'app', password: PASSWORD },
      { name: 'postgres', password: undefined },
    ],
    router: { log: { info: note('info'), warn: note('warn'), error: note('error') } },
  });
  await cluster.servers[0]!.query('SELECT 1');
});
beforeEach(async () => {
  honest = await connectClient(cluster);
});
afterEach(async () => {
  expect(await value(honest, 'SELECT 1')).toBe(1);
});
afterAll(async () => {
  await cluster?.stop();
  // Whoever failed, and how often: nobody's secret is in it.
  expect(log.join('\n')).not.toContain(PASSWORD);
});

const bytes = (write: (writer: FrameWriter) => void): Buffer => {
  const writer = new FrameWriter();
  write(writer);
  return Buffer.from(writer.take());
};
const APP = startUp({ user: 'app', database: 'app' });
const SSL_REQUEST = bytes(encodeSslRequest);
const manyParameters = Array.from({ length: 1_000 }, (_, i) => `p${i}\0v\0`).join('');
const initial = (mechanism: string, data: string): Buffer =>
  typed(
    'p',
    Buffer.concat([Buffer.from(`${mechanism}\0`), header('', data.length).subarray(1), Buffer.from(data)]),
  );

describe('before a login', () => {
  test.each<[string, Buffer[], RegExp]>([
    ['a password at once', [typed('p', `${PASSWORD}\0`)], /^E 08P01 invalid length of startup packet$/],
    [
      'HTTP',
      [Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')],
      /^E 08P01 invalid length of startup packet$/,
    ],
    ['a length of 2 GB', [header('', 0x7fffffff).subarray(1)], /^E 08P01 invalid length/],
    ['a length below zero', [header('', 0x80000000).subarray(1)], /^E 08P01 invalid length/],
    ['a length of 4', [header('', 4).subarray(1)], /^E 08P01 invalid length/],
    [
      'a value of 10 kB',
      [startUp({ user: 'app', database: 'app', x: 'y'.repeat(10_000) })],
      /^E 08P01 invalid length/,
    ],
    ['no terminator', [startUpOf(Buffer.from('user\0app\0database\0app'))], /^E 08P01 .*terminator/],
    ['a name without a value', [startUpOf(Buffer.from('user\0app\0database\0\0'))], /^E 08P01|^R sasl/],
    ['no user', [startUp({ database: 'app' })], /^E 28000 no PostgreSQL user name/],
    ['protocol 2', [Buffer.from([0, 0, 0, 8, 0, 2, 0, 0])], /^E 0A000 unsupported frontend protocol 2\.0/],
    [
      'replication',
      [startUp({ user: 'app', database: 'app', replication: 'true' })],
      /^E 0A000 replication connections/,
    ],
    ['a query in place of the proof', [APP, typed('Q', 'SELECT 1\0')], /^E 08P01 expected SASL response/],
    ['a proof of 1 GB', [APP, header('p', 2 ** 30)], /^E 08P01/],
    ['a proof of 2 GB', [APP, header('p', 0xffffffff)], /^E 08P01/],
    ['an empty proof', [APP, header('p', 3)], /^E 08P01/],
    ['another mechanism', [APP, initial('PLAIN', `\0app\0${PASSWORD}`)], /^E 08P01/],
    ['the password in clear', [APP, typed('p', `${PASSWORD}\0`)], /^E 08P01/],
    [
      'a proof, a made-up end of it, and a query, all at once',
      [
        APP,
        initial('SCRAM-SHA-256', 'n,,n=,r=bm9uY2Ugb2YgYSB0ZXN0IQ=='),
        typed('p', `c=biws,r=bm9uY2Ugb2YgYSB0ZXN0IQ==,p=${'A'.repeat(43)}=`),
        typed('Q', 'CREATE TABLE attacked (a int)\0'),
      ],
      /^E (28P01|08P01)/,
    ],
  ])('%s', async (_, sent, expected) => {
    const logged = log.length;
    const attacker = await Attacker.open(cluster.port, ...sent);
    if (expected.test('R sasl')) await attacker.until('R sasl');
    else {
      await attacker.end();
      expect(log.slice(logged).join('\n')).toMatch(
        new RegExp(/E (\w+)/.exec(attacker.lines.at(-1)!)?.[1] ?? ''),
      );
    }
    expect(attacker.lines.at(-1)).toMatch(expected);
    expect(attacker.lines.filter((line) => /^Z|^R ok/.test(line))).toEqual([]);
    attacker.socket.destroy();
  });

  test('a thousand parameters are as many as fit, and none of them is known', async () => {
    const body = Buffer.from(`user\0postgres\0database\0app\0${manyParameters}\0`);
    expect(body.length).toBeLessThan(10_000);
    const attacker = await Attacker.open(cluster.port, startUpOf(body));
    expect((await attacker.end()).at(-1)).toMatch(/^E 42704 unrecognized configuration parameter/);
  });

  test('a thousand requests for encryption end at the second', async () => {
    const socket = connect({ host: '127.0.0.1', port: cluster.port });
    const received: Buffer[] = [];
    socket.on('data', (chunk) => received.push(chunk)).on('error', () => {});
    socket.write(SSL_REQUEST);
    await expect.poll(() => Buffer.concat(received).toString()).toBe('N');
    socket.write(Buffer.concat(Array.from({ length: 1_000 }, () => SSL_REQUEST)));
    await new Promise((resolve) => socket.once('close', resolve));
    expect(Buffer.concat(received).toString('latin1')).toMatch(/^NE.*C(08P01|0A000)/s);
  });

  test('a recorded login is worth nothing on another connection, nor on its own', async () => {
    const recorded = await Attacker.open(cluster.port);
    const { first, final } = await recorded.logIn('app', PASSWORD);
    for (const inOneGo of [false, true]) {
      const replay = await Attacker.open(cluster.port, APP);
      await replay.until('R sasl');
      if (inOneGo) replay.send(first, final);
      else {
        replay.send(first);
        await replay.until('R continue');
        replay.send(final);
      }
      expect((await replay.end()).at(-1)).toMatch(/^E (28P01|08P01)/);
    }
    recorded.send(first, final);
    expect((await recorded.end()).at(-1)).toMatch(/^E 08P01 invalid frontend message type 112/);
  });
});

describe('after a login', () => {
  test.each<[string, Buffer[]]>([
    ['a password', [typed('p', `${PASSWORD}\0`)]],
    ['a start-up packet', [APP]],
    ['a request for encryption', [SSL_REQUEST]],
    ['a cancel request', [bytes((writer) => encodeCancelRequest(writer, 1, 1))]],
    ['a type that there is not', [typed('!', 'x')]],
    ['a message of 2 GB', [header('Q', 0x7fffffff)]],
    ['a message of 4 GB', [header('Q', 0xffffffff)]],
    ['a message of 1 GB', [header('P', 2 ** 30)]],
    ['a type that there is not, of 1 MB that never come', [header('!', 2 ** 20)]],
    ['a Describe of 1 MB that never come', [header('D', 2 ** 20)]],
    ['a length of 3', [header('Q', 3)]],
    ['a length of 0', [header('S', 0)]],
    ['a query without its end', [typed('Q', 'SELECT 1')]],
    ['a Bind of 65,535 values that are not there', [typed('B', Buffer.from([0, 0, 0, 0, 0xff, 0xff]))]],
    ['a Parse of 65,535 types that are not there', [typed('P', Buffer.from([0, 0x3b, 0, 0xff, 0xff]))]],
    ['a value of −2 bytes', [typed('B', Buffer.from([0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfe, 0, 0]))]],
    ['a Describe of neither', [typed('D', 'X\0')]],
    ['a function call', [typed('F', Buffer.alloc(10))]],
  ])('%s', async (_, sent) => {
    const attacker = await Attacker.open(cluster.port);
    await attacker.logIn('app', PASSWORD);
    attacker.send(...sent);
    const logged = (await attacker.until('E')).at(-1)!;
    expect(logged).toMatch(/^E (08P01|0A000|22021) /);
    attacker.socket.end();
    await attacker.end();
  });

  test('credentials in the middle of a pipeline undo what it has begun', async () => {
    await honest.query('CREATE TABLE IF NOT EXISTS written (a int)');
    const attacker = await Attacker.open(cluster.port);
    await attacker.logIn('app', PASSWORD);
    attacker.send(
      bytes((writer) => {
        encodeParse(writer, '', 'INSERT INTO written VALUES (1)', []);
        encodeBind(writer, { portal: '', statement: '', parameters: [] });
        encodeExecute(writer, '', 0);
      }),
      typed('p', `${PASSWORD}\0`),
      bytes(encodeSync),
    );
    expect((await attacker.end()).at(-1)).toMatch(/^E 08P01 invalid frontend message type 112/);
    expect(await value(honest, 'SELECT count(*)::int FROM written')).toBe(0);
    expect(log.join('\n')).toContain('invalid frontend message type 112');
  });

  test('a message that claims 200 MB takes memory as it comes, not as it claims', async () => {
    const before = process.memoryUsage();
    const attackers = await Promise.all(Array.from({ length: 10 }, () => Attacker.open(cluster.port)));
    for (const attacker of attackers) {
      await attacker.logIn('app', PASSWORD);
      attacker.send(header('Q', 200 * 1024 * 1024), Buffer.alloc(100_000, 0x20));
    }
    expect(await value(honest, 'SELECT 1')).toBe(1);
    const after = process.memoryUsage();
    expect(after.rss - before.rss).toBeLessThan(300 * 1024 * 1024);
    for (const attacker of attackers) attacker.socket.destroy();
  });

  test('guessed cancel keys cancel nothing; the right one does', async () => {
    const victim = await Attacker.open(cluster.port);
    await victim.logIn('app', PASSWORD);
    const { processId, secretKey } = victim;
    victim.send(typed('Q', 'SELECT pg_sleep(600)\0'));
    const isAsleep = async () =>
      (await cluster.servers[0]!.query(`SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'`)).length;
    await expect.poll(isAsleep).toBe(1);
    const cancel = (id: number, key: Buffer) => bytes((writer) => encodeCancelRequest(writer, id, key));
    for (let batch = 0; batch < 10; batch++) {
      const guesses = Array.from({ length: 100 }, (_, i) => {
        const key = Buffer.from(secretKey);
        key.writeInt32BE((key.readInt32BE(0) + 1 + batch * 100 + i) | 0, 0);
        // Some with a length of their own, or for sessions that are not there.
        const id = i % 3 === 0 ? processId + i : processId;
        return Attacker.open(cluster.port, cancel(id, i % 5 === 0 ? Buffer.concat([key, key]) : key));
      });
      for (const guess of await Promise.all(guesses)) expect(await guess.end()).toEqual([]);
    }
    expect(await isAsleep()).toBe(1);
    await Attacker.open(cluster.port, cancel(processId, secretKey));
    expect(await victim.until('E')).toContain('E 57014 canceling statement due to user request');
    victim.socket.destroy();
  });
});

/** Of observe/client-log.ts: so many lines of a kind at once, and so many a second. */
const LINES = { burst: 200, perSecond: 50 };

test('a flood of rubbish is a bounded number of lines in the log, and keeps nobody out', async () => {
  const logged = log.length;
  const startedAtMs = performance.now();
  for (let batch = 0; batch < 10; batch++) {
    const flood = await Promise.all(
      Array.from({ length: 100 }, () => Attacker.open(cluster.port, header('Q', 0xffffffff))),
    );
    const client = await connectClient(cluster);
    expect(await value(client, 'SELECT 1')).toBe(1);
    await Promise.all(flood.map((attacker) => attacker.end()));
  }
  const seconds = (performance.now() - startedAtMs) / 1_000;
  const refusals = log.slice(logged).filter((line) => line.includes('invalid length of startup packet'));
  expect(refusals.length).toBeGreaterThan(0);
  expect(refusals.length).toBeLessThanOrEqual(LINES.burst + LINES.perSecond * (seconds + 1));
});
