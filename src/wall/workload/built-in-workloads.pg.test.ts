import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runTransactions, setUp } from '../../../test/support/load-run.ts';
import { isVersionInstalled, startTestServer, type TestServer } from '../../../test/support/servers.ts';
import type { Protocol } from '../load/transaction-template.ts';
import { WORKLOAD_NAMES, workloadByName } from './built-in-workloads.ts';

const protocols: readonly Protocol[] = ['simple', 'extended', 'prepared'];
const CLIENTS = 4;
/** For each protocol; enough that each transaction of a mix comes several times. */
const TRANSACTIONS = 200;
/** These differ from ycsb-a in their mixes alone, which no version of PostgreSQL sees. */
const ONCE = ['ycsb-b', 'ycsb-c', 'ycsb-d', 'ycsb-e', 'ycsb-f'];

describe.each<15 | 18>([15, 18])('workloads on PostgreSQL %i', async (version) => {
  const missing = !(await isVersionInstalled(version));

  describe.skipIf(missing)('with the version installed', () => {
    let server: TestServer;
    beforeAll(async () => {
      server = await startTestServer({ version, settings: { max_wal_size: '4GB' } });
    });
    afterAll(() => server?.stop());

    const one = async (sql: string): Promise<Record<string, unknown>> => (await server.query(sql))[0]!;

    /** What must hold after `done` transactions of each name. */
    const checks: Record<string, (schema: string, done: ReadonlyMap<string, number>) => Promise<void>> = {
      events: async (schema, done) => {
        const { n } = await one(`SELECT count(*)::int AS n FROM ${schema}.events`);
        expect(n).toBe(done.get('insert'));
      },
      counters: async (schema, done) => {
        const { n } = await one(`SELECT sum(n)::int AS n FROM ${schema}.counters`);
        expect(n).toBe(done.get('update'));
      },
      'hot-row': async (schema, done) => {
        const { n } = await one(`SELECT n::int FROM ${schema}.hot_row`);
        expect(n).toBe(done.get('update'));
      },
      skinny: async (schema, done) => {
        const { n } = await one(`SELECT count(*)::int AS n FROM ${schema}.skinny`);
        expect(n).toBe(done.get('insert'));
      },
      tpcb: async (schema, done) => {
        const sums = await one(
          `SELECT (SELECT sum(abalance) FROM ${schema}.pgbench_accounts) AS accounts,
                  (SELECT sum(tbalance) FROM ${schema}.pgbench_tellers) AS tellers,
                  (SELECT sum(bbalance) FROM ${schema}.pgbench_branches) AS branches,
                  (SELECT sum(delta) FROM ${schema}.pgbench_history) AS history,
                  (SELECT count(*)::int FROM ${schema}.pgbench_history) AS rows`,
        );
        expect(sums.rows).toBe(done.get('tpcb'));
        expect(new Set([sums.accounts, sums.tellers, sums.branches, sums.history]).size).toBe(1);
        expect(sums.history).not.toBe('0');
      },
      'foreign-keys': async (schema, done) => {
        const { n } = await one(`SELECT count(*)::int - 100000 AS n FROM ${schema}.orders`);
        expect(n).toBe(done.get('order'));
        const { keys } = await one(
          `SELECT count(*)::int AS keys FROM pg_constraint WHERE conrelid = '${schema}.orders'::regclass AND contype = 'f'`,
        );
        expect(keys).toBe(5);
      },
      tpcc: async (schema, done) => {
        const counts = await one(
          `SELECT (SELECT count(*)::int - 3000 FROM ${schema}.orders) AS orders,
                  (SELECT count(*)::int - 30000 FROM ${schema}.order_line) AS lines,
                  (SELECT sum(next_order_id)::int - 3010 FROM ${schema}.district) AS numbered,
                  (SELECT count(*)::int FROM ${schema}.history) AS payments,
                  (SELECT sum(year_to_date)::int FROM ${schema}.warehouse) AS warehouses,
                  (SELECT sum(year_to_date)::int FROM ${schema}.district) AS districts,
                  (SELECT sum(amount)::int FROM ${schema}.history) AS paid,
                  (SELECT count(*)::int FROM ${schema}.orders WHERE carrier_id IS NULL) AS undelivered,
                  (SELECT count(*)::int FROM ${schema}.new_order) AS waiting,
                  (SELECT count(*)::int FROM ${schema}.order_line WHERE delivered_at IS NULL) AS undelivered_lines`,
        );
        expect(counts.orders).toBe(done.get('new-order'));
        expect(counts.numbered).toBe(counts.orders);
        expect(counts.lines).toBe(10 * (counts.orders as number));
        expect(counts.payments).toBe(done.get('payment'));
        expect([counts.warehouses, counts.districts]).toEqual([counts.paid, counts.paid]);
        expect(counts.waiting).toBe(counts.undelivered);
        expect(counts.undelivered_lines).toBe(10 * (counts.waiting as number));
        expect(counts.waiting).toBeLessThan(900 + (counts.orders as number));
        expect(done.size).toBe(5);
      },
    };
    const ycsbRows = async (schema: string, done: ReadonlyMap<string, number>): Promise<void> => {
      const { n, broken } = await one(
        `SELECT count(*)::int - 100000 AS n,
                count(*) FILTER (WHERE length(field0) <> 100 OR length(field9) <> 100)::int AS broken
           FROM ${schema}.usertable`,
      );
      expect([n, broken]).toEqual([done.get('insert') ?? 0, 0]);
    };

    const names = WORKLOAD_NAMES.filter((name) => version === 18 || !ONCE.includes(name));
    it.each(names)('%s runs by every protocol and leaves what it says', async (name) => {
      const workload = workloadByName(name);
      const schema = `test_${name.replace('-', '_')}`;
      await setUp(server, workload, schema);
      const done = new Map<string, number>();
      for (const protocol of protocols) {
        const options = { server, workload, protocol, schema: `${schema}.` };
        const run = await runTransactions({ ...options, clients: CLIENTS, transactions: TRANSACTIONS });
        expect(run.errors).toEqual([]);
        for (const [transaction, count] of run.succeeded) {
          done.set(transaction, (done.get(transaction) ?? 0) + count);
        }
      }
      expect([...done.values()].reduce((sum, count) => sum + count)).toBe(TRANSACTIONS * protocols.length);
      await (checks[name] ?? ycsbRows)(schema, done);
      await server.query(`DROP SCHEMA ${schema} CASCADE`);
    });
  });
});
