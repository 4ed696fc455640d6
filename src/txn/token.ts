/**
 * What a client gets together with 08007, and asks postern.outcome() with: the transaction's id, its commit point and its
 * owner, signed with the cluster's key. A token can end a transaction that is still open and its commit point's backend, so
 * it must not be possible to make one for another role's transaction, whose id pg_prepared_xacts shows to everybody.
 *
 * Form: `pt1_` + base64url(payload ‖ first 16 bytes of HMAC-SHA256(payload)), payload a JSON array. Opaque to users.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import { invalidParameter } from '../base/errors.ts';
import type { Gid } from './gid.ts';

export interface OutcomeToken extends Gid {
  readonly owner: string;
  /** When decide() was sent: µs since 1970 by the commit point's clock, which alone decides when a token and a decision expire. */
  readonly issuedAtUs: number;
}

const PREFIX = 'pt1_';
const MAC_BYTES = 16;
/** A longer text is no token; nothing is decoded before that is known. */
const TOKEN_CHARACTERS_MAX = 600;

export function formatToken(token: OutcomeToken, key: Buffer): string {
  const { processId, startedAtUs } = token.commitPointBackend;
  const { transactionId, commitPointNodeId, owner, issuedAtUs } = token;
  const payload = Buffer.from(
    JSON.stringify([transactionId, commitPointNodeId, processId, startedAtUs, owner, issuedAtUs]),
  );
  return PREFIX + Buffer.concat([payload, macOf(payload, key)]).toString('base64url');
}

/** Throws 22023 for what is not a token of this cluster. */
export function parseToken(text: string, key: Buffer): OutcomeToken {
  const refused = () =>
    invalidParameter(
      'this is not an outcome token of this cluster',
      'Give postern.outcome() the token from the DETAIL of the error 08007, as it is.',
    );
  if (!text.startsWith(PREFIX) || text.length > TOKEN_CHARACTERS_MAX) throw refused();
  const bytes = Buffer.from(text.slice(PREFIX.length), 'base64url');
  if (bytes.length <= MAC_BYTES) throw refused();
  const payload = bytes.subarray(0, bytes.length - MAC_BYTES);
  if (!timingSafeEqual(bytes.subarray(payload.length), macOf(payload, key))) throw refused();
  const [transactionId, commitPointNodeId, processId, startedAtUs, owner, issuedAtUs] = JSON.parse(
    payload.toString(),
  ) as [string, number, number, number, string, number];
  return {
    transactionId,
    commitPointNodeId,
    commitPointBackend: { processId, startedAtUs },
    owner,
    issuedAtUs,
  };
}

function macOf(payload: Buffer, key: Buffer): Buffer {
  return createHmac('sha256', key).update(payload).digest().subarray(0, MAC_BYTES);
}
