/**
 * The packets before the typed frames: SSLRequest, GSSENCRequest, CancelRequest and StartupMessage, which have a length
 * and no type byte. PostgreSQL documentation: "Message Formats"; the limits and words are those of its server.
 */
import { protocolNotSupported, protocolViolation } from '../base/errors.ts';
import { BodyCursor } from './body-cursor.ts';
import type { FrameWriter } from './frame-writer.ts';

/** The newest minor version of protocol 3 that is spoken here: 3.2, PostgreSQL 18's. */
export const MINOR_VERSION_MAX = 2;

const SSL_REQUEST = 80877103;
const GSSENC_REQUEST = 80877104;
const CANCEL_REQUEST = 80877102;
/** MAX_STARTUP_PACKET_LENGTH, which doesn't count the length field. */
const STARTUP_BYTES_MAX = 10_000;
const CANCEL_KEY_BYTES_MAX = 256;
/** A Terminate message, from a client that leaves before it has begun: its type byte is read as part of a length. */
const TERMINATE = 0x58000000;

export type StartupPacket =
  | { readonly kind: 'ssl' | 'gssenc'; readonly bytes: number }
  /** The client leaves. */
  | { readonly kind: 'terminate'; readonly bytes: number }
  | { readonly kind: 'cancel'; readonly pid: number; readonly secretKey: Buffer; readonly bytes: number }
  | {
      readonly kind: 'startup';
      /** As the client asks for it; above MINOR_VERSION_MAX it is answered with NegotiateProtocolVersion. */
      readonly minorVersion: number;
      /** Without the `_pq_.` ones. */
      readonly parameters: Map<string, string>;
      /** Protocol options (`_pq_.…`) that were asked for; none is known here. */
      readonly unsupportedOptions: string[];
      readonly bytes: number;
    };

const cursor = new BodyCursor();

/** Reads the packet at the start of `buffer`; undefined: it has not arrived whole. `bytes` is what it took up. */
export function readStartup(buffer: Buffer): StartupPacket | undefined {
  if (buffer.length < 4) return undefined;
  const bytes = buffer.readInt32BE(0);
  if (bytes === TERMINATE) return { kind: 'terminate', bytes: 4 };
  if (bytes < 8 || bytes - 4 > STARTUP_BYTES_MAX) throw invalidLength();
  if (buffer.length < bytes) return undefined;
  const code = buffer.readUInt32BE(4);
  switch (code) {
    case SSL_REQUEST:
    case GSSENC_REQUEST:
      if (bytes !== 8) throw invalidLength();
      return { kind: code === SSL_REQUEST ? 'ssl' : 'gssenc', bytes };
    case CANCEL_REQUEST:
      return readCancelRequest(buffer, bytes);
    default:
      return readStartupMessage(buffer, bytes, code);
  }
}

function invalidLength(): Error {
  return protocolViolation('invalid length of startup packet');
}

function readCancelRequest(buffer: Buffer, bytes: number): StartupPacket {
  if (bytes < 12) throw protocolViolation('invalid length of cancel request packet');
  const keyBytes = bytes - 12;
  if (keyBytes === 0 || keyBytes > CANCEL_KEY_BYTES_MAX) {
    throw protocolViolation('invalid length of cancel key in cancel request packet');
  }
  const secretKey = Buffer.from(buffer.subarray(12, bytes));
  return { kind: 'cancel', pid: buffer.readInt32BE(8), secretKey, bytes };
}

function readStartupMessage(buffer: Buffer, bytes: number, version: number): StartupPacket {
  const major = version >>> 16;
  const minorVersion = version & 0xffff;
  if (major !== 3) {
    throw protocolNotSupported(
      `unsupported frontend protocol ${major}.${minorVersion}: server supports 3.0 to 3.${MINOR_VERSION_MAX}`,
    );
  }
  if (bytes === 8 || buffer[bytes - 1] !== 0) throw invalidLayout();
  const parameters = new Map<string, string>();
  const unsupportedOptions: string[] = [];
  // The last byte is the terminator of the list, so the cursor ends before it.
  cursor.open({ buffer, bodyStart: 8, end: bytes - 1 });
  while (cursor.remainingBytes > 0) {
    const name = cursor.cstring();
    // An empty name ends the list, and here it is not at the end; a name whose value is missing is no better.
    if (name === '' || cursor.remainingBytes === 0) throw invalidLayout();
    const value = cursor.cstring();
    if (name.startsWith('_pq_.')) unsupportedOptions.push(name);
    else parameters.set(name, value);
  }
  cursor.finish();
  return { kind: 'startup', minorVersion, parameters, unsupportedOptions, bytes };
}

function invalidLayout(): Error {
  return protocolViolation('invalid startup packet layout: expected terminator as last byte');
}

/** A StartupMessage of protocol 3.0, which every server speaks. */
export function encodeStartup(
  writer: FrameWriter,
  parameters: Iterable<readonly [name: string, value: string]>,
  minorVersion = 0,
): void {
  writer.beginUntyped();
  writer.int16(3);
  writer.int16(minorVersion);
  for (const [name, value] of parameters) {
    writer.cstring(name);
    writer.cstring(value);
  }
  writer.uint8(0);
  writer.end();
}

export function encodeSslRequest(writer: FrameWriter): void {
  writer.beginUntyped();
  writer.int32(SSL_REQUEST);
  writer.end();
}

export function encodeCancelRequest(writer: FrameWriter, pid: number, secretKey: number | Buffer): void {
  writer.beginUntyped();
  writer.int32(CANCEL_REQUEST);
  writer.int32(pid);
  if (typeof secretKey === 'number') writer.int32(secretKey);
  else writer.bytes(secretKey, 0, secretKey.length);
  writer.end();
}
