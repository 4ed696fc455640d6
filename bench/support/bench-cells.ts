/** The questions of `npm run bench`, for its short and its long form, and the ratios taken from them. */
import type { Protocol } from '../../src/wall/load/transaction-template.ts';
import type { BenchStage } from './bench-stage.ts';
import { measureLockedRow } from './locked-row.ts';
import { measureWithPgbench } from './pgbench.ts';
import type { Endpoint } from './point.ts';
import { answersRatio, type RatioWanted } from './ratios.ts';
import type { Cell, Contender } from './rounds.ts';
import { type BenchWorkload, INSERTS, insertsWithDuplicates, TWO_ROWS, UPDATES } from './workloads.ts';

const CLIENT_COUNTS = [1, 8, 32, 64, 128, 250, 512];
const PROTOCOLS: readonly Protocol[] = ['prepared', 'extended', 'simple'];
const PGBENCH_CLIENT_COUNTS = [1, 8, 64, 250];
const DUPLICATE_PERCENTAGES = [1, 5];
const LOCKED_CELL = 'locked row 64';
const LOCKED = { free: 'postern', locked: 'postern, locked' };

export interface Pace {
  readonly warmupMs: number;
  readonly windowMs: number;
  /** One before each point; else there is only the one before the rounds. */
  readonly checkpoints: boolean;
}

const QUICK: Pace = { warmupMs: 200, windowMs: 550, checkpoints: false };
const LONG: Pace = { warmupMs: 500, windowMs: 1_500, checkpoints: true };
const LONG_LOCK: Pace = { ...LONG, windowMs: 10_000 };
const PGBENCH_SECONDS = 3;

/** What has a target, and no more: 28 points a round. */
export function quickCells(stage: BenchStage): Cell[] {
  const { direct, router } = stage;
  const two = [direct, router];
  const prepared = (workload: BenchWorkload, clients: number): Cell =>
    generatorCell(stage, { workload, protocol: 'prepared', clients, endpoints: two, pace: QUICK });
  return [
    ...[1, 8, 64, 128, 250, 512].map((clients) => prepared(INSERTS, clients)),
    ...[64, 128].map((clients) => prepared(UPDATES, clients)),
    generatorCell(stage, { workload: INSERTS, protocol: 'simple', clients: 64, endpoints: two, pace: QUICK }),
    generatorCell(stage, {
      ...{ workload: INSERTS, protocol: 'extended', clients: 64, pace: QUICK },
      endpoints: everyEndpoint(stage, 'extended'),
    }),
    ...DUPLICATE_PERCENTAGES.map((percentage) => duplicatesCell(stage, percentage, QUICK)),
    lockedCell(stage, [router], { ...QUICK, windowMs: 1_000 }),
  ];
}

export function longCells(stage: BenchStage): Cell[] {
  const workloads = [INSERTS, UPDATES, TWO_ROWS];
  const { direct, router } = stage;
  return [
    ...workloads.flatMap((workload) =>
      PROTOCOLS.flatMap((protocol) =>
        CLIENT_COUNTS.map((clients) =>
          generatorCell(stage, {
            ...{ workload, protocol, clients, pace: LONG },
            endpoints: everyEndpoint(stage, protocol),
          }),
        ),
      ),
    ),
    ...DUPLICATE_PERCENTAGES.map((percentage) => duplicatesCell(stage, percentage, LONG)),
    lockedCell(stage, [direct, router], LONG_LOCK),
    ...workloads.flatMap((workload) => [
      ...PGBENCH_CLIENT_COUNTS.map((clients) => pgbenchCell(stage, workload, 'prepared', clients)),
      ...(['extended', 'simple'] as const).map((protocol) => pgbenchCell(stage, workload, protocol, 64)),
    ]),
  ].filter((cell) => cell.contenders.length > 0);
}

/** A little of everything, not recorded: the first round should not be the one that compiles the code. */
export async function warmUp(stage: BenchStage): Promise<void> {
  for (const endpoint of everyEndpoint(stage, 'extended'))
    await stage.generators.measure(endpoint, {
      ...{ workload: INSERTS.workload, protocol: 'extended', clients: 64 },
      ...{ warmupMs: 100, windowMs: 400 },
    });
  await stage.server.query('CHECKPOINT');
}

/** PgBouncer before 1.21 has no prepared statements across the connections of a pool. */
function everyEndpoint(stage: BenchStage, protocol: Protocol): Endpoint[] {
  const { direct, router, passing, pgbouncer } = stage;
  return [direct, router, passing, ...(pgbouncer && protocol !== 'prepared' ? [pgbouncer] : [])];
}

export function generatorCell(
  stage: BenchStage,
  options: {
    workload: BenchWorkload;
    protocol: Protocol;
    clients: number;
    endpoints: readonly Endpoint[];
    pace: Pace;
  },
): Cell {
  const { workload, protocol, clients, pace } = options;
  return {
    name: cellName(workload.workload.name, protocol, clients),
    prepare: () => reset(stage, workload.reset, pace),
    contenders: options.endpoints.map((endpoint) => ({
      endpoint: endpoint.name,
      measure: () =>
        stage.generators.measure(endpoint, { workload: workload.workload, protocol, clients, ...pace }),
    })),
  };
}

