import { beforeAll, describe, expect, test } from 'vitest';
import { stepsOf } from '../../test/support/ddl-steps.ts';
import { planOf, routeOf } from '../../test/support/example-map.ts';
import { loadParser } from '../sql/parser.ts';

beforeAll(loadParser);

/** What is planned, with white space made one. */
function plannedText(text: string, path?: readonly string[]): string {
  return planOf(text, path).text.replaceAll(/\s+/g, ' ');
}

const NAMED = '( SELECT account_id, name FROM public.accounts WHERE (name IS NOT NULL))'.replace('( ', '(');

describe('views of sharded tables in statements', () => {
  test.each<[string, string]>([
    ['SELECT * FROM named', `SELECT * FROM ${NAMED} AS "named"`],
    [
      'SELECT public.named.name, é.name FROM public . named /* é */ JOIN named AS é ON true',
      `SELECT named.name, é.name FROM ${NAMED} AS "named" /* é */ JOIN ${NAMED} AS é ON true`,
    ],
    ['SELECT * FROM named * x (a, b) WHERE a = 1', `SELECT * FROM ${NAMED} x (a, b) WHERE a = 1`],
    ['TABLE named', `SELECT * FROM ${NAMED} AS "named"`],
    ['SELECT * FROM named2', `SELECT * FROM (SELECT named.account_id FROM ${NAMED} AS "named") AS "named2"`],
    [
      'SELECT 1; SELECT (SELECT count(*) FROM named); SELECT 2',
      `SELECT 1; SELECT (SELECT count(*) FROM ${NAMED} AS "named"); SELECT 2`,
    ],
    [
      'WITH named AS (SELECT * FROM named) SELECT * FROM named',
      `WITH named AS (SELECT * FROM ${NAMED} AS "named") SELECT * FROM named`,
    ],
    [
      'WITH x AS (SELECT 1), y AS (WITH named AS (SELECT 1) TABLE named) SELECT * FROM named',
      `WITH x AS (SELECT 1), y AS (WITH named AS (SELECT 1) TABLE named) SELECT * FROM ${NAMED} AS "named"`,
    ],
    ['INSERT INTO accounts SELECT * FROM named', `INSERT INTO accounts SELECT * FROM ${NAMED} AS "named"`],
    ['SELECT * FROM named FOR UPDATE OF named', `SELECT * FROM ${NAMED} AS "named" FOR UPDATE OF named`],
    ['COPY (SELECT * FROM named) TO STDOUT', `COPY (SELECT * FROM ${NAMED} AS "named") TO STDOUT`],
  ])('%s', (text, expected) => {
    expect(plannedText(text)).toBe(expected);
  });

  test.each([
    'WITH RECURSIVE named AS (SELECT * FROM named) SELECT * FROM named',
    'WITH a AS (SELECT 1), named AS (SELECT * FROM a) SELECT * FROM named',
    'SELECT * FROM other.named',
    'SELECT named.a FROM notes AS named',
    'GRANT SELECT ON named TO x',
    "COMMENT ON VIEW named IS 'x'",
    'SET search_path = app; SELECT * FROM named',
  ])('%s stays as it is', (text) => {
    expect(planOf(text).text).toBe(text);
  });

  test('a name means the view along the search_path', () => {
    expect(plannedText('SELECT * FROM first_named', ['public'])).toBe('SELECT * FROM first_named');
    expect(plannedText('SELECT * FROM first_named', ['public', 'app'])).toContain('(SELECT 1');
    expect(routeOf('SELECT * FROM app.first_named')).toBe('scattered');
  });

  test('it is planned as the tables', () => {
    expect(routeOf('SELECT name FROM named WHERE account_id = 5')).toBe('5');
    expect(
      routeOf('SELECT * FROM named2 n JOIN events e ON e.account_id = n.account_id WHERE n.account_id = $1'),
    ).toBe('$1');
    expect(routeOf('SELECT name FROM named')).toBe('scattered');
  });

  test.each([
    "INSERT INTO named VALUES (1, 'x')",
    'UPDATE public.named SET name = 1',
    'DELETE FROM named2',
    'WITH d AS (DELETE FROM named RETURNING *) SELECT * FROM d',
    'SELECT * FROM ONLY named',
    'SELECT * FROM U&"named"',
  ])('%s is refused', (text) => {
    expect(routeOf(text)).toBe('0A000');
  });
});

describe('their DDL', () => {
  const home = (text: string) => [`home: ${text}`, 'catalog: touch'];
  test.each([
    'CREATE VIEW v AS SELECT * FROM accounts',
    'CREATE VIEW v WITH (security_invoker) AS SELECT * FROM accounts',
    'CREATE OR REPLACE VIEW v (a) AS SELECT name FROM named',
    'CREATE OR REPLACE VIEW named AS SELECT 1',
    'DROP VIEW IF EXISTS v, named CASCADE',
    'ALTER VIEW public.named RENAME TO x',
    'ALTER VIEW named RENAME COLUMN name TO x',
    'ALTER TABLE named RENAME TO x',
    'ALTER VIEW named SET SCHEMA app',
    'ALTER VIEW named SET (security_invoker = true)',
    'DROP TABLE notes CASCADE',
  ])('%s', (text) => {
    expect(stepsOf(text)).toEqual(home(text));
  });

  test('row-level security asks for security_invoker', () => {
    const yes = [[['yes']]];
    expect(() => stepsOf('CREATE VIEW v AS SELECT * FROM accounts', yes)).toThrow('row-level security');
    expect(() => stepsOf('CREATE VIEW v WITH (security_invoker = off) AS TABLE accounts', yes)).toThrow();
    const text = 'CREATE VIEW v WITH (security_invoker = on) AS TABLE accounts';
    expect(stepsOf(text, yes)).toEqual(home(text));
  });

  test.each([
    ['CREATE VIEW v AS SELECT * FROM notes', 'home'],
    ['DROP VIEW v', 'home'],
    ['ALTER VIEW v RENAME TO x', 'home'],
    ['CREATE TEMP VIEW v AS SELECT * FROM accounts', '0A000'],
    ['CREATE VIEW app.accounts AS SELECT * FROM events', '0A000'],
    ['CREATE MATERIALIZED VIEW v AS SELECT * FROM accounts', '0A000'],
    ['CREATE MATERIALIZED VIEW v AS SELECT * FROM named', '0A000'],
  ])('%s → %s', (text, expected) => {
    expect(routeOf(text)).toBe(expected);
  });
});
