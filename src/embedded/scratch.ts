/**
 * Servers that nobody needs afterwards: for experiments that a user's server must not be asked for (fsync off), and for
 * tests. Each has a directory of its own in the system's temporary place, which is removed when it is stopped, or when
 * this process dies.
 */
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';
import { type Account, serverAccount } from './account.ts';
import { EmbeddedFailure } from './failure.ts';
import { freePort } from './free-port.ts';
import { embeddedInstallation, type Installation } from './installation.ts';
import { readPostmasterFile } from './postmaster-file.ts';
import { EmbeddedServer, initializeServer, type StartOptions } from './server.ts';
import { startStandby } from './standby.ts';

const DIRECTORY_PREFIX = 'postern-scratch-';
const PORT_TRIES = 10;
const BASE_SETTINGS: Readonly<Record<string, string>> = {
  // Its files then are in the data directory: nothing is left in /dev/shm by a server that is killed.
  dynamic_shared_memory_type: 'mmap',
};

export interface ScratchOptions {
  readonly settings: Readonly<Record<string, string>>;
  /** Default: the one from npm. */
  readonly installation?: Installation;
  /** Of the superuser `postgres`; undefined: everyone on loopback is trusted. */
  readonly superuserPassword?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Makes the data directory; default: initdb does. */
  readonly initialize?: typeof initializeServer;
}

export interface ScratchStandbyOptions {
  /** Its application_name and its slot. */
  readonly name: string;
  readonly settings: Readonly<Record<string, string>>;
  /** Where it streams from; default: the primary. */
  readonly upstreamPort?: number | undefined;
}

export class ScratchServer {
  private running: EmbeddedServer;
  private readonly start: StartOptions;
  private readonly directory: string;
  private readonly password: string | undefined;

  private constructor(options: {
    running: EmbeddedServer;
    start: StartOptions;
    directory: string;
    password: string | undefined;
  }) {
    this.running = options.running;
    this.start = options.start;
    this.directory = options.directory;
    this.password = options.password;
  }

  static async start(options: ScratchOptions): Promise<ScratchServer> {
    const account = serverAccount();
    const installation = options.installation ?? (await embeddedInstallation(account));
    const password = options.superuserPassword;
    return inDirectory(async (directory) => {
      const start = startOptions({ directory, account, installation, settings: options.settings });
      await (options.initialize ?? initializeServer)({
        ...{ installation, account, dataDirectory: start.dataDirectory, superuserPassword: password },
        durable: false,
        signal: options.signal,
      });
      const running = await onFreePort((port) =>
        EmbeddedServer.start({ ...start, port, signal: options.signal }),
      );
      return new ScratchServer({ running, start, directory, password });
    });
  }

  /** A streaming standby of this server. */
  async startStandby(options: ScratchStandbyOptions): Promise<ScratchServer> {
    const { account, installation } = this.start;
    return inDirectory(async (directory) => {
      const start = startOptions({ directory, account, installation, settings: options.settings });
      const running = await startStandby({
        ...start,
        settings: start.settings ?? {},
        port: await freePort(),
        name: options.name,
        primary: { dataDirectory: this.dataDirectory, port: this.port, password: this.password },
        ...(options.upstreamPort === undefined ? {} : { upstreamPort: options.upstreamPort }),
      });
      // A restart keeps what startStandby has written: where it streams from.
      const again = { ...start, settings: undefined };
      return new ScratchServer({ running, start: again, directory, password: this.password });
    });
  }

  get port(): number {
    return this.running.port;
  }

  /** The postmaster's; another one after restart(). */
  get pid(): number {
    return this.running.pid;
  }

  get dataDirectory(): string {
    return this.running.dataDirectory;
  }

  /** SIGKILL to the postmaster. */
  kill(): void {
    this.running.kill();
  }

  /** Stops if need be, and starts on the same port and data. */
  async restart(): Promise<void> {
    const { port } = this;
    await this.running.stop();
    this.running = await EmbeddedServer.start({ ...this.start, port });
  }

  /** Stops the server and removes its files. */
  async stop(): Promise<void> {
    await this.running.stop('immediate');
    await removeSharedMemory(this.dataDirectory);
    await fs.rm(this.directory, { recursive: true, force: true });
  }
}

function startOptions(options: {
  directory: string;
  account: Account | undefined;
  installation: Installation;
  settings: Readonly<Record<string, string>>;
}): StartOptions {
  const { directory, account, installation, settings } = options;
  return {
    ...{ account, installation, port: 0, removeWhenOrphaned: directory },
    dataDirectory: path.join(directory, 'data'),
    settings: { ...BASE_SETTINGS, ...settings },
    logFile: path.join(directory, 'log'),
  };
}

async function inDirectory<T>(make: (directory: string) => Promise<T>): Promise<T> {
  const directory = await fs.mkdtemp(path.join(os.tmpdir(), DIRECTORY_PREFIX));
  try {
    // The server's own account has to pass through it.
    await fs.chmod(directory, 0o711);
    return await make(directory);
  } catch (error) {
    await fs.rm(directory, { recursive: true, force: true });
    throw error;
  }
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

/** A killed server leaves its System V segment to the next start on its data; here there is none. */
async function removeSharedMemory(dataDirectory: string): Promise<void> {
  const file = await readPostmasterFile(dataDirectory);
  if (file?.sharedMemoryId === undefined) return;
  spawnSync('ipcrm', ['-m', String(file.sharedMemoryId)], { stdio: 'ignore' });
}
