/** The command line as a user meets it: the built program, in a process of its own. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as os from 'node:os';
import * as path from 'node:path';
import pg from 'pg';
import { afterAll, describe, expect, it } from 'vitest';
import { canExecute } from '../src/embedded/account.ts';

const MAIN = path.resolve('dist/cli/main.js');
const NOBODY = { uid: 65534, gid: 65534 };
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'postern-cli-'));
fs.chmodSync(scratch, 0o711);
const running = new Set<ChildProcess>();
afterAll(() => {
  for (const child of running) child.kill('SIGKILL');
  fs.rmSync(scratch, { recursive: true, force: true });
});

interface Run {
  readonly child: ChildProcess;
  /** Everything printed so far, both streams. */
  text(): string;
  /** Resolves when the text has appeared; rejects if the program ends first. */
  printed(pattern: RegExp): Promise<RegExpMatchArray>;
  readonly ended: Promise<{ status: number | null; stdout: string; stderr: string }>;
}

function postern(args: string[], identity: { uid?: number; gid?: number } = {}): Run {
  const child = spawn(process.execPath, [MAIN, ...args], { cwd: scratch, ...identity });
  running.add(child);
  const out = { stdout: '', stderr: '' };
  const watchers = new Set<() => void>();
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream].setEncoding('utf8').on('data', (text: string) => {
      out[stream] += text;
      for (const watcher of watchers) watcher();
    });
  }
  const ended = new Promise<{ status: number | null; stdout: string; stderr: string }>((resolve) => {
    child.once('close', (status) => {
      running.delete(child);
      resolve({ status, ...out });
    });
  });
  const text = () => out.stdout + out.stderr;
  const printed = (pattern: RegExp) =>
    new Promise<RegExpMatchArray>((resolve, reject) => {
      const look = () => {
        const match = text().match(pattern);
        if (match !== null) resolve(match);
      };
      watchers.add(look);
      look();
      void ended.then(() => reject(new Error(`ended before ${pattern} was printed:\n${text()}`)));
    });
  return { child, text, printed, ended };
}

/** Every process that works below the directory: servers and initdb. */
function processesBelow(directory: string): string[] {
  const isBelow = (pid: string) => {
    try {
      return fs.readlinkSync(`/proc/${pid}/cwd`).startsWith(directory);
    } catch {
      return false;
    }
  };
  return fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name) && isBelow(name));
}

