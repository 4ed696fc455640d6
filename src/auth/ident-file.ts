/**
 * Reads pg_ident.conf's own format, and maps the name of a certificate to the roles that it may log in as.
 * A system name that begins with `/` is a regular expression (here: of JavaScript), and `\1` in the role is what its first group
 * has matched. Source: PostgreSQL documentation, "User Name Maps".
 */
import { fault, readTokens } from './hba-tokens.ts';

interface IdentLine {
  readonly systemName: string | RegExp;
  /** `all` and `+group` when they stand without quotes. */
  readonly role: { readonly kind: 'name' | 'all' | 'member'; readonly name: string };
}

export type IdentMaps = ReadonlyMap<string, readonly IdentLine[]>;

export function parseIdent(text: string, file: string): IdentMaps {
  const maps = new Map<string, IdentLine[]>();
  for (const { line, fields } of readTokens(text, file)) {
    const where = { file, line };
    const words = fields.map((field) => {
      if (field.length > 1) throw fault(where, 'a list stands where a single word is expected');
      return field[0]!;
    });
    const [map, system, role, ...more] = words;
    if (!map || !system || !role || more.length > 0)
      throw fault(where, 'a line has three words: the map, the name in the certificate, the role');
    if (map.text.startsWith('include')) throw fault(where, 'put all maps into one file');
    const lines = maps.get(map.text) ?? [];
    maps.set(map.text, lines);
    lines.push({ systemName: systemName(system.text, where), role: roleOf(role) });
  }
  return maps;
}

/** May whoever has a certificate of this name log in as this role? */
export function isMapped(
  maps: IdentMaps,
  map: string,
  request: { readonly systemName: string; readonly user: string; readonly groups: ReadonlySet<string> },
): boolean {
  const { user, groups } = request;
  return (maps.get(map) ?? []).some(({ systemName: wanted, role }) => {
    const match = typeof wanted === 'string' ? undefined : wanted.exec(request.systemName);
    if (typeof wanted === 'string' ? wanted !== request.systemName : !match) return false;
    if (role.kind === 'all') return true;
    if (role.kind === 'member') return role.name === user || groups.has(role.name);
    // Of a name that the expression matches in part, the rest is not looked at, as in PostgreSQL.
    return role.name.replace('\\1', () => match?.[1] ?? '\\1') === user;
  });
}

function systemName(text: string, where: { file: string; line: number }): string | RegExp {
  if (!text.startsWith('/')) return text;
  try {
    return new RegExp(text.slice(1), 'u');
  } catch {
    throw fault(where, `${text} is no regular expression`);
  }
}

function roleOf({ text, quoted }: { text: string; quoted: boolean }): IdentLine['role'] {
  if (!quoted && text === 'all') return { kind: 'all', name: '' };
  if (!quoted && text.startsWith('+')) return { kind: 'member', name: text.slice(1) };
  return { kind: 'name', name: text };
}
