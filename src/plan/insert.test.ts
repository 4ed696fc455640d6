import { beforeAll, describe, expect, test } from 'vitest';
import { rewrittenOf, routeOf, statementOf } from '../../test/support/example-map.ts';
import { loadParser } from '../sql/parser.ts';

beforeAll(loadParser);

test.each<[string, string]>([
  ['INSERT INTO accounts VALUES (5)', '5'],
  ['INSERT INTO accounts VALUES (5), ($1), (NULL)', '5 $1 NULL'],
  ["INSERT INTO accounts (name, account_id) VALUES ('x', $1::int8)", '$1::int8'],
  ['INSERT INTO accounts (account_id) (VALUES (5))', '5'],
  ['INSERT INTO users (name) VALUES (1)', 'id0'],
  ['INSERT INTO users DEFAULT VALUES', 'id0'],
  ['INSERT INTO accounts DEFAULT VALUES', '0A000'],
  ['INSERT INTO accounts (name) VALUES (1)', '0A000'],
  ['INSERT INTO accounts VALUES (DEFAULT)', '0A000'],
  ['INSERT INTO accounts VALUES (1 + 1)', '0A000'],
  ['INSERT INTO accounts VALUES (7.5)', '0A000'],
  ['INSERT INTO accounts VALUES ((SELECT 1))', '0A000'],
  ['INSERT INTO accounts (account_id[1]) VALUES (1)', '0A000'],
  ['INSERT INTO accounts (name, account_id) VALUES (1)', '42601'],
  ['INSERT INTO accounts SELECT 1', '1'],
  ['INSERT INTO accounts VALUES (1) LIMIT 1', 'scattered'],
  ['INSERT INTO accounts WITH x AS (SELECT 1) VALUES (1)', 'scattered'],
  ['INSERT INTO accounts TABLE events', 'scattered'],
  ['INSERT INTO ONLY_HOME VALUES (1)', 'home'],
  ['INSERT INTO docs VALUES (7)', '7'],
  ['INSERT INTO docs VALUES (7.5)', '0A000'],
  ['INSERT INTO amounts VALUES (7.5)', '7.5'],
  ['INSERT INTO accounts VALUES (5) ON CONFLICT DO NOTHING', '5'],
  ['INSERT INTO accounts VALUES (5) ON CONFLICT (account_id) DO UPDATE SET name = excluded.name', '5'],
  ['INSERT INTO accounts VALUES (5) ON CONFLICT (account_id) DO UPDATE SET account_id = 6', '0A000'],
  [
    'INSERT INTO accounts VALUES (5) ON CONFLICT (account_id) DO UPDATE SET name = (SELECT max(id) FROM events e WHERE e.account_id = accounts.account_id)',
    '5',
  ],
  [
    'INSERT INTO accounts VALUES (5) ON CONFLICT (account_id) DO UPDATE SET name = (SELECT max(id) FROM events)',
    '0A000',
  ],
  ['INSERT INTO accounts VALUES (5, (SELECT max(x) FROM notes))', '0A000'],
  ['INSERT INTO accounts VALUES (5) RETURNING (SELECT count(*) FROM events WHERE account_id = 5)', '5 5'],
])('%s → %s', (text, expected) => {
  expect(routeOf(text)).toBe(expected);
});

describe('the text for a bucket', () => {
  test.each<[string, string]>([
    ['INSERT INTO accounts VALUES (5)', 'INSERT INTO <accounts> AS "accounts" VALUES (5)'],
    ['INSERT INTO accounts AS a VALUES (5)', 'INSERT INTO <accounts> AS a VALUES (5)'],
    [
      'INSERT INTO public.accounts VALUES (5) RETURNING public.accounts.name',
      'INSERT INTO <accounts> AS "accounts" VALUES (5) RETURNING accounts.name',
    ],
    [
      'INSERT INTO users (name) VALUES (1)',
      'INSERT INTO <users> AS "users" (name, "id", "serial") VALUES (1, 100, 101)',
    ],
    [
      "INSERT INTO users(name)VALUES('a)'),($$(,$$) , (f(1, (2))) -- )\n RETURNING *",
      'INSERT INTO <users> AS "users"(name, "id", "serial")VALUES(\'a)\', 100, 101),($$(,$$, 102, 103) , (f(1, (2)), 104, 105) -- )\n RETURNING *',
    ],
    [
      "INSERT INTO users VALUES (DEFAULT, 'é'), (7, 'b')",
      'INSERT INTO <users> AS "users" ("id", "name", "serial") VALUES (100, \'é\', 101), (7, \'b\', 102)',
    ],
    ['INSERT INTO users VALUES (1, 2, default)', 'INSERT INTO <users> AS "users" VALUES (1, 2, 100)'],
    [
      'INSERT INTO users AS u OVERRIDING SYSTEM VALUE VALUES (1, 2)',
      'INSERT INTO <users> AS u ("id", "name", "serial") OVERRIDING SYSTEM VALUE VALUES (1, 2, 100)',
    ],
    [
      'INSERT INTO users (name) OVERRIDING USER VALUE ((VALUES (1)))',
      'INSERT INTO <users> AS "users" (name, "id", "serial") OVERRIDING USER VALUE ((VALUES (1, 100, 101)))',
    ],
    [
      'INSERT INTO users /* c */ DEFAULT  VALUES RETURNING id',
      'INSERT INTO <users> AS "users" /* c */ ("id", "serial") VALUES (100, 101) RETURNING id',
    ],
    [
      'INSERT INTO events (account_id, payload) VALUES (5, $1) ON CONFLICT ON CONSTRAINT "events_Pkey" DO NOTHING',
      'INSERT INTO <events> AS "events" (account_id, payload, "id") VALUES (5, $1, 100) ON CONFLICT ON CONSTRAINT "events_Pkey_b3_g7" DO NOTHING',
    ],
    [
      'WITH x AS (INSERT INTO events (account_id) VALUES (5) RETURNING *), y AS (INSERT INTO events (account_id) VALUES (5)) SELECT * FROM x',
      'WITH x AS (INSERT INTO <events> AS "events" (account_id, "id") VALUES (5, 100) RETURNING *), y AS (INSERT INTO <events> AS "events" (account_id, "id") VALUES (5, 101)) SELECT * FROM x',
    ],
  ])('%s', (text, expected) => {
    expect(rewrittenOf(text)).toBe(expected);
  });

  test('ids as parameters follow the ones of the text', () => {
    expect(rewrittenOf('INSERT INTO users (name) VALUES ($1), ($3)', 'parameter')).toBe(
      'INSERT INTO <users> AS "users" (name, "id", "serial") VALUES ($1, $4, $5), ($3, $6, $7)',
    );
  });
});

test('one id for each row and sequence that leaves it out', () => {
  const { placement } = statementOf('INSERT INTO users VALUES (DEFAULT, 1, 2), (7, 1, DEFAULT)');
  expect(placement).toMatchObject({
    keys: [
      { kind: 'suppliedId', idIndex: 0 },
      { kind: 'literal', text: '7' },
    ],
    suppliedIds: [{ column: 'id' }, { column: 'serial' }],
  });
});
