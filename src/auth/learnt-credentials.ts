/**
 * What clients have proved and the configuration does not hold: the keys of a SCRAM proof, a password that was sent in the clear,
 * the md5 hash of a role. The pools log in with it at the nodes.
 *
 * Invariant: nothing is kept of a role without clients. `hold` comes before anything is learnt, and its end forgets.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Credential } from '../backend/credential.ts';

interface Learnt {
  holds: number;
  credential: Credential | undefined;
}

export class LearntCredentials {
  readonly #byUser = new Map<string, Learnt>();

  /** A client of this role is there, until the function that it gives is called (once; more often does nothing). */
  hold(user: string): () => void {
    const known = this.#byUser.get(user);
    const learnt = known ?? { holds: 0, credential: undefined };
    if (!known) this.#byUser.set(user, learnt);
    learnt.holds++;
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      if (--learnt.holds === 0 && this.#byUser.get(user) === learnt) this.#byUser.delete(user);
    };
  }

  /** The latest proof counts: a password that has changed since is of no use at the nodes. Is it another one than before? */
  learn(user: string, credential: Credential): boolean {
    const learnt = this.#byUser.get(user);
    if (!learnt || isDeepStrictEqual(learnt.credential, credential)) return false;
    learnt.credential = credential;
    return true;
  }

  /** Of another role of this name. */
  forget(user: string): void {
    const learnt = this.#byUser.get(user);
    if (learnt) learnt.credential = undefined;
  }

  /** Those with clients. */
  get users(): readonly string[] {
    return [...this.#byUser.keys()];
  }

  of(user: string): Credential | undefined {
    return this.#byUser.get(user)?.credential;
  }
}

/** For a process that takes over the role's clients. It is as secret as the password. */
export function packCredential(credential: Credential): string {
  if (credential.kind !== 'scramKeys') return JSON.stringify(credential);
  const [clientKey, serverKey, salt] = [credential.clientKey, credential.serverKey, credential.salt].map(
    (key) => key.toString('base64'),
  );
  return JSON.stringify({ ...credential, clientKey, serverKey, salt });
}

/** Of packCredential alone. */
export function unpackCredential(text: string): Credential {
  const packed = JSON.parse(text);
  if (packed.kind !== 'scramKeys') return packed;
  const [clientKey, serverKey, salt] = [packed.clientKey, packed.serverKey, packed.salt].map((key) =>
    Buffer.from(key, 'base64'),
  ) as [Buffer, Buffer, Buffer];
  return { kind: 'scramKeys', clientKey, serverKey, salt, iterations: packed.iterations };
}
