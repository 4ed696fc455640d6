import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestServer, type TestServer } from '../../test/support/servers.ts';
import { explanationSchema } from '../wall/explain/explanation.ts';

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

interface Run {
  readonly child: ChildProcess;
  readonly ended: Promise<{ status: number | null; out: string; err: string }>;
}

function start(args: readonly string[]): Run {
  const child = spawn(process.execPath, [main, 'wall', 'explain', ...args], {
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

describe('postern wall explain', () => {
  let server: TestServer;
  const directory = mkdtempSync(path.join(tmpdir(), 'postern-explain-'));
  beforeAll(async () => {
    server = await startTestServer({ durable: true });
  });
  afterAll(async () => {
    await server?.stop();
    rmSync(directory, { recursive: true });
  });

  it('prints verdict, ceilings and evidence, and writes them as JSON', async () => {
    const json = path.join(directory, 'explanation.json');
    const { status, out, err } = await start([server.dsn(), '--quick', '--clients', '2', '--json', json])
      .ended;
    expect([status, err]).toEqual([0, '']);
    expect(out).toMatch(/^[A-Z].*\.\nConfidence: (low|medium|high)\.\n/);
    for (const ceiling of ['WAL fsync', 'WAL insertion and writing', 'CPU', 'network to replicas'])
      expect(out).toContain(`  ${ceiling} `);
    expect(out).toContain('synchronous_commit = off: ×');
    const explanation = explanationSchema.parse(JSON.parse(readFileSync(json, 'utf8')));
    expect(out).toContain(explanation.sentence);
  });

  it('clears up after Ctrl-C', async () => {
    const { child, ended } = start([server.dsn(), '--clients', '3']);
    const sessions = async (): Promise<number> =>
      (await server.query(`SELECT 1 FROM pg_stat_activity WHERE application_name = 'postern wall explain'`))
        .length;
    // Asking more often would itself be other traffic, which is refused.
    await expect.poll(sessions, { timeout: 20_000, interval: 250 }).toBe(3);
    child.kill('SIGINT');
    const { status, err } = await ended;
    expect([status, err]).toEqual([130, expect.stringContaining('interrupted')]);
    expect(await server.query(`SELECT 1 FROM pg_namespace WHERE nspname LIKE 'postern%'`)).toEqual([]);
    await expect.poll(sessions, { timeout: 20_000 }).toBe(0);
  });

  it.each([
    [['postgres://u:secret@127.0.0.1:1/d'], 1, /^postern: no server listens at u@127\.0\.0\.1:1\/d[^\n]*\n$/],
    [['x', '--clients', '0'], 2, /a whole number from 1/],
    [['x', '--workload', 'odd'], 2, /one of events/],
    [['x', '--link', 'fast'], 2, /a speed, as 1gbps/],
    [['x', '--script', '/nowhere'], 2, /can't be read/],
  ])('refuses %j in one line', async (args, expected, message) => {
    const { status, err } = await start(args).ended;
    expect(err).toMatch(message);
    expect(err).not.toContain('secret');
    expect(status).toBe(expected);
  });
});
