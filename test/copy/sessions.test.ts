/** COPY in the life of a session: transactions, scripts, both protocols, clients that give up, and nodes that do. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connect, copyIn, copyOut, errorOf } from './copy-pair.ts';

const PSQL = '/usr/lib/postgresql/15/bin/psql';
let cluster: TestCluster;
let client: pg.Client;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 2, settings: { max_prepared_transactions: '50' } });
  client = await connect(cluster.dsn());
  await client.query(
    "CREATE TABLE t (k int8 PRIMARY KEY, v text) WITH (postern.door = 'sharded', postern.key = 'k', postern.buckets = 8)",
  );
  await client.query(
    `CREATE TABLE rates (id bigserial PRIMARY KEY, code text UNIQUE, at timestamptz DEFAULT clock_timestamp(), r float8 DEFAULT random())
     WITH (postern.door = 'reference')`,
  );
  await client.query('CREATE TABLE single (k int8, v text)');
});
afterAll(async () => {
  await client?.end();
  await cluster?.stop();
});

async function count(of = client, table = 't'): Promise<number> {
  const { rows } = await of.query(`SELECT count(*)::int AS n FROM ${table}`);
  return rows[0].n;
}

const lines = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) => `${from + i}\tv${from + i}\n`).join('');

describe('transactions', () => {
  test('a COPY is part of its transaction, on all nodes', async () => {
    await client.query('BEGIN');
    await client.query("INSERT INTO t VALUES (-1, 'before')");
    expect(await copyIn(client, 'COPY t FROM STDIN', [lines(0, 100)])).toEqual({ rows: 100 });
    expect(await count()).toBe(101);
    await client.query('SAVEPOINT s');
    expect(await copyIn(client, 'COPY t FROM STDIN', [lines(50, 60)])).toMatchObject({ code: '23505' });
    await expect(client.query('SELECT 1')).rejects.toMatchObject({ code: '25P02' });
    await client.query('ROLLBACK TO s');
    expect(await copyIn(client, 'COPY t FROM STDIN', [lines(200, 210)])).toEqual({ rows: 10 });
    await client.query('COMMIT');
    expect(await count()).toBe(111);
    await client.query('DELETE FROM t');
  });

  test('outside of one it is all or nothing', async () => {
    expect(await copyIn(client, 'COPY t FROM STDIN', [lines(0, 5000), '17\tagain\n'])).toMatchObject({
      code: '23505',
    });
    expect(await count()).toBe(0);
    for (const server of cluster.servers)
      expect(await server.query('SELECT FROM pg_prepared_xacts')).toEqual([]);
  });

  test('in a query string with others', async () => {
    const script = "INSERT INTO t VALUES (1000, 'a'); COPY t FROM STDIN; SELECT count(*) FROM t";
    const running = promisify(execFile)(PSQL, [cluster.dsn(), '-Atc', script]);
    running.child.stdin!.end(lines(0, 3));
    expect((await running).stdout).toBe('INSERT 0 1\nCOPY 3\n4\n');
    expect(await count()).toBe(4);
    await client.query('DELETE FROM t');
  });
});

describe('clients', () => {
  test('psql', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'postern-copy-'));
    try {
      await writeFile(join(folder, 'rows.csv'), '1,"a\nb"\n2,c\n');
      const psql = (command: string) => promisify(execFile)(PSQL, [cluster.dsn(), '-Atc', command]);
      expect((await psql(`\\copy t from '${folder}/rows.csv' csv`)).stdout).toBe('COPY 2\n');
      expect((await psql('\\copy (SELECT v FROM t ORDER BY k) to stdout csv')).stdout).toBe('"a\nb"\nc\n');
      const failed = await psql(`\\copy t from '${folder}/rows.csv' csv`).catch((error) => error.stderr);
      expect(failed).toContain('duplicate key value violates unique constraint "t_pkey"');
      expect(failed).toMatch(/CONTEXT: {2}COPY t, line 1\n/);
      await writeFile(join(folder, 'script.sql'), 'BEGIN;\nCOPY t FROM stdin;\n7\tx\n8\ty\n\\.\nCOMMIT;\n');
      await promisify(execFile)(PSQL, [cluster.dsn(), '-f', join(folder, 'script.sql')]);
      expect(await count()).toBe(4);
    } finally {
      await rm(folder, { recursive: true });
      await client.query('DELETE FROM t');
    }
  });

  test('postgres.js', async () => {
    const sql = postgres(cluster.dsn(), { max: 1 });
    const writable = await sql`COPY t (k, v) FROM STDIN`.writable();
    for (let i = 0; i < 10; i++) writable.write(lines(i * 10, i * 10 + 10));
    writable.end();
    await new Promise((resolve, reject) => writable.on('finish', resolve).on('error', reject));
    const chunks: Buffer[] = [];
    for await (const chunk of await sql`COPY (SELECT k FROM t WHERE k < 5) TO STDOUT`.readable())
      chunks.push(chunk);
    expect(Buffer.concat(chunks).toString().split('\n').sort().join(' ')).toBe(' 0 1 2 3 4');
    await sql.end();
    expect(await count()).toBe(100);
    await client.query('DELETE FROM t');
  });

  test('that gives up', async () => {
    const stream = client.query(copyFrom('COPY t FROM STDIN'));
    stream.write(lines(0, 1000));
    const error = new Promise((resolve) => stream.on('error', resolve));
    stream.destroy(new Error('no more'));
    await error;
    expect(await count()).toBe(0);
  });

  test('that cancels', async () => {
    const other = await connect(cluster.dsn());
    const stream = other.query(copyFrom('COPY t FROM STDIN'));
    const failed = new Promise((resolve) => stream.on('error', (error) => resolve(errorOf(error))));
    stream.write(lines(0, 1000));
    const { processID, secretKey } = other as unknown as { processID: number; secretKey: number };
    const cancel = await import('node:net').then(({ connect: open }) => open(cluster.port, '127.0.0.1'));
    const request = Buffer.alloc(16);
    for (const [i, word] of [16, 80877102, processID, secretKey].entries()) request.writeInt32BE(word, 4 * i);
    await expect.poll(async () => (await openTransactions()) > 0).toBe(true);
    cancel.end(request);
    expect(await failed).toMatchObject({ code: '57014', message: 'canceling statement due to user request' });
    expect(await count(other)).toBe(0);
    await other.end();
  });

  test('that goes away', async () => {
    const other = await connect(cluster.dsn());
    const stream = other.query(copyFrom('COPY t FROM STDIN'));
    stream.on('error', () => {});
    stream.write(lines(0, 1000));
    await expect.poll(async () => (await openTransactions()) > 0).toBe(true);
    (other as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
    await expect.poll(openTransactions).toBe(0);
    expect(await count()).toBe(0);
  });
});

async function openTransactions(): Promise<number> {
  const found = await Promise.all(
    cluster.servers.map((server) =>
      server.query("SELECT FROM pg_stat_activity WHERE usename = 'app' AND state LIKE '%in transaction%'"),
    ),
  );
  return found.flat().length;
}

describe('other tables', () => {
  test('a reference table gets the same rows on each node, whatever is left out', async () => {
    expect(await copyIn(client, 'COPY rates (code) FROM STDIN', ['eur\nusd\nchf'])).toEqual({ rows: 3 });
    expect(await copyIn(client, 'COPY rates (code) FROM STDIN CSV HEADER', ['code\n"a,b"\n'])).toEqual({
      rows: 1,
    });
    expect(await copyIn(client, 'COPY rates (code) FROM STDIN', ['gbp\neur\n'])).toMatchObject({
      code: '23505',
      where: 'COPY rates, line 2',
    });
    const copies = await Promise.all(
      cluster.servers.map(({ port }) =>
        connect(`postgres://app@127.0.0.1:${port}/app`).then(async (node) => {
          const { rows } = await node.query('SELECT * FROM rates ORDER BY id');
          await node.end();
          return rows;
        }),
      ),
    );
    expect(copies[0]).toHaveLength(4);
    expect(copies[1]).toEqual(copies[0]);
    expect(String(await copyOut(client, 'COPY (SELECT code FROM rates ORDER BY id) TO STDOUT'))).toBe(
      'eur\nusd\nchf\na,b\n',
    );
  });

  test('a single table passes through', async () => {
    expect(await copyIn(client, 'COPY single FROM STDIN', [lines(0, 10)])).toEqual({ rows: 10 });
    expect(String(await copyOut(client, 'COPY single (k) TO STDOUT')).split('\n')).toHaveLength(11);
  });
});

test('a node that dies in the middle takes the COPY with it, and nothing stays', async () => {
  const own = await startTestCluster({ nodes: 2, settings: { max_prepared_transactions: '50' } });
  try {
    const other = await connect(own.dsn());
    await other.query(
      "CREATE TABLE t (k int8, v text) WITH (postern.door = 'sharded', postern.key = 'k', postern.buckets = 8)",
    );
    const stream = other.query(copyFrom('COPY t FROM STDIN'));
    const failed = new Promise<Record<string, unknown>>((resolve) =>
      stream.on('error', (error) => resolve(errorOf(error))),
    );
    let at = 0;
    const filler = 'x'.repeat(500);
    const more = (): boolean =>
      stream.write(Array.from({ length: 1000 }, () => `${at++}\t${filler}\n`).join(''));
    for (let i = 0; i < 20; i++) if (!more()) await new Promise((resolve) => stream.once('drain', resolve));
    own.servers[1]!.kill();
    let isOver = false;
    void failed.then(() => {
      isOver = true;
    });
    // Its client goes on sending, as fast as it is read.
    while (!isOver) {
      if (!stream.writableNeedDrain) more();
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect((await failed).code).toMatch(/^08/);
    await own.servers[1]!.restart();
    await expect.poll(() => count(other, 't').catch(() => -1), { timeout: 20_000 }).toBe(0);
    await other.end();
  } finally {
    await own.stop();
  }
});
