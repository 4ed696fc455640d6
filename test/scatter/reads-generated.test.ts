/** Generated SELECTs over several buckets: a plain PostgreSQL and the router give the same columns and rows. */
import fc from 'fast-check';
import { describe, it } from 'vitest';
import { isVersionInstalled } from '../support/servers.ts';
import { type Order, startReadPair } from './read-pair.ts';

interface Source {
  readonly from: string;
  /** What makes the order of rows total. */
  readonly unique: readonly string[];
  readonly expressions: readonly string[];
  /** Those of which equal values look alike: numerics of several scales don't. */
  readonly keys: readonly string[];
  readonly conditions: readonly string[];
  readonly aggregates: readonly string[];
}

const CONDITIONS = [
  'b',
  'n > 1',
  't IS NOT NULL',
  'NOT b OR f IS NULL',
  "c >= 'a'",
  'id = 1',
  'false',
  'd < now()',
];
const AGGREGATES = [
  ...[
    'count(*)',
    'count(t)',
    'sum(id)',
    'sum(n)',
    'sum(w)',
    'sum(f)',
    'sum(r)',
    'sum(i)',
    'avg(id)',
    'avg(n)',
  ],
  ...[
    'avg(w)',
    'avg(f)',
    'avg(r)',
    'avg(s)',
    'min(t)',
    'max(t)',
    'max(c)',
    'min(at)',
    'max(v)',
    'max(e)',
    'min(d)',
  ],
  ...[
    'bool_or(b)',
    'every(b)',
    'sum(n) FILTER (WHERE b)',
    'avg(f + 1) FILTER (WHERE id < 2)',
    'max(i)',
    'max(a)',
  ],
  ...[
    'count(*) + 1',
    'coalesce(sum(s), 0) * 2',
    'round(avg(n), 3)',
    'trim_scale(max(n))',
    'sum(id) / count(*)',
  ],
  ...["CASE WHEN count(*) > 3 THEN max(t) ELSE 'few' END", 'pg_catalog.min(lower(t))', 'max(c COLLATE "C")'],
];
const SOURCES: readonly Source[] = [
  {
    from: 'items',
    unique: ['k', 'id'],
    expressions: ['n', 'f', 'r', 'j', 'items.t', 'n * 2', '*', 'items.*'],
    keys: [
      'k',
      'id',
      't',
      'c',
      'b',
      'd',
      'at',
      's',
      'w',
      'v',
      'u',
      'x',
      'a',
      'i',
      'e',
      'k % 3',
      'lower(t)',
      "t || 'x'",
      'length(c)',
    ],
    conditions: [...CONDITIONS, 'k < 20', 'k IN (1, 5, 9, 22, 30)', 'items.k IN (3, 4) AND b'],
    aggregates: AGGREGATES,
  },
  {
    from: 'items i JOIN parts p ON p.k = i.k',
    unique: ['i.k', 'i.id', 'p.p'],
    expressions: ['n', 'p.*', 'i.n + weight'],
    keys: ['i.k', 'id', 't', 'label', 'weight', 'p.p', 'c', 'i.k % 2', 'label || t'],
    conditions: [...CONDITIONS, 'weight > 1', 'p.k IN (2, 7, 11)'],
    aggregates: [...AGGREGATES, 'sum(weight)', 'max(label)'],
  },
  {
    from: 'items i LEFT JOIN parts p USING (k)',
    unique: ['k', 'id', 'p'],
    expressions: ['n', 'weight + id', '*'],
    keys: ['k', 'id', 't', 'label', 'p', 'coalesce(label, t)'],
    conditions: [...CONDITIONS, 'weight IS NULL', 'label > t'],
    aggregates: [...AGGREGATES, 'count(label)'],
  },
  {
    from: '(SELECT k, id, t, c, n, b, d, s, w, f, r, at, v, e, i, a FROM items WHERE id < 3) q',
    unique: ['k', 'id'],
    expressions: ['n', 'q.f'],
    keys: ['k', 't', 'q.c', 'b', 'lower(t)', 'id'],
    conditions: CONDITIONS,
    aggregates: AGGREGATES,
  },
];

interface Generated {
  readonly text: string;
  readonly order: Order;
}

const suffix = fc.constantFrom('', ' ASC', ' DESC', ' NULLS FIRST', ' DESC NULLS LAST', ' DESC NULLS FIRST');
const limit = fc.constantFrom(
  ' LIMIT 1',
  ' LIMIT 5',
  ' LIMIT 7 OFFSET 3',
  ' OFFSET 4',
  ' FETCH FIRST 3 ROWS ONLY',
  ' LIMIT 2 OFFSET 90',
);
const some = (values: readonly string[], min: number, max: number) =>
  fc.uniqueArray(fc.constantFrom(...values), { minLength: min, maxLength: max });
