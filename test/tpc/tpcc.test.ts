/**
 * TPC-C sharded by warehouse: one terminal gets the answers, and leaves the rows, that it would with one PostgreSQL; and many
 * leave a database that fulfils the specification's consistency conditions (TPC Benchmark C, section 3.3.2).
 */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { TestCluster } from '../support/router.ts';
import { SeededRandom } from './random.ts';
import { startTpcPair, type TpcPair } from './tpc-pair.ts';
import { TPCC_INDEXES, TPCC_REFERENCES, TPCC_SHARDED, TPCC_TABLES, tpccRows } from './tpcc-data.ts';
import { chooseTransaction, runTransaction, type TransactionName } from './tpcc-transactions.ts';

const TERMINALS = 8;
const NOW = '2026-02-01 12:00:00+00';

let pair: TpcPair;
let cluster: TestCluster;
let direct: pg.Client;
let routed: pg.Client;

beforeAll(async () => {
  pair = await startTpcPair(3, {
    tables: TPCC_TABLES,
    indexes: TPCC_INDEXES,
    references: TPCC_REFERENCES,
    sharded: TPCC_SHARDED,
    rows: tpccRows(),
  });
  ({ cluster, direct, routed } = pair);
}, 240_000);

afterAll(async () => {
  await pair?.stop();
});

/** All rows, in an order of their own. */
async function rowsOf(client: pg.Client, table: string): Promise<string[]> {
  const { rows } = await client.query({ text: `SELECT * FROM ${table}`, rowMode: 'array' });
  return rows.map((row) => JSON.stringify(row)).sort();
}

describe('TPC-C by warehouse', () => {
  it('answers one terminal as one PostgreSQL does, and leaves the same rows', async () => {
    const random = new SeededRandom(7);
    const ran = new Map<TransactionName, number>();
    for (let i = 0; i < 120; i++) {
      const name = chooseTransaction(random);
      const seed = random.between(1, 1_000_000);
      const [expected, outcome] = await Promise.all(
        [direct, routed].map((client) =>
          runTransaction(name, { client, random: new SeededRandom(seed), now: NOW }),
        ),
      );
      expect(outcome, `${name} of seed ${seed}`).toEqual(expected);
      ran.set(name, (ran.get(name) ?? 0) + 1);
    }
    expect(ran.size).toBe(5);
    for (const table of Object.keys(TPCC_TABLES))
      expect(await rowsOf(routed, table), table).toEqual(await rowsOf(direct, table));
  }, 120_000);

  it('keeps its consistency conditions under many terminals', async () => {
    let committed = 0;
    const refused: string[] = [];
    const terminal = async (number: number): Promise<void> => {
      const client = new pg.Client(cluster.dsn('app'));
      await client.connect();
      try {
        const random = new SeededRandom(1000 + number);
        for (let i = 0; i < 25; i++) {
          const name = chooseTransaction(random);
          try {
            await runTransaction(name, { client, random, now: NOW });
            committed++;
          } catch (error) {
            const { code = '' } = error as { code?: string };
            // A deadlock is an answer, as on one server.
            if (code !== '40P01' && code !== '40001') refused.push(`${name}: ${String(error)}`);
          }
        }
      } finally {
        await client.end();
      }
    };
    await Promise.all(Array.from({ length: TERMINALS }, (_, number) => terminal(number)));
    expect(refused).toEqual([]);
    expect(committed).toBeGreaterThan((TERMINALS * 25) / 2);
    for (const [condition, text] of Object.entries(CONDITIONS)) {
      const { rows } = await routed.query(text);
      expect(rows, condition).toEqual([]);
    }
  }, 120_000);

  it('would see a broken condition', async () => {
    await routed.query('UPDATE district SET d_ytd = d_ytd + 1 WHERE d_w_id = 1 AND d_id = 1');
    const { rows } = await routed.query(CONDITIONS['1: W_YTD = sum(D_YTD)']!);
    expect(rows).toHaveLength(1);
  });
});

/** Each gives the rows that break it. */
const CONDITIONS: Readonly<Record<string, string>> = {
  '1: W_YTD = sum(D_YTD)': `SELECT w_id FROM warehouse JOIN district ON d_w_id = w_id
    GROUP BY w_id, w_ytd HAVING w_ytd <> sum(d_ytd)`,
  '2: D_NEXT_O_ID − 1 = max(O_ID)': `SELECT d_w_id, d_id FROM district JOIN orders ON o_w_id = d_w_id AND o_d_id = d_id
    GROUP BY d_w_id, d_id, d_next_o_id HAVING d_next_o_id - 1 <> max(o_id)`,
  '3: NEW_ORDER has no gaps': `SELECT no_w_id, no_d_id FROM new_order GROUP BY no_w_id, no_d_id
    HAVING max(no_o_id) - min(no_o_id) + 1 <> count(*)`,
  '4: sum(O_OL_CNT) = rows of ORDER_LINE': `SELECT o_w_id, o_d_id FROM orders GROUP BY o_w_id, o_d_id
    HAVING sum(o_ol_cnt) <> (SELECT count(*) FROM order_line WHERE ol_w_id = o_w_id AND ol_d_id = o_d_id)`,
  '5: O_CARRIER_ID is null while in NEW_ORDER': `SELECT o_w_id, o_d_id, o_id FROM orders
    LEFT JOIN new_order ON no_w_id = o_w_id AND no_d_id = o_d_id AND no_o_id = o_id
    WHERE (o_carrier_id IS NULL) <> (no_o_id IS NOT NULL)`,
  '6: O_OL_CNT = rows of the order': `SELECT o_w_id, o_d_id, o_id FROM orders
    JOIN order_line ON ol_w_id = o_w_id AND ol_d_id = o_d_id AND ol_o_id = o_id
    GROUP BY o_w_id, o_d_id, o_id, o_ol_cnt HAVING o_ol_cnt <> count(*)`,
  '7: OL_DELIVERY_D is null while undelivered': `SELECT o_w_id, o_d_id, o_id, ol_number FROM orders
    JOIN order_line ON ol_w_id = o_w_id AND ol_d_id = o_d_id AND ol_o_id = o_id
    WHERE (ol_delivery_d IS NULL) <> (o_carrier_id IS NULL)`,
  '9: D_YTD = sum(H_AMOUNT)': `SELECT d_w_id, d_id FROM district JOIN history ON h_w_id = d_w_id AND h_d_id = d_id
    GROUP BY d_w_id, d_id, d_ytd HAVING d_ytd - 30000 <> sum(h_amount) - 10 * 30`,
};
