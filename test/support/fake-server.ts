/**
 * A server whose capacity is known: what the load generator and the search for the wall are measured against. It speaks
 * as much of PostgreSQL's protocol as the generator needs, over TCP, and every statement (a Query, or a Sync with an
 * Execute before it) is a job of a first-come-first-served queue before `servers` equal servers. So its capacity is
 * `servers / serviceMs` jobs a millisecond whatever computes it, its latencies are those of M/D/c and M/M/c, and a
 * transaction of three statements is three jobs.
 *
 * It runs as a process of its own, with its own pid: SIGSTOP makes it pause, as a server does whose disk hangs. It ends
 * with the test's process, also when that is killed.
 *
 *   const server = await startFakeServer({ servers: 4, serviceMs: 2, service: 'deterministic' });
 *   server.capacityPerSecond   // 2000
 *   …  new LoadGenerator({ target: server.target(), … })
 *   await server.stop();
 *
 * Statements are answered with INSERT 0 1 whatever they ask: a control connection that reads settings learns nothing here.
 */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Target } from '../../src/wall/load/generator-messages.ts';

export interface FakeServerOptions {
  /** Jobs that are served at a time. */
  readonly servers: number;
  /** The mean time that one server takes for one job. */
  readonly serviceMs: number;
  readonly service: ServiceTimes;
  /** Of the exponential times; default 1. */
  readonly seed?: number;
}

/** `deterministic`: each job takes exactly the mean. */
export type ServiceTimes = 'deterministic' | 'exponential';

export interface FakeServer {
  readonly port: number;
  readonly pid: number;
  /** Jobs a second that it serves when it never lacks work. */
  readonly capacityPerSecond: number;
  readonly dsn: string;
  target(): Target;
  stop(): Promise<void>;
}

const PROGRAM = fileURLToPath(new URL('./fake-server-process.ts', import.meta.url));
const START_TIMEOUT_MS = 20_000;

export async function startFakeServer(options: FakeServerOptions): Promise<FakeServer> {
  const child = fork(
    PROGRAM,
    [JSON.stringify({ seed: 1, ...options } satisfies Required<FakeServerOptions>)],
    {
      execArgv: ['--import', 'tsx'],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    },
  );
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  let timer: NodeJS.Timeout | undefined;
  const port = await new Promise<number>((resolve, reject) => {
    timer = setTimeout(() => reject(new Error('the fake server does not start')), START_TIMEOUT_MS);
    child.once('message', (message) => resolve(Number(message)));
    child.once('exit', (status) => reject(new Error(`the fake server ended with status ${status}`)));
    child.once('error', reject);
  })
    .catch((error: unknown) => {
      child.kill('SIGKILL');
      throw error;
    })
    .finally(() => clearTimeout(timer));
  return {
    port,
    pid: child.pid!,
    capacityPerSecond: (options.servers * 1000) / options.serviceMs,
    dsn: `postgres://postgres@127.0.0.1:${port}/postgres?sslmode=disable`,
    target: () => ({
      ...{ host: '127.0.0.1', port, user: 'postgres', password: undefined, database: 'postgres' },
      ...{ parameters: [], tls: undefined, connectTimeoutMs: 10_000 },
    }),
    stop: () => {
      // Also ends one that a test has stopped.
      child.kill('SIGKILL');
      return ended;
    },
  };
}
