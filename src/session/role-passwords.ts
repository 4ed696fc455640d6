/**
 * CREATE ROLE and ALTER ROLE … PASSWORD '…': hashed here, once, so that all nodes store the same and the password itself reaches no
 * server, no log and no count. As PostgreSQL would have it: by password_encryption and scram_iterations as they are for the session.
 */
import { randomBytes } from 'node:crypto';
import { BOUNDS } from '../base/bounds.ts';
import { notSupported } from '../base/errors.ts';
import { quoteLiteral } from '../pg/identifier.ts';
import type { QueryPlan } from '../plan/plan.ts';
import type { RolePassword } from '../plan/role-passwords.ts';
import { isMd5Hash, md5Hash } from '../wire/md5-password.ts';
import { formatScramVerifier, makeScramVerifier, parseScramVerifier } from '../wire/scram.ts';
import type { Conversation } from './conversation.ts';

const SALT_BYTES = 16;
/** One at a time in a process: logins and new connections need the threads as well. */
let line: Promise<unknown> = Promise.resolve();
const SETTINGS = `SELECT pg_catalog.current_setting('password_encryption'), pg_catalog.current_setting('scram_iterations', true)`;

/** The text to go on with, in place of the plan's; undefined: as it is. */
export function hashPasswords(
  conversation: Conversation,
  { text, roles }: QueryPlan,
): Promise<string> | undefined {
  if (!roles) return undefined;
  const { context } = conversation.state;
  context.rolesChange?.();
  // Without nodes to agree, the one server hashes: it may want to look at the password first (passwordcheck).
  if (!context.ddl) return undefined;
  const plain = roles.passwords.filter(({ password }) => !isHashed(password));
  return plain.length === 0 ? undefined : withHashes(conversation, text, plain);
}

async function withHashes(
  conversation: Conversation,
  text: string,
  passwords: readonly RolePassword[],
): Promise<string> {
  const [[encryption, iterations] = []] = await conversation.askAnyNode(SETTINGS);
  const sql = Buffer.from(text);
  let hashed = '';
  let at = 0;
  for (const { start, end, password, role } of passwords) {
    const stored = await hash({ password, role, encryption, iterations: Number(iterations ?? 0) });
    hashed += `${sql.toString('utf8', at, start)}${quoteLiteral(stored)} `;
    at = end;
  }
  return hashed + sql.toString('utf8', at);
}

async function hash(of: {
  readonly password: string;
  readonly role: string | undefined;
  readonly encryption: string | null | undefined;
  /** 0: a server before 16, which has no such setting. */
  readonly iterations: number;
}): Promise<string> {
  const { password, role, encryption, iterations } = of;
  if (encryption === 'md5') {
    if (role !== undefined) return md5Hash(role, password);
    throw notSupported(
      'an md5 password of a role that is not named',
      "Name the role in place of CURRENT_USER, or SET password_encryption = 'scram-sha-256'.",
    );
  }
  if (iterations > BOUNDS.scramIterationsMax)
    throw notSupported(
      `scram_iterations above ${BOUNDS.scramIterationsMax} for a password that the router hashes`,
      'Hash it in the client, as \\password of psql does, or set scram_iterations lower.',
    );
  const salt = randomBytes(SALT_BYTES);
  const made = line.then(() => makeScramVerifier({ password, salt, ...(iterations > 0 && { iterations }) }));
  line = made.catch(() => {});
  return formatScramVerifier(await made);
}

/** By the client, as psql's \password does. What looks like it and isn't is a password for PostgreSQL. */
function isHashed(password: string): boolean {
  if (isMd5Hash(password)) return true;
  try {
    parseScramVerifier(password);
    return true;
  } catch {
    return false;
  }
}
