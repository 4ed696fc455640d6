import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import {
  type TestTransactions,
  type TransactionCluster,
  useTransactionCluster,
} from '../../test/support/transaction-cluster.ts';
import type { CommitBranch, CommitResult } from './coordinator.ts';

/** Branches, nodes and routers that are lost at each step of a commit, over real servers. */

const ADD = 'UPDATE accounts SET balance = balance + 1 WHERE id = 1';
/** Recovery looks at once, and gives a router that seems to live two tenths of a second. */
const AT_ONCE = { leftAloneMs: 0, recoveryAfterMs: 200 };

function useAccounts(cluster: TransactionCluster): void {
  beforeAll(async () => {
    await cluster.everywhere(
      `CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL); GRANT ALL ON accounts TO app;
       CREATE ROLE mallory LOGIN; GRANT reader TO app; GRANT ALL ON accounts TO reader;`,
    );
  });
  beforeEach(async () => {
    await cluster.everywhere(
      `TRUNCATE accounts, postern_internal.decisions, postern_internal.transaction_marks; INSERT INTO accounts VALUES (1, 100)`,
    );
  });
}

async function balances(cluster: TransactionCluster): Promise<number[]> {
  const rows = await cluster.everywhere('SELECT balance FROM accounts');
  return rows.map((list) => Number(list[0]!.balance));
}

async function threeBranches(cluster: TransactionCluster): Promise<CommitBranch[]> {
  return await Promise.all([0, 1, 2].map((index) => cluster.branch(index, [ADD])));
}

/** Rounds until nothing is prepared any more. */
async function recover(cluster: TransactionCluster): Promise<TestTransactions> {
  const other = await cluster.transactions({ times: AT_ONCE });
  await expect
    .poll(
      async () => {
        await other.recovery.round();
        return (await cluster.leftovers()).filter((left) => left.includes('prepared'));
      },
      { timeout: 15_000 },
    )
    .toEqual([]);
  return other;
}

/** SIGKILL. The postmaster's death alone would let this backend go on for a moment. */
async function killNode(cluster: TransactionCluster, index: number, branch: CommitBranch): Promise<void> {
  const { processId } = branch.connection;
  await cluster.servers[index]!.query(`SELECT pg_terminate_backend(${processId}, 5000)`);
  cluster.servers[index]!.kill();
}

/** Runs `disturb` before the `count`th effect of that kind. */
function beforeStep(kind: string, count: number, disturb: () => Promise<void>) {
  let seen = 0;
  return {
    beforeEffect: async (name: string) => {
      if (name === kind && ++seen === count) await disturb();
    },
  };
}

async function expectAllOrNothing(cluster: TransactionCluster, result?: CommitResult): Promise<void> {
  const [first = 0, ...others] = await balances(cluster);
  expect(others).toEqual(others.map(() => first));
  if (result?.kind === 'committed') expect(first).toBe(101);
  if (result?.kind === 'rolledBack') expect(first).toBe(100);
}

const cluster = useTransactionCluster(3);
useAccounts(cluster);

describe('a branch that is terminated', () => {
  const steps = [
    ['prepare', 1],
    ['prepare', 2],
    ['decide', 1],
    ['commitPrepared', 1],
    ['commitPrepared', 2],
  ] as const;
  test.each(steps.flatMap(([kind, count]) => [0, 1, 2].map((victim) => [kind, count, victim] as const)))(
    'before %s %i, on node %i',
    async (kind, count, victim) => {
      const branches = await threeBranches(cluster);
      const { coordinator } = await cluster.transactions({
        faults: beforeStep(kind, count, async () => {
          const { processId } = branches[victim]!.connection;
          await cluster.servers[victim]!.query(`SELECT pg_terminate_backend(${processId}, 5000)`);
        }),
      });
      const result = await coordinator.commit(branches);
      // Node 0 was asked first, and may have prepared before the end of its session, which then loses nothing.
      const isOpen = kind === 'prepare' && count === 2 && victim === 0;
      if (!isOpen)
        expect(result.kind).toBe(
          kind === 'commitPrepared' || (kind === 'decide' && victim < 2) ? 'committed' : 'rolledBack',
        );
      if (result.kind === 'rolledBack') expect(result.error).toMatchObject({ sqlState: '08006' });
      await recover(cluster);
      await expectAllOrNothing(cluster, result);
      for (const { connection } of branches) expect(connection.closed || connection.quiet).toBe(true);
    },
  );
});

