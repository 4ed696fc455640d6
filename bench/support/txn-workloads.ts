/**
 * Transactions of two updates for `npm run bench:txn`: both rows on one node, or one on each of two. The table is sharded
 * by tenant, so that a script says with a tenant's number on which node a row is; which row of it is drawn.
 *
 * Invariant: of each transaction the first row is of the lower half of a tenant's ids, the second of the upper one, so that
 * no two wait for each other in a circle.
 */
import { scriptVariables, type Workload } from '../../src/wall/workload/workload.ts';

export const ROWS_PER_TENANT = 10_000;
const HALF = ROWS_PER_TENANT / 2;

/** By node, those with rows there. */
export type Tenants = readonly (readonly number[])[];

/** Of the transactions this share, in percent, updates a row on each of two nodes; the others two rows of one. */
export function twoUpdates(tenants: Tenants, options: { name: string; acrossPercent: number }): Workload {
  const { name, acrossPercent } = options;
  const across = tenants.flatMap((own, node) =>
    own.map((tenant, index) => pair(tenant, tenants[(node + 1) % tenants.length]![index]!)),
  );
  const within = tenants.flatMap((own) =>
    own.map((tenant, index) => pair(tenant, own[(index + 1) % own.length]!)),
  );
  return {
    ...{ name, description: 'Two updates by key in one transaction.', reads: false, setup: [] },
    ...{ writes: { rows: 2, bytes: 40 }, variables: scriptVariables(1) },
    transactions: [...weighted(across, acrossPercent), ...weighted(within, 100 - acrossPercent)],
  };
}

function weighted(scripts: readonly string[], weight: number): Workload['transactions'] {
  if (weight === 0) return [];
  return scripts.map((script, index) => ({
    name: `pair ${index + 1}`,
    weight: weight / scripts.length,
    script,
  }));
}

function pair(first: number, second: number): string {
  return `\\set first ${first}
\\set second ${second}
\\set low random(1, ${HALF})
\\set high random(${HALF + 1}, ${ROWS_PER_TENANT})
BEGIN;
UPDATE counters SET n = n + 1 WHERE tenant = :first AND id = :low;
UPDATE counters SET n = n + 1 WHERE tenant = :second AND id = :high;
COMMIT;
`;
}
