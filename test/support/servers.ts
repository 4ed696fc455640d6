/**
 * Real PostgreSQL servers for tests: `await startTestServer()`, and `await server.stop()` at the end. A server that a test
 * forgets, or whose test process is killed, ends by itself and takes its files along.
 */
import pg from 'pg';
import { serverAccount } from '../../src/embedded/account.ts';
import { embeddedInstallation, type Installation, installationAt } from '../../src/embedded/installation.ts';
import { ScratchServer } from '../../src/embedded/scratch.ts';
import { initializeFromTemplate } from './data-template.ts';

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
  const password = options.auth === 'scram-sha-256' ? 'postgres' : undefined;
  const server = await ScratchServer.start({
    installation: await installation(options.version ?? 18),
    settings: settingsOf(options),
    superuserPassword: password,
    initialize: initializeFromTemplate,
  });
  return new RunningTestServer(server, password);
}

export interface TestStandbyOptions extends Pick<TestServerOptions, 'durable' | 'settings'> {
  /** Its application_name and its slot. */
  readonly name: string;
  /** Default: the primary's own port. */
  readonly upstreamPort?: number;
}

/** A streaming standby of a test server of version 18. */
export async function startTestStandby(
  primary: TestServer,
  options: TestStandbyOptions,
): Promise<TestServer> {
  if (!(primary instanceof RunningTestServer)) throw new Error('this is no test server');
  return primary.startStandby(options);
}

function settingsOf(options: Pick<TestServerOptions, 'durable' | 'settings'>): Record<string, string> {
  const flushing = options.durable === true ? 'on' : 'off';
  return {
    max_connections: '300',
    max_prepared_transactions: '20',
    wal_level: 'logical',
    shared_buffers: '64MB',
    fsync: flushing,
    full_page_writes: flushing,
    ...options.settings,
  };
}

class RunningTestServer implements TestServer {
  private readonly server: ScratchServer;
  private readonly password: string | undefined;
  private pool: pg.Pool;
  private stopped = false;

  constructor(server: ScratchServer, password: string | undefined) {
    this.server = server;
    this.password = password;
    this.pool = this.newPool();
  }

  get port(): number {
    return this.server.port;
  }

  get pid(): number {
    return this.server.pid;
  }

  get dataDir(): string {
    return this.server.dataDirectory;
  }

  dsn(options: { user?: string; password?: string; database?: string } = {}): string {
    const user = options.user ?? SUPERUSER;
    const password = options.password ?? (user === SUPERUSER ? this.password : undefined);
    const login =
      encodeURIComponent(user) + (password === undefined ? '' : `:${encodeURIComponent(password)}`);
    return `postgres://${login}@127.0.0.1:${this.port}/${encodeURIComponent(options.database ?? 'postgres')}`;
  }

  async startStandby(options: TestStandbyOptions): Promise<TestServer> {
    const { name, upstreamPort } = options;
    const standby = await this.server.startStandby({ name, upstreamPort, settings: settingsOf(options) });
    return new RunningTestServer(standby, this.password);
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
    await this.server.restart();
    this.pool = this.newPool();
  }

  async stop(): Promise<void> {
    if (this.stopped) return;
    this.stopped = true;
    await this.pool.end();
    await this.server.stop();
  }

  private newPool(): pg.Pool {
    const pool = new pg.Pool({ connectionString: this.dsn(), max: 4, allowExitOnIdle: true });
    // An idle connection ends with its server: a test that kills one expects that.
    pool.on('error', () => {});
    return pool;
  }
}
