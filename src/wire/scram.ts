/**
 * SCRAM-SHA-256 (RFC 5802, RFC 7677) as PostgreSQL speaks it, both sides, without I/O: each step takes the other side's
 * message and gives the next one with the state to go on from. Nonces and salts come in from outside.
 *
 *     client                                    server
 *     startScramClient ── client-first ───────▶ startScramServer
 *     answerServerFirst ◀───── server-first ──
 *                      ── client-final ───────▶ finishScramServer
 *     checkServerFinal ◀───── server-final ── (or the refusal)
 *
 * Channel binding (SCRAM-SHA-256-PLUS) is in channel-binding.ts. Secrets are compared in constant time. Malformed messages
 * are protocol violations in PostgreSQL's words; a wrong password is not an exception but the step's result.
 */
import { createHash, createHmac, pbkdf2, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import { assert } from '../base/assert.ts';
import { invalidParameter, protocolNotSupported, protocolViolation } from '../base/errors.ts';
import { checkChannelBinding, type Gs2, readGs2, SCRAM_MECHANISM } from './channel-binding.ts';
import { saslprep } from './saslprep.ts';
import { type ScramKeys, sameDerivation } from './scram-keys.ts';

/** PostgreSQL's default of scram_iterations. */
const SCRAM_ITERATIONS = 4096;
/** What a server may ask of a client: several seconds of computing. More is taken for a broken or hostile server. */
const ITERATIONS_MAX = 10_000_000;
const KEY_BYTES = 32;
const MOCK_SALT_BYTES = 16;

const pbkdf2Async = promisify(pbkdf2);

/** What is stored of a password: enough to check a proof of it, not enough to make one. */
export interface ScramVerifier {
  readonly iterations: number;
  readonly salt: Buffer;
  readonly storedKey: Buffer;
  readonly serverKey: Buffer;
  /** Made for a user that does not exist: every proof fails, but only at the end, as a wrong password does. */
  readonly mock: boolean;
}

const VERIFIER = /^SCRAM-SHA-256\$([1-9][0-9]{0,9}):([^$:]+)\$([^$:]+):([^$:]+)$/;

/** Reads `SCRAM-SHA-256$4096:salt$StoredKey:ServerKey`, as in pg_authid.rolpassword. 22023: it is not that. */
export function parseScramVerifier(text: string): ScramVerifier {
  const match = VERIFIER.exec(text);
  const [iterations, salt, storedKey, serverKey] = [
    Number(match?.[1]),
    decodeBase64(match?.[2] ?? ''),
    decodeBase64(match?.[3] ?? ''),
    decodeBase64(match?.[4] ?? ''),
  ];
  if (
    match === null ||
    iterations > 0x7fff_ffff ||
    salt === undefined ||
    storedKey?.length !== KEY_BYTES ||
    serverKey?.length !== KEY_BYTES
  ) {
    throw invalidParameter(
      'this is not a SCRAM-SHA-256 verifier',
      'It has the form SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey, as in pg_authid.rolpassword.',
    );
  }
  return { iterations, salt, storedKey, serverKey, mock: false };
}

export function formatScramVerifier(verifier: ScramVerifier): string {
  assert(!verifier.mock, 'a mock verifier is not to be stored');
  const [salt, storedKey, serverKey] = [verifier.salt, verifier.storedKey, verifier.serverKey].map((bytes) =>
    bytes.toString('base64'),
  );
  return `${SCRAM_MECHANISM}$${verifier.iterations}:${salt}$${storedKey}:${serverKey}`;
}

/** Takes milliseconds of computing, on a thread of the pool. */
export async function makeScramVerifier(options: {
  password: string;
  salt: Buffer;
  iterations?: number;
}): Promise<ScramVerifier> {
  const { salt, iterations = SCRAM_ITERATIONS } = options;
  const { clientKey, serverKey } = await deriveScramKeys(options.password, salt, iterations);
  return { iterations, salt, storedKey: sha256(clientKey), serverKey, mock: false };
}

/** Takes milliseconds of computing, on a thread of the pool. */
export async function deriveScramKeys(
  password: string,
  salt: Buffer,
  iterations: number,
): Promise<ScramKeys> {
  const salted = await pbkdf2Async(saslprep(password), salt, iterations, KEY_BYTES, 'sha256');
  return { clientKey: hmac(salted, 'Client Key'), serverKey: hmac(salted, 'Server Key'), salt, iterations };
}

/**
 * For a user that does not exist. The same user gets the same salt each time, as a real one would; `secret` is the
 * router's own and stays secret, or the salt would tell.
 */
export function mockScramVerifier(options: {
  userName: string;
  secret: Buffer;
  iterations?: number;
}): ScramVerifier {
  return {
    iterations: options.iterations ?? SCRAM_ITERATIONS,
    salt: hmac(options.secret, `salt ${options.userName}`).subarray(0, MOCK_SALT_BYTES),
    storedKey: hmac(options.secret, `stored key ${options.userName}`),
    serverKey: hmac(options.secret, `server key ${options.userName}`),
    mock: true,
  };
}

export interface ScramServerState {
  readonly verifier: ScramVerifier;
  readonly gs2: Gs2;
  readonly nonce: string;
  readonly clientFirstBare: string;
  readonly serverFirst: string;
}

/**
 * @param options.nonce the server's part: at least 18 random bytes in base64
 * @param options.mechanism as the client has chosen it; default: SCRAM-SHA-256
 * @param options.serverEndPoint of the connection; with it, SCRAM-SHA-256-PLUS was offered
 */
export function startScramServer(options: {
  verifier: ScramVerifier;
  clientFirst: string;
  nonce: string;
  mechanism?: string;
  serverEndPoint?: Buffer | undefined;
}): { state: ScramServerState; serverFirst: string } {
  const { clientFirst, mechanism = SCRAM_MECHANISM, serverEndPoint } = options;
  const gs2 = readGs2(clientFirst, { mechanism, serverEndPoint });
  const bare = clientFirst.slice(gs2.header.length);
  const attributes = new AttributeReader(bare);
  if (attributes.nextIs('m')) {
    throw protocolNotSupported('client requires an unsupported SCRAM extension');
  }
  // The user name is that of the start-up packet, as in PostgreSQL; here it only has to be there.
  attributes.value('n');
  const clientNonce = attributes.value('r');
  if (!isPrintable(clientNonce)) throw protocolViolation('non-printable characters in SCRAM nonce');
  attributes.skipExtensions();

  const { verifier } = options;
  const nonce = clientNonce + options.nonce;
  const serverFirst = `r=${nonce},s=${verifier.salt.toString('base64')},i=${verifier.iterations}`;
  return { state: { verifier, gs2, nonce, clientFirstBare: bare, serverFirst }, serverFirst };
}

/** The server-final message for a right proof; undefined for a wrong one: 28P01 is then the answer. */
export function finishScramServer(state: ScramServerState, clientFinal: string): string | undefined {
  const attributes = new AttributeReader(clientFinal);
  checkChannelBinding(state.gs2, attributes.value('c'));
  if (attributes.value('r') !== state.nonce) {
    throw protocolViolation('invalid SCRAM response', 'Nonce does not match.');
  }
  while (!attributes.nextIs('p')) attributes.anyValue();
  const withoutProof = clientFinal.slice(0, Math.max(attributes.position - 1, 0));
  const proof = decodeBase64(attributes.value('p'));
  if (proof?.length !== KEY_BYTES) throw malformed('Malformed proof in client-final-message.');
  if (!attributes.atEnd) throw malformed('Garbage found at the end of client-final-message.');

  const { verifier } = state;
  const authMessage = `${state.clientFirstBare},${state.serverFirst},${withoutProof}`;
  const clientKey = xor(proof, hmac(verifier.storedKey, authMessage));
  const matches = timingSafeEqual(sha256(clientKey), verifier.storedKey);
  // The signature is computed either way, so that both outcomes take the same time.
  const serverFinal = `v=${hmac(verifier.serverKey, authMessage).toString('base64')}`;
  return matches && !verifier.mock ? serverFinal : undefined;
}

export interface ScramClientStart {
  readonly nonce: string;
  readonly clientFirstBare: string;
  readonly channelBinding: string;
}

export interface ScramClientProof {
  readonly serverSignature: Buffer;
}

/**
 * @param nonce at least 18 random bytes in base64
 * @param gs2 of chooseScram(), which has chosen the mechanism with it
 */
export function startScramClient(nonce: string, gs2: Gs2): { state: ScramClientStart; clientFirst: string } {
  // The user name is left empty: PostgreSQL takes that of the start-up packet.
  const clientFirstBare = `n=,r=${nonce}`;
  const { channelBinding, header } = gs2;
  return { state: { nonce, clientFirstBare, channelBinding }, clientFirst: header + clientFirstBare };
}

/** The server's verifier has another salt or other iterations than the keys were derived with: they are of no use there. */
export class OtherDerivation extends Error {}

/**
 * A password takes milliseconds of computing, on a thread of the pool: a pool of connections that opens must not stall the
 * router. Keys take none; rejects with OtherDerivation when they don't fit what the server has.
 */
export async function answerServerFirst(
  state: ScramClientStart,
  secret: string | ScramKeys,
  serverFirst: string,
): Promise<{ state: ScramClientProof; clientFinal: string }> {
  const attributes = new AttributeReader(serverFirst);
  const nonce = attributes.value('r');
  if (!nonce.startsWith(state.nonce) || nonce.length === state.nonce.length || !isPrintable(nonce)) {
    throw protocolViolation('invalid SCRAM response', 'Nonce does not match.');
  }
  const salt = decodeBase64(attributes.value('s'));
  if (salt === undefined || salt.length === 0) throw malformed('Malformed salt in server-first-message.');
  const iterationsText = attributes.value('i');
  const iterations = Number(iterationsText);
  if (!/^[1-9][0-9]*$/.test(iterationsText) || iterations > ITERATIONS_MAX) {
    throw malformed('Invalid iteration count in server-first-message.');
  }
  attributes.skipExtensions();

  const { clientKey, serverKey } =
    typeof secret === 'string' ? await deriveScramKeys(secret, salt, iterations) : secret;
  if (typeof secret !== 'string' && !sameDerivation(secret, { salt, iterations }))
    throw new OtherDerivation();
  const withoutProof = `c=${state.channelBinding},r=${nonce}`;
  const authMessage = `${state.clientFirstBare},${serverFirst},${withoutProof}`;
  const proof = xor(clientKey, hmac(sha256(clientKey), authMessage));
  const serverSignature = hmac(serverKey, authMessage);
  return { state: { serverSignature }, clientFinal: `${withoutProof},p=${proof.toString('base64')}` };
}

/** Throws unless the server has proved that it knows the password's verifier. */
export function checkServerFinal(state: ScramClientProof, serverFinal: string): void {
  const attributes = new AttributeReader(serverFinal);
  if (attributes.nextIs('e')) {
    throw protocolViolation('the server refused the SCRAM exchange', attributes.value('e'));
  }
  const signature = decodeBase64(attributes.value('v'));
  attributes.skipExtensions();
  if (signature?.length !== KEY_BYTES) throw malformed('Malformed signature in server-final-message.');
  if (!timingSafeEqual(signature, state.serverSignature)) {
    throw protocolViolation('incorrect server signature', 'The server does not know the password.');
  }
}

/** Walks `a=value,b=value`. Names are one letter; values have no comma and none of the control characters. */
class AttributeReader {
  position = 0;
  readonly #message: string;

  constructor(message: string) {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what it looks for.
    if (/[\0-\x1f\x7f]/.test(message)) throw malformed('The message contains control characters.');
    this.#message = message;
  }

  get atEnd(): boolean {
    return this.position >= this.#message.length;
  }

  nextIs(name: string): boolean {
    return this.#message[this.position] === name;
  }

  value(name: string): string {
    if (!this.nextIs(name)) throw malformed(`Attribute "${name}" expected.`);
    return this.anyValue();
  }

  anyValue(): string {
    const message = this.#message;
    const start = this.position;
    if (!/[A-Za-z]/.test(message.charAt(start))) throw malformed('An attribute begins with a letter.');
    if (message[start + 1] !== '=') throw malformed('Character "=" expected after an attribute.');
    const comma = message.indexOf(',', start + 2);
    const end = comma < 0 ? message.length : comma;
    this.position = comma < 0 ? end : end + 1;
    return message.slice(start + 2, end);
  }

  /** Extensions that nobody has to know ("m" says otherwise, and comes first). */
  skipExtensions(): void {
    while (!this.atEnd) this.anyValue();
  }
}

function malformed(detail: string): Error {
  return protocolViolation('malformed SCRAM message', detail);
}

/** RFC 5802: printable ASCII without the comma, and at least one character. */
function isPrintable(nonce: string): boolean {
  return /^[\x21-\x2b\x2d-\x7e]+$/.test(nonce);
}

/** Strict, unlike Buffer's own: undefined for anything that is not base64. */
function decodeBase64(text: string): Buffer | undefined {
  const decoded = Buffer.from(text, 'base64');
  return decoded.toString('base64') === text ? decoded : undefined;
}

function hmac(key: Buffer, message: string): Buffer {
  return createHmac('sha256', key).update(message).digest();
}

function sha256(message: Buffer): Buffer {
  return createHash('sha256').update(message).digest();
}

function xor(a: Buffer, b: Buffer): Buffer {
  const result = Buffer.alloc(a.length);
  for (let i = 0; i < a.length; i++) result[i] = a[i]! ^ b[i]!;
  return result;
}
