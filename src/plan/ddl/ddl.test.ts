import { beforeAll, describe, expect, test } from 'vitest';
import { stepsOf } from '../../../test/support/ddl-steps.ts';
import { statementOf } from '../../../test/support/example-map.ts';
import { loadParser } from '../../sql/parser.ts';

beforeAll(loadParser);

const TOUCH = 'catalog: touch';

describe('indexes', () => {
  test.each<[string, string, string]>([
    [
      'CREATE INDEX ON accounts (name)',
      'CREATE INDEX "accounts_name_idx" ON "public"."accounts" (name)',
      'CREATE INDEX <accounts_name_idx> ON <leaf accounts> (name)',
    ],
    [
      'create unique index if not exists "I" on only public.accounts using btree (account_id, lower(accounts.name)) where accounts.plan > 0 -- é',
      'create unique index if not exists "I" on  "public"."accounts" using btree (account_id, lower(accounts.name)) where accounts.plan > 0 -- é',
      'create unique index if not exists <I> on  <leaf accounts> using btree (account_id, lower(<accounts>.name)) where <accounts>.plan > 0 -- é',
    ],
    [
      'CREATE INDEX ON accounts (lower(name), (name || plan), (plan::int), plan) INCLUDE (name)',
      'CREATE INDEX "accounts_lower_expr_plan_plan1_name_idx" ON "public"."accounts" (lower(name), (name || plan), (plan::int), plan) INCLUDE (name)',
      'CREATE INDEX <accounts_lower_expr_plan_plan1_name_idx> ON <leaf accounts> (lower(name), (name || plan), (plan::int), plan) INCLUDE (name)',
    ],
  ])('%s', (text, face, leaf) => {
    expect(stepsOf(text)).toEqual([`all: ${face}`, `leaves: ${leaf}`, TOUCH]);
  });

  test('CONCURRENTLY: leaves first, each outside of a transaction', () => {
    const text = 'CREATE INDEX CONCURRENTLY i ON accounts (name)';
    expect(stepsOf(text)).toEqual([
      'leaves: CREATE INDEX CONCURRENTLY <i> ON <leaf accounts> (name)',
      'all: CREATE INDEX  "i" ON "public"."accounts" (name)',
      TOUCH,
    ]);
    expect(statementOf(text)).toMatchObject({
      outsideTransaction: true,
      placement: { change: { mode: 'outside' } },
    });
    expect(stepsOf('CREATE INDEX CONCURRENTLY i ON countries (name)')).toEqual([
      'all: CREATE INDEX CONCURRENTLY "i" ON "public"."countries" (name)',
      TOUCH,
    ]);
  });

  test('IF NOT EXISTS: home says that the name is taken', () => {
    const text = 'CREATE INDEX IF NOT EXISTS i ON accounts (name)';
    expect(stepsOf(text, [[['yes']]])).toEqual([`home: ${text}`]);
  });

  const found = [['public', 'i', 'public', 'accounts']];
  const reference = [['public', 'r', 'public', 'countries']];
  test.each<[string, string[][][], string[]]>([
    [
      'DROP INDEX IF EXISTS i CASCADE',
      [found],
      ['all: DROP INDEX "public"."i" CASCADE', 'leaves: DROP INDEX <leaf i> CASCADE', TOUCH],
    ],
    [
      'DROP INDEX CONCURRENTLY i',
      [found],
      ['all: DROP INDEX "public"."i"', 'leaves: DROP INDEX CONCURRENTLY IF EXISTS <leaf i>', TOUCH],
    ],
    ['DROP INDEX i', [[]], ['home: DROP INDEX i']],
    [
      'DROP INDEX IF EXISTS x.i, r',
      [[], reference],
      ['home: DROP INDEX IF EXISTS "x"."i"', 'all: DROP INDEX "public"."r"', TOUCH],
    ],
    [
      'ALTER INDEX i RENAME TO j',
      [found],
      ['all: ALTER INDEX "public"."i" RENAME TO "j"', 'leaves: ALTER INDEX <leaf i> RENAME TO <j>', TOUCH],
    ],
    ['ALTER INDEX i RENAME TO j', [[]], ['home: ALTER INDEX i RENAME TO j']],
    ['ALTER INDEX i SET (fillfactor = 70)', [found], ['leaves: ALTER INDEX <leaf i> SET (fillfactor = 70)']],
    ['REINDEX INDEX i', [found], ['leaves: REINDEX INDEX <leaf i>']],
    ['REINDEX (VERBOSE) INDEX r', [reference], ['all: REINDEX (VERBOSE) INDEX "public"."r"']],
    ["COMMENT ON INDEX i IS 'x'", [found], ["all: COMMENT ON INDEX i IS 'x'"]],
  ])('%s, by what home says of it', (text, answers, steps) => {
    expect(stepsOf(text, answers)).toEqual(steps);
  });

  test('names of expressions, as PostgreSQL makes them', () => {
    const named = (expression: string) =>
      /"docs_(.*)_idx"/.exec(stepsOf(`CREATE INDEX ON docs (${expression})`)[0]!)?.[1];
    expect(named("(coalesce(body, ''))")).toBe('coalesce');
    expect(named("(body -> 'a')")).toBe('expr');
    expect(named("((body ->> 'a')::int)")).toBe('int4');
    expect(named('(CASE WHEN true THEN body END)')).toBe('case');
    expect(named('((docs.body).f)')).toBe('f');
    expect(named('(greatest(body, slug)), (greatest(slug, body))')).toBe('greatest_greatest1');
    expect(named('body COLLATE "C", (body COLLATE "C")')).toBe('body_body1');
  });

  test('long names are cut where PostgreSQL cuts them', () => {
    const long = 'x'.repeat(70);
    expect(stepsOf(`CREATE INDEX ON docs ("${long}")`)[0]).toContain(`"docs_${'x'.repeat(54)}_idx"`);
  });
});

