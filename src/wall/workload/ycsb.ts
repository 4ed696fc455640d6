/**
 * The six core mixes of the Yahoo! Cloud Serving Benchmark over one table: a key and ten fields of 100 characters. Keys
 * are drawn by a Zipf distribution of parameter 0.99 and scattered by FNV-1a, as YCSB's "scrambled zipfian" does.
 * Source: Cooper, Silberstein, Tam, Ramakrishnan, Sears: "Benchmarking Cloud Serving Systems with YCSB", 2010; the files
 * workloada to workloadf of its repository.
 *
 * Two things differ: keys are numbers, not the text "user…"; and what is inserted gets the next number, so it goes to the
 * end of the index, where YCSB's hashed keys go anywhere. "Latest" is counted from the sequence's last number.
 */
import { scriptVariables, type Transaction, type Workload } from './workload.ts';

export type YcsbMix = 'a' | 'b' | 'c' | 'd' | 'e' | 'f';

const RECORDS_PER_SCALE = 100_000;
const FIELDS = 10;
const FIELD_CHARACTERS = 100;
const ZIPFIAN_PARAMETER = 0.99;
const SCAN_MAX = 100;
const RECORD_BYTES = 8 + FIELDS * FIELD_CHARACTERS;

const fields = Array.from({ length: FIELDS }, (_, index) => `field${index}`);

const DRAW_KEY = `\\set item random_zipfian(0, :records - 1, ${ZIPFIAN_PARAMETER})
\\set id 1 + abs(hash_fnv1a(:item)) % :records
`;
const READ = 'SELECT * FROM {schema}usertable WHERE id = :id;\n';
/** One field, drawn evenly: a statement to each, since a column's name is no parameter. */
const UPDATE = `\\set field random(0, ${FIELDS - 1})
\\set value random_string(${FIELD_CHARACTERS})
${fields
  .map(
    (field, index) =>
      `\\${index === 0 ? 'if' : 'elif'} :field = ${index}\nUPDATE {schema}usertable SET ${field} = ':value' WHERE id = :id;\n`,
  )
  .join('')}\\endif
`;
const READ_LATEST = `\\set age random_zipfian(0, :records - 1, ${ZIPFIAN_PARAMETER})
SELECT * FROM {schema}usertable WHERE id = (SELECT last_value FROM {schema}usertable_id_seq) - :age;
`;
const SCAN = `${DRAW_KEY}\\set length random(1, ${SCAN_MAX})
SELECT * FROM {schema}usertable WHERE id >= :id ORDER BY id LIMIT :length;
`;
const INSERT = `${fields.map((field) => `\\set ${field} random_string(${FIELD_CHARACTERS})\n`).join('')}INSERT INTO {schema}usertable (${fields.join(', ')}) VALUES (${fields.map((field) => `':${field}'`).join(', ')});
`;

const read = (weight: number): Transaction => ({ name: 'read', weight, script: DRAW_KEY + READ });
const update = (weight: number): Transaction => ({ name: 'update', weight, script: DRAW_KEY + UPDATE });
const insert = (weight: number): Transaction => ({ name: 'insert', weight, script: INSERT });

const MIXES: Readonly<
  Record<YcsbMix, { readonly says: string; readonly transactions: readonly Transaction[] }>
> = {
  a: { says: '50% reads and 50% updates of one field', transactions: [read(50), update(50)] },
  b: { says: '95% reads and 5% updates of one field', transactions: [read(95), update(5)] },
  c: { says: 'reads only', transactions: [read(100)] },
  d: {
    says: '95% reads of the latest records and 5% inserts',
    transactions: [{ name: 'read-latest', weight: 95, script: READ_LATEST }, insert(5)],
  },
  e: {
    says: `95% scans of 1 to ${SCAN_MAX} records and 5% inserts`,
    transactions: [{ name: 'scan', weight: 95, script: SCAN }, insert(5)],
  },
  f: {
    says: '50% reads, and 50% reads followed by an update of one field of the same record',
    transactions: [read(50), { name: 'read-modify-write', weight: 50, script: DRAW_KEY + READ + UPDATE }],
  },
};

export function ycsbWorkload(options: { mix: YcsbMix; scale: number }): Workload {
  const { mix, scale } = options;
  const records = RECORDS_PER_SCALE * scale;
  const { says, transactions } = MIXES[mix];
  const writing = transactions.filter(
    ({ name }) => name !== 'read' && name !== 'read-latest' && name !== 'scan',
  );
  const rows = writing.reduce((sum, { weight }) => sum + weight, 0) / 100;
  return {
    name: `ycsb-${mix}`,
    description: `YCSB ${mix.toUpperCase()}: ${says}; ${records} records of ${FIELDS} fields of ${FIELD_CHARACTERS} characters; every statement commits by itself.`,
    reads: true,
    // An update of one field writes a whole new version of the row.
    writes: { rows, bytes: Math.round(rows * RECORD_BYTES) },
    setup: [
      `CREATE TABLE {schema}usertable (id bigserial PRIMARY KEY, ${fields.map((field) => `${field} text`).join(', ')}) WITH (fillfactor = 85)`,
      `INSERT INTO {schema}usertable SELECT id, ${fields
        .map((_, index) => `left(repeat(md5(id || '/${index}'), 4), ${FIELD_CHARACTERS})`)
        .join(', ')} FROM generate_series(1::bigint, ${records}) AS id`,
      `SELECT setval('{schema}usertable_id_seq', ${records})`,
      'ANALYZE {schema}usertable',
    ],
    variables: { ...scriptVariables(scale), records },
    transactions,
  };
}
