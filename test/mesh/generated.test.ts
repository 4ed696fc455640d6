/** Generated SELECTs over several nodes: joins, groups, windows, set operations; one PostgreSQL and the router answer alike. */
import fc from 'fast-check';
import { describe, it } from 'vitest';
import { isVersionInstalled } from '../support/servers.ts';
import { startMeshPair } from './mesh-pair.ts';

/** Columns of one row of each table, by type. */
const TABLES = {
  customers: { integers: ['id', 'region'], texts: ['name'], others: ['tone'] },
  orders: { integers: ['customer', 'id'], texts: ['note'], others: ['total', 'at'] },
  lines: { integers: ['item', 'line', 'customer'], texts: [], others: ['amount'] },
  regions: { integers: ['id'], texts: ['name'], others: [] },
  rates: { integers: ['region'], texts: [], others: ['rate', 'tone'] },
} as const;
type Table = keyof typeof TABLES;
const NAMES = Object.keys(TABLES) as Table[];
const JOINS = ['JOIN', 'LEFT JOIN', 'RIGHT JOIN', 'FULL JOIN'];

interface Use {
  readonly table: Table;
  readonly join: string;
  /** Picks of columns. */
  readonly left: number;
  readonly right: number;
  readonly offset: number;
}

const use: fc.Arbitrary<Use> = fc.record({
  table: fc.constantFrom(...NAMES),
  join: fc.constantFrom(...JOINS),
  left: fc.nat(),
  right: fc.nat(),
  offset: fc.constantFrom(0, 0, 0, 1),
});

const pick = <T>(list: readonly T[], at: number): T => list[at % list.length]!;
const integer = (alias: string, table: Table, at: number) => `${alias}.${pick(TABLES[table].integers, at)}`;

/** One sharded table at least. */
const uses = fc
  .tuple(
    fc.constantFrom<Table>('customers', 'orders', 'lines'),
    fc.array(use, { minLength: 1, maxLength: 3 }),
  )
  .map(([first, rest]) => [{ table: first, join: '', left: 0, right: 0, offset: 0 }, ...rest]);

function fromOf(list: readonly Use[]): string {
  const parts = list.map(({ table, join, left, right, offset }, i) => {
    if (i === 0) return `${table} t0`;
    const other = left % i;
    const on = `${integer(`t${other}`, list[other]!.table, right)} = ${integer(`t${i}`, table, left)} + ${offset}`;
    return `${join} ${table} t${i} ON ${on}`;
  });
  return parts.join(' ');
}

function columnsOf(list: readonly Use[]): string[] {
  return list.flatMap(({ table }, i) => {
    const { integers, texts, others } = TABLES[table];
    return [...integers, ...texts, ...others].map((column) => `t${i}.${column}`);
  });
}

const condition = fc.tuple(
  fc.nat(),
  fc.nat(),
  fc.constantFrom('<', '>', '=', '<>', 'is null', 'in'),
  fc.nat(20),
);

function whereOf(
  list: readonly Use[],
  [at, column, operator, value]: [number, number, string, number],
): string {
  const { table } = pick(list, at);
  const left = integer(`t${at % list.length}`, table, column);
  if (operator === 'is null') return `${left} IS NULL`;
  if (operator === 'in')
    return `${left} IN (SELECT ${pick(['customer', 'item'], value)} FROM lines WHERE line < ${value * 2})`;
  return `${left} ${operator} ${value}`;
}

const AGGREGATES = [
  (column: string) => `count(${column})`,
  (column: string) => `count(DISTINCT ${column})`,
  (column: string) => `min(${column}::text)`,
  (column: string) => `array_agg(${column}::text ORDER BY ${column}::text)`,
  () => 'count(*)',
  () => "count(*) FILTER (WHERE t0::text LIKE '%1%')",
];
const WINDOWS = ['rank()', 'count(*)', 'dense_rank()'];
const SETS = ['UNION', 'UNION ALL', 'INTERSECT', 'EXCEPT', 'EXCEPT ALL'];

const rows = fc.tuple(uses, condition).map(([list, where]) => {
  const columns = columnsOf(list);
  return `SELECT ${columns.join(', ')} FROM ${fromOf(list)} WHERE ${whereOf(list, where)}`;
});

