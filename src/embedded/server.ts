/**
 * One embedded PostgreSQL: initialise its data directory, start it, wait until it is ready, stop it.
 *
 *   (none) --initialize--> initialised --start--> running --stop/kill/death--> exited --start--> running …
 *
 * Invariants: a data directory gets its name only when initdb has ended well, so a half-made one is never started; a
 * server never outlives this process by long (see watchdog.ts); settings stand in a file, not on the command line, so
 * that ALTER SYSTEM still works. The server is in a session of its own: a terminal's Ctrl-C reaches only us.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import { type Account, canExecute, spawnIdentity } from './account.ts';
import { cancelled, EmbeddedFailure } from './failure.ts';
import type { Installation } from './installation.ts';
import { endLeftover, readPostmasterFile, removeStalePostmasterFile } from './postmaster-file.ts';
import { startWatchdog, type Watchdog } from './watchdog.ts';

const SETTINGS_FILE = 'postern.conf';
const READY_POLL_MS = 15;
const FAST_STOP_TIMEOUT_MS = 60_000;
const IMMEDIATE_STOP_TIMEOUT_MS = 10_000;
/** A killed postmaster's children notice its death and leave; until then its shared memory blocks a start. */
const PREDECESSOR_TIMEOUT_MS = 15_000;
const PREDECESSOR_PRESENT = /pre-existing shared memory block|lock file "postmaster.pid" already exists/;
const LOG_TAIL_LINES = 8;

export interface InitializeOptions {
  readonly installation: Installation;
  readonly account: Account | undefined;
  /** Must not exist; its parent must. */
  readonly dataDirectory: string;
  /** The superuser `postgres` has this password and logs in with SCRAM; undefined: everyone on loopback is trusted. */
  readonly superuserPassword: string | undefined;
  /** False skips the flush to disk at the end, for servers that nobody needs after a crash. */
  readonly durable: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** Runs initdb beside the data directory's place, then moves the result there. */
export async function initializeServer(options: InitializeOptions): Promise<void> {
  const { account, dataDirectory } = options;
  const staging = await fs.mkdtemp(`${dataDirectory}${STAGING_MARK}`);
  try {
    const data = path.join(staging, 'data');
    const passwordFile = path.join(staging, 'password');
    await fs.mkdir(data, { mode: 0o700 });
    await giveTo(account, staging, data);
    const args = ['-U', 'postgres', '--encoding=UTF8', '--locale=C', '--auth-local=reject'];
    if (options.superuserPassword === undefined) {
      args.push('--auth-host=trust');
    } else {
      await fs.writeFile(passwordFile, options.superuserPassword, { mode: 0o600 });
      await giveTo(account, passwordFile);
      // Relative to the working directory, because the account may not be able to enter what is above it.
      args.push('--auth-host=scram-sha-256', '--pwfile=../password');
    }
    if (!options.durable) args.push('--no-sync');
    await runInitdb(options, data, args);
    await fs.appendFile(path.join(data, 'postgresql.conf'), `\ninclude_if_exists = '${SETTINGS_FILE}'\n`);
    await fs.rename(data, dataDirectory);
  } finally {
    await fs.rm(staging, { recursive: true, force: true });
  }
}

/** Between a data directory's name and what makes its staging directory unique. */
export const STAGING_MARK = '.new-';

async function giveTo(account: Account | undefined, ...paths: string[]): Promise<void> {
  if (account === undefined) return;
  for (const each of paths) await fs.chown(each, account.uid, account.gid);
}

async function runInitdb(options: InitializeOptions, data: string, args: string[]): Promise<void> {
  if (options.signal?.aborted) throw cancelled();
  const child = spawn(
    path.join(options.installation.binDirectory, 'initdb'),
    ['-D', dataArgument(data, options.account), ...args],
    {
      ...spawnIdentity(options.account),
      cwd: data,
      env: serverEnvironment(),
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  );
  let errorText = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errorText = (errorText + text).slice(-4000);
  });
  // initdb has children of its own, in the session it leads.
  const abort = () => signalGroup(child.pid, 'SIGKILL');
  options.signal?.addEventListener('abort', abort);
  try {
    const status = await exitOf(child);
    if (options.signal?.aborted) throw cancelled();
    if (status.code !== 0) {
      const lines = errorText.trim().split('\n');
      const cause = status.spawnError ?? lines.find((line) => /(error|FATAL):/.test(line)) ?? lines.at(-1);
      throw new EmbeddedFailure(
        'server-died',
        `initdb failed for ${options.dataDirectory}: ${cause}`,
        errorText,
      );
    }
  } finally {
    options.signal?.removeEventListener('abort', abort);
  }
}

function signalGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // It has exited already.
  }
}

