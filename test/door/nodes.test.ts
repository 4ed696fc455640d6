/**
 * Nodes that freeze, are killed, are full or read-only, or lack connections: what uses such a node hears a clear error, at once
 * where it can be known, and clients of the other nodes notice nothing. A router starts without a node, and without home it waits.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setImmediate } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { startRouter } from '../../src/cli/router.ts';
import type { RouterOptions } from '../../src/cli/router-options.ts';
import { serverAccount } from '../../src/embedded/account.ts';
import { freeze, thaw } from '../support/frozen-server.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { connectClient, value } from '../support/router-clients.ts';

const HEALTH = { intervalMs: 250, unresponsiveAfterMs: 1_500, cutAfterMs: 3_000 };
const POLL = { timeout: 20_000, interval: 50 };
const READ = 'SELECT note FROM events WHERE id = $1';

let cluster: TestCluster;
const lines: string[] = [];
/** By node, from 0: a key that lives there. */
const keys: number[] = [];

const log = {
  info: (message: string) => void lines.push(`info ${message}`),
  warn: (message: string) => void lines.push(`warn ${message}`),
  error: (message: string) => void lines.push(`error ${message}`),
};

beforeAll(async () => {
  cluster = await startTestCluster({
    nodes: 3,
    settings: { max_connections: '60' },
    router: { health: HEALTH, log },
  });
  const client = new pg.Client(cluster.dsn());
  await client.connect();
  await client.query('CREATE TABLE home (id int PRIMARY KEY)');
  await client.query(
    `CREATE TABLE events (id bigint PRIMARY KEY, note text) WITH (postern.door = 'sharded', postern.key = 'id')`,
  );
  await client.query(`INSERT INTO events SELECT id, 'x' FROM generate_series(1, 200) AS id`);
  await client.end();
  for (const [node, server] of cluster.servers.entries())
    keys[node] = await aKeyOn(server.dsn({ database: 'app' }));
}, 120_000);

afterAll(() => cluster?.stop());

async function aKeyOn(dsn: string): Promise<number> {
  const direct = new pg.Client(dsn);
  await direct.connect();
  const { rows } = await direct.query(
    `SELECT c.oid::regclass AS leaf FROM pg_class c WHERE c.relnamespace = 'postern_leaves'::regnamespace
       AND relname LIKE 'events%' AND relkind = 'r' AND pg_relation_size(c.oid) > 0`,
  );
  const { rows: found } = await direct.query(`SELECT id::int FROM ${rows[0].leaf} LIMIT 1`);
  await direct.end();
  return found[0].id;
}

/** The whole error. */
async function errorOf(client: pg.Client, text: string, parameters: unknown[]): Promise<pg.DatabaseError> {
  return await client.query(text, parameters).then(
    () => Promise.reject(new Error(`${text} did not fail`)),
    (error) => error,
  );
}

async function direct(node: number, text: string): Promise<void> {
  const client = new pg.Client(cluster.servers[node]!.dsn({ database: 'app' }));
  await client.connect();
  for (const statement of text.split(';')) await client.query(statement);
  await client.end();
}

/** Of n2's key, once the router uses the node again. */
async function valueWhenBack(client: pg.Client): Promise<unknown> {
  await expect.poll(() => value(client, READ, [keys[1]]), POLL).not.toMatch(/^!/);
  return await value(client, READ, [keys[1]]);
}

/** Until the router uses the node again. */
async function isBack(client: pg.Client, node: number): Promise<void> {
  await expect.poll(() => value(client, READ, [keys[node]]), POLL).toBe('x');
}

