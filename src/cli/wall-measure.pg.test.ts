import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestServer, type TestServer } from '../../test/support/servers.ts';

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

  it('prints each point and writes the files', async () => {
    const [json, html] = [path.join(directory, 'r.json'), path.join(directory, 'r.html')];
    const args = [server.dsn(), '--clients', '1,4', '--seconds', '0.3', '--json', json, '--html', html];
    const { status, out, err } = await start(args).ended;
    expect([status, err]).toEqual([0, '']);
    expect(out).toMatch(/^clients= {3}1 {2}tps=.*ms\nclients= {3}4 {2}tps=.*ms\n\nThe wall /);
    expect(JSON.parse(readFileSync(json, 'utf8')).curves[0].points).toHaveLength(2);
    expect(readFileSync(html, 'utf8')).toContain('<!doctype html>');
  });

  it('clears up after Ctrl-C', async () => {
    const { child, ended } = start([server.dsn(), '--clients', '3', '--seconds', '600']);
    await expect.poll(sessions, { timeout: 20_000 }).toBe(3);
    child.kill('SIGINT');
    const { status, err } = await ended;
    expect(status).toBe(130);
    expect(err).toContain('interrupted');
    expect(await server.query(`SELECT 1 FROM pg_namespace WHERE nspname = 'postern_wall'`)).toEqual([]);
    await expect.poll(sessions, { timeout: 5_000 }).toBe(0);
  });

  it.each([
    [['postgres://u:secret@127.0.0.1:1/d'], 1, /^postern: no server listens at u@127\.0\.0\.1:1\/d[^\n]*\n$/],
    [['nonsense'], 1, /^postern: the connection string can't be read[^\n]*\n$/],
    [['x', '--clients', '1,a'], 2, /whole numbers from 1/],
    [['x', '--seconds', '-1'], 2, /a number above 0/],
    [['x', '--protocol', 'odd'], 2, /one of simple, extended, prepared/],
  ])('refuses %j in one line', async (args, expected, message) => {
    const { status, err } = await start(args).ended;
    expect(err).toMatch(message);
    expect(err).not.toContain('secret');
    expect(status).toBe(expected);
  });
});
