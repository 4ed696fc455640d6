/**
 * The oracle of the planner: a random statement that it calls keyed must give the same on one bucket's leaves as on whole
 * tables. PostgreSQL runs both. Rows without a key and outer joins of all kinds are in, since those are where it is hard.
 */
import fc from 'fast-check';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { planOf } from '../../test/support/example-map.ts';
import { startTestServer, type TestServer } from '../../test/support/servers.ts';
import { leafName } from '../catalog/map.ts';
import { loadParser } from '../sql/parser.ts';
import { rewriteQuery } from './rewrite.ts';

/** A stand-in for the hash: 1, 5 and 9 share a bucket, and 2 has another. */
const BUCKETS = 4;
const bucketOf = (key: string | null) => (key === null ? 0 : Number(key) % BUCKETS);

const TABLES = [
  { name: 'events', columns: 'id account_id payload', key: 'account_id' },
  { name: 'accounts', columns: 'account_id name plan', key: 'account_id' },
  { name: 'users', columns: 'id name serial', key: 'id' },
];

let server: TestServer;
let client: pg.Client;

beforeAll(async () => {
  await loadParser();
  server = await startTestServer();
  client = new pg.Client(server.dsn());
  await client.connect();
  await client.query('CREATE SCHEMA postern_leaves');
  for (const { name, columns, key } of TABLES) {
    const list = columns.split(' ');
    await client.query(`CREATE TABLE ${name} (${list.map((column) => `${column} int`).join(', ')})`);
    // Small numbers in all columns, so that keys equal other columns by chance; and rows without a key.
    const values = list.map((column, index) =>
      column === key ? 'nullif(i % 11, 0)' : `(i * ${index + 3}) % 10`,
    );
    await client.query(`INSERT INTO ${name} SELECT ${values.join(', ')} FROM generate_series(0, 21) i`);
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      await client.query(
        `CREATE TABLE postern_leaves."${leafName(name, bucket, 7)}" AS
         SELECT * FROM ${name} WHERE mod(coalesce(${key}, 0), ${BUCKETS}) = ${bucket}`,
      );
    }
  }
});

afterAll(async () => {
  await client?.end();
  await server?.stop();
});

/** Keys of bucket 1 by far the most, or nothing would be keyed. */
const constant = fc.oneof(
  { weight: 20, arbitrary: fc.constantFrom('1', '5', '9') },
  { weight: 1, arbitrary: fc.constantFrom('2', 'NULL') },
);
const joinKind = fc.constantFrom('JOIN', 'LEFT JOIN', 'RIGHT JOIN', 'FULL JOIN');

interface Source {
  readonly sql: string;
  /** Aliases that stand for a table beneath, with its key. */
  readonly keys: readonly string[];
}

/** Numbers aliases, so that most names are unique. */
let aliasNumber = 0;

function column(keys: readonly string[]): fc.Arbitrary<string> {
  const own = keys.length > 0 ? [{ weight: 6, arbitrary: fc.constantFrom(...keys) }] : [];
  return fc.oneof(
    ...own,
    { weight: 2, arbitrary: fc.constantFrom('account_id', 'id') },
    { weight: 1, arbitrary: fc.constantFrom('name', 'payload', 'plan') },
  );
}

function atom(keys: readonly string[]): fc.Arbitrary<string> {
  const name = column(keys);
  return fc.oneof(
    { weight: 6, arbitrary: fc.tuple(name, constant).map(([left, value]) => `${left} = ${value}`) },
    { weight: 6, arbitrary: fc.tuple(name, name).map(([left, right]) => `${left} = ${right}`) },
    {
      weight: 1,
      arbitrary: fc.tuple(name, constant, constant).map(([left, a, b]) => `${left} IN (${a}, ${b})`),
    },
    {
      weight: 1,
      arbitrary: fc.tuple(name, name, constant).map(([a, b, c]) => `(${a}, ${b}) = (${c}, ${c})`),
    },
    {
      weight: 1,
      arbitrary: fc.tuple(name, constant).map(([left, value]) => `coalesce(${left}, 1) = ${value}`),
    },
    { weight: 1, arbitrary: fc.tuple(name, constant).map(([left, value]) => `NOT ${left} = ${value}`) },
    { weight: 1, arbitrary: fc.tuple(name, name).map(([a, b]) => `(${a} = 1 OR ${b} = 5)`) },
    { weight: 1, arbitrary: name.map((left) => `${left} IS NULL`) },
  );
}

function condition(keys: readonly string[]): fc.Arbitrary<string> {
  return fc.array(atom(keys), { minLength: 1, maxLength: 3 }).map((atoms) => atoms.join(' AND '));
}

