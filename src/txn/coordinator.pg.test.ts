import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { rowsOf, useTransactionCluster } from '../../test/support/transaction-cluster.ts';
import { ServerError } from '../platform/control-connection.ts';

/** Commits over real servers, of which the second is the oldest version that the machine has. */

const cluster = useTransactionCluster(3);

beforeAll(async () => {
  for (const server of cluster.servers)
    await server.query(
      'CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL); GRANT ALL ON accounts TO app',
    );
});

beforeEach(async () => {
  for (const server of cluster.servers)
    await server.query(
      'DROP TABLE IF EXISTS child; TRUNCATE accounts, postern_internal.decisions, postern_internal.transaction_marks; INSERT INTO accounts VALUES (1, 100)',
    );
});

const ADD = 'UPDATE accounts SET balance = balance + 1 WHERE id = 1';

async function balances(): Promise<number[]> {
  const rows = await cluster.everywhere('SELECT balance FROM accounts');
  return rows.map((list) => Number(list[0]!.balance));
}

describe('a commit', () => {
  test('over three nodes', async () => {
    const { coordinator, metrics, cleaner } = await cluster.transactions();
    const branches = [
      await cluster.branch(0, [ADD]),
      await cluster.branch(1, [ADD]),
      await cluster.branch(2, [ADD]),
    ];
    expect(await coordinator.commit(branches)).toEqual({ kind: 'committed', warnings: [] });
    expect(await balances()).toEqual([101, 101, 101]);
    expect(branches.map(({ connection }) => connection.quiet)).toEqual([true, true, true]);
    expect(metrics).toMatchObject({ committedTwoPhase: 1, underWay: 0, cleaningQueued: 1 });
    // The last one written is the commit point.
    expect((await cluster.leftovers()).sort()).toEqual(['n1: mark app', 'n2: mark app', 'n3: commit app']);
    await cleaner.drain();
    expect(await cluster.leftovers()).toEqual([]);
  });

  test('again on the same connections', async () => {
    const { coordinator } = await cluster.transactions();
    const branches = [await cluster.branch(0, [ADD]), await cluster.branch(1, [ADD])];
    await coordinator.commit(branches);
    for (const { connection } of branches) {
      await rowsOf(connection, 'BEGIN');
      await rowsOf(connection, ADD);
    }
    expect(await coordinator.commit(branches)).toMatchObject({ kind: 'committed' });
    expect(await balances()).toEqual([102, 102, 100]);
  });
});

describe('a failure before the decision', () => {
  test('a deferred constraint says no in its own words', async () => {
    await cluster.everywhere(
      `CREATE TABLE child (id int REFERENCES accounts DEFERRABLE INITIALLY DEFERRED); GRANT ALL ON child TO app`,
    );
    const { coordinator } = await cluster.transactions();
    const branches = [
      await cluster.branch(0, ['INSERT INTO child VALUES (77)']),
      await cluster.branch(1, [ADD]),
    ];
    const result = await coordinator.commit(branches);
    expect(result).toMatchObject({ kind: 'rolledBack' });
    const { error } = result as { error: ServerError };
    expect(error).toBeInstanceOf(ServerError);
    const direct = await cluster.branch(0, ['INSERT INTO child VALUES (77)']);
    const expected = await rowsOf(direct.connection, 'COMMIT').catch((failure: ServerError) => failure);
    expect([...error.fields]).toEqual([...(expected as ServerError).fields]);
    expect(await balances()).toEqual([100, 100, 100]);
    expect(branches.map(({ connection }) => connection.quiet)).toEqual([true, true]);
    expect(await cluster.leftovers()).toEqual([]);
  });
});

test('a server notices within half a minute that its router is gone, whatever its version', async () => {
  for (const index of [0, 1]) {
    const connection = await cluster.connect(index);
    const shown = await Promise.all(
      ['idle', 'interval', 'count'].map((name) => rowsOf(connection, `SHOW tcp_keepalives_${name}`)),
    );
    expect([...shown, await rowsOf(connection, 'SHOW tcp_user_timeout')]).toEqual([
      [['10']],
      [['5']],
      [['3']],
      [['25000']],
    ]);
  }
});
