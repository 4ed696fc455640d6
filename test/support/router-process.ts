/** The whole router in a process of its own, from dist/, so that its memory is its own. The user `app` is trusted. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RouterOptions } from '../../src/cli/router-options.ts';

export class RouterProcess {
  readonly port: number;
  readonly #child: ChildProcess;
  readonly #directory: string;

  private constructor(child: ChildProcess, port: number, directory: string) {
    this.#child = child;
    this.port = port;
    this.#directory = directory;
  }

  static async start(nodes: RouterOptions['nodes']): Promise<RouterProcess> {
    const directory = await mkdtemp(join(tmpdir(), 'postern-router-'));
    const config = {
      listen: { port: 0 },
      database: 'app',
      nodes,
      users: [{ name: 'app', trust: true }],
    };
    // JSON is YAML.
    await writeFile(join(directory, 'postern.yaml'), JSON.stringify(config));
    const child = spawn(
      process.execPath,
      [join(import.meta.dirname, '../../dist/cli/main.js'), 'serve', '-c', join(directory, 'postern.yaml')],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    const port = await new Promise<number>((resolve, reject) => {
      let out = '';
      child.stdout.on('data', (chunk: Buffer) => {
        out += chunk;
        const match = /listening on [^"]*:(\d+)/.exec(out);
        if (match) resolve(Number(match[1]));
      });
      child.once('exit', () => reject(new Error(`the router ended: ${out}`)));
    });
    return new RouterProcess(child, port, directory);
  }

  async residentBytes(): Promise<number> {
    const status = await readFile(`/proc/${this.#child.pid}/status`, 'utf8');
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)![1]) * 1024;
  }

  async stop(): Promise<void> {
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    await exited;
    await rm(this.#directory, { recursive: true, force: true });
  }
}
