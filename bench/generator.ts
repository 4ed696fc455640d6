/**
 * The load generator against pgbench, which nobody here wrote: the same statements by as many clients, prepared, over
 * loopback TCP, one thread each, against one durable server, in turns. What the server could do is the same for both; what
 * is missing from a ratio of 1 is the generator's own doing. docs/reference/load-generator.md says how to read it.
 *
 *   npm run bench:generator -- [--quick] [--json FILE]
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import { createInterface } from 'node:readline';
import { withSchema } from '../src/wall/workload/workload.ts';
import { startTestServer, type TestServer } from '../test/support/servers.ts';
import { benchArguments } from './support/arguments.ts';
import { endWithBench } from './support/child.ts';
import { findPgbench, type Pgbench, parseLatenciesMs } from './support/pgbench.ts';
import { type Endpoint, type Figures, Generators, type Point, perTransaction } from './support/point.ts';
import { median, type Ratio, type RatioWanted, ratiosOf } from './support/ratios.ts';
import { report } from './support/result.ts';
import { type Cell, runRounds } from './support/rounds.ts';
import { ObservedWindow } from './support/window.ts';
import { type BenchWorkload, INSERTS, UPDATES } from './support/workloads.ts';

const DEADLINE_QUICK_MS = 100_000;
const DEADLINE_MS = 15 * 60_000;
const WARMUP_MS = 500;
/** Of the transactions, for the latencies: a line for each would cost pgbench what the generator does not pay. */
const SAMPLING_RATE = 0.05;
const [OURS, THEIRS] = ['generator', 'pgbench'];

interface Question {
  readonly workload: BenchWorkload;
  readonly clients: number;
}

const { quick, json } = benchArguments();
const windowSeconds = quick ? 2 : 5;
const questions: Question[] = [
  ...(quick ? [1, 8, 64] : [1, 8, 16, 32, 64, 128]).map((clients) => ({ workload: INSERTS, clients })),
  ...(quick ? [] : [8, 64]).map((clients) => ({ workload: UPDATES, clients })),
];

const pgbench = findPgbench();
if (pgbench === undefined) {
  console.error('no pgbench on this machine: bench/setup.sh installs it');
  process.exit(2);
}
const deadlineMs = performance.now() + (quick ? DEADLINE_QUICK_MS : DEADLINE_MS);
const generators = new Generators();
const server = await startTestServer({
  durable: true,
  settings: { max_connections: '200', shared_buffers: '512MB', max_wal_size: '8GB', wal_level: 'replica' },
});
try {
  for (const statement of [INSERTS, UPDATES].flatMap(({ workload }) => workload.setup)) {
    await server.query(withSchema(statement, ''));
  }
  const cells = questions.map((question) => cellOf(server, pgbench, question));
  const { points, notes } = await runRounds({ cells, rounds: quick ? 5 : 9, deadlineMs });
  const wanted = questions.flatMap(({ workload, clients }): RatioWanted[] => {
    const pair = { cell: nameOf({ workload, clients }), of: OURS, over: THEIRS };
    const suffix = workload === INSERTS ? `${clients}` : `updates_${clients}`;
    return [
      { name: `vs_pgbench_${suffix}`, ...pair },
      { name: `cpu_us_${suffix}`, ...pair, figure: (of) => of.cpuUs.client },
      { name: `cpu_us_pgbench_${suffix}`, ...pair, figure: (_, over) => over.cpuUs.client },
    ];
  });
  const plateau = plateauOf(points);
  report({
    bench: 'generator',
    setting: { server_version: await version(server), pgbench: pgbench.version },
    ratios: [...ratiosOf(points, wanted), ...plateau.ratios],
    points,
    notes: [...plateau.notes, ...notes],
    file: json,
  });
} finally {
  await generators.close();
  await server.stop();
}

function nameOf({ workload, clients }: Question): string {
  return `${workload.workload.name} prepared ${clients}`;
}

function cellOf(target: TestServer, program: Pgbench, question: Question): Cell {
  const { workload, clients } = question;
  const endpoint: Endpoint = {
    ...{ name: 'direct', port: target.port, user: 'postgres', database: 'postgres' },
    pids: { server: target.pid },
  };
  const load = { workload: workload.workload, protocol: 'prepared', clients } as const;
  return {
    name: nameOf(question),
    prepare: async () => {
      for (const statement of workload.reset) await target.query(statement);
      await target.query('CHECKPOINT');
    },
    contenders: [
      {
        endpoint: OURS,
        measure: () =>
          generators.measure(endpoint, { ...load, warmupMs: WARMUP_MS, windowMs: windowSeconds * 1000 }),
      },
      { endpoint: THEIRS, measure: () => measureByProgress(program, endpoint, question) },
    ],
  };
}

