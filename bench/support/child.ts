/** Programs that a bench starts beside itself: the router, PgBouncer. Ended with the bench, by pid. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export interface RunningRouter {
  readonly port: number;
  readonly pid: number;
  stop(): Promise<void>;
}

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const START_TIMEOUT_MS = 30_000;

/** `postern ARGUMENTS --port 0` as a process of its own, once it listens. */
export async function startPostern(options: { args: readonly string[] }): Promise<RunningRouter> {
  const child = spawn(process.execPath, [MAIN, ...options.args, '--port', '0'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const port = await listeningPort(child);
  return { port, pid: child.pid!, stop: () => stopChild(child) };
}

function listeningPort(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    let output = '';
    const timer = setTimeout(() => reject(new Error(`the router does not listen:\n${output}`)), START_TIMEOUT_MS);
    const onText = (chunk: Buffer): void => {
      output += chunk.toString();
      const match = /listening on [^",:]*:(\d+)/.exec(output);
      if (!match) return;
      clearTimeout(timer);
      resolve(Number(match[1]));
    };
    child.stdout?.on('data', onText);
    child.stderr?.on('data', onText);
    child.on('exit', (code) => {
      clearTimeout(timer);
      reject(new Error(`the router ended with status ${code}:\n${output}`));
    });
  });
}

export function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
    child.once('exit', () => {
      clearTimeout(timer);
      resolve();
    });
    child.kill('SIGTERM');
  });
}
