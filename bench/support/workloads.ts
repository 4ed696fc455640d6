/** What the benches run: as a Workload for our generator, and as a script for pgbench where it has one. */
import {
  countersWorkload,
  eventsWorkload,
  type Workload,
  workloadFromScript,
} from '../../src/wall/workload/workload.ts';

export interface BenchWorkload {
  readonly workload: Workload;
  readonly pgbenchScript: string;
  /** Statements before each point, so that none inherits a table that another has filled. */
  readonly reset: readonly string[];
}

const COUNTERS = 100_000;
const HALF = COUNTERS / 2;
/** The row that the lock of the locked-row cell is on; the other clients update all but this. */
export const LOCKED_ROW = 1;

/** A: inserts of one row. */
export const INSERTS: BenchWorkload = {
  workload: { ...eventsWorkload(), name: 'A' },
  pgbenchScript: "INSERT INTO events (payload) VALUES ('x');\n",
  reset: ['TRUNCATE events'],
};

/** B: updates of a random row by its key. */
export const UPDATES: BenchWorkload = {
  workload: { ...countersWorkload({ rows: COUNTERS }), name: 'B' },
  pgbenchScript: `\\set id random(1, ${COUNTERS})\nUPDATE counters SET n = n + 1 WHERE id = :id;\n`,
  reset: [],
};

const TWO_ROWS_SCRIPT = `\\set low random(1, ${HALF})
\\set high random(${HALF + 1}, ${COUNTERS})
BEGIN;
UPDATE counters SET n = n + 1 WHERE id = :low;
UPDATE counters SET n = n + 1 WHERE id = :high;
COMMIT;
`;

/**
 * C: transactions of two updates, in the order of their ids, so that no two wait for each other in a circle: one row of
 * the lower half, then one of the upper.
 */
export const TWO_ROWS: BenchWorkload = {
  workload: workloadFromScript(TWO_ROWS_SCRIPT, { name: 'C' }),
  pgbenchScript: TWO_ROWS_SCRIPT,
  reset: [],
};

/** B for the clients that don't want the locked row. */
export const UPDATES_OF_OTHER_ROWS: Workload = workloadFromScript(
  `\\set id random(${LOCKED_ROW + 1}, ${COUNTERS})\nUPDATE counters SET n = n + 1 WHERE id = :id;\n`,
  { name: 'B, other rows' },
);

const ID_SPAN = 1e15;

/**
 * Inserts by a random key of which the given percentage fails with 23505: keys are drawn evenly from a span of 10^15 in
 * which that percentage lies at or below 0, and all of these stand for the key 0, which is there already.
 */
export function insertsWithDuplicates(percentage: number): { workload: Workload; reset: readonly string[] } {
  const below = Math.round((ID_SPAN * percentage) / 100);
  const script = `\\set id greatest(random(${1 - below}, ${ID_SPAN - below}), 0)
INSERT INTO {schema}keyed (id, payload) VALUES (:id, 'x');
`;
  return {
    workload: workloadFromScript(script, {
      name: `inserts, ${percentage}% duplicates`,
      setup: ['CREATE TABLE IF NOT EXISTS {schema}keyed (id bigint PRIMARY KEY, payload text)'],
    }),
    reset: ['TRUNCATE keyed', "INSERT INTO keyed VALUES (0, 'x')"],
  };
}
