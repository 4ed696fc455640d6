import { beforeAll, describe, expect, test } from 'vitest';
import { statementOf } from '../../test/support/example-map.ts';
import { loadParser } from '../sql/parser.ts';
import type { KeyScope } from './key-limits.ts';
import type { ScatterRead } from './scatter-read.ts';

beforeAll(loadParser);

function keysText(keys: KeyScope): string | undefined {
  if (!keys) return undefined;
  return 'limits' in keys ? `within ${keys.limits.length} limits` : `of ${keys.length} keys`;
}

function readOf(text: string): ScatterRead | undefined {
  const { placement } = statementOf(text);
  const scatter = placement.kind === 'scattered' ? placement.scatter : undefined;
  const several = placement.kind === 'keyed' ? placement.several : undefined;
  const read = scatter ?? several;
  return read?.kind === 'read' ? read : undefined;
}

/** `node rows`, `bucket`, `mesh`, `0A000`: the unit, and what is merged. */
function shapeOf(text: string): string {
  const { refusal, placement } = statementOf(text);
  if (refusal) return refusal.sqlState;
  const read = readOf(text);
  if (placement.kind === 'scattered' && placement.scatter.kind === 'mesh') return 'mesh';
  if (!read) return placement.kind;
  return [read.unit, read.merge?.kind, keysText(read.keys)].filter(Boolean).join(' ');
}

