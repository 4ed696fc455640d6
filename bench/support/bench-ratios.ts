/** The names of `npm run bench`: of its cells, of the contenders of some, and of the ratios taken from them. Pure. */
import type { Protocol } from '../../src/wall/load/transaction-template.ts';
import { answersRatio, cpuRatio, type QuotientWanted, type RatioWanted } from './ratios.ts';

export const DUPLICATE_PERCENTAGES = [1, 5];
/** Those of the cells in which the workers differ; the first is what the others are compared with. */
export const WORKER_COUNTS = [1, 2, 4];
export const WORKERS_CLIENT_COUNTS = [64, 128];
export const IDLE_CLIENTS = 5_000;

export const LOCKED_CELL = 'locked row 64';
export const IDLE_CELL = 'A idle 64';
export const CROWDED_NAME = `postern, ${IDLE_CLIENTS} idle`;

export function cellName(workload: string, protocol: Protocol, clients: number): string {
  return `${workload} ${protocol} ${clients}`;
}

export function duplicatesName(percentage: number): string {
  return `${percentage}% duplicates 64`;
}

export function workersCellName(clients: number): string {
  return `A workers ${clients}`;
}

export function workersName(workers: number): string {
  return `postern, ${workers} ${workers === 1 ? 'worker' : 'workers'}`;
}

/** The names with targets first, then every other cell that these hold: router over direct. */
export function benchRatios(cells: readonly { readonly name: string }[]): (RatioWanted | QuotientWanted)[] {
  const targets = [...targetRatios(), ...idleRatios(), ...workersRatios()];
  const named = new Set(targets.flatMap((wanted) => ('cell' in wanted ? wanted.cell : [])));
  const others = cells.filter(({ name }) => !named.has(name)).map(({ name }) => routerOverDirect(name));
  return [...targets, ...others];
}

/** tps; `name` is the cell's if none is given. */
function routerOverDirect(cell: string, name = cell.replaceAll(' ', '_')): RatioWanted {
  return { name, cell, of: 'postern', over: 'direct' };
}

function targetRatios(): (RatioWanted | QuotientWanted)[] {
  const prepared = (workload: string, clients: number): RatioWanted =>
    routerOverDirect(cellName(workload, 'prepared', clients), `${workload}_${clients}`);
  const extended = cellName('A', 'extended', 64);
  const passing = { of: 'postern, alone', over: 'pgbouncer', cell: extended };
  return [
    ...[8, 64, 128, 250, 512].map((clients) => prepared('A', clients)),
    { name: 'A_512_vs_250', ratio: prepared('A', 512), overRatio: prepared('A', 250) },
    ...[64, 128].map((clients) => prepared('B', clients)),
    prepared('C', 64),
    routerOverDirect(cellName('A', 'simple', 64), 'simple_64'),
    routerOverDirect(extended, 'extended_64'),
    {
      ...routerOverDirect(cellName('A', 'prepared', 1), 'added_us_1'),
      figure: (of, over) => (of.p50Ms - over.p50Ms) * 1000,
    },
    {
      ...routerOverDirect(cellName('A', 'prepared', 64), 'router_cpu_us_64'),
      figure: (of) => of.cpuUs.router,
    },
    { name: 'passthrough_vs_pgbouncer', ...passing },
    { name: 'passthrough_cpu_us_64', ...passing, figure: (of) => of.cpuUs.router },
    { name: 'pgbouncer_cpu_us_64', ...passing, figure: (_, over) => over.cpuUs.pgbouncer },
    ...DUPLICATE_PERCENTAGES.map((percentage) => ({
      ...routerOverDirect(duplicatesName(percentage), `errors_${percentage}pct_64`),
      figure: answersRatio,
    })),
    { name: 'locked_row_64', cell: LOCKED_CELL, of: 'postern, locked', over: 'postern' },
    { name: 'locked_row_64_direct', cell: LOCKED_CELL, of: 'direct, locked', over: 'direct' },
  ];
}

function idleRatios(): RatioWanted[] {
  const pair = { cell: IDLE_CELL, of: CROWDED_NAME, over: 'postern' };
  return [
    { name: 'idle_5000_64', ...pair },
    {
      ...{ name: 'idle_client_kib', ...pair },
      figure: (of) => (of.idleClientBytes === undefined ? undefined : of.idleClientBytes / 1024),
    },
  ];
}

/** CPU per write against that of one worker: of router and server together, and of each. At 64 clients the names have no number. */
function workersRatios(): RatioWanted[] {
  const [one = 1, ...more] = WORKER_COUNTS;
  const processes = { '': ['router', 'server'], router_: ['router'], server_: ['server'] };
  return WORKERS_CLIENT_COUNTS.flatMap((clients) =>
    more.flatMap((workers) =>
      Object.entries(processes).map(([prefix, names]) => ({
        name: `workers_${prefix}cpu_${workers}_vs_${one}${clients === 64 ? '' : `_${clients}`}`,
        cell: workersCellName(clients),
        of: workersName(workers),
        over: workersName(one),
        figure: cpuRatio(names),
      })),
    ),
  );
}
