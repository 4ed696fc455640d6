/**
 * Writers of one reference table through two routers, while readers look and a node is killed: the copies are equal byte for byte in
 * the end, and what a client was told to be done, or not to be, is so. REFERENCE_SEED repeats a run's choices.
 */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Router, startRouter } from '../../src/cli/router.ts';
import { seededRandom } from '../../src/wall/load/seeded-random.ts';
import { startTestCluster, type TestCluster } from '../support/router.ts';
import { queryCopies, rowsOf, unequalNodes } from './copies.ts';

const SEED = Number(process.env.REFERENCE_SEED ?? 1);
/** A wait of a transaction for another, a row that is there already, a node that is away, a decision that is not known. */
const ROUTINE = new Set([
  '40P01',
  '40001',
  '23505',
  '55P03',
  '08006',
  '08001',
  '08007',
  '57P01',
  '57P03',
  '25P02',
]);

let committed = 0;
let cluster: TestCluster;
let second: Router;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 3, settings: { max_prepared_transactions: '100' } });
  second = await startRouter(cluster.routerOptions);
  await withClient(cluster.port, (client) =>
    client.query(
      `CREATE TABLE stock (id int PRIMARY KEY, n int, who text UNIQUE, at timestamptz DEFAULT clock_timestamp())
       WITH (postern.door = 'reference')`,
    ),
  );
}, 60_000);

afterAll(async () => {
  await second?.close();
  await cluster?.stop();
});

async function withClient<T>(port: number, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: `postgres://app@127.0.0.1:${port}/app` });
  client.on('error', () => {});
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end().catch(() => {});
  }
}

/** One random statement. Marks that it has made are unique to it, so that its outcome can be looked up. */
function statementOf(random: () => number, mark: string): string {
  const id = Math.floor(random() * 12);
  switch (Math.floor(random() * 5)) {
    case 0:
      return `INSERT INTO stock (id, n, who) VALUES (${id}, 0, '${mark}')`;
    case 1:
      return `INSERT INTO stock (id, n, who) VALUES (${id}, 1, '${mark}') ON CONFLICT (id) DO UPDATE SET n = stock.n + 1, at = clock_timestamp(), who = excluded.who`;
    case 2:
      return `UPDATE stock SET n = n + 1, at = clock_timestamp() WHERE id % 3 = ${id % 3}`;
    case 3:
      return `DELETE FROM stock WHERE id = ${id}`;
    default:
      return `UPDATE stock SET n = n - 1 WHERE n > ${id}`;
  }
}

async function write(port: number, seed: number, until: () => boolean): Promise<string[]> {
  const random = seededRandom(seed);
  const surprises: string[] = [];
  let turn = 0;
  while (!until()) {
    await withClient(port, async (client) => {
      await client.query(`SET lock_timeout = '5s'`);
      for (; !until(); turn++) {
        const many = random() < 0.3;
        if (many) await client.query('BEGIN');
        for (let i = 0; i < (many ? 3 : 1); i++)
          await client.query(statementOf(random, `${seed}.${turn}.${i}`));
        if (many) await client.query(random() < 0.8 ? 'COMMIT' : 'ROLLBACK');
        committed++;
      }
    }).catch((error: { code?: string; message: string }) => {
      if (!ROUTINE.has(error.code ?? '') && !/terminated|ECONN/.test(error.message))
        surprises.push(`${error.code} ${error.message}`);
    });
  }
  return surprises;
}

function ports(): number[] {
  return [cluster.port, second.port];
}

async function writersFor(clients: number, until: () => boolean): Promise<void> {
  const writers = Array.from({ length: clients }, (_, i) => write(ports()[i % 2]!, SEED * 100 + i, until));
  expect((await Promise.all(writers)).flat(), `seed ${SEED}`).toEqual([]);
}

/** So many more than now, or as many as there are in 30 s. */
function untilCommitted(count: number): () => boolean {
  const start = committed;
  const endMs = performance.now() + 30_000;
  return () => committed >= start + count || performance.now() > endMs;
}

async function expectSettled(): Promise<void> {
  await expect
    .poll(() => queryCopies(cluster, 'SELECT gid FROM pg_prepared_xacts'), { timeout: 30_000, interval: 200 })
    .toEqual([[], [], []]);
  expect(await unequalNodes(cluster, 'stock'), `seed ${SEED}`).toEqual([]);
}

