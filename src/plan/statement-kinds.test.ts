import { beforeAll, describe, expect, test } from 'vitest';
import { planOf, routeOf, statementOf } from '../../test/support/example-map.ts';
import { loadParser } from '../sql/parser.ts';
import type { SessionEffect, StatementPlan } from './plan.ts';

beforeAll(loadParser);

describe('transactions and settings', () => {
  const set = (names: string[], more?: object) => ({
    kind: 'set',
    names,
    local: false,
    reset: false,
    ...more,
  });
  test.each<[string, SessionEffect | object]>([
    ['BEGIN', { kind: 'begin', readOnly: false }],
    ['START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY', { kind: 'begin', readOnly: true }],
    ['BEGIN READ WRITE', { kind: 'begin', readOnly: false }],
    ['COMMIT', { kind: 'commit', chain: false }],
    ['END', { kind: 'commit', chain: false }],
    ['COMMIT AND CHAIN', { kind: 'commit', chain: true }],
    ['ROLLBACK', { kind: 'rollback', chain: false }],
    ['ABORT AND CHAIN', { kind: 'rollback', chain: true }],
    ['SAVEPOINT "A b"', { kind: 'savepoint', name: 'A b' }],
    ['RELEASE x', { kind: 'releaseSavepoint', name: 'x' }],
    ['ROLLBACK TO SAVEPOINT x', { kind: 'rollbackToSavepoint', name: 'x' }],
    ['SET search_path TO a, b', set(['search_path'])],
    ['SET TimeZone = 1', set(['timezone'])],
    ["SET TIME ZONE 'UTC'", set(['timezone'])],
    ['SET LOCAL "My.Tenant" = 7', set(['my.tenant'], { local: true })],
    ['SET x TO DEFAULT', set(['x'], { reset: true })],
    ['RESET x', set(['x'], { reset: true })],
    ['RESET ALL', { kind: 'resetAll' }],
    ['SET ROLE x', set(['role'])],
    ['RESET ROLE', set(['role'], { reset: true })],
    ['SET SESSION AUTHORIZATION x', set(['session_authorization', 'role'])],
    ["SET NAMES 'utf-8'", set(['client_encoding'])],
    [
      'SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY',
      set(['transaction_isolation', 'transaction_read_only'], { local: true }),
    ],
    [
      'SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, DEFERRABLE',
      set(['default_transaction_read_only', 'default_transaction_deferrable']),
    ],
  ])('%s', (text, effect) => {
    expect(statementOf(text)).toMatchObject({ placement: { kind: 'anywhere' }, effects: [effect] });
  });

  test.each<[string, SessionEffect[]]>([
    ["SELECT set_config('a.B', $1, true)", [set(['a.b'], { local: true }) as SessionEffect]],
    ["SELECT pg_catalog.set_config('x', 'y', false)", [set(['x']) as SessionEffect]],
    ['SELECT set_config($1, $2, true)', [{ kind: 'setMany' }]],
    ["SELECT set_config('x', 'y', $1)", [{ kind: 'setMany' }]],
    ["UPDATE notes SET a = set_config('x', 'y', false)", [set(['x']) as SessionEffect]],
    ['DISCARD ALL', [{ kind: 'discardAll' }]],
    ['DISCARD PLANS', []],
    ['PREPARE p AS SELECT 1', [{ kind: 'sqlPrepare' }]],
    ['EXECUTE p(1)', [{ kind: 'sqlPrepare' }]],
    ['DEALLOCATE ALL', [{ kind: 'sqlPrepare' }]],
    ['EXPLAIN EXECUTE p', [{ kind: 'sqlPrepare' }]],
    ['CREATE TABLE x (a int)', [{ kind: 'ddl' }]],
    ['LISTEN "News"', [{ kind: 'listen', channel: 'News' }]],
    ['UNLISTEN news', [{ kind: 'unlisten', channel: 'news' }]],
    ['UNLISTEN *', [{ kind: 'unlisten', channel: undefined }]],
    ['SELECT pg_advisory_unlock_all()', []],
    ['SELECT pg_advisory_xact_lock(1)', []],
  ])('%s', (text, effects) => {
    expect(statementOf(text).effects).toEqual(effects);
  });

  test.each([
    'CREATE TEMP TABLE x (a int)',
    'CREATE TEMP TABLE x AS SELECT 1',
    'CREATE TEMP VIEW x AS SELECT 1',
    'CREATE TEMP SEQUENCE x',
    'SELECT 1 INTO TEMP x',
    'SELECT * FROM pg_temp.x',
    'CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql RETURN 1',
    'SELECT pg_advisory_lock(1)',
    'SELECT * FROM notes WHERE pg_try_advisory_lock_shared(id)',
    'DECLARE c CURSOR WITH HOLD FOR SELECT 1',
    "LOAD 'x'",
    'SELECT setseed(0.5)',
    "SELECT pg_catalog.query_to_xml('SELECT 1', true, true, '')",
    'EXPLAIN ANALYZE SELECT pg_advisory_lock(1)',
  ])('%s pins', (text) => {
    const plan = statementOf(text);
    expect(plan.effects.map((effect) => effect.kind)).toContain('pin');
    expect(plan.needsPinBefore).toBe(false);
  });

  test.each([
    "SET client_encoding = 'LATIN1'",
    "SET NAMES 'sql_ascii'",
    "SELECT set_config('client_encoding', 'latin1', false)",
    "SELECT set_config('client_encoding', $1, false)",
    'SET standard_conforming_strings = off',
    "PREPARE TRANSACTION 'x'",
    "COMMIT PREPARED 'x'",
    "ROLLBACK PREPARED 'x'",
  ])('%s is refused', (text) => {
    expect(routeOf(text)).toBe('0A000');
  });

  test.each([
    'SET search_path = public, postern_leaves',
    "SELECT set_config('search_path', 'a, \"postern_leaves\"', true)",
  ])('%s is denied', (text) => {
    expect(routeOf(text)).toBe('42501');
  });

  test('names after a change of search_path in the same text', () => {
    const refused = (text: string) => planOf(text).statements.map(({ refusal }) => refusal !== undefined);
    expect(refused('SET search_path = a; SELECT * FROM accounts')).toEqual([false, true]);
    expect(refused("SELECT set_config('search_path', 'a', true); DELETE FROM accounts")).toEqual([
      false,
      true,
    ]);
    expect(refused('SET ROLE x; SELECT * FROM notes')).toEqual([false, false]);
    expect(refused('SET x = 1; SELECT * FROM accounts WHERE account_id = 1')).toEqual([false, false]);
    expect(refused('RESET ALL; SELECT * FROM public.accounts WHERE account_id = 1')).toEqual([false, false]);
  });
});

