/**
 * What goes on at the door while others work: a restart, a node that stands still, attacks; and what TLS costs. Each is a cell with
 * a baseline of its own, taken just before or beside it.
 *
 *   npm run bench:door -- [--quick] [--json FILE] [--only REGEXP] [--rounds N]
 */
import * as attacks from './door/attacks.ts';
import * as frozen from './door/frozen.ts';
import * as restart from './door/restart.ts';
import * as tls from './door/tls.ts';
import { benchArguments } from './support/arguments.ts';
import { median } from './support/ratios.ts';
import { report, resultFile } from './support/result.ts';

/** Each runs one round, and gives its figures by the names that they have in the result. */
const CELLS: Readonly<Record<string, { run(quick: boolean): Promise<Readonly<Record<string, number>>> }>> = {
  tls,
  restart,
  frozen,
  attacks,
};

const { quick, json, only, rounds } = benchArguments({ takesCells: true });
const byName = new Map<string, number[]>();
for (const [name, { run }] of Object.entries(CELLS)) {
  if (only !== undefined && !only.test(name)) continue;
  for (let round = 0; round < (rounds ?? (quick ? 1 : 3)); round++) {
    for (const [ratio, value] of Object.entries(await run(quick))) {
      console.log(`${name}: ${ratio} ${value.toFixed(3)}`);
      byName.set(ratio, [...(byName.get(ratio) ?? []), value]);
    }
  }
}
report({
  bench: 'door',
  setting: {},
  ratios: [...byName].map(([name, values]) => ({ name, median: median(values), rounds: values, steal: 0 })),
  points: [],
  notes: [],
  file: json ?? (quick || only !== undefined ? undefined : resultFile('door')),
});