describe('a node that freezes', () => {
  it('is told at once to whoever needs it, ends what waits for it in time, and holds up nobody else', async () => {
    const [waiting, writer, reader, other] = await Promise.all(
      [0, 1, 2, 3].map(() => connectClient(cluster)),
    );
    for (const one of [waiting!, writer!]) {
      await one.query('BEGIN');
      await one.query(READ, [keys[1]]);
    }
    await writer!.query('UPDATE events SET note = $2 WHERE id = $1', [keys[1], 'lost']);
    // It runs for longer than what waits for the frozen node is let be, on one that answers.
    const long = value(other!, `SELECT note FROM events, pg_sleep(4.5) WHERE id = ${keys[2]}`);
    const joined =
      'SELECT count(*)::int FROM events a JOIN events b ON a.note = b.note WHERE a.id < 3 AND b.id < 3';
    expect(await value(reader!, joined)).toBe(4);
    const overNodes = await connectClient(cluster);
    const crowd = await Promise.all(Array.from({ length: 8 }, () => connectClient(cluster)));
    await Promise.all(crowd.slice(0, 4).map((one) => value(one, READ, [keys[1]])));
    freeze(cluster.servers[1]!);
    try {
      const meshRead = value(overNodes, joined);
      const read = value(waiting!, READ, [keys[1]]);
      const commit = value(writer!, 'COMMIT');
      // Some find an idle connection, and the others wait in line for one that is being opened.
      const many = Promise.all(crowd.map((one) => value(one, READ, [keys[1]])));
      await expect
        .poll(() => lines, POLL)
        .toContain('warn node "n2" does not answer; what needs it is refused until it does');
      const refusal = await errorOf(reader!, READ, [keys[1]]);
      expect(refusal).toMatchObject({ code: '08001', message: 'node "n2" does not answer' });
      expect(refusal.detail).toMatch(/^It has answered nothing since \d{4}-\d\d-\d\dT[\d:.]+Z\.$/);
      // Merged and pipelined writes as well.
      const insert = `INSERT INTO events VALUES ($1, 'y') ON CONFLICT (id) DO NOTHING`;
      expect(await value(reader!, insert, [keys[1]])).toBe('!08001');
      for (const node of [0, 2]) {
        expect(await value(reader!, READ, [keys[node]])).toBe('x');
        expect(await value(reader!, insert, [keys[node]])).toBeUndefined();
      }
      expect(await value(reader!, 'SELECT count(*)::int FROM home')).toBe(0);
      for (const text of ['SELECT count(*) FROM events', joined])
        expect(await value(reader!, text)).toBe('!08001');
      expect(await meshRead).toBe('!08006');
      expect(await read).toBe('!08006');
      const told = await many;
      expect(new Set(told)).toEqual(new Set(['!08001', '!08006']));
      expect(await commit).toBe('!08007');
      expect(await long).toBe('x');
    } finally {
      thaw(cluster.servers[1]!);
    }
    await waiting!.query('ROLLBACK');
    // What was committed into the silence may well have been: nobody said that it was not.
    expect(['x', 'lost']).toContain(await valueWhenBack(waiting!));
    await waiting!.query(`UPDATE events SET note = 'x' WHERE id = $1`, [keys[1]]);
    expect(lines.join('\n')).toMatch(
      /warn node "n2" does not answer[\s\S]*warn node "n2": connections that have waited for 3 s are given up[\s\S]*info node "n2" answers again/,
    );
  }, 60_000);

  it('that is home leaves the other nodes to their clients', async () => {
    const [client, other] = await Promise.all([connectClient(cluster), connectClient(cluster)]);
    const update = `UPDATE events SET note = 'x' WHERE id = $1 RETURNING note`;
    const goOn = async () => {
      for (const node of [1, 2])
        for (const text of [READ, update]) expect(await value(client, text, [keys[node]])).toBe('x');
    };
    await goOn();
    freeze(cluster.servers[0]!);
    try {
      await expect.poll(() => value(other, 'SELECT count(*)::int FROM home'), POLL).toBe('!08001');
      await goOn();
      // What nobody has sent before is described by home: refused at once, and not only when its time is up.
      expect(await value(client, 'SELECT upper(note) FROM events WHERE id = $1', [keys[1]])).toBe('!08001');
      // A role that is known gets in.
      const another = await connectClient(cluster);
      expect(await value(another, READ, [keys[1]])).toBe('x');
    } finally {
      thaw(cluster.servers[0]!);
    }
    await expect.poll(() => value(other, 'SELECT count(*)::int FROM home'), POLL).toBe(0);
  }, 60_000);
});

describe('a router that stands still', () => {
  it('takes no node for silent, and ends nothing, however long', async () => {
    const client = await connectClient(cluster);
    const from = lines.length;
    const long = value(client, `SELECT note FROM events, pg_sleep(5.5) WHERE id = ${keys[1]}`);
    await setImmediate();
    // Once for longer than what waits for a silent node is let be, and then with one turn between.
    const nothing = new Int32Array(new SharedArrayBuffer(4));
    for (const ms of [HEALTH.cutAfterMs + 500, 700, 700, 700]) {
      Atomics.wait(nothing, 0, 0, ms);
      await setImmediate();
    }
    expect(await long).toBe('x');
    for (const node of [0, 1, 2]) expect(await value(client, READ, [keys[node]])).toBe('x');
    expect(lines.slice(from).filter((line) => /does not answer|given up/.test(line))).toEqual([]);
  }, 60_000);
});