/** The server's main process, as its data directory has it. */
function postmasterOf(dataDirectory: string): number {
  return Number.parseInt(fs.readFileSync(path.join(dataDirectory, 'postmaster.pid'), 'utf8'), 10);
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

describe('the command line', () => {
  it('prints its help and version', async () => {
    const help = await postern(['--help']).ended;
    expect(help).toMatchObject({ status: 0, stderr: '' });
    for (const command of ['up', 'serve', 'wall'])
      expect(help.stdout).toMatch(new RegExp(`^  ${command} `, 'm'));
    expect(help.stdout.split('\n').every((line) => line.length <= 100)).toBe(true);
    const version = await postern(['--version']).ended;
    const manifest = JSON.parse(fs.readFileSync('package.json', 'utf8'));
    expect(version).toMatchObject({ status: 0, stdout: `${manifest.version}\n` });
  });

  it.each([
    [['upp'], /^postern: unknown command 'upp'.*up.*\n$/],
    [['up', '--node', '3'], /^postern: unknown option '--node'.*--nodes.*\n$/],
    [['up', '--nodes', 'many'], /^postern: .*whole number from 1 to 16.*\n$/],
    [['up', '--port', '70000'], /^postern: .*whole number from 0 to 65535.*\n$/],
    [['up', 'extra'], /^postern: too many arguments.*\n$/],
    [
      ['front', 'x', '--no-coalesce-table', 'a.b.c'],
      /^postern: .*'a\.b\.c' is invalid.*schema\.table, as in SQL.*\n$/,
    ],
    [
      ['front', 'x', '--no-coalesce-table', 'S.t', '--coalesce-table', 's."t"'],
      /^postern: table s\.t is given with --coalesce-table and with --no-coalesce-table .*\n$/,
    ],
  ])('says in one line what is wrong with %j', async (args, line) => {
    const result = await postern(args).ended;
    expect(result).toMatchObject({ status: 2, stdout: '' });
    expect(result.stderr).toMatch(line);
  });
});

describe('postern up', () => {
  const directory = path.join(scratch, 'kept');
  const start = (...more: string[]) =>
    postern(['up', '--nodes', '1', '--port', '0', '--no-measure', '--data', directory, ...more]);

  async function query(dsn: string, sql: string): Promise<pg.QueryResult> {
    const client = new pg.Client({ connectionString: dsn });
    await client.connect();
    try {
      return await client.query(sql);
    } finally {
      await client.end();
    }
  }

  it('stays up until Ctrl-C, and finds its data again', async () => {
    const first = start();
    const [, dsn = ''] = await first.printed(/psql (postgres:\S+)/);
    await query(dsn, 'CREATE TABLE kept (n int)');
    await query(dsn, 'INSERT INTO kept VALUES (17)');
    const pid = postmasterOf(path.join(directory, 'node1'));
    const watchdogs = () =>
      spawnSync('ps', ['-ww', '-eo', 'args='], { encoding: 'utf8' }).stdout.includes(
        `postern-watchdog ${pid} `,
      );
    expect(watchdogs()).toBe(true);
    first.child.kill('SIGINT');
    expect(await first.ended).toMatchObject({ status: 0, stderr: '' });
    expect(processesBelow(directory)).toEqual([]);
    await until('the watchdog is gone', () => !watchdogs());

    const second = start();
    const [, again = ''] = await second.printed(/psql (postgres:\S+)/);
    expect((await query(again, 'SELECT n FROM kept')).rows).toEqual([{ n: 17 }]);
    // Killed: its server notices, and the next start waits for that.
    second.child.kill('SIGKILL');
    await second.ended;

    const third = start();
    const [, anew = ''] = await third.printed(/psql (postgres:\S+)/);
    expect((await query(anew, 'SELECT n FROM kept')).rows).toEqual([{ n: 17 }]);
    third.child.kill('SIGTERM');
    expect(await third.ended).toMatchObject({ status: 0 });
    expect(processesBelow(directory)).toEqual([]);
  });

  it('ends, and says why, when a server dies', async () => {
    const run = start();
    await run.printed(/psql postgres:/);
    process.kill(postmasterOf(path.join(directory, 'node1')), 'SIGKILL');
    const result = await run.ended;
    expect(result.status).toBe(1);
    expect(result.stderr).toMatch(/^postern: node1: .* ended by SIGKILL.*\n$/);
    expect(processesBelow(directory)).toEqual([]);
  });

  it('refuses the data of another version', async () => {
    const version = path.join(directory, 'node1', 'PG_VERSION');
    fs.writeFileSync(version, '15\n');
    const result = await start().ended;
    fs.writeFileSync(version, '18\n');
    expect(result.status).toBe(1);
    expect(result.stderr).toMatch(/^postern: .*node1 was made by PostgreSQL 15 .*--data\n$/);
  });

  it('names a port in use and starts nothing', async () => {
    const squatter = net.createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => squatter.once('listening', resolve));
    const { port } = squatter.address() as net.AddressInfo;
    const data = path.join(scratch, 'never');
    const result = await postern(['up', '--port', String(port), '--data', data]).ended;
    squatter.close();
    expect(result).toMatchObject({ status: 1, stdout: '' });
    expect(result.stderr).toMatch(new RegExp(`^postern: port ${port} on 127.0.0.1 is in use.*--port\n$`));
    expect(fs.existsSync(data)).toBe(false);
  });

  const isRoot = process.getuid?.() === 0;
  const canBeNobody =
    !isRoot || (canExecute(MAIN.replace(/main\.js$/, ''), NOBODY) && canExecute(process.execPath, NOBODY));
  it.skipIf(!canBeNobody)('names a directory that it cannot write', async () => {
    const closed = path.join(scratch, 'closed');
    fs.mkdirSync(closed, { mode: 0o555 });
    const args = ['up', '--port', '0', '--data', path.join(closed, 'data')];
    const result = await postern(args, isRoot ? NOBODY : {}).ended;
    expect(result).toMatchObject({ status: 1, stdout: '' });
    expect(result.stderr).toMatch(/^postern: cannot write in .*closed\/data: permission denied.*--data\n$/);
  });

  it('stops in the middle of initdb', async () => {
    const data = path.join(scratch, 'interrupted');
    const run = postern(['up', '--port', '0', '--data', data]);
    await until('initdb runs', () => processesBelow(data).length > 0);
    run.child.kill('SIGINT');
    expect((await run.ended).status).toBe(130);
    expect(processesBelow(data)).toEqual([]);
    expect(fs.existsSync(data)).toBe(false);
  });

  it('measures both sides and writes the report', { timeout: 180_000 }, async () => {
    const data = path.join(scratch, 'measured');
    const run = postern([
      ...['up', '--quick', '--seconds', '0.3', '--once', '--nodes', '2'],
      ...['--port', '0', '--data', data],
    ]);
    const result = await run.ended;
    expect(result).toMatchObject({ status: 0, stderr: '' });
    const points = result.stdout.match(/^clients= +\d+ {2}tps= +\d+ {2}p50= *[\d.]+ ms {2}p99= *[\d.]+ ms/gm);
    expect(points).toHaveLength(18);
    expect(result.stdout).toMatch(/^best +tps= +\d+ {2}tps= +\d+ +\d+\.\d\d$/m);
    const { curves } = JSON.parse(fs.readFileSync(path.join(data, 'wall.json'), 'utf8'));
    expect(curves.map((curve: { points: unknown[] }) => curve.points.length)).toEqual([9, 9]);
    expect(fs.readFileSync(path.join(data, 'wall.html'), 'utf8')).toMatch(/^<!doctype html>/i);
    expect(processesBelow(data)).toEqual([]);
  });
});
