/** Questions about other routers' rows, to a server whose synchronous standby is away: they wait until it has what they tell. */
import { expect, test, vi } from 'vitest';
import { useTransactionCluster } from '../../test/support/transaction-cluster.ts';
import { NodeControl } from './node-controls.ts';
import { readDecision, readMark } from './settle.ts';

const cluster = useTransactionCluster(2);
const KEY = { transactionId: '00000000-0000-4000-8000-000000000001', owner: 'app' };

test.each([
  ['mark', readMark, true],
  ['decision', readDecision, 'commit'],
] as const)('I13: a %s is told when it is on the synchronous standby', async (_, read, expected) => {
  const [server] = cluster.servers;
  await server!.query(
    `INSERT INTO postern_internal.transaction_marks VALUES ('${KEY.transactionId}', 'app', 1, '{2}', pg_current_xact_id())
       ON CONFLICT DO NOTHING`,
  );
  await server!.query(
    `INSERT INTO postern_internal.decisions VALUES ('${KEY.transactionId}', 'app', 'commit', '{2}', pg_current_xact_id(), now())
       ON CONFLICT DO NOTHING`,
  );
  const connection = await cluster.open(0);
  try {
    await server!.query("ALTER SYSTEM SET synchronous_standby_names = 'away'");
    await server!.query('SELECT pg_reload_conf()');
    let told: Promise<unknown> = Promise.resolve();
    let isTold = true;
    await vi.waitFor(async () => {
      // Until the server has read its configuration, an answer comes at once.
      if (isTold) {
        isTold = false;
        told = read(new NodeControl(connection, true), KEY).finally(() => {
          isTold = true;
        });
      }
      const rows = await server!.query("SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
      expect(rows.length).toBe(1);
    });
    expect(isTold).toBe(false);
    await server!.query('ALTER SYSTEM RESET synchronous_standby_names');
    await server!.query('SELECT pg_reload_conf()');
    expect(await told).toBe(expected);
  } finally {
    await server!.query('ALTER SYSTEM RESET synchronous_standby_names');
    await server!.query('SELECT pg_reload_conf()');
    await connection.close();
  }
});
