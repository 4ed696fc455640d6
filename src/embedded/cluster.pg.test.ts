import { spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import pg from 'pg';
import { afterAll, describe, expect, it } from 'vitest';
import { type EmbeddedCluster, startCluster } from './cluster.ts';
import { isPortFree } from './free-port.ts';

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'postern-cluster-'));
afterAll(() => fs.rmSync(scratch, { recursive: true, force: true }));

async function query(dsn: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: dsn });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

function appDsn(cluster: EmbeddedCluster): string {
  return cluster.dsn(cluster.nodes[0]!, { user: 'app' });
}

/** Every process whose working directory is below the given one: servers, their children, initdb. */
function processesBelow(directory: string): number[] {
  return fs
    .readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return fs.readlinkSync(`/proc/${pid}/cwd`).startsWith(directory);
      } catch {
        return false;
      }
    })
    .map(Number);
}

describe('a cluster', () => {
  const directory = path.join(scratch, 'kept');

  it('starts, and finds its data, ports and password again', async () => {
    const first = await startCluster({ directory, nodeCount: 2 });
    expect(first.nodes.map((node) => node.name)).toEqual(['node1', 'node2']);
    const dsn = appDsn(first);
    await query(dsn, 'CREATE TABLE kept AS SELECT 17 AS n');
    await query(dsn, 'CREATE SCHEMA mine');
    expect(await query(dsn, 'SELECT rolsuper FROM pg_roles WHERE rolname = current_user')).toEqual([
      { rolsuper: false },
    ]);
    expect(await query(dsn, 'SHOW fsync')).toEqual([{ fsync: 'on' }]);
    await first.stop();
    expect(processesBelow(directory)).toEqual([]);
    expect(fs.statSync(path.join(directory, 'password')).mode & 0o777).toBe(0o600);

    const second = await startCluster({ directory });
    expect(appDsn(second)).toBe(dsn);
    expect(await query(dsn, 'SELECT n FROM kept')).toEqual([{ n: 17 }]);
    await second.stop();
    expect(fs.existsSync(path.join(directory, 'lock'))).toBe(false);
  });

  it('refuses another number of nodes', async () => {
    await expect(startCluster({ directory, nodeCount: 3 })).rejects.toThrow('use --nodes 2');
  });

  it('is locked while it runs, and tells of a server that dies', async () => {
    const cluster = await startCluster({ directory });
    try {
      await expect(startCluster({ directory })).rejects.toMatchObject({ kind: 'directory-locked' });
      process.kill(cluster.nodes[1]!.pid, 'SIGKILL');
      expect((await cluster.serverDied).message).toMatch(/^node2: .* ended by SIGKILL/);
    } finally {
      await cluster.stop();
    }
    expect(processesBelow(directory)).toEqual([]);
  });

  it('recovers when all of it was killed', async () => {
    const script = `
      import { startCluster } from ${JSON.stringify(path.resolve('src/embedded/cluster.ts'))};
      startCluster({ directory: ${JSON.stringify(directory)} }).then((cluster) => {
        console.log('up'); setInterval(() => {}, 1000);
      });`;
    const owner = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await new Promise((resolve, reject) => {
      owner.stdout.once('data', resolve);
      owner.once('exit', (status) => reject(new Error(`the owner ended with status ${status}`)));
    });
    // One server is killed with its owner; the other's watchdog shuts it down while the next start is under way.
    const postmasters = ['node1', 'node2'].map((name) =>
      Number.parseInt(fs.readFileSync(path.join(directory, name, 'postmaster.pid'), 'utf8'), 10),
    );
    process.kill(postmasters[0]!, 'SIGKILL');
    owner.kill('SIGKILL');
    expect(fs.existsSync(path.join(directory, 'lock'))).toBe(true);

    const cluster = await startCluster({ directory });
    expect(await query(appDsn(cluster), 'SELECT n FROM kept')).toEqual([{ n: 17 }]);
    await cluster.stop();
  });

  it('moves a node to another port if its own is taken', async () => {
    const port = JSON.parse(fs.readFileSync(path.join(directory, 'cluster.json'), 'utf8')).nodes[0].port;
    const { createServer } = await import('node:net');
    const squatter = createServer().listen(port, '127.0.0.1');
    await new Promise((resolve) => squatter.once('listening', resolve));
    expect(await isPortFree('127.0.0.1', port)).toBe(false);
    const cluster = await startCluster({ directory });
    expect(cluster.nodes[0]!.port).not.toBe(port);
    await cluster.stop();
    squatter.close();
  });

  it('refuses the data of another version, and a node that has gone missing', async () => {
    const version = path.join(directory, 'node2', 'PG_VERSION');
    fs.writeFileSync(version, '15\n');
    await expect(startCluster({ directory })).rejects.toThrow(
      /node2 was made by PostgreSQL 15 and this is .* 18/,
    );
    fs.rmSync(path.join(directory, 'node2'), { recursive: true });
    await expect(startCluster({ directory })).rejects.toThrow(/bring .*node2 back/);
  });
});

describe('a start that is cut off', () => {
  it('in the middle of initdb leaves nothing', async () => {
    const directory = path.join(scratch, 'aborted');
    const controller = new AbortController();
    const starting = startCluster({ directory, nodeCount: 2, signal: controller.signal });
    while (processesBelow(directory).length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    controller.abort();
    await expect(starting).rejects.toMatchObject({ kind: 'cancelled' });
    expect(processesBelow(directory)).toEqual([]);
    expect(fs.existsSync(directory)).toBe(false);
  });
});

describe('a directory that will not do', () => {
  it('holds something else', async () => {
    const directory = path.join(scratch, 'foreign');
    fs.mkdirSync(directory);
    fs.writeFileSync(path.join(directory, 'thesis.txt'), '');
    await expect(startCluster({ directory })).rejects.toThrow(/holds something else \(thesis.txt\).*--data/);
    expect(fs.readdirSync(directory)).toEqual(['thesis.txt']);
  });

  it('is a file', async () => {
    const file = path.join(scratch, 'file');
    fs.writeFileSync(file, '');
    await expect(startCluster({ directory: file })).rejects.toThrow('there is a file of that name');
  });
});

/** A directory below one that only root may enter: the servers run as another account, and yet find their data. */
describe.skipIf(process.getuid?.() !== 0 || process.platform !== 'linux')('as root', () => {
  it("runs servers in a directory that their account can't enter", async () => {
    const closed = path.join(scratch, 'closed');
    fs.mkdirSync(closed, { mode: 0o700 });
    const cluster = await startCluster({ directory: path.join(closed, 'data'), nodeCount: 1 });
    const uid = spawnSync('ps', ['-o', 'uid=', '-p', String(cluster.nodes[0]!.pid)], { encoding: 'utf8' });
    expect(Number(uid.stdout)).toBeGreaterThan(0);
    expect(await query(appDsn(cluster), 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    await cluster.stop();
  });
});
