/**
 * Transactions of two updates of random rows, prepared: on one node, direct and through the router, and across two nodes,
 * by 1, 8, 32 and 64 clients; and the curve of throughput against the share of those that cross.
 *
 *   npm run bench:txn -- [--quick] [--json FILE] [--only REGEXP] [--rounds N]
 */
import { benchArguments } from './support/arguments.ts';
import type { Endpoint, Figures, Point } from './support/point.ts';
import { type RatioWanted, ratiosOf } from './support/ratios.ts';
import { report, resultFile } from './support/result.ts';
import { type Cell, runRounds } from './support/rounds.ts';
import { TxnStage } from './support/txn-stage.ts';
import { twoUpdates } from './support/txn-workloads.ts';

const TARGET_CLIENTS = 32;
const DIRECT = 'direct';
const ONE_NODE = 'one node';
const TWO_NODES = 'two nodes';
const CURVE_CELL = `share across ${TARGET_CLIENTS}`;

const { quick, json, only, rounds } = benchArguments({ takesCells: true });
const clientCounts = quick ? [1, TARGET_CLIENTS] : [1, 8, TARGET_CLIENTS, 64];
const shares = quick ? [0, 10, 100] : [0, 1, 5, 10, 50, 100];
const pace = quick ? { warmupMs: 200, windowMs: 700 } : { warmupMs: 500, windowMs: 5_000 };
/** What a transaction across nodes leaves is cleared away seconds after it: by then as much as comes has to go. */
const steadyPace = quick ? { warmupMs: 6_500, windowMs: 2_000 } : { warmupMs: 7_000, windowMs: 5_000 };

const stage = await TxnStage.start();
try {
  const [firstNode = []] = stage.tenants;
  const onOneNode = twoUpdates([firstNode], { name: ONE_NODE, acrossPercent: 0 });
  const acrossTwo = twoUpdates(stage.tenants, { name: TWO_NODES, acrossPercent: 100 });
  const { direct, router } = stage;
  const measure = async (
    endpoint: Endpoint,
    load: { workload: typeof onOneNode; clients: number; steady: boolean },
  ): Promise<Figures> => {
    const { workload, clients, steady } = load;
    const length = steady ? steadyPace : pace;
    return await stage.generators.measure(endpoint, { workload, clients, protocol: 'prepared', ...length });
  };
  // The first round should not be the one that compiles the code and makes the connections.
  for (const endpoint of [direct, router])
    await measure(endpoint, { workload: onOneNode, clients: 64, steady: false });
  await measure(router, { workload: acrossTwo, clients: 64, steady: false });
  const clientCells = clientCounts.map((clients): Cell => {
    const load = { workload: onOneNode, clients, steady: false };
    // By a single client so few come that their clearing away does not show.
    const across = { workload: acrossTwo, clients, steady: clients > 1 };
    return {
      name: cellName(clients),
      prepare: () => prepare(clients > 1 || !quick),
      contenders: [
        { endpoint: DIRECT, measure: () => measure(direct, load) },
        { endpoint: ONE_NODE, measure: () => measure(router, load) },
        { endpoint: TWO_NODES, measure: () => measure(router, across) },
      ],
    };
  });
  const curve: Cell = {
    name: CURVE_CELL,
    prepare: () => prepare(!quick),
    contenders: shares.map((acrossPercent) => {
      const workload = twoUpdates(stage.tenants, { name: shareName(acrossPercent), acrossPercent });
      const load = { workload, clients: TARGET_CLIENTS, steady: !quick && acrossPercent > 0 };
      return { endpoint: shareName(acrossPercent), measure: () => measure(router, load) };
    }),
  };
  const cells = [...clientCells, curve].filter(({ name }) => only === undefined || only.test(name));
  const { points, notes } = await runRounds({
    ...{ cells, rounds: rounds ?? (quick ? 3 : 5) },
    deadlineMs: performance.now() + (quick ? 90_000 : 30 * 60_000),
  });
  report({
    ...{ bench: 'txn', setting: await stage.setting(), ratios: ratiosOf(points, wantedRatios()), points },
    notes: quick ? [...notes, 'quick: the curve is without what is cleared away later'] : notes,
    file: json ?? (quick || only !== undefined ? undefined : resultFile('txn')),
  });
} finally {
  await stage.stop();
}

/** None inherits the clearing away of another's transactions, nor (in the long run) its checkpoint. */
async function prepare(cleaned: boolean): Promise<void> {
  if (cleaned) await stage.cleaned();
  if (!quick) await stage.checkpoint();
}

function cellName(clients: number): string {
  return `two updates ${clients}`;
}

function shareName(percent: number): string {
  return `${percent}% across`;
}

/** Those with a target first. */
function wantedRatios(): RatioWanted[] {
  const at = (clients: number) => ({ cell: cellName(clients) });
  const direct = { of: ONE_NODE, over: DIRECT };
  const across = { of: TWO_NODES, over: ONE_NODE };
  const target = at(TARGET_CLIENTS);
  return [
    { name: 'one_node_vs_direct', ...target, ...direct },
    {
      name: 'two_node_latency_vs_one_node',
      ...at(1),
      ...across,
      figure: (of, over) => of.p50Ms / over.p50Ms,
    },
    { name: 'two_node_cpu_ms', ...target, ...across, figure: (of) => cpuMs(of, ['servers', 'router']) },
    { name: 'two_node_servers_cpu_ms', ...target, ...across, figure: (of) => cpuMs(of, ['servers']) },
    { name: 'two_node_router_cpu_ms', ...target, ...across, figure: (of) => cpuMs(of, ['router']) },
    {
      ...{ name: 'one_node_cpu_ms', ...target, ...across },
      figure: (_, over) => cpuMs(over, ['servers', 'router']),
    },
    { name: 'direct_cpu_ms', ...target, ...direct, figure: (_, over) => cpuMs(over, ['servers']) },
    ...clientCounts.flatMap((clients): RatioWanted[] => [
      { name: `one_node_vs_direct_${clients}`, ...at(clients), ...direct },
      { name: `two_node_vs_one_node_${clients}`, ...at(clients), ...across },
    ]),
    ...shares.slice(1).map((share) => ({
      ...{ name: `share_${share}`, cell: CURVE_CELL, of: shareName(share), over: shareName(0) },
    })),
  ];
}

function cpuMs(point: Point, processes: readonly string[]): number {
  return processes.reduce((sum, name) => sum + (point.cpuUs[name] ?? Number.NaN), 0) / 1000;
}
