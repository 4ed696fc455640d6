import { beforeAll, describe, expect, it } from 'vitest';
import { loadParser, parseSql } from '../sql/parser.ts';
import { roleChangesOf } from './role-passwords.ts';

beforeAll(loadParser);

/** The text with each password replaced. */
function replaced(text: string): string | undefined {
  const parsed = parseSql(text);
  if (parsed.kind !== 'parsed') throw new Error(parsed.kind);
  const sql = Buffer.from(text);
  const changes = roleChangesOf(parsed.statements, sql);
  if (!changes) return undefined;
  let [whole, at] = ['', 0];
  for (const { start, end, password, role } of changes.passwords) {
    whole += `${sql.toString('utf8', at, start)}<${role ?? ''}:${password}> `;
    at = end;
  }
  return whole + sql.toString('utf8', at);
}

describe('passwords of roles in a text', () => {
  it.each<[string, string | undefined]>([
    ['SELECT 1', undefined],
    ["SELECT 'ALTER ROLE a PASSWORD ''x'''", undefined],
    ["CREATE ROLE a PASSWORD 'x'", 'CREATE ROLE a PASSWORD <a:x> '],
    ["CREATE USER \"é A\" WITH PASSWORD 'é''x' LOGIN;", 'CREATE USER "é A" WITH PASSWORD <é A:é\'x> LOGIN;'],
    ["ALTER ROLE a ENCRYPTED PASSWORD 'x'", 'ALTER ROLE a ENCRYPTED PASSWORD <a:x> '],
    ["ALTER USER CURRENT_USER PASSWORD 'x'", 'ALTER USER CURRENT_USER PASSWORD <:x> '],
    [
      "ALTER ROLE a PASSWORD /* 'y' */ 'x' VALID UNTIL 'infinity'",
      "ALTER ROLE a PASSWORD /* 'y' */ <a:x> VALID UNTIL 'infinity'",
    ],
    ["ALTER ROLE a PASSWORD E'x\\'y'", "ALTER ROLE a PASSWORD <a:x'y> "],
    ['ALTER ROLE a PASSWORD $p$x$p$ NOLOGIN', 'ALTER ROLE a PASSWORD <a:x> NOLOGIN'],
    ["ALTER ROLE a PASSWORD U&'!0078' UESCAPE '!' LOGIN", 'ALTER ROLE a PASSWORD <a:x> LOGIN'],
    ["ALTER ROLE a PASSWORD 'x'\n  'y' LOGIN", 'ALTER ROLE a PASSWORD <a:xy> LOGIN'],
    ["CREATE ROLE a IN ROLE b PASSWORD 'x' ROLE c", 'CREATE ROLE a IN ROLE b PASSWORD <a:x> ROLE c'],
    ['ALTER ROLE a PASSWORD NULL', 'ALTER ROLE a PASSWORD NULL'],
    ["ALTER ROLE a PASSWORD ''", "ALTER ROLE a PASSWORD ''"],
    ['ALTER ROLE a NOLOGIN', 'ALTER ROLE a NOLOGIN'],
    ['ALTER ROLE a RENAME TO b', 'ALTER ROLE a RENAME TO b'],
    [
      "SELECT 'é'; CREATE ROLE a PASSWORD 'x'; ALTER ROLE b PASSWORD 'y'; DROP ROLE c",
      "SELECT 'é'; CREATE ROLE a PASSWORD <a:x> ; ALTER ROLE b PASSWORD <b:y> ; DROP ROLE c",
    ],
  ])('%s', (text, expected) => expect(replaced(text)).toBe(expected));
});