describe('many writers', () => {
  test('leave equal copies', async () => {
    await writersFor(8, untilCommitted(120));
    await expectSettled();
    expect((await rowsOf(cluster, 0, 'SELECT count(*)::int FROM stock'))[0]![0]).toBeGreaterThan(0);
  }, 60_000);

  test('and a node that is killed meanwhile has all of each transaction, or nothing', async () => {
    const start = committed;
    const killed = (async () => {
      for (const [turn, at] of [1, 0, 2].entries()) {
        await expect.poll(() => committed > start + 15 * (turn + 1), { timeout: 20_000 }).toBe(true);
        cluster.servers[at]!.kill();
        await cluster.servers[at]!.restart();
      }
    })();
    await Promise.all([killed, writersFor(6, untilCommitted(75))]);
    await expectSettled();
    // And it goes on.
    await withClient(cluster.port, (client) => client.query('INSERT INTO stock (id, n) VALUES (100, 1)'));
    expect(await queryCopies(cluster, 'SELECT n FROM stock WHERE id = 100')).toEqual([[[1]], [[1]], [[1]]]);
  }, 90_000);
});

describe('a transaction that has committed on home and not yet on another node', () => {
  test('is waited for there by who comes after it', async () => {
    const at = async (index: number, text: string): Promise<void> => {
      await rowsOf(cluster, index, `SET postern.reference_write = '1,2,3'; ${text}`).catch((error) => {
        throw new Error(`${text}: ${(error as Error).message}`);
      });
    };
    const insert = `INSERT INTO stock (id, n, at) VALUES (300, 1, '2024-01-01')`;
    await at(0, insert);
    await at(1, insert);
    await rowsOf(
      cluster,
      2,
      `BEGIN; SET LOCAL postern.reference_write = '1,2,3'; ${insert}; PREPARE TRANSACTION 'late'`,
    );
    let isDone = false;
    const update = withClient(cluster.port, (client) =>
      client.query('UPDATE stock SET n = n + 1 WHERE id = 300'),
    ).finally(() => {
      isDone = true;
    });
    const waiting = `SELECT count(*)::int FROM pg_locks WHERE NOT granted`;
    await expect.poll(async () => isDone || (await rowsOf(cluster, 2, waiting))[0]![0] === 1).toBe(true);
    expect(isDone).toBe(false);
    await rowsOf(cluster, 2, `COMMIT PREPARED 'late'`);
    expect((await update).rowCount).toBe(1);
    expect(await queryCopies(cluster, 'SELECT n FROM stock WHERE id = 300')).toEqual([[[2]], [[2]], [[2]]]);
  });
});

describe('while a node is away', () => {
  test('the others answer for it, and nobody writes', async () => {
    const server = cluster.servers[2]!;
    server.kill();
    await withClient(cluster.port, async (client) => {
      const ask = () =>
        client.query('SELECT count(*) FROM stock').then(
          () => 'read',
          (error) => String(error.code),
        );
      // Until the router has noticed.
      await expect
        .poll(async () => [await ask(), await ask(), await ask()])
        .toEqual(['read', 'read', 'read']);
      for (let i = 0; i < 6; i++) expect(await ask()).toBe('read');
      await expect(client.query('DELETE FROM stock')).rejects.toMatchObject({
        code: expect.stringMatching(/^08/),
      });
      await server.restart();
      await expect
        .poll(() => client.query('UPDATE stock SET n = 0').then(() => 'written', String))
        .toBe('written');
    });
    await expectSettled();
  });
});

describe('a node that joins', () => {
  test('gets its copies before a router serves with it, and routers that don’t know it write no more', async () => {
    const { startTestServer } = await import('../support/servers.ts');
    const server = await startTestServer({ settings: { max_prepared_transactions: '100' } });
    try {
      await server.query('CREATE ROLE app LOGIN');
      await server.query('CREATE DATABASE app OWNER app');
      const nodes = [...cluster.routerOptions.nodes, { name: 'n4', dsn: server.dsn({ database: 'app' }) }];
      const router = await startRouter({ ...cluster.routerOptions, nodes });
      try {
        const grown = { ...cluster, servers: [...cluster.servers, server] };
        expect(await unequalNodes(grown, 'stock')).toEqual([]);
        await withClient(router.port, (client) => client.query(`INSERT INTO stock (id, n) VALUES (200, 2)`));
        expect(await unequalNodes(grown, 'stock')).toEqual([]);
        const old = withClient(cluster.port, (client) =>
          client.query(`INSERT INTO stock (id, n) VALUES (201, 2)`),
        );
        await expect(old).rejects.toMatchObject({ code: expect.stringMatching(/^(55000|40001)$/) });
        expect(await unequalNodes(grown, 'stock')).toEqual([]);
        // Reading goes on.
        expect(
          await withClient(cluster.port, (client) => client.query('SELECT n FROM stock WHERE id = 200')),
        ).toMatchObject({
          rows: [{ n: 2 }],
        });
      } finally {
        await router.close();
      }
    } finally {
      await server.stop();
    }
  });
});
