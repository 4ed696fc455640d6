/**
 * pgbench's own transaction ("TPC-B (sort of)"), with its tables, its filler and its scale, so that figures can stand beside
 * those of `pgbench -i -s N`. The sums of accounts, tellers, branches and history are always equal.
 * Source: PostgreSQL documentation, pgbench, "What Is the “Transaction” Actually Performed in pgbench?".
 */
import { scriptVariables, type Workload } from './workload.ts';

const TELLERS_PER_BRANCH = 10;
const ACCOUNTS_PER_BRANCH = 100_000;

const SCRIPT = `\\set aid random(1, ${ACCOUNTS_PER_BRANCH} * :scale)
\\set bid random(1, 1 * :scale)
\\set tid random(1, ${TELLERS_PER_BRANCH} * :scale)
\\set delta random(-5000, 5000)
BEGIN;
UPDATE {schema}pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM {schema}pgbench_accounts WHERE aid = :aid;
UPDATE {schema}pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE {schema}pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO {schema}pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
`;

export function tpcbWorkload(options: { scale: number }): Workload {
  const { scale } = options;
  const keyed = (table: string, key: string): string[] => [
    `ALTER TABLE {schema}pgbench_${table} ADD PRIMARY KEY (${key})`,
    `ANALYZE {schema}pgbench_${table}`,
  ];
  return {
    name: 'tpcb',
    description: `pgbench's TPC-B-like transaction: three updates, one select, one insert; ${scale} branches. Fewer branches than clients means waiting for row locks.`,
    reads: false,
    writes: { rows: 4, bytes: 350 },
    setup: [
      'CREATE TABLE {schema}pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22))',
      'CREATE TABLE {schema}pgbench_tellers (tid int NOT NULL, bid int, tbalance int, filler char(84))',
      'CREATE TABLE {schema}pgbench_accounts (aid int NOT NULL, bid int, abalance int, filler char(84))',
      'CREATE TABLE {schema}pgbench_branches (bid int NOT NULL, bbalance int, filler char(88))',
      `INSERT INTO {schema}pgbench_branches SELECT bid, 0, '' FROM generate_series(1, ${scale}) AS bid`,
      `INSERT INTO {schema}pgbench_tellers SELECT tid, (tid - 1) / ${TELLERS_PER_BRANCH} + 1, 0, ''
         FROM generate_series(1, ${scale * TELLERS_PER_BRANCH}) AS tid`,
      `INSERT INTO {schema}pgbench_accounts SELECT aid, (aid - 1) / ${ACCOUNTS_PER_BRANCH} + 1, 0, ''
         FROM generate_series(1, ${scale * ACCOUNTS_PER_BRANCH}) AS aid`,
      ...keyed('branches', 'bid'),
      ...keyed('tellers', 'tid'),
      ...keyed('accounts', 'aid'),
    ],
    variables: scriptVariables(scale),
    transactions: [{ name: 'tpcb', weight: 1, script: SCRIPT }],
  };
}