const where = (source: Source) =>
  fc
    .option(fc.constantFrom(...source.conditions), { nil: undefined })
    .map((one) => (one ? ` WHERE ${one}` : ''));

function orderBy(items: readonly string[], suffixes: readonly string[]): string {
  const list = items.map((item, index) => item + (suffixes[index % suffixes.length] ?? ''));
  return list.length === 0 ? '' : ` ORDER BY ${list.join(', ')}`;
}

const rows = (source: Source): fc.Arbitrary<Generated> =>
  fc
    .record({
      sorted: some(source.keys, 0, 2),
      others: some([...source.keys, ...source.expressions], 1, 3),
      suffixes: fc.array(suffix, { minLength: 3, maxLength: 3 }),
      condition: where(source),
      isTotal: fc.boolean(),
      byPosition: fc.boolean(),
      cut: limit,
    })
    .map(({ sorted, others, suffixes, condition, isTotal, byPosition, cut }) => {
      const items = byPosition ? sorted.map((_, index) => String(index + 1)) : sorted;
      const columns = sorted.map((_, index) => index);
      return {
        text: `SELECT ${[...sorted, ...others].join(', ')} FROM ${source.from}${condition}${orderBy(isTotal ? [...items, ...source.unique] : items, suffixes)}${isTotal ? cut : ''}`,
        order: isTotal ? { kind: 'total' } : { kind: 'columns', columns },
      };
    });

const distinct = (source: Source): fc.Arbitrary<Generated> =>
  fc
    .record({
      list: some(source.keys, 1, 3),
      suffixes: fc.array(suffix, { minLength: 3, maxLength: 3 }),
      condition: where(source),
      cut: limit,
      isSorted: fc.boolean(),
    })
    .map(({ list, suffixes, condition, cut, isSorted }) => ({
      text: `SELECT DISTINCT ${list.join(', ')} FROM ${source.from}${condition}${isSorted ? orderBy(list, suffixes) + cut : ''}`,
      order: { kind: isSorted ? 'total' : 'none' },
    }));

const groups = (source: Source): fc.Arbitrary<Generated> =>
  fc
    .record({
      keys: some(source.keys, 0, 3),
      aggregates: some(source.aggregates, 1, 4),
      suffixes: fc.array(suffix, { minLength: 3, maxLength: 3 }),
      condition: where(source),
      having: fc.constantFrom(
        '',
        '',
        ' HAVING count(*) > 2',
        ' HAVING sum(id) > 3 AND max(t) IS NOT NULL',
        ' HAVING bool_or(b)',
      ),
      grouping: fc.constantFrom('expression', 'position'),
      isSorted: fc.boolean(),
      cut: fc.oneof(fc.constant(''), limit),
      first: fc.boolean(),
    })
    .map(({ keys, aggregates, suffixes, condition, having, grouping, isSorted, cut, first }) => {
      const group =
        keys.length === 0
          ? ''
          : ` GROUP BY ${(grouping === 'position' ? keys.map((_, i) => i + 1) : keys).join(', ')}`;
      const sorted = [...(first ? aggregates.slice(0, 1) : []), ...keys];
      return {
        text: `SELECT ${[...keys, ...aggregates].join(', ')} FROM ${source.from}${condition}${group}${having}${isSorted ? orderBy(sorted, suffixes) + cut : ''}`,
        order: { kind: isSorted ? 'total' : 'none' },
      };
    });

const generated = fc.constantFrom(...SOURCES).chain((source) =>
  fc.oneof({ weight: 3, arbitrary: rows(source) }, distinct(source), {
    weight: 4,
    arbitrary: groups(source),
  }),
);

const old = (await isVersionInstalled(15)) ? 15 : 18;

describe.each([
  { nodes: 3, version: 18, runs: 150 },
  { nodes: 2, version: old, runs: 60 },
] as const)('generated reads over $nodes nodes, PostgreSQL $version', ({ nodes, version, runs }) => {
  const pair = startReadPair(nodes, version);

  it('answer as one PostgreSQL does', async () => {
    await fc.assert(
      fc.asyncProperty(generated, async ({ text, order }) => {
        await pair.compare(text, order);
      }),
      {
        numRuns: Number(process.env.FC_RUNS ?? runs),
        interruptAfterTimeLimit: 60_000,
        markInterruptAsFailure: false,
      },
    );
  }, 120_000);
});
