/**
 * Checks of passwords that came in the clear: each costs a thread some milliseconds, or home a login, so that few go on at once and
 * a bounded number waits. 53300: too many do.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { BOUNDS } from '../base/bounds.ts';
import { tooManyConnections } from '../base/errors.ts';
import { md5Hash } from '../wire/md5-password.ts';
import { deriveScramKeys } from '../wire/scram.ts';
import type { StoredSecret } from './user-entry.ts';

export class PasswordChecks {
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  async run<T>(check: () => Promise<T>): Promise<T> {
    if (this.#running >= BOUNDS.passwordChecksMax) {
      if (this.#waiting.length >= BOUNDS.passwordChecksWaitingMax)
        throw tooManyConnections('too many passwords wait to be checked');
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else this.#running++;
    try {
      return await check();
    } finally {
      // The next one takes this one's place, so that nobody slips in between.
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running--;
    }
  }
}

/** All of them are looked at, whichever is right. */
export async function isOneOf(
  secrets: readonly StoredSecret[],
  user: string,
  password: string,
): Promise<boolean> {
  let found = false;
  for (const secret of secrets) if (await isSecret(secret, user, password)) found = true;
  return found;
}

async function isSecret(secret: StoredSecret, user: string, password: string): Promise<boolean> {
  switch (secret.kind) {
    case 'password':
      return timingSafeEqual(digest(secret.password), digest(password));
    case 'md5':
      return timingSafeEqual(digest(secret.hash), digest(md5Hash(user, password)));
    case 'scram': {
      const { salt, iterations, storedKey } = secret.verifier;
      const { clientKey } = await deriveScramKeys(password, salt, iterations);
      return timingSafeEqual(createHash('sha256').update(clientKey).digest(), storedKey);
    }
  }
}

/** Of one length, whatever the text's. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
