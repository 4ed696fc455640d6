import { spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isVersionInstalled, startTestServer, type TestServer } from '../../test/support/servers.ts';
import { serverAccount } from './account.ts';
import { embeddedInstallation } from './installation.ts';
import { EmbeddedServer, initializeServer } from './server.ts';

const WAIT_MS = 20_000;

function isAlive(pid: number): boolean {
  return spawnSync('kill', ['-0', String(pid)]).status === 0;
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + WAIT_MS;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

describe('a server for tests', () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer({ durable: true, auth: 'scram-sha-256', settings: { work_mem: '7MB' } });
  });
  afterAll(() => server.stop());

  it('has the settings that were asked for', async () => {
    const rows = await server.query(
      `SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'work_mem', 'wal_level', 'port') ORDER BY name`,
    );
    expect(rows.map((row) => row.setting)).toEqual(['on', String(server.port), 'logical', '7168']);
    expect(await server.query('SHOW server_encoding')).toEqual([{ server_encoding: 'UTF8' }]);
  });

  it('asks for a password', async () => {
    const wrong = server.dsn({ password: 'wrong' });
    const { default: pg } = await import('pg');
    const client = new pg.Client({ connectionString: wrong });
    await expect(client.connect()).rejects.toMatchObject({ code: '28P01' });
  });

  it('keeps what was committed through SIGKILL', async () => {
    await server.query('CREATE TABLE kept (n int)');
    await server.query('INSERT INTO kept VALUES (17)');
    const before = server.pid;
    server.kill();
    await until('the postmaster is gone', () => !isAlive(before));
    await expect(server.query('SELECT 1')).rejects.toThrow();
    await server.restart();
    expect(server.pid).not.toBe(before);
    expect(await server.query('SELECT n FROM kept')).toEqual([{ n: 17 }]);
  });

  it('starts although an unrelated process has the id in its postmaster.pid', async () => {
    const before = server.pid;
    server.kill();
    await until('the postmaster is gone', () => !isAlive(before));
    const file = path.join(server.dataDir, 'postmaster.pid');
    const stranger = spawn('sleep', ['60'], { stdio: 'ignore' });
    try {
      fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replace(/^\d+/, String(stranger.pid)));
      await server.restart();
      expect(await server.query('SELECT n FROM kept')).toEqual([{ n: 17 }]);
      expect(isAlive(stranger.pid!)).toBe(true);
    } finally {
      stranger.kill();
    }
  });
});

describe('a server that stops', () => {
  it('leaves neither process nor files', async () => {
    const server = await startTestServer();
    const { pid, dataDir } = server;
    await server.stop();
    await server.stop();
    expect(isAlive(pid)).toBe(false);
    expect(fs.existsSync(path.dirname(dataDir))).toBe(false);
  });

  it('does so too when its owner is killed', async () => {
    const script = `
      import { startTestServer } from ${JSON.stringify(path.resolve('test/support/servers.ts'))};
      startTestServer().then((s) => { console.log(s.pid + ' ' + s.dataDir); setInterval(() => {}, 1000); });`;
    const owner = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const line = await new Promise<string>((resolve) =>
      owner.stdout.once('data', (data) => resolve(String(data))),
    );
    const [pid = '', dataDir = ''] = line.trim().split(' ');
    expect(isAlive(Number(pid))).toBe(true);
    owner.kill('SIGKILL');
    await until(
      'server and files are gone',
      () => !isAlive(Number(pid)) && !fs.existsSync(path.dirname(dataDir)),
    );
  });
});

describe('a start that fails', () => {
  const account = serverAccount();
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'postern-server-'));
  const dataDirectory = path.join(directory, 'data');
  const logFile = path.join(directory, 'log');
  beforeAll(async () => {
    fs.chmodSync(directory, 0o711);
    const installation = await embeddedInstallation(account);
    await initializeServer({
      installation,
      account,
      dataDirectory,
      superuserPassword: undefined,
      durable: false,
    });
  });
  afterAll(() => fs.rmSync(directory, { recursive: true }));

  async function start(port: number, settings: Record<string, string> = {}): Promise<EmbeddedServer> {
    const installation = await embeddedInstallation(account);
    return EmbeddedServer.start({ installation, account, dataDirectory, port, settings, logFile });
  }

  it('names the port that is in use', async () => {
    const other = await startTestServer();
    try {
      await expect(start(other.port)).rejects.toMatchObject({
        kind: 'port-in-use',
        message: `port ${other.port} on 127.0.0.1 is in use`,
      });
    } finally {
      await other.stop();
    }
  });

  it('says why the server died, in one line', async () => {
    // Several times: it may die before or after we begin to look.
    for (let attempt = 0; attempt < 10; attempt += 1) {
      const failed = start(20_001, { work_mem: 'much' });
      await expect(failed).rejects.toMatchObject({ kind: 'server-died' });
      await expect(failed).rejects.toThrow(/^[^\n]*configuration file[^\n]*errors[^\n]*$/);
    }
  });

  it('refuses the data of another version', async () => {
    const file = path.join(dataDirectory, 'PG_VERSION');
    fs.writeFileSync(file, '15\n');
    try {
      await expect(start(20_001)).rejects.toMatchObject({ kind: 'other-version' });
    } finally {
      fs.writeFileSync(file, '18\n');
    }
  });
});

it.skipIf(!(await isVersionInstalled(15)))('runs PostgreSQL 15 where the machine has it', async () => {
  const server = await startTestServer({ version: 15 });
  try {
    expect(await server.query('SHOW server_version_num')).toEqual([
      { server_version_num: expect.stringMatching(/^15/) },
    ]);
  } finally {
    await server.stop();
  }
});
