/**
 * Direct, PgBouncer, and Postern in front mode with and without coalescing, before one durable server, interleaved in
 * one run. docs/reference/benchmarks.md says what each figure is and how to read it.
 *
 *   npm run bench                             the whole matrix, about 40 minutes, into bench/results
 *   npm run bench -- --quick [--json FILE]    the ratios that have a target, within two minutes
 *   npm run bench -- --only REGEXP            of either, the cells whose name matches; --rounds N: how often
 *
 * The file has what was measured so far after each cell, so that an interrupted run keeps it.
 */
import { benchArguments } from './support/arguments.ts';
import { longCells, quickCells, warmUp } from './support/bench-cells.ts';
import { benchRatios } from './support/bench-ratios.ts';
import { BenchStage } from './support/bench-stage.ts';
import { ratiosOf } from './support/ratios.ts';
import { report, resultFile, writeResult } from './support/result.ts';
import { type RoundsResult, runRounds } from './support/rounds.ts';

const { quick, json, only, rounds = 3 } = benchArguments({ takesCells: true });
const deadlineMs = performance.now() + (quick ? 105_000 : 55 * 60_000);
// A part of the cells is no result to keep.
const file = json ?? (quick || only !== undefined ? undefined : resultFile('bench'));

let hasWritten = false;
const sayWhereItStands = (): void => {
  console.log(`ended before its time: what was measured stands in ${file}`);
};

const stage = await BenchStage.start();
try {
  const cells = (quick ? quickCells(stage) : longCells(stage)).filter(({ name }) => only?.test(name) ?? true);
  await warmUp(stage, cells);
  const setting = await stage.setting();
  const wanted = benchRatios(cells);
  const reported = ({ points, notes }: RoundsResult) => ({
    ...{ bench: 'bench', setting, points, ratios: ratiosOf(points, wanted), file },
    notes: [...stage.notes, ...notes],
  });
  const result = await runRounds({
    ...{ cells, rounds, deadlineMs, attemptsMax: quick ? 2 : 3 },
    onCell: (sofar) => {
      if (file === undefined) return;
      writeResult({ ...reported(sofar), file, finished: false });
      if (!hasWritten) process.once('exit', sayWhereItStands);
      hasWritten = true;
    },
  });
  process.off('exit', sayWhereItStands);
  report(reported(result));
} finally {
  await stage.stop();
}
