import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isVersionInstalled, startTestServer, type TestServer } from '../../../test/support/servers.ts';
import type { Protocol } from '../load/transaction-template.ts';
import { countersWorkload, eventsWorkload, type Workload, workloadFromScript } from '../workload/workload.ts';
import { type MeasureOptions, measureWall, SweepError } from './measure.ts';
import type { ProgressEvent } from './progress.ts';
import { isVoid } from './sweep.ts';

const protocols: Protocol[] = ['simple', 'extended', 'prepared'];
const short = { warmupSeconds: 0.1, secondsPerPoint: 0.4 };

async function schemas(server: TestServer): Promise<unknown[]> {
  const rows = await server.query(`SELECT nspname FROM pg_namespace WHERE nspname LIKE 'postern%'`);
  return rows.map((row) => row.nspname);
}

async function number(server: TestServer, sql: string): Promise<number> {
  const [row] = await server.query(sql);
  return Number(Object.values(row!)[0]);
}

/** The error that it rejects with; never rejects itself, since it may be waited for only later. */
async function failure(run: Promise<unknown>): Promise<Error> {
  return run.then(
    () => new Error('it was expected to fail'),
    (error: Error) => error,
  );
}

/** Runs `act` once, at the first event that is a running window. */
function atFirstWindow(act: () => void): (event: ProgressEvent) => void {
  let done = false;
  return (event) => {
    if (done || event.kind !== 'running' || event.phase !== 'window' || event.tps === 0) return;
    done = true;
    act();
  };
}

describe.each<15 | 18>([15, 18])('measureWall on PostgreSQL %i', async (version) => {
  const missing = !(await isVersionInstalled(version));

  describe.skipIf(missing)('with the version installed', () => {
    let server: TestServer;
    beforeAll(async () => {
      server = await startTestServer({ version, auth: 'scram-sha-256', settings: { max_connections: '40' } });
      await server.query(eventsWorkload().setup[0]!.replace('{schema}', ''));
    });
    afterAll(() => server?.stop());

    const measure = (options: Partial<MeasureOptions>) =>
      measureWall({
        dsn: server.dsn(),
        workload: eventsWorkload(),
        clients: [4],
        allowTraffic: true,
        ...short,
        ...options,
      });

    it.each(protocols)('confirms exactly the rows that are there (%s)', async (protocol) => {
      await server.query('TRUNCATE events');
      const { points, best } = await measure({ protocol, setup: false, clients: [1, 16], workers: 2 });
      const acknowledged = points.reduce((sum, point) => sum + point.acknowledged, 0);
      expect(await number(server, 'SELECT count(*) FROM events')).toBe(acknowledged);
      for (const point of points) {
        expect(point.transactions).toBeGreaterThan(0);
        expect(point.transactions).toBeLessThan(point.acknowledged);
        // Each thread has its own window, so this is the same only roughly.
        expect(Math.abs(point.tps / (point.transactions / point.seconds) - 1)).toBeLessThan(0.2);
        expect(point.errors).toEqual({});
        expect(point.p50Ms).toBeGreaterThan(0);
        expect(point.p50Ms).toBeLessThanOrEqual(point.p95Ms);
        expect(point.p95Ms).toBeLessThanOrEqual(point.p99Ms);
        expect(point.p99Ms).toBeLessThanOrEqual(point.maxMs);
        expect(point.generatorCpuShare).toBeGreaterThan(0);
      }
      const valid = points.filter((point) => !isVoid(point));
      expect(best).toBe(valid.sort((a, b) => b.tps - a.tps)[0]);
    });

    it.each(protocols)(
      'updates rows by drawn keys (%s), in a schema that is gone afterwards',
      async (protocol) => {
        const result = await measure({ workload: countersWorkload({ rows: 100 }), protocol });
        expect(result.points[0]!.errors).toEqual({});
        expect(result.server).toMatchObject({
          settings: { fsync: 'off', max_connections: '40' },
          replicas: 0,
          unread: [],
        });
        expect(result.server.version).toMatch(new RegExp(`^${version}\\.`));
        expect(result.sharesMachine).toBe(true);
        if (process.platform === 'linux') {
          expect(result.points[0]!.cpuMsPerTransaction.server).toBeGreaterThan(0);
          expect(result.points[0]!.machineBusyShare).toBeGreaterThan(0);
        }
        expect(await schemas(server)).toEqual([]);
      },
    );
  });
});

