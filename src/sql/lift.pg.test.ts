/**
 * Random statements in the places that a safe shape allows, over columns of many types: the original in the simple protocol
 * and the lifted text in the extended one, on twin tables, must give the same answers and leave the same rows. Plans are generic, as a
 * prepared statement's become, since that is where a parameter differs most from a constant.
 */
import fc from 'fast-check';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startTestServer, type TestServer } from '../../test/support/servers.ts';
import { type Lifted, liftLiterals, mapPosition } from './lift.ts';
import { parametersKeepMeaning, shapeIsSafe } from './lifted-shape.ts';
import { loadParser } from './parser.ts';

/** Literals by column: those that fit, and those that fail, are rounded, or are of an unexpected kind. */
const COLUMNS: Readonly<
  Record<string, { type: string; fit: string[]; odd: string[]; arithmetic?: string[] }>
> = {
  i2: {
    type: 'int2',
    fit: ['1', '-32768', "'7'"],
    odd: ['99999', '1.5', "'99999'", "''", "'x'"],
    arithmetic: ['+ 1', '- -2', '* 99999'],
  },
  i4: {
    type: 'int4',
    fit: ['0', '-2147483648', '2147483647', "' 12 '", '2.5'],
    odd: ['2147483648', '1e10', "'2.5'", 'true'],
    arithmetic: ['+ 1', '- 5', '* 2147483648', '/ 0', '% 3', "+ '4'"],
  },
  i8: {
    type: 'int8',
    fit: ['5', '-9223372036854775808', '9223372036854775807', '5::bigint'],
    odd: ['9223372036854775808', "'x'", '5::text'],
    arithmetic: ['+ 9223372036854775807', '- 1'],
  },
  nu: {
    type: 'numeric',
    fit: ['1', '1.50', '.5', '1e5', "'NaN'", '-12345678901234567890'],
    odd: ["'1,5'", '1e200000'],
    arithmetic: ['* 1.10', '/ 3'],
  },
  n52: {
    type: 'numeric(5,2)',
    fit: ['1.005', '-999.99', "'12.345'"],
    odd: ['1000', "'1000'", '1e3'],
    arithmetic: ['+ 500'],
  },
  f4: {
    type: 'float4',
    fit: ['1.5', '0.1', "'Infinity'", '3'],
    odd: ['1e39', "'1e39'"],
    arithmetic: ['* 1.1'],
  },
  f8: {
    type: 'float8',
    fit: ['0.1', '1e300', "'-0'", '7'],
    odd: ['1e400', "'one'"],
    arithmetic: ['+ 0.2', '* 1e300'],
  },
  tx: {
    type: 'text',
    fit: ["'a'", "''", "'it''s'", "'é😀\\'", "'x'::text", '5', '1.50'],
    odd: ['true'],
    arithmetic: ["|| 'y'", '|| 5'],
  },
  v5: {
    type: 'varchar(5)',
    fit: ["'abcde'", "'abc       '", '12345'],
    odd: ["'abcdef'", '123456'],
    arithmetic: ["|| 'zz'"],
  },
  ch: { type: 'char(4)', fit: ["'ab'", "'ab  '", "'a      '", '12'], odd: ["'abcde'"] },
  bo: { type: 'bool', fit: ["'t'", "'no'", 'true', "' off '"], odd: ['1', "'maybe'"] },
  da: {
    type: 'date',
    fit: ["'2020-02-29'", "'Jan 5 2021'", "'infinity'"],
    odd: ["'2021-02-29'", '20200101'],
    arithmetic: ['+ 1', "- '1 day'", "+ 'x'"],
  },
  ts: {
    type: 'timestamptz(0)',
    fit: ["'2020-01-01 12:00:00.7+02'", "'epoch'", "'2020-01-01'::date"],
    odd: ["'noon-ish'"],
    arithmetic: ["+ '90'", "- '1:30'"],
  },
  iv: {
    type: 'interval(1)',
    fit: ["'1 day 2:03:04.56'", "'1.26'"],
    odd: ["'a day'"],
    arithmetic: ['* 2', "+ '5'"],
  },
  jb: {
    type: 'jsonb',
    fit: ['\'{"a": 1}\'', "'[]'", "'null'::jsonb"],
    odd: ["'{a}'", '1'],
    arithmetic: ['|| \'{"b": 2}\'', "- 'a'", '- 0'],
  },
  js: { type: 'json', fit: ['\'{"a" : 1}\''], odd: ["'{'"] },
  uu: {
    type: 'uuid',
    fit: ["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "'{a0eebc999c0b4ef8bb6d6bb9bd380a11}'"],
    odd: ["'a0'", '1'],
  },
  ia: {
    type: 'int[]',
    fit: ["'{1,2}'", "'{}'", "'{3,NULL}'::int[]"],
    odd: ["'1,2'", "'{x}'", '1'],
    arithmetic: ['|| 3', "|| '{4}'"],
  },
  en: { type: 'public.mood', fit: ["'sad'", "'ok'"], odd: ["'SAD'", "'sad'::text"] },
  dm: { type: 'public.small', fit: ['5', "'6'", '7.4'], odd: ['101', "'101'", "'x'"], arithmetic: ['+ 90'] },
  dv: { type: 'public.short', fit: ["'ab'", '12'], odd: ["'abcd'", "'no'"], arithmetic: ["|| 'c'"] },
  by: {
    type: 'bytea',
    fit: ["'\\x00ff'", "'a\\134b'"],
    odd: ["'\\xzz'", "'a\\'"],
    arithmetic: ["|| '\\x01'"],
  },
};
const NAMES = Object.keys(COLUMNS);
const SCHEMAS = ['original', 'lifted'] as const;

let server: TestServer;
let original: pg.Client;
let lifted: pg.Client;

beforeAll(async () => {
  await loadParser();
  server = await startTestServer();
  await server.query(`
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE DOMAIN small AS int CHECK (VALUE < 100);
    CREATE DOMAIN short AS varchar(3) CHECK (VALUE <> 'no');`);
  const columns = NAMES.map((name) => `${name} ${COLUMNS[name]!.type}`).join(', ');
  for (const schema of SCHEMAS) {
    await server.query(`
      CREATE SCHEMA ${schema};
      CREATE TABLE ${schema}.t (id int PRIMARY KEY, ${columns}, CHECK (i4 <> 2), UNIQUE (uu));
      CREATE TABLE ${schema}.minutes (length interval minute, part public.short)`);
  }
  original = await connect('original');
  lifted = await connect('lifted');
  await lifted.query('SET plan_cache_mode = force_generic_plan');
});

afterAll(async () => {
  await original?.end();
  await lifted?.end();
  await server?.stop();
});

/** Values as the text that the server sends. */
const asText = { getTypeParser: () => (value: unknown) => value };

async function connect(schema: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: server.dsn(), types: asText as pg.CustomTypesConfig });
  await client.connect();
  await client.query(`SET search_path = ${schema}, public`);
  return client;
}

