/** A bench's result as JSON: the ratios that are asked for by name, and every point behind them. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism, loadavg } from 'node:os';
import { fileURLToPath } from 'node:url';
import { type MachineFacts, machineFacts } from '../../src/wall/server/machine.ts';
import type { Point } from './point.ts';
import type { Ratio } from './ratios.ts';

/** What stands in the file. It names no host and no path. */
export interface BenchResult {
  readonly bench: string;
  readonly at: string;
  readonly commit: string;
  readonly machine: MachineFacts;
  readonly loadAverage: { readonly start: number; readonly end: number };
  readonly setting: Readonly<Record<string, string>>;
  /** Medians over the rounds, by name. */
  readonly ratios: Readonly<Record<string, number>>;
  /** The same, round by round. */
  readonly ratiosByRound: Readonly<Record<string, readonly number[]>>;
  readonly points: readonly Point[];
  readonly notes: readonly string[];
}

const OTHERS_MAX = 0.1;
const RESULTS = new URL('../results/', import.meta.url);
const loadAtStart = loadavg()[0]!;

/** Prints the ratios and the notes, and writes all to `file`, if one is given. */
export function report(options: {
  bench: string;
  setting: Readonly<Record<string, string>>;
  ratios: readonly Ratio[];
  points: readonly Point[];
  notes: readonly string[];
  file: string | undefined;
}): void {
  const { ratios, file, ...rest } = options;
  console.log('\nratios: median, and the rounds');
  for (const { name, median, rounds } of ratios) {
    console.log(
      `  ${name.padEnd(26)} ${median.toFixed(3).padStart(9)}   ${rounds.map((value) => value.toFixed(2)).join(' ')}`,
    );
  }
  const notes = [...options.notes, ...busyNote(options.points)];
  for (const note of notes) console.log(`note: ${note}`);
  if (file === undefined) return;
  const result: BenchResult = {
    bench: rest.bench,
    at: new Date().toISOString(),
    commit: commit(),
    machine: machineFacts(),
    loadAverage: { start: loadAtStart, end: loadavg()[0]! },
    setting: rest.setting,
    ratios: Object.fromEntries(ratios.map(({ name, median }) => [name, median])),
    ratiosByRound: Object.fromEntries(ratios.map(({ name, rounds }) => [name, rounds])),
    points: rest.points,
    notes,
  };
  writeFileSync(file, `${JSON.stringify(result, null, 2)}\n`);
  console.log(`written to ${file}`);
}

/** The kernel shares out by process: beside other programs, a server of 64 processes gets more than one of two. */
function busyNote(points: readonly Point[]): string[] {
  const crowded = points.filter((point) => point.others > OTHERS_MAX).length;
  if (crowded === 0) return [];
  return [
    `${crowded} of ${points.length} points had more than ${OTHERS_MAX * 100}% of the machine taken by other programs on it: not a quiet machine`,
  ];
}

/** Where a long run leaves its result: bench/results/DATE-BENCH-N-cores.json, or with a number behind it. */
export function resultFile(bench: string): string {
  mkdirSync(RESULTS, { recursive: true });
  const date = new Date().toISOString().slice(0, 10);
  const stem = `${date}-${bench}-${availableParallelism()}-cores`;
  for (let number = 1; ; number++) {
    const file = fileURLToPath(new URL(`${stem}${number === 1 ? '' : `-${number}`}.json`, RESULTS));
    if (!existsSync(file)) return file;
  }
}

function commit(): string {
  try {
    return execFileSync('git', ['describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    // Not a checkout: the figures stand without.
    return 'unknown';
  }
}