describe('what belongs to a table', () => {
  test.each<[string, string, string]>([
    [
      'CREATE POLICY p ON accounts USING (accounts.name = current_user)',
      'CREATE POLICY p ON "public"."accounts" USING (accounts.name = current_user)',
      'CREATE POLICY p ON <leaf accounts> USING (<accounts>.name = current_user)',
    ],
    [
      'ALTER POLICY p ON public.accounts TO x',
      'ALTER POLICY p ON "public"."accounts" TO x',
      'ALTER POLICY p ON <leaf accounts> TO x',
    ],
    [
      'ALTER POLICY p ON accounts RENAME TO q',
      'ALTER POLICY p ON "public"."accounts" RENAME TO q',
      'ALTER POLICY p ON <leaf accounts> RENAME TO q',
    ],
    [
      'DROP POLICY IF EXISTS p ON accounts',
      'DROP POLICY IF EXISTS "p" ON "public"."accounts"',
      'DROP POLICY IF EXISTS "p" ON <leaf accounts>',
    ],
    [
      'ALTER TRIGGER t ON accounts RENAME TO u',
      'ALTER TRIGGER t ON "public"."accounts" RENAME TO u',
      'ALTER TRIGGER t ON <leaf accounts> RENAME TO u',
    ],
    [
      'DROP TRIGGER t ON public.accounts CASCADE',
      'DROP TRIGGER "t" ON "public"."accounts" CASCADE',
      'DROP TRIGGER "t" ON <leaf accounts> CASCADE',
    ],
  ])('%s', (text, face, leaf) => {
    expect(stepsOf(text)).toEqual([`all: ${face}`, `leaves: ${leaf}`, TOUCH]);
  });

  test.each<[string, string[]]>([
    [
      'CREATE STATISTICS s (mcv) ON name, plan FROM accounts',
      [
        'all: CREATE STATISTICS "s" (mcv) ON name, plan FROM "public"."accounts"',
        'leaves: CREATE STATISTICS <leaf s> (mcv) ON name, plan FROM <leaf accounts>',
      ],
    ],
    [
      'CREATE STATISTICS ON name, plan FROM accounts',
      [
        'all: CREATE STATISTICS "public"."accounts_name_plan_stat" ON name, plan FROM "public"."accounts"',
        'leaves: CREATE STATISTICS <leaf accounts_name_plan_stat> ON name, plan FROM <leaf accounts>',
      ],
    ],
    ["COMMENT ON COLUMN accounts.name IS 'x'", ["all: COMMENT ON COLUMN accounts.name IS 'x'"]],
    ["COMMENT ON TABLE countries IS 'x'", ["all: COMMENT ON TABLE countries IS 'x'"]],
    ["COMMENT ON TABLE notes IS 'x'", ['home']],
  ])('%s', (text, steps) => {
    expect(stepsOf(text)).toEqual(steps);
  });

  test('a trigger', () => {
    const rest = 'FOR EACH ROW WHEN (NEW.name > 1) EXECUTE FUNCTION f(1)';
    expect(stepsOf(`CREATE TRIGGER t BEFORE UPDATE OF name ON accounts ${rest}`)).toEqual([
      'all: GRANT TRIGGER ON "public"."accounts" TO CURRENT_USER',
      `all: CREATE TRIGGER t BEFORE UPDATE OF name ON "public"."accounts" ${rest}`,
      `leaves: CREATE TRIGGER t BEFORE UPDATE OF name ON <leaf accounts> ${rest}`,
      TOUCH,
      'all: REVOKE TRIGGER ON "public"."accounts" FROM CURRENT_USER',
    ]);
  });

  test('of a foreign key the comment is on the leaves', () => {
    expect(stepsOf("COMMENT ON CONSTRAINT c ON accounts IS 'it''s'", [[], [['f']]])).toEqual([
      "leaves: COMMENT ON CONSTRAINT <c> ON <leaf accounts> IS 'it''s'",
    ]);
  });

  test.each<[string, string]>([
    ['BEGIN INSERT INTO log VALUES (TG_TABLE_NAME); END', "reads its table's name"],
    ['BEGIN DELETE FROM Events; END', 'names sharded table'],
  ])('a trigger with the function %s is refused', (body, message) => {
    expect(() =>
      stepsOf('CREATE TRIGGER t AFTER INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION f()', [[[body]]]),
    ).toThrow(message);
  });

  test.each([
    'CREATE TRIGGER t AFTER INSERT ON accounts EXECUTE FUNCTION f()',
    'CREATE TRIGGER t AFTER INSERT ON accounts REFERENCING NEW TABLE AS n FOR EACH ROW EXECUTE FUNCTION f()',
    'CREATE TRIGGER t AFTER INSERT ON countries FOR EACH ROW EXECUTE FUNCTION f()',
    'DROP TRIGGER t ON countries',
    'CREATE POLICY p ON accounts USING (EXISTS (SELECT FROM events))',
    'CREATE POLICY p ON accounts USING (EXISTS (SELECT FROM notes))',
    'CREATE POLICY p ON countries USING (EXISTS (SELECT FROM notes))',
  ])('%s is refused', (text) => {
    expect(statementOf(text).refusal?.sqlState).toBe('0A000');
  });
});

