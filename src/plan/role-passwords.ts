/**
 * Where a text gives roles passwords, as CREATE ROLE and ALTER ROLE … PASSWORD '…' do: each server would hash it with a salt of its own,
 * and who has proved a password to one could not log in at another. So the literal is replaced by what is to be stored, before
 * anything else becomes of the text (session/role-passwords.ts).
 */
import type { Node, RoleSpec } from '@pgsql/types';
import type { ParsedStatement } from '../sql/parser.ts';
import { keywordOf, nextToken, skipSpace } from '../sql/scanner.ts';

export interface RolePassword {
  /** Byte range in the text of the literal, and of what is between it and the next clause. */
  readonly start: number;
  readonly end: number;
  /** As it is given: in the clear, or hashed by the client. Never empty. */
  readonly password: string;
  /** undefined: the session's own, whichever that is (CURRENT_USER). */
  readonly role: string | undefined;
}

/** What a text does to roles. */
export interface RoleChanges {
  readonly passwords: readonly RolePassword[];
}

/** undefined: nothing. */
export function roleChangesOf(
  statements: readonly ParsedStatement[],
  sql: Uint8Array,
): RoleChanges | undefined {
  const changing = statements.filter(({ node }) => changesRoles(node));
  if (changing.length === 0) return undefined;
  return { passwords: changing.flatMap((statement) => passwordsOf(statement, sql)) };
}

function changesRoles(node: Node): boolean {
  return (
    'CreateRoleStmt' in node ||
    'AlterRoleStmt' in node ||
    'DropRoleStmt' in node ||
    'GrantRoleStmt' in node ||
    ('RenameStmt' in node && node.RenameStmt.renameType === 'OBJECT_ROLE')
  );
}

function passwordsOf({ node, end }: ParsedStatement, sql: Uint8Array): RolePassword[] {
  const stmt =
    'CreateRoleStmt' in node ? node.CreateRoleStmt : 'AlterRoleStmt' in node ? node.AlterRoleStmt : undefined;
  const options = (stmt?.options ?? []).flatMap((option) => ('DefElem' in option ? [option.DefElem] : []));
  return options.flatMap((option, i) => {
    const { arg } = option;
    const password = arg && 'String' in arg ? arg.String.sval : undefined;
    // NULL and the empty string take it away.
    if (option.defname !== 'password' || !password) return [];
    const start = literalStart(sql, option.location ?? 0);
    return [{ start, end: options[i + 1]?.location ?? end, password, role: roleName(stmt?.role) }];
  });
}

function roleName(role: string | RoleSpec | undefined): string | undefined {
  return typeof role === 'string' ? role : role?.rolename;
}

/** Behind [ENCRYPTED] PASSWORD. */
function literalStart(sql: Uint8Array, location: number): number {
  let token = nextToken(sql, location);
  if (keywordOf(sql, token) === 'encrypted') token = nextToken(sql, token.end);
  return skipSpace(sql, token.end);
}
