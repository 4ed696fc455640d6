/** `postern wall exits` as a program: the shape of what it says, what it refuses, and that nothing of it is left. Figures are not asked for. */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findCpuController } from '../../src/embedded/cpu-quota.ts';
import { startTestServer, type TestServer } from '../support/servers.ts';

const MAIN = path.resolve(import.meta.dirname, '../../dist/cli/main.js');
/** Asking more often would itself be other traffic. */
const IN_TIME = { timeout: 30_000, interval: 250 };

describe('postern wall exits', () => {
  let server: TestServer;
  const directory = mkdtempSync(path.join(tmpdir(), 'postern-exits-'));
  /** Where the program makes its scratch servers; servers run under an account of their own. */
  const scratch = path.join(directory, 'scratch');
  const children: ChildProcess[] = [];

  beforeAll(async () => {
    chmodSync(directory, 0o755);
    mkdirSync(scratch);
    chmodSync(scratch, 0o777);
    server = await startTestServer({ durable: true });
  });
  afterAll(async () => {
    for (const child of children) child.kill('SIGTERM');
    await server?.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  function exits(...args: string[]): {
    child: ChildProcess;
    ended: Promise<{ status: number | null; out: string; err: string }>;
  } {
    const child = spawn(process.execPath, [MAIN, 'wall', 'exits', ...args, '--quick', '--clients', '4'], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, TMPDIR: scratch },
    });
    children.push(child);
    let [out, err] = ['', ''];
    child.stdout!.on('data', (text) => (out += text));
    child.stderr!.on('data', (text) => (err += text));
    const ended = new Promise<{ status: number | null; out: string; err: string }>((resolve) =>
      child.on('close', (status) => resolve({ status, out, err })),
    );
    return { child, ended };
  }

  async function expectNothingLeft(): Promise<void> {
    expect(await server.query(`SELECT nspname FROM pg_namespace WHERE nspname LIKE 'postern%'`)).toEqual([]);
    expect(readdirSync(scratch)).toEqual([]);
    const controller = findCpuController();
    const groups = 'directory' in controller ? readdirSync(controller.directory) : [];
    const own = children.map(({ pid }) => `postern-quota-${pid}-`);
    expect(groups.filter((name) => own.some((prefix) => name.startsWith(prefix)))).toEqual([]);
  }

  it('measures pairs on the given server and on scratch ones, and writes what it found', async () => {
    const [json, html] = [path.join(directory, 'exits.json'), path.join(directory, 'exits.html')];
    const only = ['coalescing', 'full_page_writes_off'];
    const run = exits(server.dsn(), '--only', only.join(','), '--json', json, '--html', html);
    const { status, out, err } = await run.ended;
    expect([status, err]).toEqual([0, '']);
    const lines = out.split('\n');
    expect(lines[0]).toMatch(/^exit +gain +tps +p50$/);
    const gain = String.raw`(?:none measurable|\d+\.\d\d×) \(\d+\.\d\d to \d+\.\d\d\) +\d+ → \d+ +[\d.]+ → [\d.]+ ms$`;
    expect(lines[1]).toMatch(new RegExp(`^Postern before it \\(front mode\\) +${gain}`));
    expect(lines[2]).toMatch(new RegExp(`^full_page_writes off +${gain}`));
    expect(out).toContain('full_page_writes off: costs nothing; risks a power failure');
    expect(out).toContain('fsync=on, synchronous_commit=on');

    const written = JSON.parse(readFileSync(json, 'utf8'));
    expect(written).toMatchObject({ kind: 'postern wall exits', version: 1, clients: 4 });
    expect(written.target).toContain(`127.0.0.1:${server.port}`);
    expect(written.outcomes.map((each: { id: string; place: string }) => [each.id, each.place])).toEqual([
      ['coalescing', 'given server'],
      ['full_page_writes_off', 'scratch server'],
    ]);
    for (const { pairs, finding } of written.outcomes) {
      const { value, low, high } = pairs.ratio;
      expect([low <= value, value <= high, pairs.ratio.pairs]).toEqual([true, true, 4]);
      expect(['gain', 'loss', 'no measurable gain']).toContain(finding);
    }
    expect(readFileSync(html, 'utf8')).toMatch(/<td class="left">full_page_writes off<\/td>/);
    await expectNothingLeft();
  });

  it('refuses a server with other traffic on it', async () => {
    const other = new pg.Client({ connectionString: server.dsn() });
    other.on('error', () => {});
    await other.connect();
    const busy = other.query('SELECT pg_sleep(60)').catch(() => {});
    try {
      const { status, out, err } = await exits(server.dsn(), '--only', 'commit_delay_1ms').ended;
      expect([status, out]).toEqual([1, '']);
      expect(err).toMatch(/^postern: the server has other traffic on it \([^\n]*--i-know\n$/);
    } finally {
      await server.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'`,
      );
      await busy;
      await other.end().catch(() => {});
    }
    await expectNothingLeft();
  });

  it.each([
    ['on the given server', 'commit_delay_1ms', () => madeSchema()],
    ['while scratch servers start', 'replicas_async', async () => readdirSync(scratch).length > 0],
  ] as const)('leaves nothing after Ctrl-C %s', async (_, only, begun) => {
    const run = exits(server.dsn(), '--only', only);
    await expect.poll(begun, IN_TIME).toBe(true);
    run.child.kill('SIGINT');
    const { status, err } = await run.ended;
    expect([status, err]).toEqual([130, 'postern: interrupted; nothing of the measurement is left\n']);
    await expectNothingLeft();
  });

  async function madeSchema(): Promise<boolean> {
    return (await server.query(`SELECT 1 FROM pg_namespace WHERE nspname = 'postern_wall'`)).length > 0;
  }
});
