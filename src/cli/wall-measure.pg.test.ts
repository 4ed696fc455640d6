import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestServer, type TestServer } from '../../test/support/servers.ts';
import { reportSchema } from '../wall/report/report-schema.ts';

const short = ['--seconds', '0.5'];
const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

interface Run {
  readonly child: ChildProcess;
  readonly ended: Promise<{ status: number | null; out: string; err: string }>;
}

function start(args: readonly string[]): Run {
  const child = spawn(process.execPath, [main, 'wall', 'measure', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [out, err] = ['', ''];
  child.stdout.on('data', (text) => (out += text));
  child.stderr.on('data', (text) => (err += text));
  const ended = new Promise<{ status: number | null; out: string; err: string }>((resolve) => {
    child.on('close', (status) => resolve({ status, out, err }));
  });
  return { child, ended };
}

describe('postern wall measure', () => {
  let server: TestServer;
  const directory = mkdtempSync(path.join(tmpdir(), 'postern-wall-'));
  beforeAll(async () => {
    server = await startTestServer();
  });
  afterAll(async () => {
    await server?.stop();
    rmSync(directory, { recursive: true });
  });

  const sessions = async (): Promise<number> => {
    const [row] = await server.query(
      `SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name = 'postern wall' AND state IS NOT NULL`,
    );
    return row!.n as number;
  };

  const file = (name: string): string => path.join(directory, name);
  const written = (name: string) => reportSchema.parse(JSON.parse(readFileSync(file(name), 'utf8')));

  /** On a machine that is busy with other tests the only point may be void; then it is measured again. */
  async function notVoid(args: readonly string[]): Promise<Awaited<Run['ended']>> {
    for (let tries = 1; ; tries++) {
      const run = await start(args).ended;
      // Without --fail-below the report says so, and there is no error.
      const isVoid = run.status === 1 && (run.err === '' || run.err.includes('every point was void'));
      if (!isVoid || tries === 5) return run;
    }
  }

  it('prints each point of a list and writes the files', async () => {
    const files = ['--json', file('r.json'), '--html', file('r.html'), '--csv', file('r.csv')];
    const { status, out, err } = await start([server.dsn(), '--clients', '1,4', ...short, ...files]).ended;
    expect([status, err]).toEqual([0, '']);
    expect(out).toMatch(/^clients= {3}1 {2}tps=.*ms.*\nclients= {3}4 {2}tps=.*ms.*\n\n\S/);
    expect(out).toMatch(/^ {2}durability +fsync=off,.*NOT durable/m);
    expect(out).toMatch(/^ {2}other traffic +\d+ transactions a second by others, no session at work$/m);
    const [curve] = written('r.json').curves;
    expect(curve).toMatchObject({ finished: true, points: [{ clients: 1 }, { clients: 4 }] });
    expect(curve!.dataBytes).toBeGreaterThan(0);
    expect(curve!.points[0]!.walBytesPerTransaction).toBeGreaterThan(50);
    expect(curve!.points[0]!.checkpoints).toBe(0);
    expect(readFileSync(file('r.csv'), 'utf8').split('\r\n')).toHaveLength(4);
    expect(readFileSync(file('r.html'), 'utf8')).toContain('<!doctype html>');
  });

  it('searches for the wall, and resumes a search that was interrupted', async () => {
    const args = [server.dsn(), '--max-clients', '4', '--seconds', '0.4', '--json', file('s.json')];
    const first = start(args);
    await expect
      .poll(() => existsSync(file('s.json')) && written('s.json').curves[0]!.points.length, {
        timeout: 30_000,
      })
      .toBeGreaterThanOrEqual(2);
    first.child.kill('SIGINT');
    expect((await first.ended).status).toBe(130);
    expect(written('s.json').curves[0]!.finished).toBe(false);
    const before = written('s.json').curves[0]!.points;

    const again = await start([...args.slice(0, -2), '--resume', file('s.json')]).ended;
    expect(again.err).toBe('');
    expect(again.out.match(/\(measured before\)/g)).toHaveLength(before.length);
    const curve = written('s.json').curves[0]!;
    expect(curve.finished).toBe(true);
    expect(curve.points.slice(0, before.length)).toEqual(before);
    expect(['reached', 'not-reached', 'void']).toContain(curve.wall?.kind);

    const other = [server.dsn(), '--workload', 'counters', '--seconds', '0.4', '--resume', file('s.json')];
    const refused = await start(other).ended;
    expect(refused.status).toBe(1);
    expect(refused.err).toMatch(
      /^postern: the earlier measurement can't be resumed: workload was events [^\n]*\n$/,
    );
  });

  it('drives an open loop, and a script of the user’s', async () => {
    await server.query('CREATE TABLE IF NOT EXISTS mine (n int)');
    writeFileSync(file('mine.sql'), '\\set n random(1, 9)\nINSERT INTO mine VALUES (:n);\n');
    const args = ['--script', file('mine.sql'), '--rate', '200', '--clients', '4', '--seconds', '1'];
    const { status, out, err } = await notVoid([server.dsn(), ...args, '--json', file('o.json')]);
    expect([status, err]).toEqual([0, '']);
    expect(out).toMatch(/^At 200 arrivals a second: /m);
    const [point] = written('o.json').curves[0]!.points;
    expect(point).toMatchObject({ purpose: 'rate', openLoop: { rate: 200 } });
    expect(point!.openLoop!.offered).toBeGreaterThan(100);
    await server.query('DROP TABLE mine');
  });

  it('ends with status 3 below what was asked for', async () => {
    const args = [server.dsn(), '--clients', '2', ...short, '--fail-below'];
    expect((await notVoid([...args, '1'])).status).toBe(0);
    const below = await notVoid([...args, '9000000']);
    expect(below.status).toBe(3);
    expect(below.err).toMatch(/^postern: [\d,]+ transactions a second are below --fail-below 9,000,000\n$/);
  });

  it('refuses a server with other traffic on it, unless told that this is known', async () => {
    const args = [server.dsn(), '--clients', '1', ...short];
    let stopped = false;
    const busy = async (): Promise<void> => {
      while (!stopped) await server.query('SELECT pg_sleep(0.02)');
    };
    // Without it the server isn't refused, which is what is told then.
    const traffic = busy().catch(() => {});
    try {
      const refused = await start(args).ended;
      expect(refused.status).toBe(1);
      expect(refused.err).toMatch(/^postern: the server has other traffic on it \([^\n]*--i-know\n$/);
      expect((await start([...args, '--i-know']).ended).status).toBe(0);
    } finally {
      stopped = true;
      await traffic;
    }
  });

  it('clears up after Ctrl-C', async () => {
    const { child, ended } = start([server.dsn(), '--clients', '3', '--seconds', '600', '--i-know']);
    await expect.poll(sessions, { timeout: 20_000 }).toBe(3);
    child.kill('SIGINT');
    const { status, err } = await ended;
    expect(status).toBe(130);
    expect(err).toContain('interrupted');
    expect(await server.query(`SELECT 1 FROM pg_namespace WHERE nspname = 'postern_wall'`)).toEqual([]);
    await expect.poll(sessions, { timeout: 20_000 }).toBe(0);
  });

  it.each([
    [['postgres://u:secret@127.0.0.1:1/d'], 1, /^postern: no server listens at u@127\.0\.0\.1:1\/d[^\n]*\n$/],
    [['nonsense'], 1, /^postern: the connection string can't be read[^\n]*\n$/],
    [['x', '--clients', '1,a'], 2, /whole numbers from 1/],
    [['x', '--seconds', '-1'], 2, /a number above 0/],
    [['x', '--protocol', 'odd'], 2, /one of simple, extended, prepared/],
    [['x', '--workload', 'odd'], 2, /one of events, counters/],
    [['x', '--slo', 'fast'], 2, /"fast" is no service level objective/],
    [['x', '--script', '/nowhere.sql'], 2, /can't be read/],
    [['x', '--rate', '5', '--clients', '1,2'], 2, /takes one number/],
    [['x', '--clients', '1', '--max-clients', '2'], 2, /exclude each other/],
    [['x', '--budget', '1', '--clients', '1'], 2, /of the search/],
  ])('refuses %j in one line', async (args, expected, message) => {
    const { status, err } = await start(args).ended;
    expect(err).toMatch(message);
    expect(err).not.toContain('secret');
    expect(status).toBe(expected);
  });
});