interface ExitStatus {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly spawnError?: string;
}

function exitOf(child: ChildProcess): Promise<ExitStatus> {
  return new Promise((resolve) => {
    child.once('close', (code, signal) => resolve({ code, signal }));
    child.once('error', (error) => resolve({ code: null, signal: null, spawnError: error.message }));
  });
}

/**
 * How a server is told its directory. Where its account can't enter the directories above (a checkout under /root), it
 * is told "your working directory": root enters it before it gives up its rights, and PostgreSQL never leaves it.
 */
function dataArgument(dataDirectory: string, account: Account | undefined): string {
  if (account === undefined || canExecute(dataDirectory, account)) return dataDirectory;
  if (process.platform === 'linux') return '/proc/self/cwd';
  throw new EmbeddedFailure(
    'directory',
    `the account that runs PostgreSQL cannot enter ${dataDirectory}: choose a directory that it can enter with --data`,
  );
}

/** Nothing of PGPORT, PGDATA or LANG may reach a server. */
function serverEnvironment(): NodeJS.ProcessEnv {
  const kept: NodeJS.ProcessEnv = { LC_ALL: 'C', PATH: process.env.PATH ?? '/usr/bin:/bin' };
  for (const name of ['LD_LIBRARY_PATH', 'TZ', 'TMPDIR']) {
    const value = process.env[name];
    if (value !== undefined) kept[name] = value;
  }
  return kept;
}

export interface StartOptions {
  readonly installation: Installation;
  readonly account: Account | undefined;
  /** Initialised; absolute. */
  readonly dataDirectory: string;
  readonly port: number;
  /** Written to the server's own configuration file; undefined: those of the start before stay. */
  readonly settings: Readonly<Record<string, string>> | undefined;
  /** The server's log; that of the run before is kept beside it as `….1`. */
  readonly logFile: string;
  readonly startTimeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
  /** Removed when this process dies without having stopped the server: for servers of tests. */
  readonly removeWhenOrphaned?: string | undefined;
}

export class EmbeddedServer {
  readonly port: number;
  readonly pid: number;
  readonly dataDirectory: string;
  readonly logFile: string;
  /** Resolves when the server's main process is gone, whatever the reason. */
  readonly exited: Promise<ExitStatus>;
  private readonly child: ChildProcess;
  private isExited = false;

  private constructor(options: StartOptions, child: ChildProcess, exited: Promise<ExitStatus>) {
    this.port = options.port;
    this.pid = child.pid!;
    this.dataDirectory = options.dataDirectory;
    this.logFile = options.logFile;
    this.child = child;
    this.exited = exited;
    void exited.then(() => {
      this.isExited = true;
    });
  }

  /** Starts the server and waits until it accepts connections; recovers first if it was killed before. */
  static async start(options: StartOptions): Promise<EmbeddedServer> {
    await refuseOtherVersion(options.dataDirectory, options.installation);
    await writeSettings(options);
    const deadline = Date.now() + PREDECESSOR_TIMEOUT_MS;
    for (;;) {
      await endLeftover(options.dataDirectory);
      await removeStalePostmasterFile(options.dataDirectory);
      try {
        return await EmbeddedServer.startOnce(options);
      } catch (error) {
        const tail = error instanceof EmbeddedFailure ? (error.logTail ?? '') : '';
        if (!PREDECESSOR_PRESENT.test(tail) || Date.now() > deadline) throw error;
        await delay(100);
      }
    }
  }

  private static async startOnce(options: StartOptions): Promise<EmbeddedServer> {
    if (options.signal?.aborted) throw cancelled();
    await fs.rename(options.logFile, `${options.logFile}.1`).catch(() => {});
    const dataPath = dataArgument(options.dataDirectory, options.account);
    // Nothing is awaited from here until the watchdog stands: a server that dies at once would not be heard.
    const log = openSync(options.logFile, 'w', 0o640);
    let child: ChildProcess;
    try {
      child = spawn(
        path.join(options.installation.binDirectory, 'postgres'),
        [
          ...['-D', dataPath, '-p', String(options.port)],
          ...['-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories='],
        ],
        {
          ...spawnIdentity(options.account),
          cwd: options.dataDirectory,
          env: serverEnvironment(),
          detached: true,
          stdio: ['ignore', log, log],
        },
      );
    } finally {
      closeSync(log);
    }
    let watchdog: Watchdog | undefined;
    const exited = exitOf(child).then((status) => {
      watchdog?.dismiss();
      return status;
    });
    if (child.pid === undefined) {
      const { spawnError } = await exited;
      throw new EmbeddedFailure('server-died', `PostgreSQL cannot be started: ${spawnError}`);
    }
    const removeDirectory = options.removeWhenOrphaned;
    watchdog = startWatchdog({
      pid: child.pid,
      signal: removeDirectory === undefined ? 'INT' : 'QUIT',
      removeDirectory,
    });
    const server = new EmbeddedServer(options, child, exited);
    try {
      await server.waitUntilReady(options);
    } catch (error) {
      await server.stop('immediate');
      throw error;
    }
    child.unref();
    return server;
  }

