/** What every bench takes: --quick (under two minutes) and --json FILE. Where there are many cells: which, and how often. */
import { parseArgs } from 'node:util';

export interface BenchArguments {
  readonly quick: boolean;
  readonly json: string | undefined;
  readonly only: RegExp | undefined;
  readonly rounds: number | undefined;
}

interface Given {
  quick?: boolean;
  json?: string;
  only?: string;
  rounds?: string;
}

export function benchArguments({ takesCells = false } = {}): BenchArguments {
  try {
    const { values } = parseArgs({
      options: {
        ...{ quick: { type: 'boolean' }, json: { type: 'string' } },
        ...(takesCells && { only: { type: 'string' }, rounds: { type: 'string' } }),
      },
    });
    const { quick = false, json, only, rounds } = values as Given;
    if (rounds !== undefined && !/^[1-9]\d*$/.test(rounds)) throw new Error('--rounds takes a whole number.');
    return {
      ...{ quick, json },
      only: only === undefined ? undefined : new RegExp(only),
      rounds: rounds === undefined ? undefined : Number(rounds),
    };
  } catch (error) {
    const usage = `[--quick] [--json FILE]${takesCells ? ' [--only REGEXP] [--rounds N]' : ''}`;
    console.error(`${(error as Error).message}\nUsage: ${usage}`);
    process.exit(2);
  }
}
