/** Large rows, large parameters, many rows, COPY of many rows; readers that stop; a thousand idle clients. */
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient } from '../support/raw-client.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient } from '../support/router-clients.ts';
import { RouterProcess } from '../support/router-process.ts';

const MIB = 1024 * 1024;

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startTestCluster();
});
afterAll(() => cluster?.stop());

describe('volume', () => {
  it('passes rows and parameters of 10 MB', async () => {
    const client = await connectClient(cluster);
    await client.query(
      'CREATE TABLE big (id int8 PRIMARY KEY, v text) WITH (postern.door = $$sharded$$, postern.key = $$id$$)'.replaceAll(
        '$$',
        "'",
      ),
    );
    await client.query('CREATE TABLE home_big (id int, v bytea)');
    const text = 'ü0123456789'.repeat(MIB);
    await client.query('INSERT INTO big VALUES ($1, $2)', [1, text]);
    const { rows } = await client.query('SELECT v FROM big WHERE id = $1', [1]);
    expect(rows[0].v === text).toBe(true);
    const bytes = Buffer.alloc(10 * MIB, 'postern');
    await client.query('INSERT INTO home_big VALUES (1, $1)', [bytes]);
    const { rows: home } = await client.query('SELECT v FROM home_big');
    expect(bytes.equals(home[0].v)).toBe(true);
  });

  it('passes a million rows', async () => {
    const raw = await RawClient.connect({ port: cluster.port });
    const lines = await raw.query("SELECT i, 'row ' || i FROM generate_series(1, 1000000) i");
    expect(lines.length).toBe(1_000_003);
    expect(lines[1_000_000]).toBe('Row 1000000|row 1000000');
    expect(lines[1_000_001]).toBe('Complete SELECT 1000000');
    raw.end();
  });

  it('copies a million rows in and out', async () => {
    const raw = await RawClient.connect({ port: cluster.port });
    await raw.query('CREATE TABLE copied (id int, v text)');
    raw.send(['query', 'COPY copied FROM STDIN']);
    await raw.readUntil(/^CopyIn/);
    for (let i = 0; i < 100; i++) {
      const part = Array.from(
        { length: 10_000 },
        (_, j) => `${i * 10_000 + j}\tsome text of row ${j}\n`,
      ).join('');
      raw.send(['copyData', part]);
    }
    raw.send(['copyDone']);
    expect(await raw.readUntil(/^Ready/)).toEqual(['Complete COPY 1000000', 'Ready I']);
    raw.send(['query', 'COPY copied TO STDOUT']);
    const lines = await raw.readUntil(/^Ready/);
    expect(lines.filter((line) => line.startsWith('CopyData')).length).toBe(1_000_000);
    expect(lines.at(-2)).toBe('Complete COPY 1000000');
    raw.end();
  });
});

describe('memory of the router', () => {
  it.each([
    ['rows', 'SELECT repeat($$x$$, 1000) FROM generate_series(1, 300000)'],
    ['COPY data', 'COPY (SELECT repeat($$x$$, 1000) FROM generate_series(1, 300000)) TO STDOUT'],
  ])('does not grow with %s that a client does not read, and nobody else waits', async (_name, text) => {
    const router = await RouterProcess.start(cluster.routerOptions.nodes);
    try {
      const slow = await RawClient.connect({ port: router.port });
      const other = new pg.Client({ host: '127.0.0.1', port: router.port, user: 'app', database: 'app' });
      await other.connect();
      const answerOther = async (): Promise<void> => {
        for (let i = 0; i < 200; i++) await other.query('SELECT count(*) FROM generate_series(1, 20000)');
      };
      // The heap takes some tens of megabytes until it has found its size, whatever a slow client does.
      await answerOther();
      const before = await router.residentBytes();
      slow.socket.pause();
      slow.send(['query', text]);
      // 300 MB would be on their way by the time that these are answered.
      await answerOther();
      expect((await router.residentBytes()) - before).toBeLessThan(40 * MIB);
      slow.socket.resume();
      await slow.readUntil(/^Ready/);
      expect(slow.dataBytes).toBeGreaterThan(300_000_000);
      expect((await router.residentBytes()) - before).toBeLessThan(80 * MIB);
      slow.end();
      await other.end();
    } finally {
      await router.stop();
    }
  });

  it('grows by less than 60 MB for a thousand idle clients', async () => {
    const router = await RouterProcess.start(cluster.routerOptions.nodes);
    try {
      const first = await RawClient.connect({ port: router.port });
      await first.query('SELECT 1');
      const before = await router.residentBytes();
      const clients: RawClient[] = [];
      for (let i = 0; i < 1000; i++) {
        const client = await RawClient.connect({ port: router.port });
        await client.query('SELECT 1');
        clients.push(client);
      }
      const grown = (await router.residentBytes()) - before;
      expect(grown).toBeLessThan(60_000_000);
      for (const client of clients) client.end();
      first.end();
    } finally {
      await router.stop();
    }
  });

  it('is not taken by what a client announces and does not send', async () => {
    const before = process.memoryUsage().rss;
    const sockets = Array.from({ length: 50 }, () => connectTcp({ host: '127.0.0.1', port: cluster.port }));
    for (const socket of sockets) {
      await once(socket, 'connect');
      socket.on('error', () => {});
    }
    const raws = await Promise.all(sockets.map(() => RawClient.connect({ port: cluster.port })));
    for (const raw of raws) raw.socket.write(Buffer.from([0x51, 0x0f, 0xff, 0xff, 0xff, 0x53]));
    const check = await RawClient.connect({ port: cluster.port });
    await check.query('SELECT 1');
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * MIB);
    for (const one of [...raws.map((raw) => raw.socket), ...sockets, check.socket]) one.destroy();
  });
});
