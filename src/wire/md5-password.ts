/**
 * Passwords as PostgreSQL stored them before SCRAM, for servers and users' files that still do: `md5` and the digest of password
 * and role name. Whoever has the digest can log in where it is asked for: it is as good as the password there.
 * Source: PostgreSQL documentation, "Message Flow", AuthenticationMD5Password.
 */
import { createHash } from 'node:crypto';

const STORED = /^md5[0-9a-f]{32}$/;

export function isMd5Hash(text: string): boolean {
  return STORED.test(text);
}

/** What is stored of a password. */
export function md5Hash(user: string, password: string): string {
  return `md5${createHash('md5').update(password).update(user).digest('hex')}`;
}

/** The answer to AuthenticationMD5Password by what is stored. */
export function md5Response(hash: string, salt: Buffer): string {
  return `md5${createHash('md5').update(hash.slice(3)).update(salt).digest('hex')}`;
}