interface Answer {
  readonly tag?: string;
  readonly rows?: unknown[];
  readonly error?: { code: string | undefined; message: string };
  /** Of the error, in the original's text. */
  readonly position?: number | undefined;
}

async function answer(result: Promise<pg.QueryResult>, position: (given: number) => number): Promise<Answer> {
  try {
    const { command, rowCount, rows } = await result;
    return { tag: `${command} ${rowCount}`, rows };
  } catch (error) {
    if (!(error instanceof pg.DatabaseError)) throw error;
    const at = error.position === undefined ? undefined : position(Number(error.position));
    return { error: { code: error.code, message: error.message }, position: at };
  }
}

function runOriginal(text: string): Promise<Answer> {
  return answer(original.query(text), (position) => position);
}

/** In the extended protocol, with the types of the parameters in Parse, which `pg` takes under the name of the row parsers. */
function runLifted(text: string, { text: shape, values, oids }: Lifted): Promise<Answer> {
  const types = Object.assign([...oids], asText) as unknown as pg.CustomTypesConfig;
  return answer(
    lifted.query({ text: shape, values: [...values], types }),
    mapPosition(text, { text: shape, values, oids }),
  );
}

async function rowsOf(schema: string): Promise<unknown[]> {
  return server.query(`SELECT t::text FROM ${schema}.t ORDER BY id`);
}

