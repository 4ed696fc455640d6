/**
 * What goes on at the door while others work: a restart, a node that stands still, attacks; and what TLS costs. Each is a cell with
 * a baseline of its own, taken just before or beside it.
 *
 *   npm run bench:door -- [--quick] [--json FILE] [--only REGEXP] [--rounds N]
 */
import type { DoorCell } from './door/cell.ts';
import { benchArguments } from './support/arguments.ts';
import { median } from './support/ratios.ts';
import { report, resultFile } from './support/result.ts';

const CELLS: readonly string[] = ['tls', 'restart', 'frozen', 'attacks'];

const { quick, json, only, rounds } = benchArguments({ takesCells: true });
const byName = new Map<string, number[]>();
for (const name of CELLS.filter((cell) => only === undefined || only.test(cell))) {
  const { run } = (await import(`./door/${name}.ts`)) as DoorCell;
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
