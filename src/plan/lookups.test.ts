import { beforeAll, describe, expect, test } from 'vitest';
import { exampleMapWith } from '../../test/support/example-map.ts';
import { lookupName } from '../catalog/map.ts';
import { loadParser } from '../sql/parser.ts';
import { planQuery } from './planner.ts';

beforeAll(loadParser);

const map = exampleMapWith('accounts', (table) => {
  const name = 'accounts_name_key';
  const kept = { ...table, id: -1, name: lookupName(name), keyColumn: 'name' };
  return { ...table, lookups: [{ id: 1, name, isConstraint: true, columns: ['name'], table: kept }] };
});
const planned = (text: string) => planQuery(text, { map, searchPath: ['public'] }).statements[0]!;

describe('writes that carry values over', () => {
  test.each([
    ["INSERT INTO accounts (account_id, name) VALUES (1, 'x')", true],
    ['UPDATE accounts SET plan = $1 WHERE account_id = $2', undefined],
    ['UPDATE accounts SET plan = $1, name = name WHERE account_id = $2', true],
    ['UPDATE accounts SET (plan, name) = ($1, $2) WHERE account_id = 3', true],
    [
      'WITH x AS (DELETE FROM accounts WHERE account_id = 3) UPDATE accounts SET plan = $1 WHERE account_id = 3',
      true,
    ],
    ['DELETE FROM accounts', true],
    ['WITH gone AS (DELETE FROM accounts WHERE account_id = 1 RETURNING *) SELECT * FROM gone', true],
    ['SELECT * FROM accounts WHERE account_id = 1', undefined],
    ["INSERT INTO users (name) VALUES ('x')", undefined],
  ])('%s', (text, keeps) => {
    expect(planned(text).refusal).toBeUndefined();
    expect(planned(text).keepsLookups).toBe(keeps);
  });

  test.each([
    ['(name)', '0A000'],
    ['', '0A000'],
    ['ON CONSTRAINT accounts_name_key', '0A000'],
    ['(account_id)', undefined],
  ])('ON CONFLICT %s', (target, sqlState) => {
    const text = `INSERT INTO accounts (account_id, name) VALUES (1, 'x') ON CONFLICT ${target} DO NOTHING`;
    expect(planned(text).refusal?.sqlState).toBe(sqlState);
  });
});

describe('CREATE TABLE', () => {
  const door = "WITH (postern.door = 'sharded', postern.key = 'id')";
  test.each([
    [
      'id int PRIMARY KEY, email text UNIQUE NOT NULL',
      'id int PRIMARY KEY, email text  NOT NULL',
      [['t_email_key', 'email']],
    ],
    ['id int, a text CONSTRAINT "My U" UNIQUE, b int', 'id int, a text , b int', [['My U', 'a']]],
    ['id int, a text, b int, UNIQUE (a, b)', 'id int, a text, b int', [['t_a_b_key', 'a', 'b']]],
    [
      'id int, CONSTRAINT u UNIQUE (a), a numeric(5, 2) CHECK (a IN (1, 2))',
      'id int, a numeric(5, 2) CHECK (a IN (1, 2))',
      [['u', 'a']],
    ],
    ['id int, a text, UNIQUE (a, id)', 'id int, a text, UNIQUE (a, id)', undefined],
    ['id int UNIQUE, a text', 'id int UNIQUE, a text', undefined],
  ])('%s', (elements, kept, uniques) => {
    const { command } = planned(`CREATE TABLE t (${elements}) ${door}`);
    expect(command).toMatchObject({ kind: 'createShardedTable' });
    const { createText, uniques: found } = command as {
      createText: string;
      uniques?: { name: string; columns: string[] }[];
    };
    expect(createText.replaceAll(/\s+/g, ' ').replaceAll(' ,', ',').replaceAll(/\( /g, '(')).toBe(
      `CREATE TABLE t (${kept})`.replaceAll(/\s+/g, ' ').replaceAll(' ,', ','),
    );
    expect(found?.map(({ name, columns }) => [name, ...columns])).toEqual(uniques);
  });

  test.each(['UNIQUE (a) DEFERRABLE', 'UNIQUE NULLS NOT DISTINCT (a)', 'UNIQUE (a) INCLUDE (b)'])(
    '%s is refused',
    (constraint) => {
      const { refusal } = planned(`CREATE TABLE t (id int, a text, b int, ${constraint}) ${door}`);
      expect(refusal?.sqlState).toBe('0A000');
    },
  );
});

describe('DDL of tables that are there', () => {
  test.each([
    ['ALTER TABLE users ADD UNIQUE (name)', 'addLookup'],
    ['CREATE UNIQUE INDEX u ON users (name)', 'addLookup'],
    ['ALTER TABLE accounts DROP CONSTRAINT accounts_name_key', 'dropLookup'],
  ])('%s', (text, kind) => {
    expect(planned(text).command?.kind).toBe(kind);
  });

  test.each([
    'DROP INDEX accounts_name_key',
    'ALTER INDEX accounts_name_key RENAME TO other',
    'ALTER TABLE accounts RENAME CONSTRAINT accounts_name_key TO other',
    'ALTER TABLE accounts DROP COLUMN name',
    'ALTER TABLE accounts RENAME name TO other',
    'ALTER TABLE accounts ALTER name TYPE varchar(3)',
    'CREATE UNIQUE INDEX CONCURRENTLY ON users (name)',
    'CREATE UNIQUE INDEX ON users (name) WHERE true',
    'CREATE UNIQUE INDEX ON users (lower(name))',
    'TRUNCATE users CASCADE',
  ])('%s is refused', (text) => {
    expect(planned(text).refusal?.sqlState).toBe('0A000');
  });
});
