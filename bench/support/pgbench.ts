/**
 * pgbench as the client: a program that nobody here wrote. Throughput and latencies come from its own log, which has a
 * line for each transaction: those that ended within the window count. It is ended by a signal, since its own clock
 * knows whole seconds alone.
 */
import { execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { Protocol } from '../../src/wall/load/transaction-template.ts';
import { endWithBench, stopChild } from './child.ts';
import { type Endpoint, type Figures, perTransaction } from './point.ts';
import { ObservedWindow } from './window.ts';
import type { BenchWorkload } from './workloads.ts';

export interface Pgbench {
  readonly program: string;
  readonly version: string;
}

/** It is ended long before. */
const SECONDS_MAX = 60;
const POLL_MS = 20;
const START_TIMEOUT_MS = 30_000;
/** A client or two on a slow disk fill a block of 4 kB in this time. */
const LOG_TIMEOUT_MS = 10_000;
const LOG_END_BYTES = 1_024;
const DEBIAN = '/usr/lib/postgresql';

/** The newest of Debian's, or the PATH's; undefined: there is none. */
export function findPgbench(): Pgbench | undefined {
  const versions = existsSync(DEBIAN) ? readdirSync(DEBIAN).sort((a, b) => Number(b) - Number(a)) : [];
  const directories = [
    ...versions.map((version) => path.join(DEBIAN, version, 'bin')),
    ...(process.env.PATH ?? '').split(path.delimiter),
  ];
  const program = directories.map((directory) => path.join(directory, 'pgbench')).find(existsSync);
  if (program === undefined) return undefined;
  return { program, version: execFileSync(program, ['--version'], { encoding: 'utf8' }).trim() };
}

export async function measureWithPgbench(
  pgbench: Pgbench,
  endpoint: Endpoint,
  load: {
    workload: BenchWorkload;
    protocol: Protocol;
    clients: number;
    warmupMs: number;
    windowMs: number;
  },
): Promise<Figures> {
  const { workload, protocol, clients, warmupMs, windowMs } = load;
  const directory = mkdtempSync(path.join(tmpdir(), 'postern-bench-pgbench-'));
  const removeDirectory = (): void => rmSync(directory, { recursive: true, force: true });
  process.on('exit', removeDirectory);
  const script = path.join(directory, 'script.sql');
  writeFileSync(script, workload.pgbenchScript);
  const child = spawn(
    pgbench.program,
    [
      ...['--no-vacuum', '--host=127.0.0.1', `--port=${endpoint.port}`, `--username=${endpoint.user}`],
      ...[`--protocol=${protocol}`, `--client=${clients}`, '--jobs=1', `--file=${script}`],
      ...['--log', `--log-prefix=${path.join(directory, 'log')}`, `--time=${SECONDS_MAX}`],
      endpoint.database,
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  endWithBench(child);
  const log = path.join(directory, `log.${child.pid}`);
  try {
    let said = '';
    let hasEnded = false;
    const onEnd = (): void => {
      hasEnded = true;
    };
    child.once('error', onEnd);
    child.once('close', onEnd);
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    const until = async (isTrue: () => boolean, timeoutMs: number): Promise<void> => {
      const deadlineMs = performance.now() + timeoutMs;
      while (!isTrue()) {
        if (hasEnded) throw new Error(`pgbench ended: ${said.trim()}`);
        if (performance.now() > deadlineMs) throw new Error(`pgbench does not go on: ${said.trim()}`);
        await setTimeout(POLL_MS);
      }
    };
    await until(() => existsSync(log) && statSync(log).size > 0, START_TIMEOUT_MS);
    await setTimeout(warmupMs);
    const window = new ObservedWindow({ ...endpoint.pids, client: child.pid ?? 0 });
    window.open();
    const openedAtMs = Date.now();
    await setTimeout(windowMs);
    window.close();
    const closedAtMs = Date.now();
    // It writes its log in blocks.
    await until(() => lastEndedAtMs(readEnd(log)) > closedAtMs, LOG_TIMEOUT_MS);
    const latencies = parseLatenciesMs(readFileSync(log, 'latin1'), { openedAtMs, closedAtMs }).sort(
      (a, b) => a - b,
    );
    const { cpuSeconds, steal, others } = window.circumstances();
    return {
      tool: 'pgbench',
      workload: workload.workload.name,
      protocol,
      clients,
      tps: (latencies.length * 1000) / (closedAtMs - openedAtMs),
      failedPerSecond: 0,
      p50Ms: percentile(latencies, 0.5),
      p99Ms: percentile(latencies, 0.99),
      errors: {},
      cpuUs: perTransaction(cpuSeconds, latencies.length),
      steal,
      others,
      clientBound: false,
    };
  } finally {
    await stopChild(child);
    process.off('exit', removeDirectory);
    removeDirectory();
  }
}

/** The end of a file, with some lines of the log at least. */
function readEnd(file: string): string {
  const descriptor = openSync(file, 'r');
  try {
    const { size } = fstatSync(descriptor);
    const bytes = Buffer.alloc(Math.min(size, LOG_END_BYTES));
    readSync(descriptor, bytes, 0, bytes.length, size - bytes.length);
    return bytes.toString('latin1');
  } finally {
    closeSync(descriptor);
  }
}

/** When the last transaction ended whose line is whole; 0: there is none. */
export function lastEndedAtMs(text: string): number {
  const line =
    text
      .slice(0, Math.max(0, text.lastIndexOf('\n')))
      .split('\n')
      .at(-1) ?? '';
  const [, , , , seconds, microseconds] = line.split(' ').map(Number);
  return microseconds === undefined ? 0 : seconds! * 1000 + microseconds / 1000;
}

/** Lines of "client transaction latency-in-µs script epoch-seconds µs", of which the latency may be "failed". */
export function parseLatenciesMs(text: string, window: { openedAtMs: number; closedAtMs: number }): number[] {
  return text.split('\n').flatMap((line) => {
    const [, , latencyUs, , seconds, microseconds] = line.split(' ').map(Number);
    if (latencyUs === undefined || Number.isNaN(latencyUs)) return [];
    const endedAtMs = seconds! * 1000 + microseconds! / 1000;
    return endedAtMs >= window.openedAtMs && endedAtMs <= window.closedAtMs ? [latencyUs / 1000] : [];
  });
}

function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}