const literal = (name: string) => {
  const { fit, odd } = COLUMNS[name]!;
  return fc.oneof(
    { weight: 12, arbitrary: fc.constantFrom(...fit) },
    { weight: 1, arbitrary: fc.constantFrom('NULL', ...odd) },
  );
};
const key = fc.integer({ min: -5, max: 40 }).map(String);
const columnLists = (maxLength: number) =>
  fc.uniqueArray(fc.constantFrom(...NAMES), { minLength: 1, maxLength });

const insert = columnLists(5).chain((names) => {
  const row = fc.tuple(key, ...names.map(literal)).map((values) => `(${values.join(', ')})`);
  const conflict = fc.constantFrom(
    '',
    '',
    ' ON CONFLICT DO NOTHING',
    " ON CONFLICT (id) DO UPDATE SET tx = t.tx || 'again', i8 = 3 WHERE t.id > 4",
  );
  const rows = fc.oneof(
    { weight: 4, arbitrary: row },
    { weight: 1, arbitrary: fc.array(row, { minLength: 2, maxLength: 3 }).map(String) },
  );
  return fc
    .tuple(rows, conflict, fc.constantFrom('', ' RETURNING *', ';'))
    .map(([values, tail, end]) => `INSERT INTO t (id, ${names.join(', ')}) VALUES ${values}${tail}${end}`);
});

const comparison = fc.constantFrom(...NAMES).chain((name) =>
  fc.oneof(
    fc
      .tuple(fc.constantFrom('=', '<>', '<', ' >= '), literal(name))
      .map(([operator, value]) => `${name}${operator}${value}`),
    fc
      .tuple(literal(name), fc.constantFrom(' = ', '>', '<='))
      .map(([value, operator]) => `(${value}${operator}${name})`),
    fc
      .array(literal(name), { minLength: 1, maxLength: 4 })
      .map((values) => `${name} IN (${values.join(',')})`),
    fc.tuple(literal(name), literal(name)).map(([low, high]) => `${name} BETWEEN ${low} AND ${high}`),
    fc.constantFrom("= '1'", "< 'a'").map((rest) => `${name}::text ${rest}`),
  ),
);
const condition = fc.oneof(
  key.map((id) => `id = ${id}`),
  fc.tuple(key, comparison).map(([id, other]) => `id > ${id} AND NOT ${other}`),
  comparison,
  fc.tuple(comparison, comparison).map(([one, other]) => `${one} OR ${other}`),
);

const assignment = (name: string) => {
  const { arithmetic } = COLUMNS[name]!;
  const value = literal(name);
  if (!arithmetic) return value.map((text) => `${name} = ${text}`);
  return fc
    .oneof(
      value,
      fc.constantFrom(...arithmetic).map((rest) => `${name} ${rest}`),
    )
    .map((text) => `${name} = ${text}`);
};
const update = columnLists(3)
  .chain((names) => fc.tuple(fc.tuple(...names.map(assignment)), condition))
  .map(([assignments, where]) => `UPDATE t SET ${assignments.join(', ')} WHERE ${where}`);
const remove = fc
  .tuple(key, comparison)
  .map(([id, other]) => `DELETE FROM t WHERE id = ${id} AND (${other} OR 1 <> id) RETURNING id`);
const select = condition.map((where) => `SELECT * FROM t WHERE ${where} ORDER BY 1 LIMIT 5`);

