import { beforeAll, describe, expect, test } from 'vitest';
import { statementOf } from '../../test/support/example-map.ts';
import { loadParser } from '../sql/parser.ts';

beforeAll(loadParser);

function placeOf(text: string): string {
  const { placement, refusal } = statementOf(text);
  if (refusal) return refusal.sqlState;
  if (placement.kind === 'keyed') return `keyed, or ${placement.several?.kind}`;
  return placement.kind === 'scattered' ? placement.scatter.kind : placement.kind;
}

describe('what goes to the mesh', () => {
  test.each([
    ['SELECT * FROM events e JOIN users u ON u.id = e.id', 'mesh'],
    ['SELECT * FROM events e, notes n WHERE e.account_id = 1 AND n.id = e.id', 'mesh'],
    ['SELECT * FROM accounts a, accounts b WHERE a.account_id = 1 AND b.account_id = $1', 'keyed, or mesh'],
    ['SELECT mine(id) FROM events e JOIN users USING (id)', 'mesh'],
    ['SELECT random(), clock_timestamp() FROM events e JOIN users USING (id)', 'mesh'],
    ['DECLARE c CURSOR FOR SELECT * FROM events', 'mesh'],
    ['DECLARE c SCROLL CURSOR FOR SELECT * FROM events e JOIN users USING (id)', 'mesh'],
  ])('%s → %s', (text, place) => {
    expect(placeOf(text)).toBe(place);
  });

  test.each([
    'SELECT * FROM events e JOIN users USING (id) FOR SHARE',
    'SELECT * FROM events e JOIN ONLY users USING (id)',
    'SELECT * FROM events e JOIN users USING (id) JOIN pg_class c ON c.oid = id',
    'SELECT * FROM events e JOIN users USING (id) JOIN information_schema.tables t ON true',
    'SELECT * FROM events e JOIN users USING (id) JOIN postern.nodes ON true',
    'SELECT e.xmin FROM events e JOIN users USING (id)',
    "SELECT 'users'::regclass FROM events e JOIN users USING (id)",
    "SELECT nextval('x') FROM events e JOIN users USING (id)",
    'SELECT current_catalog FROM events e JOIN users USING (id)',
    'SELECT pg_advisory_lock(1) FROM events e JOIN users USING (id)',
    "SELECT query_to_xml('SELECT 1', true, true, '') FROM events e JOIN users USING (id)",
    'SELECT * FROM events e TABLESAMPLE SYSTEM (1) JOIN users USING (id)',
    'WITH d AS (DELETE FROM notes RETURNING *) SELECT * FROM d, events e JOIN users USING (id)',
    'SELECT * INTO x FROM events e JOIN users USING (id)',
    'DECLARE c CURSOR WITH HOLD FOR SELECT * FROM events',
    'DECLARE c BINARY CURSOR FOR SELECT * FROM events',
    'DECLARE c CURSOR FOR SELECT * FROM events FOR UPDATE',
  ])('%s does not', (text) => {
    expect(placeOf(text)).toBe('0A000');
  });

  test('the functions that it calls are known by their names', () => {
    const { placement } = statementOf(
      'SELECT lower(u.name), s.count(*) FROM events e JOIN users u USING (id) GROUP BY 1',
    );
    expect(placement).toMatchObject({ scatter: { kind: 'mesh', functions: ['lower', 'count'] } });
  });
});
