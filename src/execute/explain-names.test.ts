/** Leaves' names in plans, told as the user's. */
import { describe, expect, it } from 'vitest';
import { EXAMPLE_MAP } from '../../test/support/example-map.ts';
import { LEAF_SCHEMA, leafName, type ShardedTable } from '../catalog/map.ts';
import { lineInUsersNames, planInUsersNames } from './explain-names.ts';

const events = EXAMPLE_MAP.tablesByName.get('events')![0]!;
const leaf = (table: ShardedTable, bucket: number, name = table.name) =>
  leafName(name, bucket, table.buckets[bucket]!.generation);

describe('a plan of leaves', () => {
  const one = { tables: [events], buckets: [1], together: false };
  const all = { tables: [events], buckets: [0, 1], together: true };
  const own = leaf(events, 1);

  it.each<[string, string]>([
    [`Seq Scan on ${own} events  (cost=0)`, 'Seq Scan on events  (cost=0)'],
    [`Seq Scan on ${own} e  (cost=0)`, 'Seq Scan on events e  (cost=0)'],
    [`Update on ${LEAF_SCHEMA}.${own} events`, `Update on ${events.schema}.events`],
    [
      `Index Scan using ${leaf(events, 1, 'events_pkey')} on ${own} events`,
      'Index Scan using events_pkey on events',
    ],
    [`Filter: (payload = '${leaf(events, 0)}'::text)`, `Filter: (payload = '${leaf(events, 0)}'::text)`],
    ['Hash Join', 'Hash Join'],
  ])('of one bucket: %s', (line, told) => expect(lineInUsersNames(line, one)).toBe(told));

  it('of several keeps their buckets apart', () => {
    expect(lineInUsersNames(`->  Seq Scan on ${own}`, all)).toBe('->  Seq Scan on events_b1');
    expect(lineInUsersNames(`Filter: (${leaf(events, 0)}.id = 5)`, all)).toBe('Filter: (events_b0.id = 5)');
  });

  it('in JSON is told in all values', () => {
    const plan = {
      'Relation Name': own,
      Schema: LEAF_SCHEMA,
      Alias: 'events',
      Plans: [{ 'Index Name': leaf(events, 1, 'events_pkey'), 'Plan Rows': 5, Output: ['events.id'] }],
    };
    expect(planInUsersNames(plan, one)).toEqual({
      'Relation Name': 'events',
      Schema: events.schema,
      Alias: 'events',
      Plans: [{ 'Index Name': 'events_pkey', 'Plan Rows': 5, Output: ['events.id'] }],
    });
  });
});