function pgbenchCell(stage: BenchStage, workload: BenchWorkload, protocol: Protocol, clients: number): Cell {
  const { pgbench } = stage;
  return {
    name: `pgbench ${cellName(workload.workload.name, protocol, clients)}`,
    prepare: () => reset(stage, workload.reset, LONG),
    contenders:
      pgbench === undefined
        ? []
        : everyEndpoint(stage, protocol).map((endpoint) => ({
            endpoint: endpoint.name,
            measure: () =>
              measureWithPgbench(pgbench, endpoint, {
                ...{ workload, protocol, clients },
                windowSeconds: PGBENCH_SECONDS,
              }),
          })),
  };
}

function duplicatesCell(stage: BenchStage, percentage: number, pace: Pace): Cell {
  const { workload, reset: statements } = insertsWithDuplicates(percentage);
  return {
    name: duplicatesName(percentage),
    prepare: () => reset(stage, statements, pace),
    contenders: [stage.direct, stage.router].map((endpoint) => ({
      endpoint: endpoint.name,
      measure: () =>
        stage.generators.measure(endpoint, { workload, protocol: 'prepared', clients: 64, ...pace }),
    })),
  };
}

function lockedCell(stage: BenchStage, endpoints: readonly Endpoint[], pace: Pace): Cell {
  const contender = (endpoint: Endpoint, locked: boolean): Contender => ({
    endpoint: locked ? `${endpoint.name}, locked` : endpoint.name,
    measure: () =>
      measureLockedRow({
        ...{ generators: stage.generators, endpoint, serverDsn: stage.server.dsn(), locked },
        ...pace,
      }),
  });
  return {
    name: LOCKED_CELL,
    prepare: () => reset(stage, [], pace),
    contenders: endpoints.flatMap((endpoint) => [contender(endpoint, false), contender(endpoint, true)]),
  };
}

async function reset(stage: BenchStage, statements: readonly string[], pace: Pace): Promise<void> {
  for (const statement of statements) await stage.server.query(statement);
  if (pace.checkpoints) await stage.server.query('CHECKPOINT');
}

export function cellName(workload: string, protocol: Protocol, clients: number): string {
  return `${workload} ${protocol} ${clients}`;
}

function duplicatesName(percentage: number): string {
  return `${percentage}% duplicates 64`;
}

/** The names with targets first, then every other pair that the cells hold: router over direct, and over PgBouncer. */
export function benchRatios(cells: readonly Cell[]): RatioWanted[] {
  const routerOver = { of: 'postern', over: 'direct' };
  const a64 = cellName('A', 'prepared', 64);
  const extended = cellName('A', 'extended', 64);
  const passing = { of: 'postern, alone', over: 'pgbouncer', cell: extended };
  const wanted: RatioWanted[] = [
    ...[8, 64, 128, 250, 512].map((clients) => ({
      ...{ name: `A_${clients}`, cell: cellName('A', 'prepared', clients) },
      ...routerOver,
    })),
    ...[64, 128].map((clients) => ({
      ...{ name: `B_${clients}`, cell: cellName('B', 'prepared', clients) },
      ...routerOver,
    })),
    { name: 'simple_64', cell: cellName('A', 'simple', 64), ...routerOver },
    { name: 'extended_64', cell: extended, ...routerOver },
    {
      ...{ name: 'added_us_1', cell: cellName('A', 'prepared', 1), ...routerOver },
      figure: (of, over) => (of.p50Ms - over.p50Ms) * 1000,
    },
    { name: 'router_cpu_us_64', cell: a64, ...routerOver, figure: (of) => of.cpuUs.router! },
    { name: 'passthrough_vs_pgbouncer', ...passing },
    { name: 'passthrough_cpu_us_64', ...passing, figure: (of) => of.cpuUs.router! },
    { name: 'pgbouncer_cpu_us_64', ...passing, figure: (_, over) => over.cpuUs.pgbouncer! },
    ...DUPLICATE_PERCENTAGES.map((percentage) => ({
      ...{ name: `errors_${percentage}pct_64`, cell: duplicatesName(percentage), ...routerOver },
      figure: answersRatio,
    })),
    { name: 'locked_row_64', cell: LOCKED_CELL, of: LOCKED.locked, over: LOCKED.free },
    { name: 'locked_row_64_direct', cell: LOCKED_CELL, of: 'direct, locked', over: 'direct' },
  ];
  const named = new Set(wanted.map(({ cell }) => cell));
  for (const { name } of cells) {
    if (!named.has(name)) wanted.push({ name: name.replaceAll(' ', '_'), cell: name, ...routerOver });
  }
  return wanted;
}