  /** As pg_ctl does it: the server itself writes "ready" to its postmaster.pid. */
  private async waitUntilReady(options: StartOptions): Promise<void> {
    const deadline = Date.now() + (options.startTimeoutMs ?? 120_000);
    for (;;) {
      if (this.isExited) throw await this.startFailure();
      const file = await readPostmasterFile(this.dataDirectory);
      if (file?.pid === this.pid && file.status === 'ready') return;
      if (options.signal?.aborted) throw cancelled();
      if (Date.now() > deadline) {
        throw new EmbeddedFailure(
          'start-timeout',
          `the server in ${this.dataDirectory} was not ready in time; its log is ${this.logFile}`,
          await logTail(this.logFile),
        );
      }
      await delay(READY_POLL_MS);
    }
  }

  private async startFailure(): Promise<EmbeddedFailure> {
    const tail = await logTail(this.logFile);
    if (/could not bind .*(Address already in use|Is another postmaster)/s.test(tail)) {
      return new EmbeddedFailure('port-in-use', `port ${this.port} on 127.0.0.1 is in use`, tail);
    }
    return new EmbeddedFailure('server-died', await this.deathNotice(), tail);
  }

  /** One line on a server that is gone: where it was and the cause its log gives. */
  async deathNotice(): Promise<string> {
    const { code, signal } = await this.exited;
    const how = signal === null ? `with exit status ${code}` : `by ${signal}`;
    const lines = (await logTail(this.logFile)).split('\n');
    const cause = lines.findLast((line) => /(FATAL|PANIC|ERROR):/.test(line)) ?? lines.at(-1) ?? '';
    return `the server in ${this.dataDirectory} ended ${how}${cause === '' ? '' : `: ${cause}`} (log: ${this.logFile})`;
  }

  /**
   * `fast` rolls back what runs and writes everything out; `immediate` leaves that to the next start's recovery. A server
   * that does not end in time is ended the harder way: when this resolves, it is gone.
   */
  async stop(mode: 'fast' | 'immediate' = 'fast'): Promise<void> {
    this.child.ref();
    if (mode === 'fast') {
      this.signal('SIGINT');
      if (await this.exitsWithin(FAST_STOP_TIMEOUT_MS)) return;
    }
    this.signal('SIGQUIT');
    if (await this.exitsWithin(IMMEDIATE_STOP_TIMEOUT_MS)) return;
    this.kill();
    await this.exited;
  }

  /** SIGKILL to the main process, as the kernel does when memory runs out. */
  kill(): void {
    this.child.ref();
    this.signal('SIGKILL');
  }

  private signal(name: NodeJS.Signals): void {
    if (!this.isExited) this.child.kill(name);
  }

  private async exitsWithin(timeoutMs: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<false>((resolve) => {
      timer = setTimeout(() => resolve(false), timeoutMs);
    });
    try {
      return await Promise.race([this.exited.then(() => true), timeout]);
    } finally {
      clearTimeout(timer);
    }
  }
}

async function refuseOtherVersion(dataDirectory: string, installation: Installation): Promise<void> {
  let found: string;
  try {
    found = (await fs.readFile(path.join(dataDirectory, 'PG_VERSION'), 'utf8')).trim();
  } catch (error) {
    const why =
      (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'no PG_VERSION' : (error as Error).message;
    throw new EmbeddedFailure('directory', `${dataDirectory} is not a PostgreSQL data directory (${why})`);
  }
  if (found !== String(installation.majorVersion)) {
    throw new EmbeddedFailure(
      'other-version',
      `${dataDirectory} was made by PostgreSQL ${found}, and this is PostgreSQL ${installation.version}`,
    );
  }
}

async function writeSettings(options: StartOptions): Promise<void> {
  if (options.settings === undefined) return;
  const lines = Object.entries(options.settings).map(
    ([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`,
  );
  const file = path.join(options.dataDirectory, SETTINGS_FILE);
  await fs.writeFile(file, lines.join(''), { mode: 0o600 });
  await giveTo(options.account, file);
}

async function logTail(logFile: string): Promise<string> {
  try {
    const text = await fs.readFile(logFile, 'utf8');
    return text.trimEnd().split('\n').slice(-LOG_TAIL_LINES).join('\n');
  } catch {
    return '';
  }
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
