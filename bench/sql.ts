/**
 * SQL over several nodes: an aggregate that is broadcast and merged, one that goes through the mesh, and COPY in both
 * directions, over 1, 2 and 4 nodes, beside one PostgreSQL with the same rows.
 *
 *   npm run bench:sql -- [--quick] [--json FILE] [--only REGEXP] [--rounds N]
 */
import { benchArguments } from './support/arguments.ts';
import { cpuRatio, type RatioWanted, ratiosOf } from './support/ratios.ts';
import { report, resultFile } from './support/result.ts';
import { type Cell, runRounds } from './support/rounds.ts';
import { type SqlEndpoint, SqlStage } from './support/sql-stage.ts';

const NODE_COUNTS = [1, 2, 4];
const BROADCAST = 'aggregate';
const MESH = 'mesh aggregate';
const CAPPED = 'aggregate capped';
/** Of a core, for each server: four of them leave enough of two cores to the router and the client. */
const SHARE = 0.35;
const LOAD = 'copy from';
const UNLOAD = 'copy to';
const QUERIES = {
  [BROADCAST]: 'SELECT kind, count(*), sum(value), max(at) FROM readings GROUP BY kind ORDER BY kind',
  // Two levels: no node can give a part of the outer one.
  [MESH]:
    'SELECT avg(readings), max(most) FROM (SELECT device, count(*) AS readings, max(value) AS most FROM readings GROUP BY device) AS devices',
};

const { quick, json, only, rounds } = benchArguments({ takesCells: true });
const windowMs = quick ? 800 : 5_000;
const stage = await SqlStage.start({ nodeCounts: NODE_COUNTS, rowCount: quick ? 150_000 : 1_000_000 });
try {
  const { direct, clusters } = stage;
  const reads = ([BROADCAST, MESH] as const).map((name): Cell => {
    // One node needs no mesh, and has none.
    const over = name === MESH ? clusters.filter(({ nodes }) => nodes > 1) : clusters;
    return {
      name,
      contenders: [direct, ...over].map((endpoint) => ({
        endpoint: endpoint.name,
        measure: () => stage.read(endpoint, { name, text: QUERIES[name], windowMs }),
      })),
    };
  });
  const capped: Cell = {
    name: CAPPED,
    contenders: [direct, ...clusters].map((endpoint) => ({
      endpoint: endpoint.name,
      measure: () => {
        const query = { name: CAPPED, text: QUERIES[BROADCAST], windowMs: 2 * windowMs };
        return stage.readCapped(endpoint, query, SHARE);
      },
    })),
  };
  if (stage.cannotCap === undefined) reads.push(capped);
  const copies = [copyCell(LOAD, (one) => stage.loaded(one)), copyCell(UNLOAD, (one) => stage.unloaded(one))];
  const cells = [...reads, ...copies].filter(({ name }) => only === undefined || only.test(name));
  const { points, notes } = await runRounds({
    ...{ cells, rounds: rounds ?? (quick ? 3 : 5) },
    deadlineMs: performance.now() + (quick ? 70_000 : 20 * 60_000),
  });
  report({
    ...{ bench: 'sql', setting: await stage.setting(), ratios: ratiosOf(points, wantedRatios()), points },
    notes: [
      ...notes,
      'all nodes share the cores of this machine: more nodes add no CPU',
      stage.cannotCap ?? `${CAPPED}: each server has ${SHARE * 100}% of a core`,
    ],
    file: json ?? (quick || only !== undefined ? undefined : resultFile('sql')),
  });

  function copyCell(name: string, measure: (endpoint: SqlEndpoint) => ReturnType<SqlStage['loaded']>): Cell {
    return {
      name,
      prepare: quick ? undefined : () => stage.checkpoint(),
      contenders: [direct, ...clusters].map((endpoint) => ({
        endpoint: endpoint.name,
        measure: () => measure(endpoint),
      })),
    };
  }
} finally {
  await stage.stop();
}

/** Those with a target first. */
function wantedRatios(): RatioWanted[] {
  const one = 'one PostgreSQL';
  const nodes = (count: number) => (count === 1 ? '1 node' : `${count} nodes`);
  const everybody = ['servers', 'router'];
  const cpuOverOne = (cell: string, count: number, name: string): RatioWanted => ({
    ...{ name, cell, of: nodes(count), over: one },
    figure: (of, over) => cpuRatioOf(of, over),
  });
  function cpuRatioOf(...[of, over]: Parameters<ReturnType<typeof cpuRatio>>): number {
    const ofAll = cpuRatio(everybody);
    // One PostgreSQL has no router before it.
    return ofAll(of, { ...over, cpuUs: { router: 0, ...over.cpuUs } });
  }
  return [
    { name: 'copy_vs_direct', cell: LOAD, of: nodes(2), over: one },
    { name: 'aggregate_4_nodes_vs_one', cell: BROADCAST, of: nodes(4), over: one },
    ...[1, 2].map((count) => ({
      ...{ name: `aggregate_${count}_nodes_vs_one`, cell: BROADCAST, of: nodes(count), over: one },
    })),
    ...NODE_COUNTS.map((count) => ({
      ...{ name: `aggregate_${count}_capped_nodes_vs_one`, cell: CAPPED, of: nodes(count), over: one },
    })),
    ...[2, 4].map((count) => ({
      ...{ name: `mesh_aggregate_${count}_nodes_vs_one`, cell: MESH, of: nodes(count), over: one },
    })),
    ...[1, 4].map((count) => ({
      name: `copy_vs_direct_${count}_nodes`,
      cell: LOAD,
      of: nodes(count),
      over: one,
    })),
    ...NODE_COUNTS.map((count) => ({
      ...{ name: `copy_to_vs_direct_${count}_nodes`, cell: UNLOAD, of: nodes(count), over: one },
    })),
    cpuOverOne(BROADCAST, 4, 'aggregate_4_nodes_cpu_vs_one'),
    cpuOverOne(MESH, 4, 'mesh_aggregate_4_nodes_cpu_vs_one'),
    cpuOverOne(LOAD, 2, 'copy_cpu_vs_direct'),
  ];
}