describe('measureWall, when it does not go smoothly', () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer({ auth: 'scram-sha-256', settings: { max_connections: '40' } });
  });
  afterAll(() => server?.stop());

  const measure = (options: Partial<MeasureOptions>) =>
    measureWall({
      dsn: server.dsn(),
      workload: eventsWorkload(),
      clients: [4],
      allowTraffic: true,
      ...short,
      ...options,
    });

  it.each(protocols)(
    'counts errors by SQLSTATE, and goes on after one inside a transaction (%s)',
    async (protocol) => {
      const half = workloadFromScript(
        '\\set divisor random(0, 1)\nBEGIN;\nINSERT INTO {schema}t VALUES (1 / :divisor);\nCOMMIT;\n',
        { name: 'half', setup: ['CREATE TABLE {schema}t (n int)'] },
      );
      const [point] = (await measure({ workload: half, protocol })).points;
      expect(Object.keys(point!.errors)).toEqual(['22012']);
      expect(point!.errorMessages['22012']).toContain('division by zero');
      const failed = point!.errors['22012']!;
      expect(failed / (failed + point!.transactions)).toBeGreaterThan(0.3);
      expect(failed / (failed + point!.transactions)).toBeLessThan(0.7);
    },
  );

  it('stops with the server’s words when every transaction fails', async () => {
    await server.query('CREATE TABLE taken (id int PRIMARY KEY); INSERT INTO taken VALUES (1)');
    const workload: Workload = {
      ...eventsWorkload(),
      transactions: [{ name: 'insert', weight: 1, script: 'INSERT INTO taken VALUES (1);' }],
    };
    const error = await failure(measure({ workload }));
    expect(error).toBeInstanceOf(SweepError);
    expect(error.message).toMatch(/every transaction failed: duplicate key .*23505/);
    expect(
      (await failure(measure({ workload: countersWorkload({ rows: 1 }), setup: false }))).message,
    ).toContain('relation "counters" does not exist');
    expect(await schemas(server)).toEqual([]);
  });

  it('skips what the server has no connections for, known before or not', async () => {
    const known = await measure({ clients: [2, 41, 500] });
    expect(known.points.map((point) => point.clients)).toEqual([2]);
    expect(known.skipped.map((skipped) => skipped.clients)).toEqual([41, 500]);
    expect(known.skipped[0]!.reason).toContain('max_connections');
    await server.query(eventsWorkload().setup[0]!.replace('{schema}', ''));
    const unknown = await measure({ clients: [60, 2], setup: false });
    expect(unknown.points.map((point) => point.clients)).toEqual([2]);
    expect(unknown.skipped).toEqual([{ clients: 60, reason: expect.stringContaining('too many clients') }]);
  });

  it('leaves a schema alone that it did not make', async () => {
    await server.query('CREATE SCHEMA postern_wall; CREATE TABLE postern_wall.mine ()');
    expect((await failure(measure({}))).message).toContain('did not make');
    expect(await number(server, 'SELECT count(*) FROM postern_wall.mine')).toBe(0);
    await server.query('DROP SCHEMA postern_wall CASCADE');
  });

  it('does not start beside another measurement, nor harm it', async () => {
    let second: Promise<Error> | undefined;
    const onProgress = atFirstWindow(() => {
      second = failure(measure({}));
    });
    const first = await measure({ onProgress, secondsPerPoint: 1 });
    expect(first.points[0]!.errors).toEqual({});
    expect((await second!).message).toContain('another measurement is running');
    expect(await schemas(server)).toEqual([]);
  });

  it('ends at once and leaves nothing when it is aborted', async () => {
    const interruption = new AbortController();
    const onProgress = atFirstWindow(() => interruption.abort(new Error('enough')));
    const error = await failure(measure({ signal: interruption.signal, onProgress, secondsPerPoint: 600 }));
    expect(error.message).toBe('enough');
    expect(await schemas(server)).toEqual([]);
    expect((await failure(measure({ signal: interruption.signal }))).message).toBe('enough');
  });

  it.each([
    [{ password: 'wrong' }, /refused the login.*password authentication failed/],
    [{ database: 'nowhere' }, /no database "nowhere"/],
  ])('says what is wrong with a login: %j', async (part, message) => {
    expect((await failure(measure({ dsn: server.dsn(part) }))).message).toMatch(message);
  });

  it('says so when the user may not create a schema', async () => {
    await server.query(`CREATE ROLE weak LOGIN PASSWORD 'weak'`);
    const dsn = server.dsn({ user: 'weak', password: 'weak' });
    expect((await failure(measure({ dsn }))).message).toContain('GRANT CREATE ON DATABASE');
  });

  it('ends with a clear error when the server is killed, and clears up at the next start', async () => {
    const killed = failure(
      measure({ clients: [2, 8], secondsPerPoint: 600, onProgress: atFirstWindow(() => server.kill()) }),
    );
    const error = await killed;
    expect(error).toBeInstanceOf(SweepError);
    expect(error.message).toMatch(/the server closed the connection|connection was lost|terminat/);
    expect(error.message).toContain('schema postern_wall could not be dropped');
    await server.restart();
    expect(await schemas(server)).toEqual(['postern_wall']);
    expect((await measure({})).points).toHaveLength(1);
    expect(await schemas(server)).toEqual([]);
  });
});

describe('measureWall without a server', () => {
  it('says that nothing listens there', async () => {
    const dsn = 'postgres://u@127.0.0.1:1/d';
    expect((await failure(measureWall({ dsn, workload: eventsWorkload() }))).message).toContain(
      'no server listens',
    );
  });
});