describe('lists of tables', () => {
  test.each<[string, string[]]>([
    [
      'TRUNCATE accounts, countries, notes CASCADE',
      ['list: TRUNCATE TABLE <leaves accounts>, "public"."countries", home "notes" CASCADE'],
    ],
    ['TRUNCATE accounts RESTART IDENTITY', ['list: TRUNCATE TABLE <leaves accounts> RESTART IDENTITY']],
    ['TRUNCATE countries', ['referenceWrite']],
    ['TRUNCATE notes', ['home']],
    [
      'GRANT SELECT (name), INSERT ON TABLE public . accounts /* é */, countries, app.notes TO x WITH GRANT OPTION',
      [
        'list: GRANT SELECT (name), INSERT ON TABLE <leaves accounts>, "public"."countries", home "app"."notes" TO x WITH GRANT OPTION',
        'catalog: touch',
      ],
    ],
    [
      'revoke all on accounts from public cascade',
      ['list: revoke all on <leaves accounts> from public cascade', 'catalog: touch'],
    ],
    ['GRANT SELECT ON notes TO x', ['home']],
    ['GRANT SELECT ON ALL TABLES IN SCHEMA app TO x', ['home']],
    [
      'ANALYZE accounts (name), notes',
      ['list: ANALYZE <leaves accounts> ("name")', 'list: ANALYZE home "notes"'],
    ],
    ['VACUUM (FULL) countries', ['list: VACUUM (FULL) "public"."countries"']],
    ['VACUUM', ['all: VACUUM']],
    ['CLUSTER accounts USING i', ['leaves: CLUSTER <leaf accounts> USING <i>']],
    ['REINDEX TABLE accounts', ['leaves: REINDEX TABLE <leaf accounts>']],
    [
      'DROP TABLE IF EXISTS accounts, notes CASCADE',
      ['home: DROP TABLE IF EXISTS "notes" CASCADE', 'drop: accounts CASCADE', TOUCH],
    ],
  ])('%s', (text, steps) => {
    expect(stepsOf(text)).toEqual(steps);
  });

  test('all tables of a schema: the leaves instead of the faces', () => {
    const tables = [
      ['public', 'accounts'],
      ['public', 'countries'],
      ['public', 'v'],
    ];
    const text = 'GRANT SELECT ON ALL TABLES IN SCHEMA app, public TO x';
    expect(stepsOf(text, [tables])).toEqual([
      'list: GRANT SELECT ON TABLE <leaves accounts>, "public"."countries", home "public"."v" TO x',
      'catalog: touch',
    ]);
    expect(stepsOf(text, [[]])).toEqual([]);
  });
});

