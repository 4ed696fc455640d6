/** Generated writes over several buckets, in and out of transactions: a server and the router answer alike. */
import fc from 'fast-check';
import { describe, it } from 'vitest';
import { compare, compareTables, fill, type Step, startWritePair } from './write-pair.ts';

/** A text with its values: written into it, or as parameters. */
interface Draft {
  /** `?` stands for a value. */
  readonly text: string;
  readonly values: readonly (number | string | null)[];
}

const key = fc.integer({ min: 0, max: 40 });
const id = fc.integer({ min: 1, max: 2 });
const number = fc.oneof(
  { weight: 12, arbitrary: fc.integer({ min: 0, max: 50 }) },
  { weight: 1, arbitrary: fc.constant(2000) },
);
const word = fc.constantFrom('a', 'bé', "it's", '', '5');
const returning = fc.constantFrom(
  '',
  '',
  ' RETURNING *',
  ' RETURNING k, id',
  ' RETURNING k + n AS x, upper(v)',
);

const row = fc
  .tuple(fc.option(key, { freq: 30, nil: null }), id, fc.option(word, { nil: null }), number)
  .map((values): Draft => ({ text: '(?, ?, ?, ?)', values }));

const condition: fc.Arbitrary<Draft> = fc.oneof(
  { weight: 1, arbitrary: fc.constant<Draft>({ text: '', values: [] }) },
  fc.array(key, { minLength: 1, maxLength: 5 }).map((keys) => ({
    text: ` WHERE t.k IN (${keys.map(() => '?').join(', ')})`,
    values: keys,
  })),
  fc.tuple(key, key).map((values) => ({ text: ' WHERE t.k = ? OR t.k = ?', values })),
  fc.tuple(key, number).map((values) => ({ text: ' WHERE t.k > ? AND t.n <= ?', values })),
  key.map((one) => ({ text: ' WHERE t.k = ?', values: [one] })),
  number.map((one) => ({
    text: ' WHERE EXISTS (SELECT FROM s WHERE s.k = t.k AND s.f * 7 < ?)',
    values: [one],
  })),
  word.map((one) => ({ text: ' WHERE v = ?', values: [one] })),
);

const insert: fc.Arbitrary<Draft> = fc
  .tuple(
    fc.array(row, { minLength: 1, maxLength: 6 }),
    fc.constantFrom(
      '',
      '',
      ' ON CONFLICT DO NOTHING',
      ' ON CONFLICT (k, id) DO UPDATE SET n = excluded.n, v = t.v || excluded.v',
      ' ON CONFLICT ON CONSTRAINT t_pkey DO UPDATE SET n = t.n + 1',
    ),
    returning,
  )
  .map(([rows, conflict, tail]) => ({
    text: `INSERT INTO t VALUES ${rows.map(({ text }) => text).join(', ')}${conflict}${tail}`,
    values: rows.flatMap(({ values }) => values),
  }));

const assignment: fc.Arbitrary<Draft> = fc.oneof(
  number.map((one) => ({ text: 'n = ?', values: [one] })),
  fc.constant({ text: "v = coalesce(v, '') || k, n = n + 1", values: [] }),
  fc.constant({ text: 'n = 100 / (n - 7)', values: [] }),
  fc.constant({ text: 'v = (SELECT max(w) FROM s WHERE s.k = t.k)', values: [] }),
  // Rows that change places would be in each other's way, in an order that is not told.
  fc.constant({ text: 'k = CASE WHEN t.k < 1000 THEN t.k + 1000 ELSE t.k END, n = 7', values: [] }),
  key.map((one) => ({ text: 'k = ?', values: [one] })),
);

const update = fc
  .tuple(assignment, condition, returning)
  .map(([set, where, tail]) => joined(['UPDATE t SET ', set, where, tail]));
const remove = fc.tuple(condition, returning).map(([where, tail]) => joined(['DELETE FROM t', where, tail]));

const insertSelect = fc
  .tuple(
    fc.constantFrom(
      'SELECT k, 3, w, 1 FROM s WHERE f * 7 < ?',
      'SELECT k + 1, 3, w, 1 FROM s WHERE k < ?',
      'SELECT id, 4, v, n FROM h WHERE n < ?',
      'SELECT t.k, 5, s.w, s.id FROM t JOIN s ON s.k = t.k WHERE t.n < ?',
      'SELECT g, 6, NULL, g FROM generate_series(1, ?) g',
      "SELECT k, 7, 'x', n FROM t WHERE k IN (1, 2, 3) AND n < ?",
      'SELECT s.k, 8, max(w), count(*) FROM s LEFT JOIN t ON t.k = s.k WHERE s.f * 7 < ? GROUP BY s.k',
    ),
    fc.integer({ min: 0, max: 30 }),
    fc.constantFrom('', ' ON CONFLICT DO NOTHING', ' ON CONFLICT (k, id) DO UPDATE SET n = excluded.n'),
    returning,
  )
  .map(([query, limit, conflict, tail]) => ({
    text: `INSERT INTO t ${query}${conflict}${tail}`,
    values: [limit],
  }));

function joined(parts: readonly (string | Draft)[]): Draft {
  return {
    text: parts.map((part) => (typeof part === 'string' ? part : part.text)).join(''),
    values: parts.flatMap((part) => (typeof part === 'string' ? [] : part.values)),
  };
}

function stepOf({ text, values }: Draft, asParameters: boolean): Step {
  let index = 0;
  const written = text.replaceAll('?', () => {
    const value = values[index++]!;
    if (asParameters) return `$${index}`;
    return typeof value === 'string' ? `'${value.replaceAll("'", "''")}'` : String(value);
  });
  const ordered = /^INSERT INTO t VALUES/.test(text) && !text.includes('CONFLICT');
  return { text: written, ordered, ...(asParameters && { values: [...values] }) };
}

const write = fc.oneof(insert, update, remove, insertSelect);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.tuple(write, fc.boolean()).map(([draft, flag]) => stepOf(draft, flag)) },
  {
    weight: 3,
    arbitrary: fc
      .constantFrom('BEGIN', 'BEGIN', 'COMMIT', 'ROLLBACK', 'SAVEPOINT a', 'ROLLBACK TO a', 'RELEASE a')
      .map((text) => ({ text })),
  },
);

describe('a server and the router write alike', () => {
  startWritePair();

  it('in generated scripts', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 8 }), async (steps) => {
        await fill();
        await compare(...steps);
        await compare('ROLLBACK');
        await compareTables();
      }),
      {
        numRuns: Number(process.env.FC_RUNS ?? 60),
        interruptAfterTimeLimit: 40_000,
        markInterruptAsFailure: false,
      },
    );
  }, 90_000);
});
