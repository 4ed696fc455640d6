/** Who is listed in the configuration, and what is known of their passwords. All of it is secret but the names. */
import type { Credential } from '../backend/credential.ts';
import { isMd5Hash } from '../wire/md5-password.ts';
import { parseScramVerifier, type ScramVerifier } from '../wire/scram.ts';

/** A password in one of the forms in which pg_authid, PgBouncer and the configuration hold it. */
export type StoredSecret =
  | { readonly kind: 'password'; readonly password: string }
  | { readonly kind: 'scram'; readonly verifier: ScramVerifier }
  | { readonly kind: 'md5'; readonly hash: string };

export interface UserEntry {
  readonly name: string;
  /** undefined, and no `secrets`: trusted without a password, and a node has to trust the router as well. */
  readonly password: string | undefined;
  /** In place of `password`: each of them is right; the router uses the first at the nodes. */
  readonly secrets?: readonly StoredSecret[] | undefined;
}

/** A text that looks like a verifier and is none is an error (22023), not a password. */
export function parseStoredSecret(text: string): StoredSecret {
  if (text.startsWith('SCRAM-SHA-256$')) return { kind: 'scram', verifier: parseScramVerifier(text) };
  return isMd5Hash(text) ? { kind: 'md5', hash: text } : { kind: 'password', password: text };
}

export function isTrusted(entry: UserEntry): boolean {
  return entry.password === undefined && entry.secrets === undefined;
}

/** None: whoever is asked for a password fails. */
export function secretsOf(entry: UserEntry): readonly StoredSecret[] {
  if (entry.secrets) return entry.secrets;
  return entry.password === undefined ? [] : [{ kind: 'password', password: entry.password }];
}

/** What it is good for at the nodes; undefined: a verifier checks proofs and makes none. */
export function credentialOfSecret(secret: StoredSecret): Credential | undefined {
  switch (secret.kind) {
    case 'password':
      return { kind: 'password', password: secret.password };
    case 'md5':
      return { kind: 'md5Hash', hash: secret.hash };
    case 'scram':
      return undefined;
  }
}
