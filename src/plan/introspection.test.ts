import { beforeAll, describe, expect, test } from 'vitest';
import { EXAMPLE_MAP } from '../../test/support/example-map.ts';
import { loadParser } from '../sql/parser.ts';
import { planQuery } from './planner.ts';
import type { ShownCatalogs } from './resolve.ts';
import { rewriteQuery } from './rewrite.ts';

beforeAll(() => loadParser());

const SHOWN: ShownCatalogs = {
  relations: new Set(['pg_class', 'pg_attribute', 'pg_tables']),
  tables: new Map(
    ['pg_class', 'pg_attribute'].map((name) => [
      name,
      {
        shown: `SELECT shown ${name}`,
        shownWithSystemColumns: `SELECT tableoid, shown ${name}`,
        dumped: `SELECT ${name}`,
        dumpedWithSystemColumns: `SELECT tableoid, ${name}`,
      },
    ]),
  ),
  information: new Set(['tables', 'columns']),
  functions: new Set(['pg_table_size']),
};

function sent(text: string, searchPath = ['public']): string {
  const plan = planQuery(text, { map: EXAMPLE_MAP, searchPath, shown: SHOWN });
  expect(plan.statements.map(({ refusal }) => refusal)).toEqual(plan.statements.map(() => undefined));
  return rewriteQuery(plan, [], 'literal').text;
}

function same(text: string, searchPath?: string[]): void {
  expect(sent(text, searchPath)).toBe(text);
}

describe('a view takes the place of a catalog', () => {
  test('in FROM, however it is named', () => {
    expect(sent('SELECT relname FROM pg_catalog.pg_class c WHERE c.oid = 1')).toBe(
      'SELECT relname FROM postern_shown.pg_class c WHERE c.oid = 1',
    );
    expect(sent('select * from pg_class')).toBe('select * from postern_shown.pg_class AS pg_class');
    expect(sent('SELECT 1 FROM "pg_catalog" . "pg_class" AS x (a)')).toBe(
      'SELECT 1 FROM postern_shown.pg_class AS x (a)',
    );
    expect(sent('SELECT * FROM app.pg_catalog.pg_class')).toBe(
      'SELECT * FROM postern_shown.pg_class AS pg_class',
    );
    expect(sent('SELECT * FROM information_schema.columns')).toBe(
      'SELECT * FROM postern_shown.columns AS columns',
    );
    expect(sent('TABLE pg_tables')).toBe('TABLE postern_shown.pg_tables AS pg_tables');
  });

  test('in joins, subqueries, set operations, CTEs and what writes its rows elsewhere', () => {
    expect(
      sent(`WITH w AS (SELECT 1 FROM pg_class) SELECT 'é', (SELECT 1 FROM pg_tables t)
        FROM (pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid), LATERAL (SELECT FROM pg_tables) l
        UNION SELECT FROM information_schema.tables x`),
    ).toBe(`WITH w AS (SELECT 1 FROM postern_shown.pg_class AS pg_class) SELECT 'é', (SELECT 1 FROM postern_shown.pg_tables t)
        FROM (postern_shown.pg_class c LEFT JOIN postern_shown.pg_attribute a ON a.attrelid = c.oid), LATERAL (SELECT FROM postern_shown.pg_tables AS pg_tables) l
        UNION SELECT FROM postern_shown.tables x`);
    expect(sent('INSERT INTO plain SELECT relname FROM pg_class c')).toContain('postern_shown.pg_class c');
    expect(sent('CREATE TABLE t AS SELECT relname FROM pg_class c')).toContain('postern_shown.pg_class c');
    expect(sent('DELETE FROM plain USING pg_class c WHERE true')).toContain('USING postern_shown.pg_class c');
    expect(sent('DECLARE x CURSOR FOR SELECT FROM pg_class c')).toContain('postern_shown.pg_class c');
    expect(sent('COPY (SELECT oid FROM pg_class c) TO STDOUT')).toContain('postern_shown.pg_class c');
  });

  test('with the schema of a column reference', () => {
    expect(sent('SELECT pg_catalog.pg_class.oid FROM pg_catalog.pg_class')).toBe(
      'SELECT pg_class.oid FROM postern_shown.pg_class AS pg_class',
    );
  });

  test('that has the system columns where they are named', () => {
    expect(sent('SELECT c.tableoid, a.attname FROM pg_class c, pg_attribute a')).toBe(
      'SELECT c.tableoid, a.attname FROM postern_shown.pg_class_with_tableoid c, postern_shown.pg_attribute_with_tableoid a',
    );
  });

  test('and a function of one', () => {
    expect(
      sent(
        "SELECT pg_table_size('a'), pg_catalog.pg_table_size(c.oid), other.pg_table_size(1) FROM pg_class c",
      ),
    ).toBe(
      "SELECT postern_shown.pg_table_size('a'), postern_shown.pg_table_size(c.oid), other.pg_table_size(1) FROM postern_shown.pg_class c",
    );
  });
});