describe('where it may go', () => {
  test.each([
    ['SELECT 1', 'anywhere'],
    ['SHOW x', 'anywhere'],
    ["SELECT now(), current_setting('x'), $1::int[], 'a'::varchar(3)", 'anywhere'],
    ["SELECT set_config('x', 'y', true)", 'anywhere'],
    ['VALUES (1)', 'anywhere'],
    ['SELECT * FROM generate_series(1, 3)', 'anywhere'],
    ['FETCH 1 FROM c', 'cursor'],
    ['CLOSE ALL', 'anywhere'],
    ['SET CONSTRAINTS ALL DEFERRED', 'anywhere'],
    ['SELECT my_function()', 'home'],
    ["SELECT 'x'::my_type", 'home'],
    ["SELECT 'x'::regclass", 'home'],
    ["SELECT nextval('s')", 'home'],
    ["SELECT pg_table_size('t')", 'home'],
    ['SELECT * FROM notes', 'home'],
    ['NOTIFY x', 'home'],
    ['CREATE TABLE x (a int)', 'home'],
    ['INSERT INTO notes VALUES (1)', 'home'],
    ['GRANT SELECT ON notes TO x', 'home'],
    ['DROP TABLE notes', 'home'],
    ['TRUNCATE notes', 'home'],
    ['VACUUM', 'everywhere'],
    ['LOCK notes', 'home'],
    ['CREATE SCHEMA s CREATE TABLE t (a int)', 'everywhere'],
  ])('%s → %s', (text, expected) => {
    expect(routeOf(text)).toBe(expected);
  });

  test.each<[string, boolean]>([
    ['SELECT * FROM notes', true],
    ['SELECT * FROM accounts WHERE account_id = 1', true],
    ['SHOW ALL', true],
    ['EXPLAIN DELETE FROM notes', true],
    ['EXPLAIN ANALYZE SELECT 1', false],
    ['SELECT * FROM notes FOR SHARE', false],
    ['SELECT 1 INTO x', false],
    ['SELECT f()', false],
    ["SELECT nextval('s')", false],
    ["SELECT pg_notify('a', 'b')", false],
    ["SELECT set_config('x', 'y', true)", false],
    ['WITH x AS (DELETE FROM notes RETURNING *) SELECT * FROM x', false],
    ['UPDATE notes SET a = 1', false],
  ])('%s reads only: %s', (text, expected) => {
    expect(statementOf(text).readOnly).toBe(expected);
  });

  test.each<[string, Partial<StatementPlan>]>([
    ['COPY notes FROM STDIN', { copy: 'in' }],
    ['COPY (SELECT * FROM notes) TO STDOUT', { copy: 'out' }],
    ["COPY notes FROM '/x'", { copy: undefined }],
    ['VACUUM notes', { outsideTransaction: true }],
    ['ANALYZE notes', { outsideTransaction: false }],
    ['CREATE DATABASE x', { outsideTransaction: true }],
    ['CREATE INDEX CONCURRENTLY i ON notes (a)', { outsideTransaction: true }],
    ['CREATE INDEX i ON notes (a)', { outsideTransaction: false }],
    ['DROP INDEX CONCURRENTLY i', { outsideTransaction: true }],
    ['REINDEX (CONCURRENTLY) TABLE notes', { outsideTransaction: true }],
    ['ALTER SYSTEM SET x = 1', { outsideTransaction: true }],
    ['CALL s.p(now(), f(1))', { outsideTransaction: true, unknownFunctions: ['s.p', 'f'] }],
    ["DO 'BEGIN END'", { outsideTransaction: true, unknownFunctions: ['do'] }],
    ['SELECT lower(a), s.f(b), pg_catalog.upper(c), F(d), f(e)', { unknownFunctions: ['s.f', 'f'] }],
    ['SELECT $3, $11', { parameterCount: 11 }],
  ])('%s', (text, expected) => {
    const plan = statementOf(text);
    const { unknownFunctions } = expected;
    expect(plan).toMatchObject(
      unknownFunctions ? { ...expected, unknownFunctions: expect.anything() } : expected,
    );
    if (unknownFunctions) expect([...plan.unknownFunctions].sort()).toEqual([...unknownFunctions].sort());
  });

  test('what does not parse is left to a server', () => {
    expect(planOf('SELEC 1')).toEqual({ text: 'SELEC 1', statements: [], unparsed: true });
    expect(planOf(' -- nothing')).toEqual({ text: ' -- nothing', statements: [], unparsed: false });
  });

  test('what is too deep for the router is refused by it', () => {
    expect(routeOf(`SELECT ${'1+'.repeat(50_000)}1`)).toBe('54001');
  });
});

