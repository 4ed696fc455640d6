import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestServer, startTestStandby, type TestServer } from '../../test/support/servers.ts';

const WAIT_MS = 20_000;

describe('a standby of an embedded server', () => {
  let primary: TestServer;
  let near: TestServer;
  let far: TestServer;

  beforeAll(async () => {
    primary = await startTestServer();
    await primary.query('CREATE TABLE t AS SELECT generate_series(1, 10000) AS n');
    near = await startTestStandby(primary, { name: 'near' });
    far = await startTestStandby(primary, { name: 'far', upstreamPort: near.port });
  }, 60_000);
  afterAll(async () => {
    await far?.stop();
    await near?.stop();
    await primary?.stop();
  });

  async function until(server: TestServer, sql: string, expected: unknown): Promise<void> {
    const deadline = Date.now() + WAIT_MS;
    for (;;) {
      const [row] = await server.query(sql).catch(() => []);
      const found = row && Object.values(row)[0];
      if (found === expected) return;
      if (Date.now() > deadline) throw new Error(`${sql} gives ${String(found)}, not ${String(expected)}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  it('has the data of the primary, what came before and what comes after, and takes no writes', async () => {
    await until(near, 'SELECT count(*)::int FROM t', 10_000);
    await primary.query('INSERT INTO t VALUES (10001)');
    await until(near, 'SELECT count(*)::int FROM t', 10_001);
    await expect(near.query('INSERT INTO t VALUES (1)')).rejects.toMatchObject({ code: '25006' });
  });

  it('streams from another standby', async () => {
    await until(far, 'SELECT count(*)::int FROM t', 10_001);
    expect(await primary.query('SELECT application_name FROM pg_stat_replication')).toEqual([
      { application_name: 'near' },
    ]);
    expect(await near.query('SELECT application_name FROM pg_stat_replication')).toEqual([
      { application_name: 'far' },
    ]);
  });

  it('confirms commits when the primary waits for it, and goes on from where it was after a restart', async () => {
    await primary.query(`ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (near)'`);
    await primary.query('SELECT pg_reload_conf()');
    await until(
      primary,
      `SELECT sync_state FROM pg_stat_replication WHERE application_name = 'near'`,
      'sync',
    );
    await primary.query('INSERT INTO t VALUES (10002)');
    expect(await near.query('SELECT pg_is_in_recovery() AS r')).toEqual([{ r: true }]);
    near.kill();
    await near.restart();
    await until(near, 'SELECT count(*)::int FROM t', 10_002);
    await until(far, 'SELECT count(*)::int FROM t', 10_002);
  });
});
