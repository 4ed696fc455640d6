import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isVersionInstalled, startTestServer, type TestServer } from '../../../test/support/servers.ts';
import { parseDsn } from '../../pg/dsn.ts';
import { ActivitySampler } from './activity-sampler.ts';
import { CheckpointProbe } from './checkpoints.ts';
import { MeasuredServer } from './measured-server.ts';
import { ProbeConnection } from './probe-connection.ts';
import { readReplication, unflushedBytes } from './replication.ts';
import { LocalSystem, systemUse } from './system.ts';
import { mayTimeWal, WalCounterProbe, walDifference } from './wal-counters.ts';

const IN_TIME = { timeout: 20_000 };
const versions: (15 | 18)[] = (await isVersionInstalled(15)) ? [15, 18] : [18];

describe.each(versions)('the probes on PostgreSQL %s', (version) => {
  let server: TestServer;
  let measured: MeasuredServer;
  let probe: ProbeConnection;
  const clients: pg.Client[] = [];

  const connect = async (options: pg.ClientConfig = {}): Promise<pg.Client> => {
    const client = new pg.Client({ connectionString: server.dsn(), ...options });
    client.on('error', () => {});
    await client.connect();
    clients.push(client);
    return client;
  };

  beforeAll(async () => {
    server = await startTestServer({ version, durable: true, settings: { max_wal_senders: '5' } });
    measured = await MeasuredServer.connect(parseDsn(server.dsn()));
    probe = await ProbeConnection.open(measured.target);
    await server.query('CREATE TABLE t (n int)');
  });
  afterAll(async () => {
    await probe?.end();
    await measured?.clean();
    await Promise.all(clients.map((client) => client.end().catch(() => {})));
    await server?.stop();
  });

  it('count the WAL of sessions that have ended', async () => {
    expect(await mayTimeWal(probe)).toBe(true);
    const counters = await WalCounterProbe.open(probe);
    expect(counters.unread).toEqual([]);
    const before = await counters.read();
    const client = new pg.Client({ connectionString: server.dsn(), options: '-c track_wal_io_timing=on' });
    await client.connect();
    for (let commit = 0; commit < 20; commit++) await client.query('INSERT INTO t VALUES (1)');
    await client.end();
    // A session hands its figures in while it ends, which the client doesn't wait for.
    await expect
      .poll(async () => walDifference(before, await counters.read()).syncs, IN_TIME)
      .toBeGreaterThanOrEqual(20);
    const { syncMs, writes, records, bytes, insertLsn } = walDifference(before, await counters.read());
    expect(syncMs).toBeGreaterThan(0);
    expect(writes).toBeGreaterThanOrEqual(20);
    expect(records).toBeGreaterThanOrEqual(40);
    expect(bytes).toBeGreaterThan(20 * 60);
    expect(insertLsn).toBeGreaterThanOrEqual(20 * 60);
    // Back to where it was: as after a reset.
    expect(walDifference(await counters.read(), before).bytes).toBeUndefined();
  });

  it('see what sessions wait for, by type and event', async () => {
    const [holder, waiter, idle] = [
      await connect(),
      await connect(),
      await connect({ application_name: 'other' }),
    ];
    await idle.query('SELECT 1');
    await holder.query('BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE');
    const waiting = waiter.query('SELECT count(*) FROM t');
    // It is waited for below; what ends it before, ends with a failure that was told already.
    waiting.catch(() => {});
    await expect
      .poll(
        async () =>
          (await server.query(`SELECT 1 FROM pg_stat_activity WHERE wait_event = 'relation'`)).length,
        IN_TIME,
      )
      .toBe(1);
    const sampler = new ActivitySampler({ connection: probe, intervalMs: 5 });
    sampler.start();
    await expect.poll(() => probe.cost().queries, IN_TIME).toBeGreaterThan(20);
    const { waits, samples } = await sampler.stop();
    await holder.query('COMMIT');
    await waiting;
    const of = (key: string): number => waits.find((wait) => wait.key === key)?.count ?? 0;
    expect(samples).toBeGreaterThan(0);
    expect(of('lock:relation')).toBe(samples);
    expect(of('client:idleintransaction')).toBe(samples);
    expect(of('client:idle')).toBeGreaterThanOrEqual(samples);
    const only = new ActivitySampler({ connection: probe, applicationName: 'other', intervalMs: 5 });
    only.start();
    const asked = probe.cost().queries;
    await expect.poll(() => probe.cost().queries, IN_TIME).toBeGreaterThan(asked + 3);
    const { waits: others, sessions, samples: looks } = await only.stop();
    expect(others.map(({ key }) => key)).toEqual(['client:idle']);
    expect(sessions).toBe(looks);
  });

  it('count checkpoints', async () => {
    const checkpoints = await CheckpointProbe.open(probe);
    expect(checkpoints.unread).toEqual([]);
    const before = (await checkpoints.read())!;
    await server.query('INSERT INTO t VALUES (2)');
    await server.query('CHECKPOINT');
    await expect
      .poll(async () => (await checkpoints.read())!.requested - before.requested, IN_TIME)
      .toBeGreaterThanOrEqual(1);
  });

  it('tell of replication, and of WAL that is not flushed', async () => {
    expect(await readReplication(probe)).toEqual({
      ...{ standbys: [], synchronousStandbyNames: '', waitedFor: 0, unread: [] },
    });
    expect(await unflushedBytes(probe)).toBeGreaterThanOrEqual(0);
  });

  it('see the server’s processes, cores and disk', async () => {
    const dataDirectory = await probe.setting('data_directory');
    expect(dataDirectory).toBe(server.dataDir);
    const system = new LocalSystem({ postmasterPid: (await measured.localPostmaster())!, dataDirectory });
    const before = await system.sample();
    const busy = await connect();
    await busy.query('SELECT count(*) FROM generate_series(1, 500000)');
    const use = systemUse(before, await system.sample())!;
    expect(use.cores).toBeGreaterThan(0);
    expect(use.serverCores).toBeGreaterThan(0);
    expect(Object.keys(use.processCores)).toContain('walwriter');
    expect(system.unread).toEqual([]);
    expect(use.disk?.name).toBeTruthy();
  });

  it('know what they cost', () => {
    const { queries, milliseconds, cpuSeconds } = probe.cost();
    expect(queries).toBeGreaterThan(10);
    expect(milliseconds).toBeGreaterThan(0);
    expect(cpuSeconds).toBeGreaterThan(0);
    expect(cpuSeconds).toBeLessThan(1);
  });

  it('name what a user without rights is not told', async () => {
    await server.query('CREATE ROLE weak LOGIN');
    const weakServer = await MeasuredServer.connect(parseDsn(server.dsn({ user: 'weak' })));
    const weak = await ProbeConnection.open(weakServer.target);
    try {
      expect(await mayTimeWal(weak)).toBe(false);
      expect(await weak.setting('data_directory')).toBeUndefined();
      expect((await WalCounterProbe.open(weak)).unread).toEqual([]);
      expect((await (await WalCounterProbe.open(weak)).read()).bytes).toBeGreaterThan(0);
      expect(new LocalSystem({ postmasterPid: server.pid, dataDirectory: undefined }).unread).toHaveLength(1);
    } finally {
      await weak.end();
      await weakServer.clean();
    }
  });
});