describe('a router that dies', () => {
  const steps = [
    'prepare 1',
    'prepare 2',
    'decide 1',
    'commitPrepared 1',
    'commitPrepared 2',
    'clean 1',
    'answer 1',
  ];
  test.each(steps)('before %s', async (step) => {
    const [kind = '', count] = step.split(' ');
    const branches = await threeBranches(cluster);
    let died: () => void = () => {};
    const death = new Promise<void>((resolve) => {
      died = resolve;
    });
    const router: TestTransactions = await cluster.transactions({
      faults: beforeStep(kind, Number(count), async () => {
        for (const { connection } of branches) connection.destroy();
        await router.die();
        died();
      }),
    });
    void router.coordinator.commit(branches);
    await death;
    await recover(cluster);
    await expectAllOrNothing(cluster);
    expect((await balances(cluster))[0]).toBe(/commit|clean|answer/.test(kind) ? 101 : 100);
  });

  test('what it has left is swept', async () => {
    await dieBeforeDecision(cluster);
    const other = await recover(cluster);
    expect(await cluster.leftovers()).toEqual(['n3: abort app']);
    await other.recovery.sweep();
    expect(await cluster.leftovers()).toEqual([]);
  });

  test('one that is frozen loses its right to decide, and writes nothing', async () => {
    const branches = await threeBranches(cluster);
    let others: TestTransactions | undefined;
    const router = await cluster.transactions({
      // While it sleeps, another one waits for as long as it has to, and ends the transaction.
      faults: beforeStep('decide', 1, async () => {
        others = await recover(cluster);
      }),
    });
    const result = await router.coordinator.commit(branches);
    expect(result).toMatchObject({ kind: 'rolledBack', error: { sqlState: '08006' } });
    await expectAllOrNothing(cluster, result);
    expect(others!.metrics.recoveredRollback).toBe(2);
  });
});

describe('what is not ours', () => {
  test('another role’s decision under the same id is no decision', async () => {
    await dieBeforeDecision(cluster);
    const [row] = await cluster.servers[0]!.query('SELECT gid FROM pg_prepared_xacts');
    const id = String(row!.gid).split(':')[2];
    await cluster.branch(2, [`SELECT postern_commit.decide('${id}', '{1,2}', null)`, 'COMMIT'], {
      user: 'mallory',
    });
    await recover(cluster);
    expect(await balances(cluster)).toEqual([100, 100, 100]);
  });

  test('foreign prepared transactions stay', async () => {
    const foreign = [
      'mine',
      'postern:',
      `postern:other-cluster:00000000-0000-4000-8000-000000000000:1:1:1`,
      `postern:${cluster.identity!.clusterId}:not-an-id:1:1:1`,
      `postern:${cluster.identity!.clusterId}:00000000-0000-4000-8000-000000000000:0:1:1`,
    ];
    for (const gid of foreign)
      await cluster.branch(0, [ADD.replace('1 WHERE', '0 WHERE FALSE AND'), `PREPARE TRANSACTION '${gid}'`]);
    const other = await cluster.transactions({ times: AT_ONCE });
    await other.recovery.round();
    await other.recovery.sweep();
    const rows = await cluster.servers[0]!.query('SELECT gid FROM pg_prepared_xacts');
    expect(rows.map(({ gid }) => gid).sort()).toEqual([...foreign].sort());
    for (const gid of foreign) await cluster.servers[0]!.query(`ROLLBACK PREPARED '${gid}'`);
  });
});

