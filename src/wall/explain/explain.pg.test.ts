import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isVersionInstalled, startTestServer, type TestServer } from '../../../test/support/servers.ts';
import { workloadByName } from '../workload/built-in-workloads.ts';
import { type Workload, workloadFromScript } from '../workload/workload.ts';
import { evidenceText } from './evidence-text.ts';
import { type ExplainOptions, explainWall } from './explain.ts';
import { explanationSchema, INTERVENTION_NAMES } from './explanation.ts';

const PACE = { warmupMs: 10, windowMs: 60, pairs: 1 };
const IN_TIME = { timeout: 20_000 };
const versions: (15 | 18)[] = (await isVersionInstalled(15)) ? [15, 18] : [18];

/** What no version changes is tested on one. */
function itOn(version: number): (name: string, test: () => Promise<void>) => void {
  return (name, test) => {
    if (version === 18) it(name, test);
  };
}

describe.each(versions)('explainWall on PostgreSQL %s', (version) => {
  const itOnce = itOn(version);
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer({ version, durable: true, settings: { max_connections: '40' } });
  });
  afterAll(async () => {
    await server?.stop();
  });

  const explain = (options: Partial<ExplainOptions> = {}) =>
    explainWall({
      dsn: server.dsn(),
      workload: workloadByName('events'),
      clients: 4,
      pace: PACE,
      ...options,
    });
  const failure = async (options: Partial<ExplainOptions>): Promise<Error> =>
    explain(options).then(
      () => new Error('it did not fail'),
      (error: Error) => error,
    );
  const leftovers = () =>
    server.query(`SELECT nspname FROM pg_namespace WHERE nspname LIKE 'postern%'
      UNION ALL SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'postern wall%'`);

  it('measures every intervention, counts and times, and leaves nothing', async () => {
    const explanation = explanationSchema.parse(await explain());
    expect(explanation.interventions.map(({ name }) => name)).toEqual(
      INTERVENTION_NAMES.filter((name) => name !== 'local_commit' && name !== 'remote_write'),
    );
    for (const { tps, cpuRatio } of explanation.interventions) {
      expect(tps).toBeGreaterThan(0);
      expect(cpuRatio).toBeGreaterThan(0);
    }
    const { counters, inputs, ceilings, unread } = explanation;
    expect(unread).toEqual([]);
    expect(counters.walBytesPerTransaction).toBeGreaterThan(60);
    expect(counters.commitsPerSync).toBeGreaterThan(0.5);
    expect(counters.commitsPerSync).toBeLessThan(40);
    expect(counters.syncMs).toBeGreaterThan(0);
    expect(inputs.cpuMsPerTransaction).toBeGreaterThan(0);
    expect(inputs.replicas).toBe(0);
    expect(ceilings.map(({ bound }) => bound).at(-1)).toBe('none');
    expect(evidenceText(explanation)).toContain('The four ceilings');
    await expect.poll(leftovers, IN_TIME).toEqual([]);
  });

  itOnce('does without what it is not given: tables of its own, rights, connections', async () => {
    await server.query(
      'CREATE TABLE mine (n int); CREATE ROLE plain LOGIN; GRANT CREATE ON DATABASE postgres TO plain; GRANT INSERT ON mine TO plain',
    );
    const script: Workload = workloadFromScript('INSERT INTO public.mine VALUES (1);', { name: 'mine' });
    const explanation = await explain({ dsn: server.dsn({ user: 'plain' }), workload: script, clients: 20 });
    expect(explanation.interventions.map(({ name }) => name)).toEqual(['async_commit', 'commit_only']);
    expect(explanation.unread).toContainEqual(expect.stringContaining('the load without WAL'));
    expect(explanation.unread).toContainEqual(expect.stringContaining('track_wal_io_timing'));
    expect(explanation.counters.commitsPerSync).toBeGreaterThan(0.5);
  });

  itOnce('leaves nothing when it is interrupted or fails', async () => {
    const interruption = new AbortController();
    const error = await failure({
      signal: interruption.signal,
      onProgress: ({ kind }) => kind === 'running' && interruption.abort(new Error('enough')),
    });
    expect(error.message).toBe('enough');
    await expect.poll(leftovers, IN_TIME).toEqual([]);
    const wrong = workloadFromScript('INSERT INTO {schema}absent VALUES (1);', { name: 'wrong' });
    expect((await failure({ workload: wrong })).message).toContain('absent');
    expect((await failure({ clients: 200 })).message).toContain('connections to spare');
    await expect.poll(leftovers, IN_TIME).toEqual([]);
  });

  itOnce('leaves a schema alone that is somebody else’s, and does without the twin', async () => {
    await server.query('CREATE SCHEMA postern_wall_unlogged; CREATE TABLE postern_wall_unlogged.kept ()');
    const { unread } = await explain();
    expect(unread).toContainEqual(expect.stringContaining('did not make'));
    expect(await server.query('SELECT * FROM postern_wall_unlogged.kept')).toEqual([]);
    await server.query('DROP SCHEMA postern_wall_unlogged CASCADE');
  });

  itOnce('refuses a server with other traffic when it is asked to', async () => {
    const sleeping = server.query(`SELECT pg_sleep(600)`).catch(() => {});
    await expect
      .poll(() => server.query(`SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'`), IN_TIME)
      .toHaveLength(1);
    expect((await failure({ refuseTraffic: true })).message).toContain('other traffic');
    await server.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'`);
    await sleeping;
  });
});
