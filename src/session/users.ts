/** Who may log in, and with which password the router logs in for them at the nodes. Secrets stay in here. */
import { randomBytes } from 'node:crypto';
import { makeScramVerifier, type ScramVerifier } from '../wire/scram.ts';

export interface UserEntry {
  readonly name: string;
  /** undefined: trusted without a password, and a node has to trust the router as well. */
  readonly password: string | undefined;
}

export class Users {
  readonly #passwords: ReadonlyMap<string, string | undefined>;
  readonly #verifiers = new Map<string, Promise<ScramVerifier>>();

  constructor(entries: readonly UserEntry[]) {
    this.#passwords = new Map(entries.map((entry) => [entry.name, entry.password]));
  }

  /** A user that is not listed has to go through the motions of a password, and fails. */
  trusts(name: string): boolean {
    return this.#passwords.has(name) && this.#passwords.get(name) === undefined;
  }

  /** undefined: no such user. */
  verifier(name: string): Promise<ScramVerifier | undefined> {
    const password = this.#passwords.get(name);
    if (password === undefined) return Promise.resolve(undefined);
    let verifier = this.#verifiers.get(name);
    if (!verifier) {
      verifier = makeScramVerifier({ password, salt: randomBytes(16) });
      this.#verifiers.set(name, verifier);
    }
    return verifier;
  }

  passwordOf(name: string): string | undefined {
    return this.#passwords.get(name);
  }
}
