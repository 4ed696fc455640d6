/**
 * Real PostgreSQL servers for tests: `await startTestServer()`, and `await server.stop()` at the end. A server that a test
 * forgets, or whose test process is killed, ends by itself and takes its files along.
 */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import pg from 'pg';
import { serverAccount } from '../../src/embedded/account.ts';
import { EmbeddedFailure } from '../../src/embedded/failure.ts';
import { freePort } from '../../src/embedded/free-port.ts';
import { embeddedInstallation, type Installation, installationAt } from '../../src/embedded/installation.ts';
import { readPostmasterFile } from '../../src/embedded/postmaster-file.ts';
import { EmbeddedServer, initializeServer } from '../../src/embedded/server.ts';
import { startStandby } from '../../src/embedded/standby.ts';

export interface TestServer {
  readonly port: number;
  readonly dataDir: string;
  /** The postmaster's; another one after restart(). */
  readonly pid: number;
  dsn(options?: { user?: string; password?: string; database?: string }): string;
  /** As the superuser `postgres` in the database `postgres`. Rows of the last statement if there are several. */
  query(sql: string): Promise<Record<string, unknown>[]>;
  /** Stops the server and removes its files; a second call does nothing. */
  stop(): Promise<void>;
  /** SIGKILL to the postmaster. */
  kill(): void;
  /** Stops if need be, and starts on the same port and data. */
  restart(): Promise<void>;
}

export interface TestServerOptions {
  /** 18 is always there; 15 only if the machine has Debian's package. */
  version?: 15 | 18;
  /** Default false: fsync off. */
  durable?: boolean;
  settings?: Record<string, string>;
  /** With 'scram-sha-256' the password of `postgres` is 'postgres'. Default: trust. */
  auth?: 'trust' | 'scram-sha-256';
}

/** Thrown for a version that this machine lacks. Tests ask `isVersionInstalled` first, and skip. */
export class VersionNotInstalled extends Error {
  constructor(version: number) {
    super(`PostgreSQL ${version} is not installed on this machine`);
    this.name = 'VersionNotInstalled';
  }
}

const SUPERUSER = 'postgres';
const PORT_TRIES = 10;
const account = serverAccount();
const installations = new Map<number, Promise<Installation>>();

function installation(version: number): Promise<Installation> {
  let found = installations.get(version);
  if (found === undefined) {
    found =
      version === 18
        ? embeddedInstallation(account)
        : installationAt(`/usr/lib/postgresql/${version}/bin`, account).catch(() => {
            throw new VersionNotInstalled(version);
          });
    installations.set(version, found);
  }
  return found;
}

/** For `describe.skipIf(!(await isVersionInstalled(15)))`. */
export async function isVersionInstalled(version: 15 | 18): Promise<boolean> {
  return installation(version).then(
    () => true,
    () => false,
  );
}

export async function startTestServer(options: TestServerOptions = {}): Promise<TestServer> {
  const installed = await installation(options.version ?? 18);
  const directory = await fs.mkdtemp(path.join(os.tmpdir(), 'postern-test-'));
  // The server's own account has to pass through it.
  await fs.chmod(directory, 0o711);
  const dataDirectory = path.join(directory, 'data');
  const password = options.auth === 'scram-sha-256' ? 'postgres' : undefined;
  try {
    await initializeServer({
      installation: installed,
      account,
      dataDirectory,
      superuserPassword: password,
      durable: false,
    });
    const start = async (port: number) =>
      EmbeddedServer.start({
        installation: installed,
        account,
        dataDirectory,
        port,
        settings: settingsOf(options),
        logFile: path.join(directory, 'log'),
        removeWhenOrphaned: directory,
      });
    const server = await onFreePort(start);
    return new RunningTestServer({ server, start, directory, password });
  } catch (error) {
    await fs.rm(directory, { recursive: true, force: true });
    throw error;
  }
}

export interface TestStandbyOptions extends Pick<TestServerOptions, 'durable' | 'settings' | 'auth'> {
  /** Its application_name and its slot. */
  readonly name: string;
  /** Default: the primary's own port. */
  readonly upstreamPort?: number;
}