/** The two ways to differ that lifted-shape.ts names, each in one direction. */
function mayDiffer(text: string, before: Answer, after: Answer): boolean {
  const codes = [before.error?.code, after.error?.code];
  // A value that doesn't fit a column, in a statement that touches no row.
  if (before.error && !after.error) return /^22(001|003)$/.test(codes[0]!) && / 0$/.test(after.tag!);
  // A domain's CHECK at Bind: with no row touched, or before another error.
  if (after.error && !before.error) return codes[1] === '23514' && /\b(dm|dv)\b/.test(text);
  // Two errors.
  return (
    before.error !== undefined &&
    after.error !== undefined &&
    codes.every((code) => /^(22|23|42)/.test(code!))
  );
}

test('the lifted statement does what the original does', async () => {
  const counts = { statements: 0, rows: 0, equalErrors: 0, differences: 0 };
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.oneof(
          { weight: 4, arbitrary: insert },
          { weight: 3, arbitrary: update },
          { weight: 1, arbitrary: remove },
          { weight: 3, arbitrary: select },
        ),
        { minLength: 40, maxLength: 40 },
      ),
      async (texts) => {
        for (const text of texts) {
          const result = liftLiterals(text);
          if (!result) continue;
          expect(shapeIsSafe(text, result), text).toBe(true);
          counts.statements++;
          // In one transaction each, so that an allowed difference can be undone on both sides.
          await original.query('BEGIN');
          await lifted.query('BEGIN');
          const [before, after] = await Promise.all([runOriginal(text), runLifted(text, result)]);
          const equal =
            before.tag === after.tag &&
            before.error?.code === after.error?.code &&
            before.error?.message === after.error?.message;
          if (!equal && mayDiffer(text, before, after)) {
            counts.differences++;
            await original.query('ROLLBACK');
            await lifted.query('ROLLBACK');
            continue;
          }
          const { position: beforeAt, ...beforeRest } = before;
          const { position: afterAt, ...afterRest } = after;
          expect(afterRest, text).toEqual(beforeRest);
          // An error of Bind has no position.
          if (afterAt !== undefined) expect(afterAt, text).toBe(beforeAt);
          if (before.error) counts.equalErrors++;
          else counts.rows += Number(before.tag!.split(' ')[1]);
          await original.query('COMMIT');
          await lifted.query('COMMIT');
        }
        expect(await rowsOf('lifted')).toEqual(await rowsOf('original'));
      },
    ),
    { numRuns: 75, endOnFailure: true },
  );
  // The differences that are allowed are rare, or this test shows nothing.
  expect(counts.differences).toBeLessThan(counts.statements / 20);
  expect(counts.equalErrors).toBeGreaterThan(100);
  expect(counts.rows).toBeGreaterThan(1_000);
});

test('a literal in a column of minutes is one of the differences, and the server tells of it', async () => {
  const text = "INSERT INTO minutes (length) VALUES ('5') RETURNING length";
  const result = liftLiterals(text)!;
  expect(shapeIsSafe(text, result)).toBe(true);
  expect(await runOriginal(text)).toMatchObject({ rows: [{ length: '00:05:00' }] });
  expect(await runLifted(text, result)).toMatchObject({ rows: [{ length: '00:00:00' }] });
  await lifted.query(`PREPARE p AS ${result.text}`);
  const described = await lifted.query(
    "SELECT parameter_types[1]::oid FROM pg_prepared_statements WHERE name = 'p'",
  );
  expect(parametersKeepMeaning(result, [Number(described.rows[0].parameter_types)])).toBe(false);
});

test('a cast to a domain is another, which no shape allows', async () => {
  const text = "INSERT INTO minutes (part) VALUES ('abcdef'::public.short)";
  const result = liftLiterals(text)!;
  expect(shapeIsSafe(text, result)).toBe(false);
  expect((await runOriginal(text)).error).toBeUndefined();
  expect((await runLifted(text, result)).error?.code).toBe('22001');
});
