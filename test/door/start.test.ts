/** A router that has not begun to serve yet: how it is stopped, and what it says. From dist/. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { freePort } from '../../src/embedded/free-port.ts';

const MAIN = join(import.meta.dirname, '../../dist/cli/main.js');
let child: ChildProcess | undefined;
let directory = '';

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'postern-start-'));
});
afterEach(() => {
  child?.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});

describe('while home is away', () => {
  it.each(['SIGINT', 'SIGTERM'] as const)('%s ends it at once', async (signal) => {
    const file = join(directory, 'postern.yaml');
    const dsn = `host=127.0.0.1 port=${await freePort()} user=postern dbname=app`;
    const config = {
      ...{ listen: { port: 0 }, database: 'app', nodes: [{ name: 'n1', dsn }] },
      ...{ users: [{ name: 'app', trust: true }], workers: 1, health: { startup: '1h' } },
    };
    writeFileSync(file, JSON.stringify(config));
    const started = spawn(process.execPath, [MAIN, 'serve', '-c', file], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child = started;
    let written = '';
    for (const stream of [started.stdout, started.stderr])
      stream.on('data', (chunk: Buffer) => {
        written += chunk.toString();
        if (written.includes('waiting for the home node')) started.kill(signal);
      });
    // It would wait for an hour; the test's own bound is what this is held against.
    const [status] = await once(started, 'exit');
    expect(status).toBe(0);
    expect(written).toMatch(/"stopping"/);
    expect(written).not.toMatch(/^postern: /m);
  });
});
