/**
 * A cancel request on its way to another router, over a channel of the home node that any role may listen and write to: sealed with a
 * key that routers of the cluster alone have.
 *
 *   base64url( 12 bytes nonce ‖ AES-256-GCM( 8 bytes time, µs ‖ 4 bytes session id ‖ the session's secret key ) ‖ 16 bytes tag )
 *
 * The key is drawn from the cluster's token key by HKDF-SHA256 (RFC 5869), for this purpose alone. Nonces are random: of 96 bits, and
 * with a few hundred messages a second at most (cancel-forwarding.ts), 2^32 of them take months, by when two that are equal are
 * still less likely than one in 2^32 (NIST SP 800-38D, 8.3), and would tell no more than the difference of two cancel requests.
 */
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';

export interface CancelEnvelope {
  readonly sessionId: number;
  readonly secretKey: Buffer;
  /** By the clock of the home node. */
  readonly sentAtMs: number;
}

/** Of protocol 3.2; in 3.0 it has 4. */
export const SECRET_KEY_BYTES_MAX = 256;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const HEAD_BYTES = 12;
const TEXT_LENGTH_MAX = Math.ceil(((NONCE_BYTES + HEAD_BYTES + SECRET_KEY_BYTES_MAX + TAG_BYTES) * 4) / 3);
const ALGORITHM = 'aes-256-gcm';

export function cancelKey(tokenKey: Buffer): Buffer {
  return Buffer.from(hkdfSync('sha256', tokenKey, Buffer.alloc(0), 'postern cancel requests, 1', 32));
}

export function sealCancel(envelope: CancelEnvelope, key: Buffer): string {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeBigUInt64BE(BigInt(Math.round(envelope.sentAtMs * 1_000)), 0);
  head.writeUInt32BE(envelope.sessionId, 8);
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES });
  const sealed = [cipher.update(head), cipher.update(envelope.secretKey), cipher.final()];
  return Buffer.concat([nonce, ...sealed, cipher.getAuthTag()]).toString('base64url');
}

/** undefined: it is not from a router of this cluster. */
export function openCancel(
  text: string,
  key: Buffer,
): (CancelEnvelope & { readonly nonce: string }) | undefined {
  if (text.length > TEXT_LENGTH_MAX) return undefined;
  const bytes = Buffer.from(text, 'base64url');
  if (bytes.length <= NONCE_BYTES + HEAD_BYTES + TAG_BYTES) return undefined;
  const nonce = bytes.subarray(0, NONCE_BYTES);
  const tagAt = bytes.length - TAG_BYTES;
  const decipher = createDecipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES });
  decipher.setAuthTag(bytes.subarray(tagAt));
  let plain: Buffer;
  try {
    plain = Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES, tagAt)), decipher.final()]);
  } catch {
    return undefined;
  }
  return {
    sessionId: plain.readUInt32BE(8),
    secretKey: plain.subarray(HEAD_BYTES),
    sentAtMs: Number(plain.readBigUInt64BE(0)) / 1_000,
    nonce: nonce.toString('base64url'),
  };
}
