/** The questions of `npm run bench`, for its short and its long form. */
import type { Protocol } from '../../src/wall/load/transaction-template.ts';
import {
  CROWDED_NAME,
  cellName,
  DUPLICATE_PERCENTAGES,
  duplicatesName,
  IDLE_CELL,
  LOCKED_CELL,
  WORKER_COUNTS,
  WORKERS_CLIENT_COUNTS,
  workersCellName,
  workersName,
} from './bench-ratios.ts';
import type { BenchStage } from './bench-stage.ts';
import { measureLockedRow } from './locked-row.ts';
import { measureWithPgbench } from './pgbench.ts';
import type { Endpoint } from './point.ts';
import type { Cell, Contender } from './rounds.ts';
import { type BenchWorkload, INSERTS, insertsWithDuplicates, TWO_ROWS, UPDATES } from './workloads.ts';

const CLIENT_COUNTS = [1, 8, 32, 64, 128, 250, 512];
const PROTOCOLS: readonly Protocol[] = ['prepared', 'extended', 'simple'];
const PGBENCH_CLIENT_COUNTS = [1, 8, 32, 64, 128, 512];

export interface Pace {
  readonly warmupMs: number;
  readonly windowMs: number;
  /** One before each point; else there is only the one before the rounds. */
  readonly checkpoints: boolean;
}

const QUICK: Pace = { warmupMs: 150, windowMs: 500, checkpoints: false };
const LONG: Pace = { warmupMs: 400, windowMs: 1_000, checkpoints: true };
/** Where there is a target. */
const LONG_TARGET: Pace = { ...LONG, windowMs: 2_000 };
const LONG_LOCK: Pace = { ...LONG, windowMs: 10_000 };

/** What has a target, and no more: 32 points a round. */
export function quickCells(stage: BenchStage): Cell[] {
  const { direct, router } = stage;
  const two = [direct, router];
  const prepared = (workload: BenchWorkload, clients: number): Cell =>
    generatorCell(stage, { workload, protocol: 'prepared', clients, endpoints: two, pace: QUICK });
  return [
    ...[1, 8, 64, 128, 250, 512].map((clients) => prepared(INSERTS, clients)),
    ...[64, 128].map((clients) => prepared(UPDATES, clients)),
    prepared(TWO_ROWS, 64),
    generatorCell(stage, { workload: INSERTS, protocol: 'simple', clients: 64, endpoints: two, pace: QUICK }),
    generatorCell(stage, {
      ...{ workload: INSERTS, protocol: 'extended', clients: 64, pace: QUICK },
      endpoints: everyEndpoint(stage, 'extended'),
    }),
    ...DUPLICATE_PERCENTAGES.map((percentage) => duplicatesCell(stage, percentage, QUICK)),
    lockedCell(stage, [router], { ...QUICK, windowMs: 1_000 }),
    idleCell(stage, { ...QUICK, windowMs: 1_000 }),
  ];
}

/** Direct, PgBouncer and the router everywhere; the router without merging for A, where it has a target. */
export function longCells(stage: BenchStage): Cell[] {
  const workloads = [INSERTS, UPDATES, TWO_ROWS];
  const { direct, router, passing } = stage;
  return [
    ...workloads.flatMap((workload) =>
      PROTOCOLS.flatMap((protocol) =>
        CLIENT_COUNTS.map((clients) =>
          generatorCell(stage, {
            ...{ workload, protocol, clients },
            pace: protocol === 'prepared' && workload !== TWO_ROWS ? LONG_TARGET : LONG,
            endpoints: everyEndpoint(stage, protocol).filter(
              (endpoint) => workload === INSERTS || endpoint !== passing,
            ),
          }),
        ),
      ),
    ),
    ...DUPLICATE_PERCENTAGES.map((percentage) => duplicatesCell(stage, percentage, LONG_TARGET)),
    lockedCell(stage, [direct, router], LONG_LOCK),
    idleCell(stage, LONG_TARGET),
    ...WORKERS_CLIENT_COUNTS.map((clients) => workersCell(stage, clients, LONG_TARGET)),
    ...workloads.flatMap((workload) =>
      PROTOCOLS.flatMap((protocol) =>
        PGBENCH_CLIENT_COUNTS.map((clients) => pgbenchCell(stage, workload, protocol, clients)),
      ),
    ),
  ].filter((cell) => cell.contenders.length > 0);
}

/** A little of everything, not recorded: the first round should not be the one that compiles the code. */
export async function warmUp(stage: BenchStage, cells: readonly Cell[] = []): Promise<void> {
  for (const endpoint of everyEndpoint(stage, 'extended'))
    await stage.generators.measure(endpoint, {
      ...{ workload: INSERTS.workload, protocol: 'extended', clients: 64 },
      ...{ warmupMs: 100, windowMs: 400 },
    });
  // Why there is none is told at its point.
  if (cells.some(({ name }) => name === IDLE_CELL)) await stage.crowdedRouter().catch(() => {});
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
        : everyEndpoint(stage, protocol)
            .filter((endpoint) => endpoint !== stage.passing)
            .map((endpoint) => ({
              endpoint: endpoint.name,
              measure: () => measureWithPgbench(pgbench, endpoint, { workload, protocol, clients, ...LONG }),
            })),
  };
}

/** A by 64 clients, with and without thousands that are connected and idle. */
function idleCell(stage: BenchStage, pace: Pace): Cell {
  const load = { workload: INSERTS.workload, protocol: 'prepared', clients: 64, ...pace } as const;
  return {
    name: IDLE_CELL,
    prepare: () => reset(stage, INSERTS.reset, pace),
    contenders: [
      {
        endpoint: stage.router.name,
        measure: () => stage.generators.measure(stage.router, load),
      },
      {
        endpoint: CROWDED_NAME,
        measure: async () => {
          const { endpoint, idle } = await stage.crowdedRouter();
          const figures = await stage.generators.measure(endpoint, load);
          if (!idle.areConnected()) throw new Error('an idle client was disconnected');
          return { ...figures, idleClientBytes: idle.routerBytesEach };
        },
      },
    ],
  };
}

/** A through routers that differ in nothing but the number of their workers. */
function workersCell(stage: BenchStage, clients: number, pace: Pace): Cell {
  const load = { workload: INSERTS.workload, protocol: 'prepared', clients, ...pace } as const;
  return {
    name: workersCellName(clients),
    prepare: () => reset(stage, INSERTS.reset, pace),
    contenders: WORKER_COUNTS.map((workers) => ({
      endpoint: workersName(workers),
      measure: async () => stage.generators.measure(await stage.routerWithWorkers(workers), load),
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
