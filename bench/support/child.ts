/**
 * Programs that a bench starts beside itself: routers, PgBouncer, pgbench. Each ends with the bench, by its pid, also if
 * the bench is interrupted. (Servers look after themselves: src/embedded/watchdog.ts.)
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export interface RunningProcess {
  readonly port: number;
  readonly pid: number;
  stop(): Promise<void>;
}

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 10_000;

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});
for (const [signal, status] of [['SIGINT', 130] as const, ['SIGTERM', 143] as const])
  process.on(signal, () => process.exit(status));

/** From here on it does not outlive the bench. */
export function endWithBench(child: ChildProcess): void {
  running.add(child);
  child.once('close', () => running.delete(child));
}

/** `postern ARGUMENTS --port 0`, as a process of its own with one worker if not told otherwise, once it listens. */
export async function startPostern(options: {
  args: readonly string[];
  workers?: number;
}): Promise<RunningProcess> {
  const { args, workers = 1 } = options;
  const child = spawn(process.execPath, [MAIN, ...args, '--port', '0', '--workers', String(workers)], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  endWithBench(child);
  const port = Number((await outputMatching(child, /listening on [^",:]*:(\d+)/, 'the router'))[1]);
  return { port, pid: child.pid!, stop: () => stopChild(child) };
}

/** Waits until the program has written what says that it runs; rejects with all it wrote if it does not. */
export function outputMatching(
  child: ChildProcess,
  expected: RegExp,
  what: string,
): Promise<RegExpExecArray> {
  return new Promise((resolve, reject) => {
    let output = '';
    let settled = false;
    const settle = (): void => {
      settled = true;
      clearTimeout(timer);
    };
    const timer = setTimeout(() => {
      settle();
      child.kill('SIGKILL');
      reject(new Error(`${what} does not start:\n${output}`));
    }, START_TIMEOUT_MS);
    // Goes on reading to the end: a full pipe would stop the program.
    const onText = (chunk: Buffer): void => {
      if (settled) return;
      output += chunk.toString();
      const match = expected.exec(output);
      if (!match) return;
      settle();
      resolve(match);
    };
    child.stdout?.on('data', onText);
    child.stderr?.on('data', onText);
    child.on('error', (error) => {
      settle();
      reject(error);
    });
    child.on('exit', (code) => {
      settle();
      reject(new Error(`${what} ended with status ${code}:\n${output}`));
    });
  });
}

export function stopChild(child: ChildProcess): Promise<void> {
  const hasEnded = child.pid === undefined || child.exitCode !== null || child.signalCode !== null;
  if (hasEnded) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS);
    child.once('exit', () => {
      clearTimeout(timer);
      resolve();
    });
    child.kill('SIGTERM');
  });
}
