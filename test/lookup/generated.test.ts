/**
 * Generated statements of several clients, one after the other, through the router and on one PostgreSQL with the same constraints:
 * each has the same outcome, and in the end there are the same rows. LOOKUP_SEED, LOOKUP_STEPS.
 */
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { startTestServer, type TestServer } from '../support/servers.ts';
import { checkLookups } from './agreement.ts';

const SEED = Number(process.env.LOOKUP_SEED ?? 7);
const STEPS = Number(process.env.LOOKUP_STEPS ?? 250);
const CLIENTS = 3;
const COLUMNS = 'id int PRIMARY KEY, email text UNIQUE, code numeric(6,2), n int, UNIQUE (n, code)';

let cluster: TestCluster;
let alone: TestServer;

beforeAll(async () => {
  [cluster, alone] = await Promise.all([startTestCluster({ nodes: 3 }), startTestServer()]);
  await alone.query('CREATE ROLE app LOGIN');
  await alone.query('CREATE DATABASE app OWNER app');
});
afterAll(() => Promise.all([cluster?.stop(), alone?.stop()]));

/** mulberry32 */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

function statement(pick: (below: number) => number): string {
  const id = () => pick(30);
  const email = () => (pick(5) === 0 ? 'NULL' : `'e${pick(25)}'`);
  const code = () => (pick(4) === 0 ? 'NULL' : `${pick(4)}.${pick(2) === 0 ? '5' : '50'}`);
  const row = (key: number) => `(${key}, ${email()}, ${code()}, ${pick(3)})`;
  switch (pick(14)) {
    case 0:
    case 1:
    case 2:
      return `INSERT INTO t VALUES ${row(id())}`;
    case 3: {
      const first = id();
      return `INSERT INTO t VALUES ${row(first)}, ${row((first + 1) % 30)}, ${row((first + 2) % 30)}`;
    }
    case 4:
    case 5:
      return `UPDATE t SET email = ${email()} WHERE id = ${id()}`;
    case 6:
      return `UPDATE t SET code = ${code()}, n = ${pick(3)} WHERE id = ${id()}`;
    case 7:
      return `UPDATE t SET id = ${id()} WHERE id = ${id()}`;
    case 8:
      return `DELETE FROM t WHERE id = ${id()}`;
    case 9:
      return `DELETE FROM t WHERE n = ${pick(3)} AND id > ${id()}`;
    case 10:
      return `INSERT INTO t VALUES ${row(id())} ON CONFLICT (id) DO UPDATE SET email = excluded.email, n = excluded.n`;
    case 11:
      return `INSERT INTO t SELECT id + 30, email || ' copy', code, n + 10 FROM t WHERE id < ${pick(4)}`;
    case 12:
      return `DELETE FROM t WHERE id >= 30`;
    default:
      return `UPDATE t SET email = email || 'x' WHERE n = ${pick(3)} AND id < ${id()}`;
  }
}

async function outcome(client: pg.Client, text: string): Promise<string> {
  try {
    const result = await client.query(text);
    return `${result.command} ${result.rowCount}`;
  } catch (error) {
    const { code } = error as { code?: string };
    // A statement of several rows may meet a lock and a violation, in any order.
    return code === '55P03' ? '23505' : (code ?? String(error));
  }
}

async function connect(dsn: string): Promise<pg.Client> {
  const client = new pg.Client(dsn);
  client.on('error', () => {});
  await client.connect();
  await client.query(`SET lock_timeout = '60ms'`);
  return client;
}

it('outcomes and rows are those of one PostgreSQL', async () => {
  const pick = random(SEED);
  const pairs = await Promise.all(
    Array.from({ length: CLIENTS }, async () => ({
      routed: await connect(cluster.dsn()),
      plain: await connect(alone.dsn({ user: 'app', database: 'app' })),
      inBlock: false,
    })),
  );
  const [first] = pairs;
  await first!.routed.query(
    `CREATE TABLE t (${COLUMNS}) WITH (postern.door = 'sharded', postern.key = 'id')`,
  );
  await first!.plain.query(`CREATE TABLE t (${COLUMNS})`);
  const seen = new Map<string, number>();
  for (let step = 0; step < STEPS; step++) {
    const pair = pairs[pick(CLIENTS)]!;
    let text = statement(pick);
    if (!pair.inBlock && pick(6) === 0) text = 'BEGIN';
    else if (pair.inBlock && pick(4) === 0) text = pick(2) === 0 ? 'COMMIT' : 'ROLLBACK';
    const [routed, plain] = [await outcome(pair.routed, text), await outcome(pair.plain, text)];
    expect([step, text, routed]).toEqual([step, text, plain]);
    seen.set(plain, (seen.get(plain) ?? 0) + 1);
    if (text === 'BEGIN') pair.inBlock = true;
    else if (text === 'COMMIT' || text === 'ROLLBACK') pair.inBlock = false;
  }
  for (const { routed, plain } of pairs) {
    await outcome(routed, 'COMMIT');
    await outcome(plain, 'COMMIT');
  }
  const all = 'SELECT id, email, code, n FROM t ORDER BY id';
  expect((await first!.routed.query(all)).rows).toEqual((await first!.plain.query(all)).rows);
  expect(await checkLookups(cluster)).toEqual([]);
  // What it is for has happened.
  expect(seen.get('23505')).toBeGreaterThan(STEPS / 20);
  await Promise.all(pairs.flatMap(({ routed, plain }) => [routed.end(), plain.end()]));
});
