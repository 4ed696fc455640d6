/** A bench's result as JSON: the ratios that are asked for by name, and every point behind them. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { machineFacts } from '../../src/wall/machine.ts';
import type { Point } from './point.ts';

export interface BenchResult {
  readonly bench: string;
  readonly ratios: Readonly<Record<string, number>>;
  readonly points: readonly Point[];
  readonly notes: readonly string[];
}

export function printRatios(ratios: Readonly<Record<string, number>>): void {
  console.log('\nratios');
  for (const [name, value] of Object.entries(ratios)) console.log(`  ${name.padEnd(28)} ${value.toFixed(3)}`);
}

export function writeResult(file: string | undefined, result: BenchResult): void {
  if (file === undefined) return;
  let commit = 'unknown';
  try {
    commit = execFileSync('git', ['rev-parse', 'HEAD'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    // Not a checkout: the figures stand without.
  }
  const whole = { ...result, at: new Date().toISOString(), commit, machine: machineFacts() };
  writeFileSync(file, `${JSON.stringify(whole, null, 2)}\n`);
}
