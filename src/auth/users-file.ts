/**
 * Reads PgBouncer's users' file: `"name" "password"` on each line, where the password may be a SCRAM-SHA-256 verifier or an md5 hash
 * in its place. Several lines of one name are all right at once, while a password is changed; the first is used at the nodes.
 * Source: PgBouncer documentation, "Authentication file format".
 *
 * Invariant: no error holds any part of a password.
 */
import { fault } from './hba-tokens.ts';
import { parseStoredSecret, type StoredSecret, type UserEntry } from './user-entry.ts';

const LINE = /^\s*"((?:[^"]|"")+)"\s+"((?:[^"]|"")*)"\s*(.*)$/;

export function parseUsersFile(text: string, file: string): UserEntry[] {
  const secrets = new Map<string, StoredSecret[]>();
  for (const [at, line] of text.split(/\r?\n/).entries()) {
    const where = { file, line: at + 1 };
    if (/^\s*(?:[;#].*)?$/.test(line)) continue;
    const match = LINE.exec(line);
    if (!match) throw fault(where, 'a line is "name" "password", each in double quotes');
    const [name, secret] = [match[1]!, match[2]!].map((word) => word.replaceAll('""', '"')) as [
      string,
      string,
    ];
    // An empty one is nobody's: PgBouncer lists roles so that have no password.
    const ofName = secrets.get(name) ?? [];
    secrets.set(name, ofName);
    if (secret !== '') ofName.push(readSecret(secret, where));
    const misfit = misfitOf(ofName);
    if (misfit !== undefined) throw fault(where, misfit);
  }
  return [...secrets].map(([name, ofName]) => ({ name, password: undefined, secrets: ofName }));
}

function readSecret(text: string, where: { file: string; line: number }): StoredSecret {
  try {
    return parseStoredSecret(text);
  } catch {
    throw fault(where, 'it begins as a SCRAM-SHA-256 verifier does, and is none');
  }
}

/** Why not all of them can be right at once: a client is told one salt, and makes one proof. */
export function misfitOf(secrets: readonly StoredSecret[]): string | undefined {
  const verifiers = secrets.flatMap((secret) => (secret.kind === 'scram' ? [secret.verifier] : []));
  const [first] = verifiers;
  const fits = verifiers.every(
    ({ salt, iterations }) => iterations === first!.iterations && salt.equals(first!.salt),
  );
  if (!fits) return 'another verifier of this name has another salt: only one of them can be right at a time';
  if (secrets.length > 1 && secrets.some(({ kind }) => kind === 'md5'))
    return 'an md5 hash can only be the one secret of its name';
  return undefined;
}
