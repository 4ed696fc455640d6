/** What every bench takes: --quick (under two minutes) and --json FILE. */
import { parseArgs } from 'node:util';

export interface BenchArguments {
  readonly quick: boolean;
  readonly json: string | undefined;
}

export function benchArguments(): BenchArguments {
  try {
    const { values } = parseArgs({ options: { quick: { type: 'boolean' }, json: { type: 'string' } } });
    return { quick: values.quick ?? false, json: values.json };
  } catch (error) {
    console.error(`${(error as Error).message}\nUsage: [--quick] [--json FILE]`);
    process.exit(2);
  }
}