describe('roles', () => {
  test('a role that was set owns all parts', async () => {
    const { coordinator } = await cluster.transactions();
    const set = ['SET ROLE reader', ADD];
    const branches = [await cluster.branch(0, set), await cluster.branch(1, set)];
    expect(await coordinator.commit(branches)).toMatchObject({ kind: 'committed' });
    expect((await cluster.leftovers()).sort()).toEqual(['n1: mark reader', 'n2: commit reader']);
  });

  test('parts of different roles are refused', async () => {
    const { coordinator } = await cluster.transactions();
    const branches = [
      await cluster.branch(0, [ADD, 'SET LOCAL ROLE reader']),
      await cluster.branch(1, [ADD]),
    ];
    const result = await coordinator.commit(branches);
    expect(result.kind).toBe('rolledBack');
    await recover(cluster);
    expect(await balances(cluster)).toEqual([100, 100, 100]);
  });
});

describe('an outcome that is unknown', () => {
  test('is told later: committed', async () => {
    await cluster.servers[2]!.query(
      `CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1.5); RETURN NULL; END';
       CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON accounts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()`,
    );
    try {
      const router = await cluster.transactions({ times: { decideMs: 200, resolveMs: 200 } });
      const result = await router.coordinator.commit(await threeBranches(cluster));
      expect(result).toMatchObject({ kind: 'unknown', error: { sqlState: '08007' } });
      const [token = ''] = /pt1_[\w-]+/.exec((result as { error: { detail: string } }).error.detail) ?? [];
      // I14: of the time when decide() was sent, and both bounds have passed since.
      const payload = Buffer.from(token.slice('pt1_'.length), 'base64url').subarray(0, -16).toString();
      const [now] = await cluster.servers[2]!.query(
        'SELECT extract(epoch FROM clock_timestamp()) AS seconds',
      );
      const issuedAtUs = (JSON.parse(payload) as number[]).at(-1)!;
      expect(Number(now!.seconds) * 1_000_000 - issuedAtUs).toBeGreaterThanOrEqual(400_000);
      const other = await cluster.transactions();
      await expect.poll(() => other.outcome(token)).toBe('committed');
      await recover(cluster);
      expect(await balances(cluster)).toEqual([101, 101, 101]);
      expect(await other.outcome(token)).toBe('committed');
      await expect(other.outcome(`${token.slice(0, -2)}AA`)).rejects.toMatchObject({ sqlState: '22023' });
    } finally {
      await cluster.servers[2]!.query('DROP TRIGGER slow ON accounts');
    }
  });

  test('is told later: rolled back, and it stays so', async () => {
    const branches = await threeBranches(cluster);
    const router = await cluster.transactions({
      times: { decideMs: 200, resolveMs: 300 },
      faults: beforeStep('decide', 1, () => killNode(cluster, 2, branches[2]!)),
    });
    const result = await router.coordinator.commit(branches);
    expect(result).toMatchObject({ kind: 'unknown', error: { sqlState: '08007' } });
    const [token = ''] = /pt1_[\w-]+/.exec((result as { error: { hint: string } }).error.hint) ?? [];
    expect(await router.outcome(token)).toBe('in doubt');
    const other = await cluster.transactions({ times: AT_ONCE });
    await other.recovery.round();
    const shown = await cluster.servers[0]!.query(
      'SELECT node, commit_point, owner, state FROM postern.prepared ORDER BY 1',
    );
    expect(shown).toEqual([
      { node: 'n1', commit_point: 'n3', owner: 'app', state: 'unreachable' },
      { node: 'n2', commit_point: 'n3', owner: 'app', state: 'unreachable' },
    ]);
    await cluster.servers[2]!.restart();
    expect(await other.outcome(token)).toBe('rolled back');
    await recover(cluster);
    expect(await balances(cluster)).toEqual([100, 100, 100]);
    const last = await recover(cluster);
    await last.recovery.round();
    expect(await cluster.servers[0]!.query('SELECT FROM postern.prepared')).toEqual([]);
    await last.recovery.sweep();
    expect(await last.outcome(token)).toBe('rolled back');
  });
});