test('with an empty search_path, as pg_dump has it, the query itself is put in', () => {
  expect(sent('SELECT oid FROM pg_class', [])).toBe('SELECT oid FROM (SELECT pg_class) AS pg_class');
  expect(sent('SELECT tableoid FROM pg_catalog.pg_class c', [])).toBe(
    'SELECT tableoid FROM (SELECT tableoid, pg_class) c',
  );
  expect(sent('SELECT oid FROM pg_class c WHERE oid OPERATOR(pg_catalog.=) 1')).toBe(
    'SELECT oid FROM (SELECT shown pg_class) c WHERE oid OPERATOR(pg_catalog.=) 1',
  );
});

describe('left as it is', () => {
  test('what means something else', () => {
    same('WITH pg_class AS (SELECT 1) SELECT * FROM pg_class');
    same('SELECT * FROM public.pg_class');
    same('SELECT * FROM columns');
    same('SELECT * FROM columns', ['public', 'information_schema']);
    expect(sent('SELECT * FROM columns', ['pg_catalog', 'information_schema'])).toContain(
      'postern_shown.columns',
    );
    same("SELECT 'pg_class'::regclass, pg_class FROM plain");
  });

  test('what is written to, locked, or kept as a definition', () => {
    same('UPDATE pg_class SET relname = relname');
    same('INSERT INTO pg_class SELECT');
    same('CREATE VIEW v AS SELECT * FROM pg_class');
    same('CREATE MATERIALIZED VIEW v AS SELECT * FROM pg_class');
    same('SELECT * FROM pg_class FOR UPDATE');
    same('LOCK TABLE pg_class');
    same('GRANT SELECT ON pg_class TO app');
  });

  test('what no view could be', () => {
    same('SELECT ctid FROM pg_class');
    same('SELECT * FROM ONLY pg_class');
    same('SELECT * FROM pg_class TABLESAMPLE system (1)');
  });

  test('without views', () => {
    const text = 'SELECT * FROM pg_class';
    const plan = planQuery(text, { map: EXAMPLE_MAP, searchPath: ['public'] });
    expect(rewriteQuery(plan, [], 'literal').text).toBe(text);
  });
});

test('positions of errors are those of the client’s text', () => {
  const text = 'SELECT nothing FROM pg_class c WHERE wrong';
  const plan = planQuery(text, { map: EXAMPLE_MAP, searchPath: ['public'], shown: SHOWN });
  const rewritten = rewriteQuery(plan, [], 'literal');
  const at = rewritten.text.indexOf('wrong') + 1;
  expect(rewritten.mapPosition(at)).toBe(text.indexOf('wrong') + 1);
});

test('one node’s snapshot is not given away', () => {
  const refusalOf = (text: string) =>
    planQuery(text, { map: EXAMPLE_MAP, searchPath: [], shown: SHOWN }).statements[0]?.refusal?.sqlState;
  expect(refusalOf('SELECT pg_catalog.pg_export_snapshot()')).toBe('0A000');
  expect(refusalOf("SET TRANSACTION SNAPSHOT '1'")).toBe('0A000');
  expect(refusalOf('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ')).toBeUndefined();
});