describe('what is the same on all nodes', () => {
  test.each<[string, string[]]>([
    [
      "CREATE TYPE t AS ENUM ('a')",
      ["home: CREATE TYPE t AS ENUM ('a')", "others: CREATE TYPE t AS ENUM ('a')"],
    ],
    [
      "ALTER TYPE t ADD VALUE 'b'",
      ["home: ALTER TYPE t ADD VALUE 'b'", "others: ALTER TYPE t ADD VALUE 'b'", TOUCH],
    ],
    [
      'ALTER TYPE t ADD ATTRIBUTE a int',
      ['home: ALTER TYPE t ADD ATTRIBUTE a int', 'others: ALTER TYPE t ADD ATTRIBUTE a int', TOUCH],
    ],
    [
      'DROP TYPE a, b CASCADE',
      ['home: DROP TYPE a, b CASCADE', 'others: DROP TYPE IF EXISTS a, b CASCADE', TOUCH],
    ],
    [
      'DROP TEXT SEARCH CONFIGURATION c',
      ['home: DROP TEXT SEARCH CONFIGURATION c', 'others: DROP TEXT SEARCH CONFIGURATION IF EXISTS c', TOUCH],
    ],
    [
      'DROP PROCEDURAL LANGUAGE l',
      ['home: DROP PROCEDURAL LANGUAGE l', 'others: DROP PROCEDURAL LANGUAGE IF EXISTS l', TOUCH],
    ],
    [
      'CREATE EXTENSION IF NOT EXISTS citext',
      ['home: CREATE EXTENSION IF NOT EXISTS citext', 'others: CREATE EXTENSION IF NOT EXISTS citext'],
    ],
    [
      'CREATE SCHEMA s CREATE TABLE t (a int)',
      ['home: CREATE SCHEMA s CREATE TABLE t (a int)', 'others: CREATE SCHEMA "s"'],
    ],
    [
      'CREATE SCHEMA IF NOT EXISTS s',
      ['home: CREATE SCHEMA IF NOT EXISTS s', 'others: CREATE SCHEMA IF NOT EXISTS s'],
    ],
    [
      'DROP SCHEMA other CASCADE',
      [
        'drop: events CASCADE',
        'home: DROP SCHEMA other CASCADE',
        'others: DROP SCHEMA IF EXISTS "other" CASCADE',
        TOUCH,
      ],
    ],
    ['DROP SCHEMA public', ['home: DROP SCHEMA public', 'others: DROP SCHEMA IF EXISTS "public"', TOUCH]],
    [
      'ALTER SCHEMA archive RENAME TO x',
      [
        'home: ALTER SCHEMA archive RENAME TO x',
        'others: ALTER SCHEMA archive RENAME TO x',
        'catalog: renameSchema archive x',
      ],
    ],
    ['CREATE ROLE x LOGIN', ['home: CREATE ROLE x LOGIN', 'others: CREATE ROLE x LOGIN']],
    ['GRANT accounts TO x', ['home: GRANT accounts TO x', 'others: GRANT accounts TO x']],
    [
      'GRANT USAGE ON SCHEMA s TO x',
      ['home: GRANT USAGE ON SCHEMA s TO x', 'others: GRANT USAGE ON SCHEMA s TO x'],
    ],
    [
      'GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA s TO x',
      [
        'home: GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA s TO x',
        'others: GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA s TO x',
      ],
    ],
    [
      "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS 'SELECT ''my_accounts'''",
      [
        "home: CREATE FUNCTION f() RETURNS text LANGUAGE sql AS 'SELECT ''my_accounts'''",
        "others: CREATE FUNCTION f() RETURNS text LANGUAGE sql AS 'SELECT ''my_accounts'''",
      ],
    ],
    [
      'ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO x',
      [
        'home: ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO x',
        'others: ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO x',
      ],
    ],
    ['CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql RETURN 1', ['home']],
    ['GRANT CONNECT ON DATABASE d TO x', ['home']],
    ['CREATE SEQUENCE s', ['home']],
    ['CREATE SERVER s FOREIGN DATA WRAPPER w', ['home']],
    ['CREATE INDEX ON notes (a)', ['home']],
    ['ALTER TABLE notes ADD x int', ['home']],
  ])('%s', (text, steps) => {
    expect(stepsOf(text)).toEqual(steps);
  });

  test('roles are of servers, and what others have or lack is no failure', () => {
    const { placement } = statementOf('CREATE ROLE x');
    if (placement.kind !== 'everywhere') throw new Error('not over the nodes');
    const [, others] = placement.change.steps([]);
    expect(others).toMatchObject({ oncePerServer: true, toleratedStates: expect.arrayContaining(['42710']) });
  });
});
