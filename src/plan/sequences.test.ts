import { beforeAll, describe, expect, test } from 'vitest';
import { exampleMapWith } from '../../test/support/example-map.ts';
import type { PosternError } from '../base/errors.ts';
import { loadParser } from '../sql/parser.ts';
import { planQuery } from './planner.ts';
import { rewriteQuery } from './rewrite.ts';

beforeAll(loadParser);

const map = exampleMapWith('users', (table) => ({
  ...table,
  columns: table.columns.map((column) =>
    column.name === 'id'
      ? { ...column, identity: 'always', idSequence: { schema: 'public', name: 'users_id_seq', restarts: 0 } }
      : column,
  ),
}));
const planOf = (text: string) => planQuery(text, { map, searchPath: ['public'] });
const planned = (text: string) => planOf(text).statements[0]!;

describe('in VALUES of a sharded table', () => {
  test.each([
    ["nextval('users_id_seq')", 'nextval'],
    ["currval('public.users_id_seq'::regclass)", 'currval'],
    ['lastval()', 'lastval'],
    ["pg_catalog.nextval(pg_get_serial_sequence('users', 'id'))", 'nextval'],
  ])('%s is an id of the router', (value, call) => {
    const plan = planOf(`INSERT INTO accounts (account_id, name) VALUES (${value}, 'x' || ${value})`);
    const [statement] = plan.statements;
    expect(statement!.refusal).toBeUndefined();
    expect(statement!.placement).toMatchObject({
      kind: 'keyed',
      keys: [{ kind: 'suppliedId', idIndex: 0 }],
      suppliedIds: [{ call }, { call }],
    });
    const { text } = rewriteQuery(plan, [{ bucket: 0, ids: [7, 8] }], 'literal');
    expect(text).toContain(`VALUES (7, 'x' || 8)`);
  });

  test.each([
    "INSERT INTO accounts (account_id) VALUES (nextval('unknown'))",
    "INSERT INTO accounts (account_id) VALUES (setval('users_id_seq', 3))",
    "UPDATE accounts SET name = nextval('users_id_seq') WHERE account_id = 1",
    'SELECT lastval() FROM accounts WHERE account_id = 1',
    "INSERT INTO accounts (account_id, name) VALUES (1, (SELECT nextval('users_id_seq')))",
  ])('%s is refused', (text) => {
    expect(planned(text).refusal?.sqlState).toBe('0A000');
  });
});

describe('identity columns', () => {
  const refusalOf = (text: string): PosternError | undefined => planned(text).refusal;
  test.each([
    ["INSERT INTO users (id, name) VALUES (1, 'x')", '428C9'],
    ["INSERT INTO users (id, name) SELECT 1, 'x'", '428C9'],
    ["INSERT INTO users (id, name) VALUES (DEFAULT, 'x')", undefined],
    ["INSERT INTO users (id, name) OVERRIDING SYSTEM VALUE VALUES (1, 'x')", undefined],
    ['UPDATE users SET id = 3 WHERE id = 1', '428C9'],
    ['UPDATE users SET id = DEFAULT WHERE id = 1', '0A000'],
  ])('%s', (text, sqlState) => {
    expect(refusalOf(text)?.sqlState).toBe(sqlState);
  });

  test('OVERRIDING USER VALUE takes the router’s ids', () => {
    const plan = planOf(
      "INSERT INTO users (name, id) OVERRIDING USER VALUE VALUES ('x', (1 + 2) * 3), ('y', 5)",
    );
    expect(plan.statements[0]!.refusal).toBeUndefined();
    const { text } = rewriteQuery(plan, [{ bucket: 0, ids: [70, 71, 80, 81] }], 'literal');
    expect(text).toMatch(/VALUES \('x', 7\d, \d+\), \('y', [78]\d, \d+\)$/);
  });
});

describe('on the home node', () => {
  test.each([
    ["SELECT nextval('s')", { given: 1, advanced: 0, reads: 0 }],
    ["SELECT 1, nextval('s')::int FROM generate_series(1, 3)", { given: 1, advanced: 0, reads: 0 }],
    ["SELECT *, nextval('s') FROM notes", { given: 0, advanced: 1, reads: 0 }],
    ['SELECT nextval($1)', { given: 0, advanced: 1, reads: 0 }],
    ["SELECT currval('s'), lastval()", { given: 0, advanced: 0, reads: 2 }],
    ["INSERT INTO notes VALUES (currval('s'))", { given: 0, advanced: 0, reads: 1 }],
  ])('%s', (text, counts) => {
    const { given = [], advanced = [], reads = [] } = planned(text).sequences ?? {};
    expect({ given: given.length, advanced: advanced.length, reads: reads.length }).toEqual(counts);
  });

  test.each([
    ["SELECT setval('users_id_seq', 7)", 1],
    ['ALTER SEQUENCE users_id_seq RESTART', 1],
    ["SELECT setval('s', 7)", 0],
    ['ALTER SEQUENCE s RESTART', undefined],
  ])('%s', (text, set) => {
    expect(planned(text).sequences?.set.length).toBe(set);
  });
});
