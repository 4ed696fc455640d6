import { beforeAll, describe, expect, test } from 'vitest';
import { statementOf } from '../../test/support/example-map.ts';
import { loadParser } from '../sql/parser.ts';
import type { ReferenceWritePlacement } from './reference-write.ts';

beforeAll(loadParser);

/** `countries (code PRIMARY KEY, name)` and `rates (id, code, rate, total generated)`, which has no primary key. */

function placeOf(text: string, path?: readonly string[]): string {
  const { placement, refusal, command } = statementOf(text, path);
  if (refusal) return `!${refusal.sqlState}`;
  if (command) return command.kind;
  if (placement.kind === 'scattered' && placement.scatter.kind === 'mesh') return 'mesh';
  if (placement.kind !== 'referenceWrite') return placement.kind;
  const { rows, locks } = placement;
  return `${rows ? rows.apply.kind : 'as it is'}${locks ? ', locked' : ''}`;
}

function writeOf(text: string): ReferenceWritePlacement {
  const { placement, refusal } = statementOf(text);
  if (placement.kind !== 'referenceWrite') throw refusal ?? new Error(placement.kind);
  return placement;
}

describe('where statements about reference tables go', () => {
  test.each([
    ['SELECT * FROM countries', 'reference'],
    ['SELECT * FROM public.countries c JOIN rates USING (code) WHERE c.name ~~ $1 ORDER BY 1', 'reference'],
    ['WITH c AS (SELECT * FROM countries) SELECT count(*), now() FROM c', 'reference'],
    ['SELECT 1 WHERE EXISTS (SELECT FROM rates)', 'reference'],
    // A CTE of its name is not the table; one that reads it is.
    ['WITH countries AS (SELECT 1 AS code) SELECT * FROM countries', 'home'],
    ['WITH RECURSIVE r AS (SELECT 1 AS n UNION SELECT n + 1 FROM r, countries) SELECT * FROM r', 'reference'],
    // What may be on the home node alone.
    ['SELECT * FROM countries, single', 'home'],
    ['SELECT f(code) FROM countries', 'home'],
    ['SELECT code::mood FROM countries', 'home'],
    ['SELECT code OPERATOR(public.===) name FROM countries', 'home'],
    ["SELECT pg_table_size('countries') FROM countries", 'home'],
    ['SELECT * FROM countries FOR UPDATE', 'home'],
    ['SELECT * FROM countries FOR SHARE', 'home'],
    ['SELECT * INTO copy FROM countries', 'home'],
    ['CREATE VIEW v AS SELECT * FROM countries', 'home'],
    ['COPY countries TO STDOUT', 'home'],
    ['LOCK TABLE countries', 'everywhere'],
    ['EXPLAIN SELECT * FROM countries', 'explain'],
    ['EXPLAIN UPDATE countries SET name = 1', 'explain'],
    // Over several buckets a reference table's rows would be there once for each of them.
    ['SELECT * FROM countries LEFT JOIN accounts ON code = name', 'mesh'],
    ['SELECT * FROM countries WHERE NOT EXISTS (SELECT FROM accounts WHERE name = code)', 'mesh'],
    ['SELECT * FROM countries, LATERAL (SELECT count(*) FROM accounts WHERE name = code) a', 'mesh'],
    ['SELECT * FROM countries UNION ALL SELECT 1, name FROM accounts', 'mesh'],
    ['SELECT * FROM accounts LEFT JOIN countries ON code = name', 'scattered'],
    ['UPDATE accounts SET name = c.name FROM countries c', 'scattered'],
    ['DELETE FROM accounts WHERE name IN (SELECT code FROM countries)', 'scattered'],
    ['UPDATE accounts SET account_id = 7 FROM countries c WHERE c.code = name', '!0A000'],
    // With sharded tables, to the bucket.
    ['SELECT * FROM accounts JOIN countries ON code = name WHERE account_id = 5', 'keyed'],
    ['SELECT * FROM countries LEFT JOIN accounts ON code = name AND account_id = 5', 'keyed'],
    ['SELECT (SELECT name FROM countries LIMIT 1) FROM accounts WHERE account_id = 5', 'keyed'],
    ['UPDATE accounts SET name = c.name FROM countries c WHERE account_id = 5', 'keyed'],
    ['SELECT * FROM accounts a, countries WHERE account_id = 5 FOR UPDATE OF a', 'keyed'],
    ['SELECT * FROM accounts, countries WHERE account_id = 5 FOR SHARE', 'keyed'],
    ['SELECT * FROM accounts, countries WHERE account_id = 5 FOR UPDATE', '!0A000'],
    ['SELECT * FROM accounts, countries, single WHERE account_id = 5', 'mesh'],
    ["SELECT * FROM other.events WHERE name = 'x'", 'reference'],
  ])('%s → %s', (text, expected) => {
    expect(placeOf(text)).toBe(expected);
  });

  test('the search_path decides which table of a name is meant', () => {
    expect(placeOf('SELECT name FROM events', ['other'])).toBe('reference');
    expect(placeOf('SELECT 1 FROM events WHERE account_id = 1', ['public', 'other'])).toBe('keyed');
    expect(placeOf('DELETE FROM countries', ['other'])).toBe('home');
  });
});