const limited = fc.tuple(uses, fc.nat(12), fc.nat(5)).map(([list, limit, offset]) => {
  const columns = columnsOf(list);
  return `SELECT ${columns.join(', ')} FROM ${fromOf(list)} ORDER BY ${columns.map((_, i) => i + 1).join(', ')} LIMIT ${limit} OFFSET ${offset}`;
});

const groups = fc
  .tuple(
    uses,
    fc.nat(),
    fc.nat(),
    fc.array(fc.tuple(fc.nat(), fc.nat()), { minLength: 1, maxLength: 3 }),
    fc.boolean(),
  )
  .map(([list, one, two, aggregates, sets]) => {
    const columns = columnsOf(list);
    const keys = [pick(columns, one), pick(columns, two)];
    const by = sets ? `GROUPING SETS ((1, 2), (2), ())` : '1, 2';
    const values = aggregates.map(([kind, column]) => pick(AGGREGATES, kind)(pick(columns, column)));
    return `SELECT ${[...keys, ...values].join(', ')} FROM ${fromOf(list)} GROUP BY ${by} HAVING count(*) > 1`;
  });

const windows = fc.tuple(uses, fc.nat(), fc.nat(), fc.nat()).map(([list, kind, one, two]) => {
  const columns = columnsOf(list);
  const over = `PARTITION BY ${pick(columns, one)} ORDER BY ${pick(columns, two)}`;
  return `SELECT ${columns.join(', ')}, ${pick(WINDOWS, kind)} OVER (${over}) FROM ${fromOf(list)}`;
});

const sets = fc.tuple(uses, uses, fc.nat(), fc.constantFrom(...SETS)).map(([one, two, column, operator]) => {
  const side = (list: readonly Use[]) =>
    `SELECT ${integer('t0', list[0]!.table, column)}::bigint FROM ${fromOf(list)}`;
  return `WITH x AS (${side(one)}) SELECT * FROM x ${operator} ${side(two)}`;
});

/** What a subquery takes of the rows that belong to the outer one, compared with a value of it. */
const VALUES = [
  'count(*)',
  'count(l.amount)',
  'sum(l.amount)',
  '2 * avg(l.amount)',
  'max(l.line) - min(l.line)',
];
const subqueries = fc
  .tuple(
    fc.constantFrom('customers c', 'orders c, customers r', 'orders AS c, regions r'),
    fc.constantFrom(...VALUES),
    fc.constantFrom('lines', 'orders'),
    fc.constantFrom('<', '>=', 'IS DISTINCT FROM'),
    fc.array(fc.constantFrom('customer', 'item'), { minLength: 1, maxLength: 2 }),
    fc.boolean(),
  )
  .map(([from, value, inner, operator, keys, only]) => {
    const columns = inner === 'lines' ? value : value.replaceAll('amount', 'total').replaceAll('line', 'id');
    const named = inner === 'lines' ? keys : ['customer'];
    const matches = named.map((key, i) => {
      const own = from.startsWith('orders') ? 'c.customer' : i === 0 ? 'c.id' : 'c.region';
      return i === 0 ? `l.${key} = ${own}` : `${own} = l.${key}`;
    });
    if (only) matches.push(inner === 'lines' ? 'line % 2 = 0' : 'note IS NOT NULL');
    return `SELECT c.id FROM ${from} WHERE c.id < 30 AND c.id ${operator} (SELECT ${columns} FROM ${inner} l WHERE ${matches.join(' AND ')})`;
  });

describe('PostgreSQL 18', () => generated(3, 18));
describe.skipIf(!(await isVersionInstalled(15)))('PostgreSQL 15', () => generated(2, 15));

function generated(nodes: number, version: 15 | 18): void {
  const pair = startMeshPair(nodes, version);
  it.each<[string, fc.Arbitrary<string>, boolean]>([
    ['rows', rows, false],
    ['the first rows', limited, true],
    ['groups', groups, false],
    ['windows', windows, false],
    ['set operations', sets, false],
    ['correlated subqueries', subqueries, false],
  ])('%s', async (_, text, ordered) => {
    await fc.assert(
      fc.asyncProperty(text, async (sql) => {
        await pair.compare(sql, ordered);
      }),
      { numRuns: 25 },
    );
  });
}