/** A streaming standby of a test server of version 18, which has to have the same `auth`. */
export async function startTestStandby(
  primary: TestServer,
  options: TestStandbyOptions,
): Promise<TestServer> {
  const installed = await installation(18);
  const directory = await fs.mkdtemp(path.join(os.tmpdir(), 'postern-test-'));
  await fs.chmod(directory, 0o711);
  const password = options.auth === 'scram-sha-256' ? 'postgres' : undefined;
  const dataDirectory = path.join(directory, 'data');
  const parts = {
    installation: installed,
    account,
    dataDirectory,
    logFile: path.join(directory, 'log'),
    removeWhenOrphaned: directory,
  };
  try {
    const server = await startStandby({
      ...parts,
      name: options.name,
      port: await freePort(),
      primary: { dataDirectory: primary.dataDir, port: primary.port, password },
      ...(options.upstreamPort === undefined ? {} : { upstreamPort: options.upstreamPort }),
      settings: settingsOf(options),
    });
    const start = (port: number) => EmbeddedServer.start({ ...parts, port, settings: undefined });
    return new RunningTestServer({ server, start, directory, password });
  } catch (error) {
    await fs.rm(directory, { recursive: true, force: true });
    throw error;
  }
}

function settingsOf(options: TestServerOptions): Record<string, string> {
  const flushing = options.durable === true ? 'on' : 'off';
  return {
    max_connections: '300',
    max_prepared_transactions: '20',
    wal_level: 'logical',
    shared_buffers: '64MB',
    fsync: flushing,
    full_page_writes: flushing,
    // Its files then are in the data directory: nothing is left in /dev/shm by a server that is killed.
    dynamic_shared_memory_type: 'mmap',
    ...options.settings,
  };
}

async function onFreePort(start: (port: number) => Promise<EmbeddedServer>): Promise<EmbeddedServer> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await start(await freePort());
    } catch (error) {
      const clash = error instanceof EmbeddedFailure && error.kind === 'port-in-use';
      if (!clash || attempt === PORT_TRIES) throw error;
    }
  }
}

interface Parts {
  readonly server: EmbeddedServer;
  readonly start: (port: number) => Promise<EmbeddedServer>;
  readonly directory: string;
  readonly password: string | undefined;
}

class RunningTestServer implements TestServer {
  readonly port: number;
  readonly dataDir: string;
  private readonly parts: Parts;
  private server: EmbeddedServer;
  private pool: pg.Pool;
  private stopped = false;

  constructor(parts: Parts) {
    this.parts = parts;
    this.server = parts.server;
    this.port = parts.server.port;
    this.dataDir = parts.server.dataDirectory;
    this.pool = this.newPool();
  }

  get pid(): number {
    return this.server.pid;
  }

  dsn(options: { user?: string; password?: string; database?: string } = {}): string {
    const user = options.user ?? SUPERUSER;
    const password = options.password ?? (user === SUPERUSER ? this.parts.password : undefined);
    const login =
      encodeURIComponent(user) + (password === undefined ? '' : `:${encodeURIComponent(password)}`);
    return `postgres://${login}@127.0.0.1:${this.port}/${encodeURIComponent(options.database ?? 'postgres')}`;
  }

  async query(sql: string): Promise<Record<string, unknown>[]> {
    const result: pg.QueryResult | pg.QueryResult[] = await this.pool.query(sql);
    const last = Array.isArray(result) ? result.at(-1) : result;
    return last?.rows ?? [];
  }

  kill(): void {
    this.server.kill();
  }

  async restart(): Promise<void> {
    await this.pool.end();
    await this.server.stop();
    this.server = await this.parts.start(this.port);
    this.pool = this.newPool();
  }

  async stop(): Promise<void> {
    if (this.stopped) return;
    this.stopped = true;
    await this.pool.end();
    await this.server.stop();
    await removeSharedMemory(this.dataDir);
    await fs.rm(this.parts.directory, { recursive: true, force: true });
  }

  private newPool(): pg.Pool {
    const pool = new pg.Pool({ connectionString: this.dsn(), max: 4, allowExitOnIdle: true });
    // An idle connection ends with its server: a test that kills one expects that.
    pool.on('error', () => {});
    return pool;
  }
}

/** A killed server leaves its System V segment to the next start on its data; here there is none. */
async function removeSharedMemory(dataDirectory: string): Promise<void> {
  const file = await readPostmasterFile(dataDirectory);
  if (file?.sharedMemoryId === undefined) return;
  spawnSync('ipcrm', ['-m', String(file.sharedMemoryId)], { stdio: 'ignore' });
}
