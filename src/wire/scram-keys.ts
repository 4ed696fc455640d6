/**
 * The two keys of SCRAM (RFC 5802, section 3) that stand for a password: ClientKey makes proofs, ServerKey checks the server's.
 * Whoever has checked a client's proof has learnt ClientKey from it, and with the ServerKey of the verifier can log in wherever
 * the verifier has the same salt and iterations, without ever having seen the password.
 *
 * Invariant: keys are secrets as the password is; no error of this file holds any part of them.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { ScramServerState, ScramVerifier } from './scram.ts';

export interface ScramKeys {
  readonly clientKey: Buffer;
  readonly serverKey: Buffer;
  /** What they were derived with: they are of use for no other. */
  readonly salt: Buffer;
  readonly iterations: number;
}

/**
 * The keys behind a proof, after finishScramServer has found it right for this verifier. Undefined: the proof belongs to none
 * of `state.verifier`, which a proof that was accepted never does.
 */
export function keysOfProof(state: ScramServerState, clientFinal: string): ScramKeys | undefined {
  const { verifier } = state;
  const proofAt = clientFinal.lastIndexOf(',p=');
  const proof = Buffer.from(clientFinal.slice(proofAt + 3), 'base64');
  if (proofAt < 0 || proof.length !== verifier.storedKey.length || verifier.mock) return undefined;
  const authMessage = `${state.clientFirstBare},${state.serverFirst},${clientFinal.slice(0, proofAt)}`;
  const clientKey = createHmac('sha256', verifier.storedKey).update(authMessage).digest();
  for (let i = 0; i < clientKey.length; i++) clientKey[i]! ^= proof[i]!;
  if (!timingSafeEqual(createHash('sha256').update(clientKey).digest(), verifier.storedKey)) return undefined;
  return { clientKey, serverKey: verifier.serverKey, salt: verifier.salt, iterations: verifier.iterations };
}

/** Do both check and prove with the same salt and iterations? */
export function sameDerivation(
  one: Pick<ScramKeys, 'salt' | 'iterations'>,
  other: Pick<ScramVerifier, 'salt' | 'iterations'>,
): boolean {
  return one.iterations === other.iterations && one.salt.equals(other.salt);
}
