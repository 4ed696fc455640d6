import { describe, expect, test } from 'vitest';
import { contradiction, parseTableName } from './coalesce-tables.ts';

describe('names of tables on the command line', () => {
  test.each([
    ['t', { schema: undefined, name: 't' }],
    ['Public.Events', { schema: 'public', name: 'events' }],
    ['"Public"."odd ""na.me"""', { schema: 'Public', name: 'odd "na.me"' }],
    ['_x$1.é', { schema: '_x$1', name: 'é' }],
  ])('%s', (text, expected) => {
    expect(parseTableName(text)).toEqual(expected);
  });

  test.each(['', '.', 'a.', '.a', 'a.b.c', '"a', '""', 'a b', '1a', 'a;b', 'a,b', "a'b", 'a."b" '])(
    '%j is none',
    (text) => {
      expect(parseTableName(text)).toBeUndefined();
    },
  );

  test('a table that is given both ways', () => {
    const on = { schema: undefined, name: 'A b', merges: true };
    expect(contradiction([on, { ...on, schema: 's', merges: false }, on])).toBeUndefined();
    expect(contradiction([on, { ...on, merges: false }])).toBe('"A b"');
  });
});
