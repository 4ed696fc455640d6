/** `postern wall watch` as a program: what Prometheus, a webhook and an exit status are told, and a server that goes and comes back. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { reportJson } from '../../src/wall/report/report.ts';
import { sampleSearch } from '../support/sample-sweep.ts';
import { startTestServer, type TestServer } from '../support/servers.ts';

const MAIN = path.resolve(import.meta.dirname, '../../dist/cli/main.js');
const IN_TIME = { timeout: 20_000, interval: 100 };
/** More than the ten ages that a percentile needs. */
const WRITERS = 12;

describe('postern wall watch', () => {
  let server: TestServer;
  let hook: Server;
  const told: { verdict: string; text: string; server: string }[] = [];
  const scratch = mkdtempSync(path.join(tmpdir(), 'postern-watch-'));
  const report = path.join(scratch, 'wall.json');
  const children: ChildProcess[] = [];

  beforeAll(async () => {
    server = await startTestServer();
    await server.query('CREATE TABLE written (n int)');
    const curves = [{ label: 'events, direct', result: sampleSearch() }];
    writeFileSync(report, reportJson({ title: 'The wall', verdict: '', curves }));
    hook = createServer((request, response) => {
      let body = '';
      request.setEncoding('utf8').on('data', (text) => (body += text));
      request.on('end', () => {
        told.push(JSON.parse(body));
        response.writeHead(204).end();
      });
    });
    await new Promise<void>((resolve) => hook.listen(0, '127.0.0.1', () => resolve()));
  });

  afterAll(async () => {
    for (const child of children) child.kill('SIGKILL');
    hook?.close();
    await server?.stop();
    rmSync(scratch, { recursive: true, force: true });
  });

  function watch(...args: string[]): {
    child: ChildProcess;
    output(): string;
    ended: Promise<number | null>;
  } {
    const child = spawn(process.execPath, [MAIN, 'wall', 'watch', server.dsn(), ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    children.push(child);
    let output = '';
    child.stdout!.on('data', (text) => (output += text));
    child.stderr!.on('data', (text) => (output += text));
    const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
    return { child, output: () => output, ended };
  }

  it('serves metrics, tells a webhook, and outlives the server', async () => {
    const { port } = hook.address() as AddressInfo;
    const url = `http://127.0.0.1:${port}/`;
    const run = watch('--metrics', '0', '--webhook', url, '--wall', report, '--slo', 'p99=5s');
    const page = (): string | undefined => /^Metrics: (\S+)$/m.exec(run.output())?.[1];
    await expect.poll(page, IN_TIME).toBeDefined();
    const metrics = async (): Promise<Map<string, number>> =>
      parseMetrics(await (await fetch(page()!)).text());
    const up = async (): Promise<number | undefined> => (await metrics()).get('postern_wall_up');

    await expect.poll(() => told.length, IN_TIME).toBe(1);
    expect(told[0]).toMatchObject({ verdict: expect.stringMatching(/^calm/), text: 'No symptom.' });
    expect(run.output()).toMatch(/No symptom\. \d+ writes\/s.*; \d+% of the wall of 1402; no trend yet\.\n/);
    const shown = await metrics();
    expect(shown.get('postern_wall_up')).toBe(1);
    expect(shown.get('postern_wall_at_wall')).toBe(0);
    expect(shown.get('postern_wall_symptom{symptom="slo"}')).toBe(0);
    // No standby: the symptom is unknown, and not in the list.
    expect(shown.has('postern_wall_symptom{symptom="lag"}')).toBe(false);
    expect(shown.get('postern_wall_distance')).toBeGreaterThanOrEqual(0);
    expect(shown.get('postern_wall_probe_seconds')).toBeGreaterThan(0);
    expect((await fetch(new URL('/', page()!))).status).toBe(404);

    server.kill();
    await expect.poll(up, IN_TIME).toBe(0);
    await expect.poll(() => told.length, IN_TIME).toBe(2);
    expect(told[1]!.verdict).toBe('unreachable');
    expect([...(await metrics()).keys()].some((name) => name.startsWith('postern_wall_symptom'))).toBe(false);
    await server.restart();
    await expect.poll(up, IN_TIME).toBe(1);
    await expect.poll(() => told.length, IN_TIME).toBe(3);
    expect(told[2]).toMatchObject({ text: 'No symptom.', server: expect.stringContaining('127.0.0.1') });

    run.child.kill('SIGINT');
    expect(await run.ended).toBe(130);
    expect(run.output().trimEnd().split('\n').at(-1)).toMatch(/^Watching costs the server \d+ queries/);
  });

  it('ends with status 3 at the first symptom', async () => {
    const writers = Array.from({ length: WRITERS }, () => new pg.Client({ connectionString: server.dsn() }));
    try {
      for (const writer of writers) {
        writer.on('error', () => {});
        await writer.connect();
        // Once it has written it has an id, and is under way until it is cut off.
        writer
          .query('WITH w AS (INSERT INTO written VALUES (1) RETURNING n) SELECT pg_sleep(60) FROM w')
          .catch(() => {});
      }
      const run = watch('--alert', 'symptom', '--slo', 'p99=1ms', '--sustain', '1', '--duration', '30');
      expect([await run.ended, run.output()]).toEqual([
        3,
        expect.stringMatching(/^ {2}slo: p99 of their ages/m),
      ]);
    } finally {
      await server.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'WITH w AS%' AND pid <> pg_backend_pid()`,
      );
      await Promise.all(writers.map((writer) => writer.end().catch(() => {})));
    }
  });

  it('refuses a file that holds no wall, before it asks the server anything', async () => {
    writeFileSync(path.join(scratch, 'odd.json'), '{"wall": {"tps": 5}}');
    const run = watch('--wall', path.join(scratch, 'odd.json'));
    expect(await run.ended).toBe(2);
    expect(run.output()).toMatch(/^postern: --wall: \S+odd\.json is no report of this version[^\n]*\n$/);
  });
});

/** The text format of Prometheus, without timestamps: every line is a comment, or a name with labels, and a number. */
function parseMetrics(text: string): Map<string, number> {
  const values = new Map<string, number>();
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const parts = /^([a-zA-Z_:][\w:]*(?:\{(?:\w+="[^"\\]*",?)*\})?) (\S+)$/.exec(line);
    if (parts === null) throw new Error(`no metric: ${line}`);
    values.set(parts[1]!, parts[2] === 'Nan' ? Number.NaN : Number(parts[2]));
  }
  return values;
}
