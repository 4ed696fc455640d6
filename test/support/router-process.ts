/**
 * The whole router in processes of its own, from dist/: the first process and its workers. The user `app` is trusted, unless `extra`
 * says something else.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RouterOptions } from '../../src/cli/router-options.ts';

const MAIN = join(import.meta.dirname, '../../dist/cli/main.js');

export class RouterProcess {
  readonly port: number;
  readonly child: ChildProcess;
  readonly configPath: string;
  readonly #directory: string;
  readonly #written: { text: string };
  readonly #config: object;

  private constructor(of: {
    child: ChildProcess;
    port: number;
    directory: string;
    written: { text: string };
    config: object;
  }) {
    this.child = of.child;
    this.port = of.port;
    this.#directory = of.directory;
    this.configPath = configIn(of.directory);
    this.#written = of.written;
    this.#config = of.config;
  }

  /** `extra`: in postern.yaml, over what is there by default. */
  static async start(nodes: RouterOptions['nodes'], extra: object = {}): Promise<RouterProcess> {
    const directory = await mkdtemp(join(tmpdir(), 'postern-router-'));
    const config = {
      listen: { port: 0 },
      database: 'app',
      nodes,
      users: [{ name: 'app', trust: true }],
      ...extra,
    };
    // JSON is YAML.
    await writeFile(configIn(directory), JSON.stringify(config));
    const child = spawn(process.execPath, [MAIN, 'serve', '-c', configIn(directory)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const written = { text: '' };
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => {
        written.text += chunk.toString();
      });
    const ended = new Promise<never>((_, reject) => {
      child.once('exit', () => reject(new Error(`the router ended: ${written.text}`)));
    });
    const listening = until(() => /listening on [^"]*:(\d+)/.exec(written.text)?.[1], 60_000);
    const port = Number(await Promise.race([listening, ended]));
    ended.catch(() => {});
    return new RouterProcess({ child, port, directory, written, config });
  }

  /** What it has written, both streams. */
  get output(): string {
    return this.#written.text;
  }

  get workerPids(): number[] {
    const { pid } = this.child;
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
    return text === '' ? [] : text.split(' ').map(Number);
  }

  /** Waits for `count` lines that hold this text. */
  async untilWritten(text: string, count = 1): Promise<void> {
    await until(
      () => this.output.split(text).length > count,
      60_000,
      () => this.output,
    );
  }

  /** Writes another configuration, for a reload. */
  async configure(extra: object): Promise<void> {
    await writeFile(this.configPath, JSON.stringify({ ...this.#config, ...extra }));
  }

  signal(name: NodeJS.Signals): void {
    this.child.kill(name);
  }

  /** Each worker is another process then. */
  async restart(): Promise<void> {
    const before = this.output.split(ROLLED).length - 1;
    this.signal('SIGUSR2');
    await this.untilWritten(ROLLED, before + 1);
  }

  /** Of all its processes. */
  async residentBytes(): Promise<number> {
    let bytes = 0;
    for (const pid of [this.child.pid, ...this.workerPids]) {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8');
      bytes += Number(/VmRSS:\s+(\d+) kB/.exec(status)![1]) * 1024;
    }
    return bytes;
  }

  /** Gives the exit status. */
  async stop(): Promise<number | null> {
    const exited =
      this.child.exitCode === null && this.child.signalCode === null
        ? once(this.child, 'exit')
        : Promise.resolve([this.child.exitCode]);
    this.child.kill('SIGTERM');
    const [status] = await exited;
    await rm(this.#directory, { recursive: true, force: true });
    return status;
  }
}

const ROLLED = 'all workers have been replaced';

function configIn(directory: string): string {
  return join(directory, 'postern.yaml');
}

/** Waits for a condition, with a bound. */
export async function until<T>(
  condition: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs = 15_000,
  describe = () => '',
): Promise<T> {
  const endMs = performance.now() + timeoutMs;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() >= endMs) throw new Error(`it did not happen: ${describe()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
