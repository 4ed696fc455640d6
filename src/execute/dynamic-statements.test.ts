import { beforeAll, describe, expect, it } from 'vitest';
import { loadParser } from '../sql/parser.ts';
import { visibleSource } from './dynamic-statements.ts';

beforeAll(() => loadParser());

const body = (statement: string) => `BEGIN ${statement}; RETURN NEW; END`;

function visible(statement: string, taken: string[] = []) {
  const source = visibleSource(body(statement), new Set(taken));
  return { ...source, isJudged: !/\bexecute\b/i.test(source.text) };
}

describe('is judged by its text', () => {
  it.each([
    [`EXECUTE 'INSERT INTO log VALUES ($1)' USING NEW.id`, false],
    [`execute 'DELETE FROM log WHERE note = ''old'''`, false],
    [`EXECUTE $q$ UPDATE log SET a = 'x' $q$`, false],
    [`EXECUTE 'SELECT count(*) FROM log' INTO n`, false],
    [`FOR r IN EXECUTE 'SELECT * FROM log' LOOP NULL; END LOOP`, false],
    [`RETURN QUERY EXECUTE 'WITH gone AS (DELETE FROM log RETURNING a) SELECT a FROM gone'`, false],
    [`EXECUTE 'INSERT INTO log ' || 'VALUES (1)'`, false],
    [`EXECUTE format('INSERT INTO log VALUES (%L, 100 %% 3)', NEW.id)`, false],
    [
      `EXECUTE pg_catalog.format('INSERT INTO %I.%I SELECT ($1).*', TG_TABLE_SCHEMA, TG_TABLE_NAME) USING OLD`,
      true,
    ],
    [`EXECUTE format('INSERT INTO audit.%I (a, %I) VALUES (%2$L, %1$L)', a, b)`, true],
    [`EXECUTE format('INSERT INTO %s SELECT $1.*', TG_RELID::regclass) USING NEW`, true],
    [`EXECUTE format('UPDATE %1$I SET %2$I = %3$L WHERE %2$I = 1', f(a, b), c, d)`, true],
    [`EXECUTE format('INSERT INTO %I VALUES (1) ON CONFLICT (%I) DO NOTHING', t, k)`, true],
    [`EXECUTE 'INSERT INTO ' || quote_ident(TG_TABLE_NAME) || ' VALUES (' || quote_literal(a) || ')'`, true],
    [`EXECUTE 'SELECT 1 FROM ' || TG_RELID::regclass`, true],
    [`EXECUTE 'INSERT INTO log VALUES (1)'; EXECUTE 'DELETE FROM log'`, false],
  ])('%s', (statement, usesAnyRelation) => {
    const found = visible(statement);
    expect([found.isJudged, found.usesAnyRelation]).toEqual([true, usesAnyRelation]);
  });

  it('whose words are found, also where they were put together', () => {
    expect(visible(`EXECUTE 'SELECT set_' || 'config(''a.b'', ''c'', false)'`).text).toContain('set_config(');
    expect(visible(`EXECUTE 'SELECT f''' || 'x'''`).text).not.toContain('set_config');
  });
});

describe('may do anything', () => {
  it.each([
    'EXECUTE text',
    'EXECUTE NEW.text',
    `EXECUTE 'SELECT ' || text`,
    `EXECUTE text || 'SELECT 1'`,
    `EXECUTE 'SET x.y = 1'`,
    `EXECUTE 'SELECT 1; SET x.y = 1'`,
    `EXECUTE 'CREATE TABLE x ()'`,
    `EXECUTE 'SELECT 1 AS a INTO x'`,
    `EXECUTE E'SELECT 1'`,
    `EXECUTE U&'SELECT 1'`,
    `EXECUTE 'SELECT 1'::text || x`,
    `EXECUTE 'not a statement'`,
    // Any text, and names that may be those of functions.
    `EXECUTE format('SELECT %s', a)`,
    `EXECUTE format('INSERT INTO %s VALUES (1)', a || b::regclass)`,
    `EXECUTE format('INSERT INTO %s VALUES (1)', b::regclass || a)`,
    `EXECUTE format('INSERT INTO %2$s VALUES (1)', b::regclass, a)`,
    `EXECUTE format('SELECT %I(1)', a)`,
    `EXECUTE format('SELECT %I.f(1)', a)`,
    `EXECUTE format('SELECT ($1).%I', a) USING NEW`,
    `EXECUTE format('SELECT t.%I FROM t', a)`,
    `EXECUTE format('SELECT 1::%I', a)`,
    `EXECUTE format('SELECT 1 OPERATOR(%I.+) 2', a)`,
    `EXECUTE format('SELECT %-10I FROM t', a)`,
    `EXECUTE format(a, b)`,
    `EXECUTE format('SELECT ' || a, b)`,
    // Where a name or a value is read with what is beside it.
    `EXECUTE format('INSERT INTO log_%I VALUES (1)', a)`,
    `EXECUTE format('INSERT INTO %Ilog VALUES (1)', a)`,
    `EXECUTE format('INSERT INTO %I%I VALUES (1)', a, b)`,
    `EXECUTE format('INSERT INTO "%I" VALUES (1)', a)`,
    `EXECUTE format('SELECT '' %I ''', a)`,
    `EXECUTE format('SELECT '' %L ''', a)`,
    `EXECUTE format('SELECT ''%L''', a)`,
    `EXECUTE format('SELECT 1 -- %L', a)`,
    `EXECUTE format('SELECT 1 /* %I */', a)`,
    // A backslash before the quote: where does the string end?
    `a := 'x\\'; EXECUTE 'SELECT 1'`,
  ])('%s', (statement) => {
    expect(visible(statement).isJudged).toBe(false);
  });

  it('what a function of the name format(), or quote_ident(), has made', () => {
    const statement = `EXECUTE format('INSERT INTO log VALUES (%L)', a)`;
    expect(visible(statement).isJudged).toBe(true);
    expect(visible(statement, ['format']).isJudged).toBe(false);
    expect(visible(statement.replace('format', 'pg_catalog.format'), ['format']).isJudged).toBe(true);
    expect(visible(`EXECUTE 'TABLE ' || quote_ident(a)`, ['quote_ident']).isJudged).toBe(false);
  });
});

it('leaves alone what is no EXECUTE of a statement', () => {
  for (const source of [
    body(`NEW.note := 'EXECUTE ''SELECT 1'''`),
    body(`-- EXECUTE 'SELECT 1'\n NULL`),
    body('PERFORM 1'),
  ])
    expect(visibleSource(source, new Set())).toEqual({ text: source, usesAnyRelation: false });
});
