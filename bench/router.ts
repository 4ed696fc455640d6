/**
 * Direct against the router, before one server: durable one-row inserts by 1, 8 and 64 clients, prepared. The router once
 * as it comes (commits merged) and once passing every write on by itself.
 *
 *   npm run bench:router -- [--quick] [--json FILE]
 */
import { benchArguments } from './support/arguments.ts';
import { generatorCell, warmUp } from './support/bench-cells.ts';
import { cellName } from './support/bench-ratios.ts';
import { BenchStage } from './support/bench-stage.ts';
import { type RatioWanted, ratiosOf } from './support/ratios.ts';
import { report } from './support/result.ts';
import { runRounds } from './support/rounds.ts';
import { INSERTS } from './support/workloads.ts';

const CLIENT_COUNTS = [1, 8, 64];
const DEADLINE_MS = 10 * 60_000;

const { quick, json } = benchArguments();
const stage = await BenchStage.start();
try {
  await warmUp(stage);
  const { direct, router, passing } = stage;
  const cells = CLIENT_COUNTS.map((clients) =>
    generatorCell(stage, {
      ...{ workload: INSERTS, protocol: 'prepared', clients, endpoints: [direct, router, passing] },
      pace: { warmupMs: 500, windowMs: quick ? 2_000 : 5_000, checkpoints: true },
    }),
  );
  const { points, notes } = await runRounds({ cells, rounds: quick ? 3 : 7, deadlineMs: DEADLINE_MS });
  const wanted = CLIENT_COUNTS.flatMap((clients): RatioWanted[] => {
    const cell = cellName('A', 'prepared', clients);
    const merged = { cell, of: router.name, over: direct.name };
    const alone = { cell, of: passing.name, over: direct.name };
    return [
      { name: `tps_${clients}`, ...merged },
      { name: `tps_alone_${clients}`, ...alone },
      { name: `router_cpu_us_${clients}`, ...merged, figure: (of) => of.cpuUs.router },
      { name: `router_alone_cpu_us_${clients}`, ...alone, figure: (of) => of.cpuUs.router },
      { name: `added_us_${clients}`, ...merged, figure: (of, over) => (of.p50Ms - over.p50Ms) * 1000 },
      { name: `added_us_${clients}_alone`, ...alone, figure: (of, over) => (of.p50Ms - over.p50Ms) * 1000 },
    ];
  });
  report({
    ...{ bench: 'router', setting: await stage.setting(), points, notes, file: json },
    ratios: ratiosOf(points, wanted),
  });
} finally {
  await stage.stop();
}
