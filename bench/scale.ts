/**
 * A scale model: 1, 2, 4 and 8 primaries, each capped to the same small share of a core, so that this machine stands for
 * eight small ones; sharded inserts (A) and updates (B) through one router, which is not capped, nor is the generator.
 * Throughput of N primaries against N times that of one, with N times the clients.
 *
 *   npm run bench:scale -- [--quick] [--json FILE]
 */

import { findCpuController } from '../src/embedded/cpu-quota.ts';
import type { Workload } from '../src/wall/workload/workload.ts';
import { benchArguments } from './support/arguments.ts';
import type { Load, Point } from './support/point.ts';
import { type Ratio, ratiosOf } from './support/ratios.ts';
import { report, resultFile } from './support/result.ts';
import { type Cell, runRounds } from './support/rounds.ts';
import { CLIENTS_PER_PRIMARY, type ScaledCluster, ScaleStage } from './support/scale-stage.ts';

const PRIMARY_COUNTS = [1, 2, 4, 8];
/** Of one core: eight of them, the router and the generator together stay well below two cores. */
const SHARE = 0.05;
/** A primary that used less of its share than this was not what bound the point. */
const SHARE_USED_MIN = 0.9;

const { quick, json } = benchArguments();
const controller = findCpuController();
if ('missing' in controller) {
  console.log(`bench:scale is skipped: ${controller.missing}`);
  process.exit(0);
}
const stage = await ScaleStage.start({
  ...{ primaryCounts: PRIMARY_COUNTS, controller: controller.directory, share: SHARE },
});
try {
  const pace = quick ? { warmupMs: 500, windowMs: 2_000 } : { warmupMs: 1_000, windowMs: 10_000 };
  const cells = [cell('A', ({ inserts }) => inserts), cell('B', ({ updates }) => updates)];
  const deadlineMs = performance.now() + (quick ? 90_000 : 20 * 60_000);
  const { points, notes } = await runRounds({ cells, rounds: quick ? 3 : 5, deadlineMs });
  report({
    bench: 'scale',
    setting: {
      model: `each primary capped to ${SHARE * 100}% of a core, ${CLIENTS_PER_PRIMARY} clients each`,
    },
    ratios: scaleRatios(points),
    points,
    notes: [...notes, ...points.flatMap(notBoundByServers)],
    file: json ?? (quick ? undefined : resultFile('scale')),
  });

  function cell(name: string, workloadOf: (cluster: ScaledCluster) => Workload): Cell {
    return {
      name: cellName(name),
      contenders: stage.clusters.map((cluster) => ({
        endpoint: cluster.endpoint.name,
        measure: () => {
          const clients = CLIENTS_PER_PRIMARY * cluster.primaries;
          const load: Load = { workload: workloadOf(cluster), protocol: 'prepared', clients, ...pace };
          return stage.generators.measure(cluster.endpoint, load);
        },
      })),
    };
  }
} finally {
  await stage.stop();
}

function cellName(workload: string): string {
  return `${workload} sharded`;
}

/** scale_8_A and its like, and scale_8: the lower one of A and B. */
function scaleRatios(points: readonly Point[]): Ratio[] {
  return PRIMARY_COUNTS.slice(1).flatMap((primaries) => {
    const both = ratiosOf(
      points,
      ['A', 'B'].map((workload) => ({
        name: `scale_${primaries}_${workload}`,
        cell: cellName(workload),
        of: `primaries: ${primaries}`,
        over: 'primaries: 1',
        figure: (of, over) => of.tps / (primaries * over.tps),
      })),
    );
    const lower = [...both].sort((a, b) => a.median - b.median)[0];
    return lower === undefined ? [] : [{ ...lower, name: `scale_${primaries}` }, ...both];
  });
}

/** The model holds only while the caps are what binds. */
function notBoundByServers(point: Point): string[] {
  const primaries = point.clients / CLIENTS_PER_PRIMARY;
  const used = (point.cpuUs.servers! * point.tps) / 1e6 / (primaries * SHARE);
  if (used >= SHARE_USED_MIN) return [];
  return [
    `${point.cell}, ${point.endpoint}, round ${point.round + 1}: the primaries used ${Math.round(used * 100)}% of their share`,
  ];
}