/**
 * pgbench as a user runs it: its progress lines, one a second, cut the window; the first ends the warm-up, and throughput
 * is the mean of those that follow.
 */
async function measureByProgress(
  program: Pgbench,
  endpoint: Endpoint,
  { workload, clients }: Question,
): Promise<Figures> {
  const directory = mkdtempSync(path.join(tmpdir(), 'postern-bench-generator-'));
  try {
    const script = path.join(directory, 'script.sql');
    writeFileSync(script, workload.pgbenchScript);
    const child = spawn(
      program.program,
      [
        ...['--no-vacuum', '--host=127.0.0.1', `--port=${endpoint.port}`, `--username=${endpoint.user}`],
        ...['--protocol=prepared', `--client=${clients}`, '--jobs=1', `--file=${script}`, '--progress=1'],
        // The last second is there so that the window's last line surely comes.
        ...[`--time=${windowSeconds + 2}`, '--log', `--log-prefix=${path.join(directory, 'log')}`],
        ...[`--sampling-rate=${SAMPLING_RATE}`, endpoint.database],
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
    const span = { openedAtMs: 0, closedAtMs: 0 };
    let lines = 0;
    let said = '';
    createInterface({ input: child.stderr }).on('line', (line) => {
      const rate = /^progress: [\d.]+ s, ([\d.]+) tps/.exec(line)?.[1];
      if (rate === undefined) {
        said += `${line}\n`;
        return;
      }
      lines++;
      if (lines === 1) {
        window.open();
        span.openedAtMs = Date.now();
      } else if (lines <= windowSeconds + 1) {
        rates.push(Number(rate));
        if (lines <= windowSeconds) return;
        window.close();
        span.closedAtMs = Date.now();
      }
    });
    const status = await ended;
    if (status !== 0 || span.closedAtMs === 0) {
      throw new Error(`pgbench ended with status ${status}: ${said.trim()}`);
    }
    const tps = rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
    const latencies = readdirSync(directory)
      .filter((file) => file.startsWith('log.'))
      .flatMap((file) => parseLatenciesMs(readFileSync(path.join(directory, file), 'latin1'), span))
      .sort((a, b) => a - b);
    const percentile = (share: number): number =>
      latencies[Math.floor(latencies.length * share)] ?? Number.NaN;
    const { cpuSeconds, steal, others } = window.circumstances();
    return {
      ...{ tool: 'pgbench', workload: workload.workload.name, protocol: 'prepared', clients, tps },
      ...{ failedPerSecond: 0, p50Ms: percentile(0.5), p99Ms: percentile(0.99), errors: {}, steal, others },
      cpuUs: perTransaction(cpuSeconds, (tps * (span.closedAtMs - span.openedAtMs)) / 1000),
      clientBound: false,
    };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The best of each round's client counts, of inserts: what either tool would call the wall. */
function plateauOf(all: readonly Point[]): { ratios: Ratio[]; notes: string[] } {
  const inserts = all.filter(({ workload }) => workload === INSERTS.workload.name);
  const bests = (endpoint: string): { tps: number; steal: number }[] =>
    [...new Set(inserts.map(({ round }) => round))].map((round) => {
      const points = inserts.filter((point) => point.endpoint === endpoint && point.round === round);
      return {
        tps: Math.max(...points.map(({ tps }) => tps)),
        steal: Math.max(...points.map(({ steal }) => steal)),
      };
    });
  const [ours, theirs] = [bests(OURS), bests(THEIRS)];
  const ratios = ours.map(({ tps }, round) => tps / theirs[round]!.tps).filter(Number.isFinite);
  if (ratios.length === 0) return { ratios: [], notes: [] };
  const describe = (name: string, values: readonly number[]): string =>
    `${name} ${Math.round(median(values))} tps (${Math.round(Math.min(...values))} to ${Math.round(Math.max(...values))})`;
  const [ourTps, theirTps] = [ours, theirs].map((some) => some.map(({ tps }) => tps).filter(Number.isFinite));
  const overlap =
    Math.min(...ourTps!) <= Math.max(...theirTps!) && Math.min(...theirTps!) <= Math.max(...ourTps!);
  return {
    ratios: [
      {
        ...{ name: 'plateau_vs_pgbench', median: median(ratios), rounds: ratios },
        steal: Math.max(...[...ours, ...theirs].map(({ steal }) => steal)),
      },
    ],
    notes: [
      `the plateau: ${describe(OURS, ourTps!)}, ${describe(THEIRS, theirTps!)}; the intervals ${overlap ? 'overlap' : 'do NOT overlap'}`,
    ],
  };
}

async function version(target: TestServer): Promise<string> {
  const [row] = await target.query('SHOW server_version');
  return String(row?.server_version);
}
