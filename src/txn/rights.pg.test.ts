import { beforeAll, describe, expect, test } from 'vitest';
import { useTransactionCluster } from '../../test/support/transaction-cluster.ts';

/** A control role with no more rights than the documentation asks for; and servers that can't prepare. */

const ADD = 'UPDATE accounts SET balance = balance + 1 WHERE id = 1';
const ACCOUNTS = `CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL); GRANT ALL ON accounts TO app;
  INSERT INTO accounts VALUES (1, 100)`;

describe('a control role that is no superuser', () => {
  const cluster = useTransactionCluster(2, { admin: 'manager' });
  beforeAll(async () => {
    await cluster.everywhere(ACCOUNTS);
  });

  test('a client reaches no row but by the two functions', async () => {
    for (const text of [
      'SELECT FROM postern_internal.decisions',
      'DELETE FROM postern_internal.transaction_marks',
      'CREATE TABLE postern_commit.t ()',
    ])
      await expect(cluster.branch(0, [text])).rejects.toMatchObject({ sqlState: '42501' });
  });

  test('commits, cleans up, and takes over from a router that has died', async () => {
    const { coordinator, cleaner } = await cluster.transactions();
    const branches = [await cluster.branch(0, [ADD]), await cluster.branch(1, [ADD])];
    expect(await coordinator.commit(branches)).toMatchObject({ kind: 'committed' });
    await cleaner.drain();
    expect(await cluster.leftovers()).toEqual([]);
    for (const step of ['decide', 'commitPrepared']) {
      const others = [await cluster.branch(0, [ADD]), await cluster.branch(1, [ADD])];
      let died: () => void = () => {};
      const death = new Promise<void>((resolve) => {
        died = resolve;
      });
      const dying = await cluster.transactions({
        faults: {
          beforeEffect: async (name) => {
            if (name !== step) return;
            // The commit point's session lives on, and holds its locks, as after a cut network.
            await dying.die();
            died();
          },
        },
      });
      void dying.coordinator.commit(others);
      await death;
      const other = await cluster.transactions({ times: { leftAloneMs: 0, recoveryAfterMs: 100 } });
      await expect
        .poll(async () => {
          await other.recovery.round();
          return (await cluster.leftovers()).filter((left) => left.includes('prepared'));
        })
        .toEqual([]);
      // Its session was ended by recovery, so that this doesn't wait.
      expect(await cluster.everywhere('SELECT balance FROM accounts FOR UPDATE')).toEqual(
        Array.from({ length: 2 }, () => [{ balance: step === 'decide' ? 101 : 102 }]),
      );
    }
  });
});

describe('a control role that may not act for the owner', () => {
  const cluster = useTransactionCluster(2, { admin: 'manager' });

  test('leaves it, shows it, says why, and goes on when it may', async () => {
    await cluster.everywhere(
      `CREATE ROLE stranger LOGIN; CREATE TABLE t (n int); GRANT ALL ON t TO stranger`,
    );
    const branches = await Promise.all(
      [0, 1].map((index) => cluster.branch(index, ['INSERT INTO t VALUES (1)'], { user: 'stranger' })),
    );
    const dying = await cluster.transactions({
      faults: {
        beforeEffect: async (name) => {
          if (name !== 'decide') return;
          for (const { connection } of branches) connection.destroy();
          await dying.die();
        },
      },
    });
    void dying.coordinator.commit(branches);
    const other = await cluster.transactions({ times: { leftAloneMs: 0, recoveryAfterMs: 100 } });
    await expect
      .poll(async () => {
        await other.recovery.round();
        return await cluster.servers[0]!.query('SELECT node, owner, state FROM postern.prepared');
      })
      .toEqual([{ node: 'n1', owner: 'stranger', state: 'unreachable' }]);
    expect(other.logged).toEqual([
      expect.stringMatching(/ROLLBACK PREPARED of stranger's on node "n1": permission denied/),
    ]);
    await cluster.servers[0]!.query('GRANT stranger TO manager');
    await other.recovery.round();
    expect((await cluster.leftovers()).filter((left) => left.includes('prepared'))).toEqual([]);
  });
});

describe('servers with max_prepared_transactions = 0', () => {
  const cluster = useTransactionCluster(3, { server: { settings: { max_prepared_transactions: '0' } } });
  beforeAll(async () => {
    await cluster.everywhere(ACCOUNTS);
    await cluster.servers[2]!.query(`ALTER SYSTEM SET max_prepared_transactions = 10`);
    await cluster.servers[2]!.restart();
  });

  test('two of them are refused before anything is prepared', async () => {
    const { coordinator } = await cluster.transactions();
    const branches = [
      await cluster.branch(0, [ADD]),
      await cluster.branch(1, [ADD]),
      await cluster.branch(2, [ADD]),
    ];
    expect(await coordinator.commit(branches)).toMatchObject({
      kind: 'rolledBack',
      error: { sqlState: '0A000', detail: expect.stringContaining('max_prepared_transactions is 0') },
    });
    expect(branches.every(({ connection }) => connection.quiet)).toBe(true);
  });

  test('one of them decides', async () => {
    const { coordinator } = await cluster.transactions();
    const branches = [await cluster.branch(0, [ADD]), await cluster.branch(2, [ADD])];
    expect(await coordinator.commit(branches)).toMatchObject({ kind: 'committed' });
    expect((await cluster.leftovers()).sort()).toEqual(['n1: commit app', 'n3: mark app']);
  });

  test('one that holds what cannot be prepared decides as well, and a second one is refused', async () => {
    const { coordinator } = await cluster.transactions();
    const temporary = ['CREATE TEMP TABLE t ()', ADD];
    const unpreparable = 'temporary table';
    const one = await cluster.branch(0, temporary, { unpreparable });
    expect(await coordinator.commit([one, await cluster.branch(2, [ADD])])).toMatchObject({
      kind: 'committed',
    });
    const branches = [await cluster.branch(1, [ADD]), await cluster.branch(2, temporary, { unpreparable })];
    expect(await coordinator.commit(branches)).toMatchObject({
      kind: 'rolledBack',
      error: { sqlState: '0A000', detail: expect.stringContaining('temporary table') },
    });
  });
});