describe('a node that is killed', () => {
  test('after the decision: the client is warned, and recovery commits there', async () => {
    const branches = await threeBranches(cluster);
    const router = await cluster.transactions({
      times: { phaseTwoMs: 300 },
      faults: beforeStep('commitPrepared', 1, () => killNode(cluster, 0, branches[0]!)),
    });
    const result = await router.coordinator.commit(branches);
    expect(result).toMatchObject({
      kind: 'committed',
      warnings: [{ sqlState: '01000', message: /node "n1"/ }],
    });
    await cluster.servers[0]!.restart();
    await recover(cluster);
    expect(await balances(cluster)).toEqual([101, 101, 101]);
  });

  test('right after it has decided for a client with synchronous_commit = off', async () => {
    // Nothing but a commit that waits writes WAL before the kill.
    const lazy = 'SET synchronous_commit = off';
    await cluster.servers[2]!.query(`ALTER SYSTEM SET wal_writer_delay = '10s'; `);
    await cluster.servers[2]!.query('SELECT pg_reload_conf()');
    const branches = [await cluster.branch(0, [lazy, ADD]), await cluster.branch(2, [lazy, ADD])];
    const router = await cluster.transactions({
      times: { phaseTwoMs: 300 },
      faults: beforeStep('commitPrepared', 1, async () => cluster.servers[2]!.kill()),
    });
    expect(await router.coordinator.commit(branches)).toMatchObject({ kind: 'committed' });
    await cluster.servers[2]!.restart();
    await recover(cluster);
    expect(await balances(cluster)).toEqual([101, 100, 101]);
  });
});

describe('a part that somebody else has ended between the decision and phase two', () => {
  async function commitWith(verb: 'COMMIT' | 'ROLLBACK') {
    const branches = await threeBranches(cluster);
    const router = await cluster.transactions({
      faults: beforeStep('commitPrepared', 1, async () => {
        const [row] = await cluster.servers[0]!.query('SELECT gid FROM pg_prepared_xacts');
        await cluster.servers[0]!.query(`${verb} PREPARED '${String(row!.gid)}'`);
      }),
    });
    return { router, result: await router.coordinator.commit(branches) };
  }

  test('committed: its mark says so, and all is well', async () => {
    const { router, result } = await commitWith('COMMIT');
    expect(result).toEqual({ kind: 'committed', warnings: [] });
    expect(router.metrics.lostParts).toBe(0);
    expect(await balances(cluster)).toEqual([101, 101, 101]);
  });

  test('rolled back: a loss, which is said loudly and kept until an operator deletes it', async () => {
    const { router, result } = await commitWith('ROLLBACK');
    expect(result).toMatchObject({ kind: 'unknown', error: { sqlState: 'XX001', message: /node "n1"/ } });
    expect(router.metrics.lostParts).toBe(1);
    expect(router.logged.join()).toMatch(/node "n1" has LOST its part/);
    const shown = () => cluster.servers[0]!.query('SELECT node, owner, state FROM postern.prepared');
    await expect.poll(shown).toEqual([{ node: 'n1', owner: 'app', state: 'lost' }]);
    await router.recovery.round();
    expect(await shown()).toHaveLength(1);
    await cluster.servers[0]!.query(
      `DELETE FROM postern_internal.prepared_transactions WHERE state = 'lost'`,
    );
  });
});

/** A router that dies when all is prepared, and before it has decided. */
async function dieBeforeDecision(of: typeof cluster): Promise<void> {
  const branches = await threeBranches(of);
  let died: () => void = () => {};
  const death = new Promise<void>((resolve) => {
    died = resolve;
  });
  const router: TestTransactions = await of.transactions({
    faults: beforeStep('decide', 1, async () => {
      for (const { connection } of branches) connection.destroy();
      await router.die();
      died();
    }),
  });
  void router.coordinator.commit(branches);
  await death;
}
