/**
 * Interleaving. A cell is one question (inserts by 64 clients, prepared) and those who answer it, its contenders, are
 * measured one right after the other; the next round asks all again, in the opposite order (A-B, then B-A). A ratio is
 * taken within one cell of one round, so a drift of the machine weighs on both its sides.
 */
import { loadavg } from 'node:os';
import { describePoint, type Figures, type Point } from './point.ts';
import { STEAL_MAX } from './window.ts';

export interface Cell {
  readonly name: string;
  readonly contenders: readonly Contender[];
  /** Before each point: everybody finds the same tables. */
  readonly prepare?: (() => Promise<void>) | undefined;
}

export interface Contender {
  readonly endpoint: string;
  readonly measure: () => Promise<Figures>;
}

export interface RoundsResult {
  readonly points: readonly Point[];
  readonly notes: readonly string[];
}

export async function runRounds(options: {
  cells: readonly Cell[];
  rounds: number;
  /** No round begins that would not end by then, judged by the longest so far; the first is always run. */
  deadlineMs: number;
  /** How often a point is measured at most, of which too much is stolen. */
  attemptsMax?: number;
  /** After each cell, with all there is so far. */
  onCell?: (result: RoundsResult) => void;
}): Promise<RoundsResult> {
  const { attemptsMax = 2 } = options;
  const points: Point[] = [];
  const notes: string[] = [];
  let longestMs = 0;
  for (let round = 0; round < options.rounds; round++) {
    const began = performance.now();
    if (round > 0 && began + longestMs > options.deadlineMs) {
      notes.push(`${round} of ${options.rounds} rounds: the time was up`);
      break;
    }
    console.log(`\nround ${round + 1} of ${options.rounds}, load average ${loadavg()[0]!.toFixed(1)}`);
    for (const cell of options.cells) {
      const contenders = round % 2 === 0 ? cell.contenders : [...cell.contenders].reverse();
      for (const contender of contenders) {
        const outcome = await measureValid({ cell, contender, round, attemptsMax });
        if (typeof outcome === 'string') notes.push(outcome);
        else points.push(outcome);
      }
      options.onCell?.({ points, notes });
    }
    const tookMs = performance.now() - began;
    console.log(`round ${round + 1} took ${Math.round(tookMs / 1000)} s`);
    longestMs = Math.max(longestMs, tookMs);
  }
  return { points, notes };
}

/** Again if too much was stolen. A string says why there is no point: one that fails doesn't end the run. */
async function measureValid(options: {
  cell: Cell;
  contender: Contender;
  round: number;
  attemptsMax: number;
}): Promise<Point | string> {
  const { cell, contender, round, attemptsMax } = options;
  const where = `${cell.name}, ${contender.endpoint}, round ${round + 1}`;
  for (let attempt = 1; attempt <= attemptsMax; attempt++) {
    let figures: Figures;
    try {
      await cell.prepare?.();
      figures = await contender.measure();
    } catch (error) {
      const note = `${where}: failed: ${(error as Error).message}`;
      console.log(note);
      return note;
    }
    const point: Point = { cell: cell.name, endpoint: contender.endpoint, round, ...figures };
    const isVoid = point.steal > STEAL_MAX;
    console.log(describePoint(point) + (isVoid ? '  VOID' : ''));
    if (!isVoid) return point;
  }
  return `${where}: left out, more than ${STEAL_MAX * 100}% of the machine was taken by others, ${attemptsMax} times`;
}
