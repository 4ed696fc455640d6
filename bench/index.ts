/**
 * Direct, PgBouncer, and Postern in front mode with and without coalescing, before one durable server, interleaved in
 * one run. docs/reference/benchmarks.md says what each figure is and how to read it.
 *
 *   npm run bench                             the whole matrix, about three quarters of an hour, into bench/results
 *   npm run bench -- --quick [--json FILE]    the ratios that have a target, within two minutes
 */
import { benchArguments } from './support/arguments.ts';
import { benchRatios, longCells, quickCells, warmUp } from './support/bench-cells.ts';
import { BenchStage } from './support/bench-stage.ts';
import { ratiosOf } from './support/ratios.ts';
import { report, resultFile } from './support/result.ts';
import { runRounds } from './support/rounds.ts';

const { quick, json } = benchArguments();
const deadlineMs = performance.now() + (quick ? 110_000 : 55 * 60_000);

const stage = await BenchStage.start();
try {
  await warmUp(stage);
  const cells = quick ? quickCells(stage) : longCells(stage);
  const { points, notes } = await runRounds({ cells, rounds: 3, deadlineMs });
  report({
    bench: 'bench',
    setting: await stage.setting(),
    ratios: ratiosOf(points, benchRatios(cells)),
    points,
    notes: [...stage.notes, ...notes],
    file: json ?? (quick ? undefined : resultFile('bench')),
  });
} finally {
  await stage.stop();
}