describe('a node that is there and can’t do what is asked', () => {
  it('since it is read-only says so itself, and others go on', async () => {
    const client = await connectClient(cluster);
    const update = `UPDATE events SET note = 'x' WHERE id = $1 RETURNING note`;
    await direct(1, 'ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()');
    onTestFinished(async () => {
      await direct(1, 'ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()');
      const writer = await connectClient(cluster);
      await expect.poll(() => value(writer, update, [keys[1]]), POLL).toBe('x');
    });
    await expect.poll(() => value(client, update, [keys[1]]), POLL).toBe('!25006');
    expect(await value(client, READ, [keys[1]])).toBe('x');
    expect(await value(client, update, [keys[2]])).toBe('x');
  });

  it('since its connections are used up says so itself, and is not taken for frozen', async () => {
    const client = await connectClient(cluster);
    const taken: pg.Client[] = [];
    const free = () => Promise.all(taken.splice(0).map((one) => one.end().catch(() => {})));
    onTestFinished(async () => void (await free()));
    const take = async (): Promise<boolean> => {
      const one = new pg.Client(cluster.servers[2]!.dsn({ database: 'app' }));
      one.on('error', () => {});
      return await one.connect().then(
        () => taken.push(one) > 0,
        () => false,
      );
    };
    await take();
    await expect
      .poll(async () => {
        // The router's own as well, so that it needs another one.
        await taken[0]!.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'`);
        while (await take());
        return (await errorOf(client, READ, [keys[2]])).message;
      }, POLL)
      .toMatch(/node "n3": (sorry, too many clients already|remaining connection slots are reserved)/);
    expect(await errorOf(client, READ, [keys[2]])).toMatchObject({ code: '53300' });
    for (const node of [0, 1]) expect(await value(client, READ, [keys[node]])).toBe('x');
    await free();
    await isBack(client, 2);
  }, 60_000);

  it.skipIf(process.getuid?.() !== 0)('since its disk is full says so itself, and others go on', async () => {
    const directory = fs.mkdtempSync('/tmp/postern-full-');
    if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', directory]).status !== 0) return;
    onTestFinished(() => {
      spawnSync('umount', ['-l', directory]);
      fs.rmSync(directory, { recursive: true, force: true });
    });
    const space = path.join(directory, 'space');
    fs.mkdirSync(space);
    const account = serverAccount();
    if (account) fs.chownSync(space, account.uid, account.gid);
    await direct(1, `CREATE TABLESPACE small LOCATION '${space}'`);
    const client = await connectClient(cluster);
    const admin = new pg.Client(cluster.servers[1]!.dsn({ database: 'app' }));
    await admin.connect();
    onTestFinished(() => admin.end());
    const { rows } = await admin.query(
      `SELECT c.oid::regclass AS leaf FROM pg_class c WHERE c.relnamespace = 'postern_leaves'::regnamespace
         AND relname LIKE 'events%' AND relkind = 'r'`,
    );
    for (const { leaf } of rows) await admin.query(`ALTER TABLE ${leaf} SET TABLESPACE small`);
    const grow = `UPDATE events SET note = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 100000) i) WHERE id = $1`;
    expect(await value(client, grow, [keys[1]])).toBe('!53100');
    expect(await value(client, READ, [keys[1]])).toBe('x');
    expect(await value(client, `UPDATE events SET note = 'x' WHERE id = $1 RETURNING note`, [keys[2]])).toBe(
      'x',
    );
    for (const { leaf } of rows) await admin.query(`ALTER TABLE ${leaf} SET TABLESPACE pg_default`);
    await admin.query('DROP TABLESPACE small');
  });
});

describe('a router that starts', () => {
  const options = (more: Partial<RouterOptions> = {}): RouterOptions => ({
    ...cluster.routerOptions,
    listen: { host: '127.0.0.1', port: 0 },
    ...more,
  });

  it('while a node is away serves the others, and joins it when it is back', async () => {
    cluster.servers[2]!.kill();
    const second = await startRouter(options());
    onTestFinished(() => second.close());
    const through = { dsn: (user = 'app') => `postgres://${user}@127.0.0.1:${second.port}/app` };
    const client = await connectClient(through);
    expect(await value(client, READ, [keys[0]])).toBe('x');
    expect(await value(client, READ, [keys[1]])).toBe('x');
    expect(await errorOf(client, READ, [keys[2]])).toMatchObject({
      code: '08001',
      message: 'node "n3" has not been there since this router started',
    });
    await cluster.servers[2]!.restart();
    await isBack(client, 2);
    expect(lines.join('\n')).toMatch(
      /warn node "n3" is not there; it is joined when it is[\s\S]*info node "n3" is there, and was joined/,
    );
    await isBack(await connectClient(cluster), 2);
  }, 60_000);

  it('with a node that was never there says so', async () => {
    const dsn = cluster.servers[2]!.dsn({ database: 'app' }).replace(/:\d+\//, ':1/');
    const nodes = [...cluster.routerOptions.nodes, { name: 'n4', dsn }];
    await expect(startRouter(options({ nodes }))).rejects.toMatchObject({
      sqlState: '08001',
      message: expect.stringContaining('node "n4" cannot be reached'),
    });
  });

  it('without home waits for it as long as it is told to', async () => {
    cluster.servers[0]!.kill();
    const start = (startupMs: number) => startRouter(options({ health: { ...HEALTH, startupMs } }));
    await expect(start(300)).rejects.toMatchObject({
      sqlState: '08001',
      message: expect.stringContaining('node "n1" cannot be reached'),
    });
    const started = start(30_000);
    await cluster.servers[0]!.restart();
    const second = await started;
    onTestFinished(() => second.close());
    const through = { dsn: (user = 'app') => `postgres://${user}@127.0.0.1:${second.port}/app` };
    expect(await value(await connectClient(through), 'SELECT count(*)::int FROM home')).toBe(0);
  }, 60_000);
});
