import { describe, expect, it } from 'vitest';
import { isMapped, parseIdent } from './ident-file.ts';

const maps = parseIdent(
  String.raw`
# map  system-name             role
people "CN=Ann,O=Shop"         ann
people "/^CN=(\w+),O=Shop$"    \1_ro
people /^CN=admin              all
people robot                   +machines
people robot                   "all"
other  robot                   root
`,
  'pg_ident.conf',
);

describe('maps', () => {
  it.each([
    ['people', 'CN=Ann,O=Shop', 'ann', true],
    ['people', 'CN=Ann,O=Shop', 'Ann_ro', true],
    ['people', 'CN=Bob,O=Shop', 'Bob_ro', true],
    ['people', 'CN=Bob,O=Shop', 'Ann_ro', false],
    ['people', 'CN=Bob,O=Shop', '\\1_ro', false],
    ['people', 'CN=admin,O=Any', 'whoever', true],
    ['people', 'robot', 'r2', true],
    ['people', 'robot', 'machines', true],
    ['people', 'robot', 'all', true],
    ['people', 'robot', 'root', false],
    ['other', 'robot', 'root', true],
    ['absent', 'robot', 'root', false],
  ])('%s: %s as %s: %s', (map, systemName, user, expected) => {
    const groups = new Set(user === 'r2' ? ['machines'] : []);
    expect(isMapped(maps, map, { systemName, user, groups })).toBe(expected);
  });

  it.each([
    ['people ann', 'a line has three words'],
    ['people ann bob carl', 'a line has three words'],
    ['people ann,bob carl', 'a list stands where a single word is expected'],
    ['people /( carl', '/( is no regular expression'],
  ])('%s', (line, message) => {
    expect(() => parseIdent(line, 'pg_ident.conf')).toThrow(`pg_ident.conf, line 1: ${message}`);
  });
});
