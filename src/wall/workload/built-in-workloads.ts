/** The workloads that have a name on the command line. Each one's description says what it does and writes. */
import { invalidParameter } from '../../base/errors.ts';
import { foreignKeysWorkload } from './foreign-keys.ts';
import { tpcbWorkload } from './tpcb.ts';
import { tpccWorkload } from './tpcc.ts';
import { countersWorkload, eventsWorkload, scriptVariables, type Workload } from './workload.ts';
import { type YcsbMix, ycsbWorkload } from './ycsb.ts';

const COUNTERS_PER_SCALE = 100_000;
/** A thousand million accounts of TPC-B; what is beyond has no place in a test. */
const SCALE_MAX = 10_000;

const ycsb = (mix: YcsbMix) => (scale: number) => ycsbWorkload({ mix, scale });

const MAKERS = {
  events: () => eventsWorkload(),
  counters: (scale) => countersWorkload({ rows: COUNTERS_PER_SCALE * scale }),
  tpcb: (scale) => tpcbWorkload({ scale }),
  'foreign-keys': (scale) => foreignKeysWorkload({ scale }),
  tpcc: (scale) => tpccWorkload({ scale }),
  'ycsb-a': ycsb('a'),
  'ycsb-b': ycsb('b'),
  'ycsb-c': ycsb('c'),
  'ycsb-d': ycsb('d'),
  'ycsb-e': ycsb('e'),
  'ycsb-f': ycsb('f'),
  skinny: () => skinnyWorkload(),
  'hot-row': () => hotRowWorkload(),
} satisfies Record<string, (scale: number) => Workload>;

export const WORKLOAD_NAMES: readonly string[] = Object.keys(MAKERS);

/** `scale` multiplies the rows that are there at the start. Throws PosternError (22023) for what there is not. */
export function workloadByName(name: string, options: { readonly scale?: number } = {}): Workload {
  const { scale = 1 } = options;
  if (!Object.hasOwn(MAKERS, name)) {
    throw invalidParameter(`there is no workload "${name}"`, `There are ${WORKLOAD_NAMES.join(', ')}.`);
  }
  if (!Number.isInteger(scale) || scale < 1 || scale > SCALE_MAX) {
    throw invalidParameter(`the scale of a workload is a whole number from 1 to ${SCALE_MAX}, not ${scale}`);
  }
  return MAKERS[name as keyof typeof MAKERS](scale);
}

/** The smallest record that commits: where many replicas make the network the limit, it is reached with the most commits. */
function skinnyWorkload(): Workload {
  return {
    name: 'skinny',
    description:
      'One insert of a row with one integer, into a table without an index: the smallest WAL per commit.',
    reads: false,
    writes: { rows: 1, bytes: 4 },
    setup: ['CREATE TABLE {schema}skinny (n int)'],
    variables: scriptVariables(1),
    transactions: [
      {
        name: 'insert',
        weight: 1,
        script: '\\set n random(1, 1000000)\nINSERT INTO {schema}skinny (n) VALUES (:n);\n',
      },
    ],
  };
}

function hotRowWorkload(): Workload {
  return {
    name: 'hot-row',
    description: 'One update of the same row by every client: each waits for the lock of the one before.',
    reads: false,
    writes: { rows: 1, bytes: 12 },
    setup: [
      'CREATE TABLE {schema}hot_row (id int PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 10)',
      'INSERT INTO {schema}hot_row VALUES (1, 0)',
      'ANALYZE {schema}hot_row',
    ],
    variables: scriptVariables(1),
    transactions: [
      { name: 'update', weight: 1, script: 'UPDATE {schema}hot_row SET n = n + 1 WHERE id = 1;\n' },
    ],
  };
}
