/**
 * postern.consistent_reads through the router: while transfers between nodes go on, each read over several nodes sees all of
 * a transfer or nothing. Without the setting the same reads must be seen to be wrong at some time, or the test shows nothing.
 */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestCluster, type TestCluster } from '../support/router.ts';

const ACCOUNTS = 24;
const BALANCE = 100;
const TOTAL = ACCOUNTS * BALANCE;
const TRANSFERRERS = 6;
/** Reads in which a wrong sum has to come up without the setting; it usually does in some tens. */
const READS_MAX = 4_000;
const READS = 150;

let cluster: TestCluster;
const clients: pg.Client[] = [];

async function connect(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: cluster.dsn() });
  client.on('error', () => {});
  await client.connect();
  clients.push(client);
  return client;
}

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 3, settings: { max_prepared_transactions: '40' } });
  const client = await connect();
  await client.query(
    "CREATE TABLE accounts (id int8 PRIMARY KEY, balance int8 NOT NULL) WITH (postern.door = 'sharded', postern.key = 'id')",
  );
  for (let id = 0; id < ACCOUNTS; id++)
    await client.query('INSERT INTO accounts VALUES ($1, $2)', [id, BALANCE]);
}, 60_000);

afterAll(async () => {
  await Promise.all(clients.map((client) => client.end().catch(() => {})));
  await cluster?.stop();
});

/** Runs `work` while money is moved. */
async function whileMoneyMoves<T>(work: () => Promise<T>): Promise<T> {
  let stopped = false;
  let moved = 0;
  const transferring = Array.from({ length: TRANSFERRERS }, async (_, i) => {
    const client = await connect();
    for (let round = 0; !stopped; round++) {
      // Rows are taken in one order, so that nobody waits in a circle.
      const from = (i * 7 + round * 5) % ACCOUNTS;
      const to = (from + 1 + (round % 11)) % ACCOUNTS;
      await client.query('BEGIN');
      for (const id of [Math.min(from, to), Math.max(from, to)])
        await client.query('UPDATE accounts SET balance = balance + $2 WHERE id = $1', [
          id,
          id === to ? 1 : -1,
        ]);
      await client.query('COMMIT');
      moved++;
    }
  });
  try {
    return await work();
  } finally {
    stopped = true;
    await Promise.all(transferring);
    expect(moved).toBeGreaterThan(20);
  }
}

const sum = async (client: pg.Client): Promise<number> =>
  Number((await client.query('SELECT sum(balance) FROM accounts')).rows[0].sum);

describe('a read over several nodes', { timeout: 60_000 }, () => {
  it('is right at every moment with postern.consistent_reads, and not without it', async () => {
    const [free, consistent] = [await connect(), await connect()];
    await consistent.query('SET postern.consistent_reads = on');
    await whileMoneyMoves(async () => {
      let wrong = 0;
      for (let i = 0; i < READS_MAX && wrong === 0; i++) if ((await sum(free)) !== TOTAL) wrong++;
      expect(wrong).toBe(1);
      for (let i = 0; i < READS; i++) expect(await sum(consistent)).toBe(TOTAL);
      // Rows that are not merged, too.
      for (let i = 0; i < READS; i++) {
        const { rows } = await consistent.query('SELECT balance FROM accounts');
        expect(rows.reduce((total, row) => total + Number(row.balance), 0)).toBe(TOTAL);
      }
    });
  });

  it('is right inside a READ COMMITTED transaction, which sees its own writes', async () => {
    const client = await connect();
    await whileMoneyMoves(async () => {
      for (let i = 0; i < READS / 3; i++) {
        await client.query('BEGIN');
        await client.query('SET LOCAL postern.consistent_reads = on');
        const key = ACCOUNTS + i;
        await client.query('INSERT INTO accounts VALUES ($1, 7)', [key]);
        expect(await sum(client)).toBe(TOTAL + 7);
        expect(await sum(client)).toBe(TOTAL + 7);
        await client.query('ROLLBACK');
      }
    });
    expect(await sum(client)).toBe(TOTAL);
  });

  it('is right in a REPEATABLE READ transaction, by keys as well, and stays so', async () => {
    const client = await connect();
    await client.query('SET postern.consistent_reads = on');
    await whileMoneyMoves(async () => {
      for (let i = 0; i < READS / 10; i++) {
        await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
        let total = 0;
        for (let id = 0; id < ACCOUNTS; id++)
          total += Number(
            (await client.query('SELECT balance FROM accounts WHERE id = $1', [id])).rows[0].balance,
          );
        expect(total).toBe(TOTAL);
        expect(await sum(client)).toBe(TOTAL);
        await client.query('COMMIT');
      }
    });
  });

  it('says what it needs for REPEATABLE READ, and takes nothing but a Boolean', async () => {
    const client = await connect();
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    await expect(sum(client)).rejects.toMatchObject({
      code: '0A000',
      hint: expect.stringContaining('consistent_reads'),
    });
    await client.query('ROLLBACK');
    await expect(client.query('SET postern.consistent_reads = maybe')).rejects.toMatchObject({
      code: '22023',
    });
  });
});