describe.each<[string, [string, string][]]>([
  [
    'rows',
    [
      ['SELECT * FROM events', 'node'],
      ['TABLE events', 'node'],
      ['SELECT id FROM events WHERE account_id IN (1, $1)', 'node of 2 keys'],
      ['SELECT id FROM events WHERE account_id = 1', 'keyed'],
      ['SELECT random(), now(), payload FROM events', 'node'],
      ['SELECT * FROM events FOR UPDATE', 'bucket'],
      ['SELECT * FROM events e JOIN accounts a USING (account_id)', 'bucket'],
      ['SELECT * FROM events e LEFT JOIN accounts a ON a.account_id = e.account_id', 'bucket'],
      [
        'SELECT * FROM events e, accounts a WHERE a.account_id = e.account_id AND e.account_id IN (1, 2)',
        'bucket of 2 keys',
      ],
      ['SELECT * FROM (SELECT id, payload FROM events) q', 'node'],
      ['SELECT * FROM (SELECT id FROM events) q, generate_series(1, 2) g', 'node'],
      ['WITH q AS (SELECT id FROM events) SELECT * FROM q', 'node'],
      ['SELECT (SELECT max(id) FROM events e WHERE e.account_id = a.account_id) FROM accounts a', 'bucket'],
      [
        'SELECT * FROM accounts a WHERE NOT EXISTS (SELECT FROM events e WHERE e.account_id = a.account_id)',
        'bucket',
      ],
      [
        'SELECT * FROM accounts a, LATERAL (SELECT id FROM events e WHERE e.account_id = a.account_id LIMIT 1) l',
        'bucket',
      ],
      ['SELECT account_id, array_agg(id) FROM events GROUP BY 1', 'bucket'],
      [
        'SELECT e.account_id, count(DISTINCT a.name) FROM events e JOIN accounts a USING (account_id) GROUP BY account_id',
        'bucket',
      ],
      ['SELECT rank() OVER (PARTITION BY account_id ORDER BY id) FROM events', 'bucket'],
    ],
  ],
  [
    'merged',
    [
      ['SELECT * FROM events ORDER BY id', 'node rows'],
      ['SELECT * FROM events LIMIT 3', 'node rows'],
      ['SELECT * FROM events OFFSET $1', 'node rows'],
      ['SELECT id FROM events ORDER BY random()', 'node rows'],
      ['SELECT DISTINCT id FROM events', 'node rows'],
      ['SELECT count(*) FROM events', 'node groups'],
      ['SELECT payload, sum(id) FROM events GROUP BY payload', 'node groups'],
      ['SELECT payload FROM events GROUP BY payload', 'node groups'],
      ['SELECT count(*) FROM events e JOIN accounts a USING (account_id)', 'bucket groups'],
      ['SELECT account_id, count(*) FROM events GROUP BY account_id ORDER BY 2 DESC LIMIT 3', 'bucket rows'],
      ['SELECT count(*) FROM events WHERE account_id IN (1, 2)', 'node groups of 2 keys'],
      ['SELECT count(*) FROM (SELECT id FROM events) q', 'node groups'],
    ],
  ],
  [
    'no way to find the parts',
    [
      ['SELECT * FROM events e, accounts a', 'mesh'],
      ['SELECT * FROM events e JOIN accounts a ON a.name = e.payload', 'mesh'],
      ['SELECT * FROM events e JOIN users u ON u.name = e.payload WHERE e.account_id = 5', 'mesh'],
      ['SELECT * FROM events e FULL JOIN accounts a USING (account_id)', 'mesh'],
      ['SELECT * FROM generate_series(1, 9) g LEFT JOIN events e ON e.account_id = g', 'mesh'],
      ['SELECT * FROM events WHERE id IN (SELECT id FROM users)', 'mesh'],
      ['SELECT * FROM events WHERE id = (SELECT max(id) FROM events)', 'mesh'],
      ['SELECT (SELECT count(*) FROM events)', 'mesh'],
      ['SELECT * FROM (SELECT id FROM events LIMIT 5) q', 'mesh'],
      ['SELECT * FROM (SELECT id FROM events ORDER BY id) q LIMIT 5', 'mesh'],
      ['SELECT * FROM (SELECT DISTINCT payload FROM events) q', 'mesh'],
      ['SELECT * FROM (SELECT payload, count(*) FROM events GROUP BY 1) q', 'mesh'],
      ['SELECT * FROM (SELECT row_number() OVER () FROM events) q', 'mesh'],
      ['SELECT * FROM (SELECT id FROM events UNION ALL SELECT id FROM users) q', 'mesh'],
      ['WITH q AS (SELECT id FROM events) SELECT * FROM q a JOIN q b USING (id)', 'mesh'],
      ['WITH q AS (SELECT id FROM events) SELECT 1', 'mesh'],
      ['WITH q AS (SELECT count(*) FROM events) SELECT * FROM q', 'mesh'],
      ['WITH RECURSIVE r AS (SELECT id FROM events UNION SELECT id FROM r) SELECT * FROM r', 'mesh'],
      ['WITH w AS (DELETE FROM users WHERE id = 1) SELECT * FROM events', '0A000'],
      ['SELECT id FROM events UNION SELECT id FROM users', 'mesh'],
      ['SELECT * FROM events, elsewhere', 'mesh'],
      ['SELECT * FROM events e, docs d WHERE d.slug = e.payload', 'mesh'],
    ],
  ],
  [
    'what would not come out right',
    [
      ['SELECT ctid FROM events', '0A000'],
      ['SELECT tableoid::regclass, e.* FROM events e', '0A000'],
      ['SELECT e FROM events e', 'mesh'],
      ['SELECT row_to_json(events) FROM events', 'mesh'],
      ['SELECT (events).id FROM events', 'mesh'],
      ['SELECT count(DISTINCT id) FROM events', 'mesh'],
      ['SELECT string_agg(payload, $1) FROM events', 'mesh'],
      ['SELECT array_agg(id ORDER BY id) FROM events', 'mesh'],
      ['SELECT stddev(id) FROM events', 'mesh'],
      ['SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY id) FROM events', 'mesh'],
      ['SELECT JSON_ARRAYAGG(id) FROM events', 'mesh'],
      ['SELECT id, count(*) FROM events GROUP BY payload', 'mesh'],
      ['SELECT count(*), (SELECT 1) FROM events', 'mesh'],
      ['SELECT (payload || id) || id, count(*) FROM events GROUP BY payload || id', 'mesh'],
      ['SELECT count(*) FROM events GROUP BY ROLLUP (payload)', 'mesh'],
      ['SELECT count(*) OVER () FROM events', 'mesh'],
      ['SELECT rank() OVER w FROM events WINDOW w AS (PARTITION BY account_id)', 'mesh'],
      ['SELECT DISTINCT ON (payload) id FROM events', 'mesh'],
      ['SELECT DISTINCT payload FROM events ORDER BY lower(payload)', 'mesh'],
      ['SELECT id FROM events ORDER BY id FETCH FIRST 3 ROWS WITH TIES', 'mesh'],
      ['SELECT id FROM events ORDER BY id USING <', 'mesh'],
      ['SELECT id FROM events LIMIT random() * 3', 'mesh'],
      ['SELECT id FROM events LIMIT (SELECT 3)', 'mesh'],
      ['SELECT id FROM events ORDER BY id FOR UPDATE', '0A000'],
      ['SELECT id FROM events LIMIT 1 FOR SHARE', '0A000'],
      ['SELECT count(*), random() FROM events', 'mesh'],
      ['SELECT payload, count(*) FROM events GROUP BY payload, random()', 'mesh'],
      ['SELECT mine(id) FROM events', 'mesh'],
      ['SELECT nextval($1), id FROM events', '0A000'],
      ['SELECT pg_backend_pid(), id FROM events', '0A000'],
      ['SELECT CURRENT_CATALOG, id FROM events', '0A000'],
      ['SELECT pg_advisory_lock(id) FROM events', '0A000'],
      ["SELECT set_config('a.b', payload, false) FROM events", '0A000'],
      ['SELECT * FROM events TABLESAMPLE system (10)', '0A000'],
      ['SELECT id INTO other FROM events', '0A000'],
      ['DECLARE c CURSOR FOR SELECT * FROM events', 'mesh'],
    ],
  ],
])('%s', (_, cases) => {
  test.each(cases)('%s → %s', (text, shape) => {
    expect(shapeOf(text)).toBe(shape);
  });
});

test('every refusal says what else to do', () => {
  for (const text of [
    'SELECT ctid FROM events',
    'SELECT pg_backend_pid(), id FROM events',
    'SELECT * FROM events e, accounts a FOR UPDATE',
  ])
    expect(statementOf(text).refusal?.hint).toBeTruthy();
});

test('keys in one bucket are one statement still, however they are merged otherwise', () => {
  const { placement } = statementOf('SELECT string_agg(payload, $1) FROM events WHERE account_id IN (1, 2)');
  expect(placement).toMatchObject({ kind: 'keyed', several: { kind: 'mesh' } });
});

test('with pg_catalog behind other schemas, names of functions may mean others', () => {
  const scatterOf = (path: readonly string[]) => {
    const { placement } = statementOf('SELECT count(*) FROM public.events', path);
    return placement.kind === 'scattered' ? placement.scatter.kind : placement.kind;
  };
  expect(scatterOf(['public', 'pg_catalog'])).toBe('mesh');
  expect(scatterOf(['pg_catalog', 'public'])).toBe('read');
});
