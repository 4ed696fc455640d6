/** A bench's result as JSON: the ratios that are asked for by name, and every point behind them. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { availableParallelism, loadavg } from 'node:os';
import { fileURLToPath } from 'node:url';
import { type MachineFacts, machineFacts } from '../../src/wall/server/machine.ts';
import type { Point } from './point.ts';
import type { Ratio } from './ratios.ts';

/** What stands in the file. It names no host and no path. Fields with a question mark are missing in old ones. */
export interface BenchResult {
  readonly bench: string;
  readonly at: string;
  /** False: the run goes on, or was ended before its time. */
  readonly finished?: boolean;
  /** How long it took so far. */
  readonly seconds?: number;
  readonly commit: string;
  readonly machine: MachineFacts;
  readonly loadAverage: { readonly start: number; readonly end: number };
  readonly setting: Readonly<Record<string, string>>;
  /** Medians over the rounds, by name. */
  readonly ratios: Readonly<Record<string, number>>;
  /** The same, round by round. */
  readonly ratiosByRound: Readonly<Record<string, readonly number[]>>;
  /** The most steal of any point behind a ratio, by its name. */
  readonly ratiosSteal?: Readonly<Record<string, number>>;
  readonly points: readonly Point[];
  readonly notes: readonly string[];
}

const OTHERS_MAX = 0.1;
const RESULTS = new URL('../results/', import.meta.url);
const loadAtStart = loadavg()[0]!;
const commit = readCommit();

interface Reported {
  readonly bench: string;
  readonly setting: Readonly<Record<string, string>>;
  readonly ratios: readonly Ratio[];
  readonly points: readonly Point[];
  readonly notes: readonly string[];
}

/** Prints the ratios and the notes, and writes all to `file`, if one is given. */
export function report(options: Reported & { file: string | undefined }): void {
  console.log('\nratios: median, the rounds, and the most that was stolen from a point');
  for (const { name, median, rounds, steal } of options.ratios) {
    const each = rounds.map((value) => value.toFixed(2)).join(' ');
    console.log(
      `  ${name.padEnd(26)} ${median.toFixed(3).padStart(9)}   ${each}   steal ${(steal * 100).toFixed(1)}%`,
    );
  }
  for (const note of allNotes(options)) console.log(`note: ${note}`);
  if (options.file === undefined) return;
  writeResult({ ...options, file: options.file, finished: true });
  console.log(`written to ${options.file}`);
}

/** Whole or not at all, also if the bench ends while it writes: what was there before stays until all is there. */
export function writeResult(options: Reported & { file: string; finished: boolean }): void {
  const { bench, setting, ratios, points, file, finished } = options;
  const result: BenchResult = {
    bench,
    at: new Date().toISOString(),
    finished,
    seconds: Math.round(process.uptime()),
    commit,
    machine: machineFacts(),
    loadAverage: { start: loadAtStart, end: loadavg()[0]! },
    setting,
    ratios: Object.fromEntries(ratios.map(({ name, median }) => [name, median])),
    ratiosByRound: Object.fromEntries(ratios.map(({ name, rounds }) => [name, rounds])),
    ratiosSteal: Object.fromEntries(ratios.map(({ name, steal }) => [name, steal])),
    points,
    notes: allNotes(options),
  };
  const unfinished = `${file}.tmp`;
  writeFileSync(unfinished, `${JSON.stringify(result, null, 2)}\n`);
  renameSync(unfinished, file);
}

function allNotes({ notes, points }: Reported): string[] {
  return [...notes, ...busyNote(points)];
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

/** The result that was written last, by what it says of itself; undefined: there is none. */
export function newestResult(): string | undefined {
  if (!existsSync(RESULTS)) return undefined;
  return readdirSync(RESULTS)
    .filter((name) => name.endsWith('.json'))
    .map((name) => fileURLToPath(new URL(name, RESULTS)))
    .map((file) => ({ file, at: (JSON.parse(readFileSync(file, 'utf8')) as BenchResult).at }))
    .sort((a, b) => b.at.localeCompare(a.at))[0]?.file;
}

/** Of the start: what is measured is what was built then. */
function readCommit(): string {
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
