/**
 * pgbench as the client: a program that nobody here wrote. Its progress lines, one a second, cut the window: the first
 * ends the warm-up, and throughput is the mean of those that follow. Latencies come from its log of a tenth of the
 * transactions, those that ended within the window.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { createInterface } from 'node:readline';
import type { Protocol } from '../../src/wall/load/transaction-template.ts';
import { endWithBench } from './child.ts';
import { type Endpoint, type Figures, perTransaction } from './point.ts';
import { ObservedWindow } from './window.ts';
import type { BenchWorkload } from './workloads.ts';

export interface Pgbench {
  readonly program: string;
  readonly version: string;
}

const SAMPLING_RATE = 0.1;
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
  load: { workload: BenchWorkload; protocol: Protocol; clients: number; windowSeconds: number },
): Promise<Figures> {
  const { workload, protocol, clients, windowSeconds } = load;
  const directory = mkdtempSync(path.join(tmpdir(), 'postern-bench-pgbench-'));
  try {
    const script = path.join(directory, 'script.sql');
    const log = path.join(directory, 'log');
    writeFileSync(script, workload.pgbenchScript);
    const child = spawn(
      pgbench.program,
      [
        ...['--no-vacuum', '--host=127.0.0.1', `--port=${endpoint.port}`, `--username=${endpoint.user}`],
        ...[`--protocol=${protocol}`, `--client=${clients}`, '--jobs=1', `--file=${script}`, '--progress=1'],
        // One second of warm-up, and one more so that the window's last progress line surely comes.
        ...[
          `--time=${windowSeconds + 2}`,
          '--log',
          `--log-prefix=${log}`,
          `--sampling-rate=${SAMPLING_RATE}`,
        ],
        endpoint.database,
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    endWithBench(child);
    const ended = new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    const window = new ObservedWindow({ ...endpoint.pids, client: child.pid ?? 0 });
    const rates: number[] = [];
    let openedAtMs = 0;
    let closedAtMs = 0;
    let lines = 0;
    let said = '';
    createInterface({ input: child.stderr }).on('line', (line) => {
      const rate = parseProgress(line);
      if (rate === undefined) {
        said += `${line}\n`;
        return;
      }
      lines++;
      if (lines === 1) {
        window.open();
        openedAtMs = Date.now();
      } else if (lines <= windowSeconds + 1) {
        rates.push(rate);
        if (lines < windowSeconds + 1) return;
        window.close();
        closedAtMs = Date.now();
      }
    });
    const status = await ended;
    if (status !== 0 || closedAtMs === 0)
      throw new Error(`pgbench ended with status ${status}: ${said.trim()}`);
    const tps = rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
    const latencies = readdirSync(directory)
      .filter((file) => file.startsWith('log.'))
      .flatMap((file) =>
        parseLatenciesMs(readFileSync(path.join(directory, file), 'latin1'), { openedAtMs, closedAtMs }),
      )
      .sort((a, b) => a - b);
    const { cpuSeconds, steal, others } = window.circumstances();
    return {
      tool: 'pgbench',
      workload: workload.workload.name,
      protocol,
      clients,
      tps,
      failedPerSecond: 0,
      p50Ms: percentile(latencies, 0.5),
      p99Ms: percentile(latencies, 0.99),
      errors: {},
      cpuUs: perTransaction(cpuSeconds, (tps * (closedAtMs - openedAtMs)) / 1000),
      steal,
      others,
      clientBound: false,
    };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Transactions a second of a line like "progress: 2.0 s, 1234.5 tps, lat 0.8 ms stddev 0.1, 0 failed". */
export function parseProgress(line: string): number | undefined {
  const match = /^progress: [\d.]+ s, ([\d.]+) tps/.exec(line);
  return match ? Number(match[1]) : undefined;
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