const table: fc.Arbitrary<Source> = fc
  .tuple(fc.constantFrom(...TABLES), fc.nat({ max: 5 }))
  .map(([{ name, key }, style]) => {
    if (style === 0) return { sql: name, keys: [`${name}.${key}`] };
    const alias = `t${++aliasNumber}`;
    if (style === 1) return { sql: `${name} ${alias}(x, account_id)`, keys: [`${alias}.account_id`] };
    return { sql: `${name} ${alias}`, keys: [`${alias}.${key}`] };
  });

const otherSource: fc.Arbitrary<Source> = fc.constantFrom('account_id', 'id').map((name) => ({
  sql: `generate_series(0, 10) g${++aliasNumber}(${name})`,
  keys: [],
}));

function source(depth: number): fc.Arbitrary<Source> {
  const leaf = fc.oneof({ weight: 8, arbitrary: table }, { weight: 1, arbitrary: otherSource });
  if (depth === 0) return leaf;
  const join = fc.tuple(source(depth - 1), source(depth - 1), joinKind).chain(([left, right, kind]) => {
    const keys = [...left.keys, ...right.keys];
    const on = fc.oneof(
      { weight: 4, arbitrary: condition(keys).map((quals) => ` ON ${quals}`) },
      { weight: 2, arbitrary: fc.constant(' USING (account_id)') },
      { weight: 1, arbitrary: fc.constant(' USING (id)') },
      { weight: 1, arbitrary: fc.constant('natural') },
    );
    return on.map((quals): Source => {
      const joined =
        quals === 'natural'
          ? `${left.sql} NATURAL ${kind} ${right.sql}`
          : `${left.sql} ${kind} ${right.sql}${quals}`;
      return { sql: `(${joined})`, keys };
    });
  });
  const subquery = fc.tuple(query(depth - 1, []), fc.boolean()).map(
    ([sql, lateral]): Source => ({
      sql: `${lateral ? 'LATERAL ' : ''}(${sql}) s${++aliasNumber}`,
      keys: [],
    }),
  );
  return fc.oneof(
    { weight: 3, arbitrary: leaf },
    { weight: 5, arbitrary: join },
    { weight: 1, arbitrary: subquery },
  );
}

function query(depth: number, outerKeys: readonly string[]): fc.Arbitrary<string> {
  return fc.array(source(depth), { minLength: 1, maxLength: 2 }).chain((sources) => {
    const own = sources.flatMap(({ keys }) => keys);
    const keys = [...own, ...outerKeys];
    const bound = fc
      .subarray(own, { minLength: Math.max(own.length - 1, 0) })
      .chain((some) =>
        fc.tuple(...some.map((key) => constant.map((value) => `${key} = ${value}`))).map((parts) => parts),
      );
    const inner =
      depth > 0
        ? fc.option(
            fc
              .tuple(fc.constantFrom('EXISTS', 'NOT EXISTS'), query(depth - 1, keys))
              .map(([exists, sql]) => `${exists} (${sql})`),
            { freq: 4 },
          )
        : fc.constant(null);
    return fc
      .tuple(fc.oneof(bound, fc.constant([])), fc.option(condition(keys)), inner)
      .map(([bindings, more, exists]) => {
        const parts = [...bindings, more, exists].filter((part) => part !== null);
        const where = parts.length > 0 ? ` WHERE ${parts.join(' AND ')}` : '';
        return `SELECT * FROM ${sources.map(({ sql }) => sql).join(', ')}${where}`;
      });
  });
}

async function rowsOf(sql: string): Promise<string[] | undefined> {
  try {
    const result = await client.query({ text: sql, rowMode: 'array' });
    return result.rows.map((row: unknown[]) => JSON.stringify(row)).sort();
  } catch {
    return undefined;
  }
}

test('a keyed SELECT gives the same from the leaves of its bucket as from whole tables', async () => {
  const seen = { keyed: 0, withRows: 0, withOuterJoin: 0 };
  await fc.assert(
    fc.asyncProperty(query(2, []), async (sql) => {
      const plan = planOf(sql, ['public']);
      const placement = plan.statements[0]?.placement;
      if (placement?.kind !== 'keyed') return;
      const buckets = new Set(
        placement.keys.map((key) => bucketOf(key.kind === 'literal' ? key.text : null)),
      );
      if (buckets.size !== 1) return;
      const expected = await rowsOf(sql);
      if (!expected) return;
      const [bucket] = buckets;
      const { text } = rewriteQuery(plan, [{ bucket: bucket!, ids: [] }], 'literal');
      expect(await rowsOf(text)).toEqual(expected);
      seen.keyed++;
      if (expected.length > 0) seen.withRows++;
      if (/LEFT|RIGHT|FULL/.test(sql)) seen.withOuterJoin++;
    }),
    { numRuns: 20_000 },
  );
  // Otherwise the generator has stopped making what this is about.
  expect(seen.keyed).toBeGreaterThan(300);
  expect(seen.withRows).toBeGreaterThan(100);
  expect(seen.withOuterJoin).toBeGreaterThan(50);
});