describe('writes', () => {
  test.each([
    ['INSERT INTO countries VALUES (1, now())', 'insert'],
    ['INSERT INTO countries SELECT name, f(name) FROM single', 'insert'],
    ['INSERT INTO countries DEFAULT VALUES', 'insert'],
    ['INSERT INTO countries VALUES (1) ON CONFLICT DO NOTHING', 'insert'],
    ['INSERT INTO countries VALUES (1) ON CONFLICT (code) DO UPDATE SET name = random()', 'upsert, locked'],
    ['INSERT INTO countries VALUES (1) ON CONFLICT (code) DO UPDATE SET code = 2', '!0A000'],
    ['INSERT INTO countries VALUES (1) ON CONFLICT (lower(code)) DO UPDATE SET name = 2', '!0A000'],
    ["INSERT INTO countries VALUES (1) ON CONFLICT (code) WHERE name = 'x' DO UPDATE SET name = 2", '!0A000'],
    ['INSERT INTO countries VALUES (1) ON CONFLICT ON CONSTRAINT c DO UPDATE SET name = 2', '!0A000'],
    ['INSERT INTO countries SELECT name FROM accounts WHERE account_id = 1', '!0A000'],
    [
      'UPDATE countries SET name = now() FROM single, rates WHERE single.x = countries.code',
      'update, locked',
    ],
    ['UPDATE countries SET (name) = (SELECT max(name) FROM single)', 'update, locked'],
    ['UPDATE countries SET name = 1 FROM accounts WHERE account_id = 1', '!0A000'],
    ['DELETE FROM countries WHERE random() < 0.5', 'delete, locked'],
    ['UPDATE countries SET code = upper(code)', 'as it is, locked'],
    ['UPDATE countries SET code = code || $1 WHERE code ~~ $2', 'as it is, locked'],
    ['UPDATE countries SET code = random()', '!0A000'],
    ['UPDATE countries SET code = my.upper(code)', '!0A000'],
    ['UPDATE countries SET code = localtime', '!0A000'],
    ['UPDATE rates SET rate = rate * 2', 'as it is, locked'],
    ['UPDATE rates SET rate = DEFAULT', '!0A000'],
    ['DELETE FROM rates WHERE id IN (SELECT id FROM rates LIMIT 1)', '!0A000'],
    ['DELETE FROM rates USING countries WHERE rates.code = countries.code', '!0A000'],
    ['DELETE FROM countries WHERE CURRENT OF c', '!0A000'],
    ['WITH d AS (DELETE FROM countries RETURNING 1) SELECT * FROM d', '!0A000'],
    ['WITH d AS (DELETE FROM single RETURNING 1) DELETE FROM countries', '!0A000'],
    [
      'WITH d AS (DELETE FROM countries RETURNING 1) UPDATE accounts SET name = 1 WHERE account_id = 1',
      '!0A000',
    ],
    ['INSERT INTO accounts (account_id) SELECT code FROM countries', 'scattered'],
    ['MERGE INTO countries USING single ON true WHEN MATCHED THEN DELETE', '!0A000'],
    ['TRUNCATE countries, rates', 'as it is'],
    ['TRUNCATE countries, single', 'everywhere'],
    ['TRUNCATE countries CASCADE', 'everywhere'],
    ['GRANT SELECT ON countries TO PUBLIC', 'everywhere'],
    ['GRANT SELECT ON countries, accounts TO app', 'everywhere'],
    ['GRANT SELECT (code) ON countries TO app', 'everywhere'],
    ['DROP TABLE countries', 'dropTables'],
    ['DROP TABLE countries, accounts', 'dropTables'],
    ['DROP TABLE countries, single', 'everywhere'],
    ['ALTER TABLE countries ADD COLUMN x int', 'everywhere'],
    ['ALTER TABLE countries RENAME TO lands', 'everywhere'],
    ['ALTER TABLE single INHERIT countries', '!0A000'],
    ['ALTER TABLE single ADD FOREIGN KEY (x) REFERENCES countries', 'home'],
    ['CREATE TABLE x (c text REFERENCES countries)', 'home'],
    ['CREATE TABLE x () INHERITS (countries)', '!0A000'],
    ['CREATE TABLE other.countries (x int)', '!0A000'],
    ['CREATE INDEX ON countries (name)', 'everywhere'],
    ['CREATE TRIGGER t BEFORE INSERT ON countries EXECUTE FUNCTION f()', '!0A000'],
    ['DROP TRIGGER postern_guard ON public.countries', '!0A000'],
    ['COPY countries FROM STDIN', 'copy'],
    ['DROP SCHEMA other CASCADE', 'everywhere'],
    [
      "CREATE TABLE s (id int, c text REFERENCES countries) WITH (postern.door = 'sharded', postern.key = 'id')",
      'createShardedTable',
    ],
    ["CREATE TABLE s (id int REFERENCES x) WITH (postern.door = 'sharded', postern.key = 'id')", '!0A000'],
    ["CREATE TEMP TABLE s (id int) WITH (postern.door = 'reference')", '!0A000'],
    ["CREATE TABLE s (id int) WITH (postern.door = 'reference', postern.key = 'id')", '!22023'],
  ])('%s → %s', (text, expected) => {
    expect(placeOf(text)).toBe(expected);
  });

  test('what the other nodes need is returned behind what the client asks for', () => {
    const insert = writeOf("INSERT INTO countries AS c VALUES ('é', 1) RETURNING lower(c.code) -- all");
    expect(insert.rows).toMatchObject({
      homeText: `INSERT INTO countries AS c VALUES ('é', 1) RETURNING lower(c.code) -- all\n, "c"."code", "c"."name"`,
      returning: true,
    });
    const generated = writeOf('INSERT INTO rates VALUES (1)');
    expect(generated.rows?.homeText).toBe(
      'INSERT INTO rates VALUES (1)\nRETURNING "rates"."id", "rates"."code", "rates"."rate"',
    );
    const update = writeOf('UPDATE countries SET name = 1');
    expect(update.rows).toMatchObject({ apply: { kind: 'update', keyCount: 1 }, returning: false });
    expect(update.rows?.columns.map(({ name }) => name)).toEqual(['code', 'name']);
    expect(writeOf('DELETE FROM countries').rows?.homeText).toBe(
      'DELETE FROM countries\nRETURNING "countries"."code"',
    );
  });

  test('CREATE TABLE keeps its other storage parameters', () => {
    const { command } = statementOf(
      "CREATE TABLE IF NOT EXISTS a.t (id int) WITH (fillfactor = 70, postern.door = 'reference') TABLESPACE x",
    );
    expect(command).toEqual({
      kind: 'createReferenceTable',
      schema: 'a',
      name: 't',
      ifNotExists: true,
      createText: 'CREATE TABLE IF NOT EXISTS a.t (id int) WITH (fillfactor = 70) TABLESPACE x',
    });
  });
});