describe('sharded tables in other statements', () => {
  test.each([
    'ALTER TABLE notes ADD FOREIGN KEY (a) REFERENCES accounts',
    'CREATE MATERIALIZED VIEW v AS SELECT * FROM accounts',
    'CREATE TABLE x AS SELECT * FROM accounts WHERE account_id = 1',
    'CREATE TEMP TABLE x AS SELECT * FROM accounts WHERE account_id = 1',
    'CREATE RULE r AS ON INSERT TO notes DO ALSO DELETE FROM accounts',
    'CREATE TRIGGER t AFTER INSERT ON accounts EXECUTE FUNCTION f()',
    'CREATE POLICY p ON notes USING (a IN (SELECT id FROM events))',
    'CREATE PUBLICATION p FOR TABLE accounts',
    'CREATE SEQUENCE s OWNED BY accounts.name',
    'CREATE TABLE x (a int REFERENCES accounts)',
    'CREATE TABLE x (LIKE accounts)',
    'CREATE TABLE x () INHERITS (accounts)',
    'CREATE TABLE x PARTITION OF accounts FOR VALUES IN (1)',
    'PREPARE p AS SELECT * FROM accounts WHERE account_id = 1',
    'CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS \'SELECT count(*) FROM "accounts"\'',
    'CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM public.ACCOUNTS $$',
    'CREATE PROCEDURE f() LANGUAGE sql BEGIN ATOMIC DELETE FROM accounts; END',
    'CREATE FUNCTION f() RETURNS int LANGUAGE sql AS \'SELECT 1 FROM "Odd ""Name"""\'',
    "DO 'BEGIN DELETE FROM accounts; END'",
    'TRUNCATE ONLY accounts',
    'DROP OWNED BY x',
    'REASSIGN OWNED BY x TO y',
    'CREATE TEMP TABLE accounts (a int)',
    'CREATE TABLE app.accounts (a int)',
    'CREATE TABLE accounts (a int)',
    'CREATE VIEW app.accounts AS SELECT 1',
    'CREATE SEQUENCE app.accounts',
    'CREATE TABLE app.accounts AS SELECT 1',
    'SELECT 1 INTO app.accounts',
    'ALTER TABLE notes RENAME TO accounts',
    'ALTER TABLE other.accounts SET SCHEMA app',
    'CREATE SCHEMA s CREATE TABLE accounts (a int)',
    'REFRESH MATERIALIZED VIEW accounts',
  ])('%s is refused with a hint', (text) => {
    const { refusal } = statementOf(text);
    expect(refusal?.sqlState).toBe('0A000');
    expect(refusal?.hint).toBeTruthy();
  });

  test.each([
    'CREATE TABLE public.accounts (a int)',
    'CREATE TABLE IF NOT EXISTS public.accounts (a int)',
    'DROP VIEW v CASCADE',
    'ALTER TABLE notes RENAME COLUMN a TO accounts',
    'GRANT SELECT ON ALL TABLES IN SCHEMA app TO x',
    "COMMENT ON COLUMN notes.accounts IS 'x'",
  ])('%s goes home', (text) => {
    expect(routeOf(text)).toBe('home');
  });

  test.each([
    ['DROP TABLE accounts', { kind: 'dropTables', tables: [{ name: 'accounts' }], cascade: false }],
    [
      'DROP TABLE IF EXISTS public.accounts, archive.events CASCADE',
      { kind: 'dropTables', tables: [{ schema: 'public' }, { schema: 'archive' }], cascade: true },
    ],
  ])('%s is a command', (text, command) => {
    expect(statementOf(text)).toMatchObject({ command, effects: [{ kind: 'ddl' }] });
  });
});
