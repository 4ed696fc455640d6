/**
 * uuid as a key: its sixteen bytes are hashed. Text is taken in all forms that PostgreSQL's uuid_in takes: hex digits of
 * either case, a hyphen or none after each group of four, braces around or none; nothing else.
 */
import { MINUS } from './ascii.ts';
import { type Hash64, hashBytes } from './lookup3.ts';

const UUID_BYTES = 16;
const BRACE_OPEN = 0x7b;
const BRACE_CLOSE = 0x7d;

const scratch = new Uint8Array(UUID_BYTES);

/** Returns whether it is sure of the value; only then `out` is set. */
export function hashUuidText(out: Hash64, bytes: Uint8Array, start: number, end: number): boolean {
  if (!readUuidText(scratch, bytes, start, end)) return false;
  hashBytes(out, scratch, 0, UUID_BYTES);
  return true;
}

/** Reads the sixteen bytes of a uuid's text into `out`; false: it is none. */
export function readUuidText(out: Uint8Array, bytes: Uint8Array, start: number, end: number): boolean {
  let at = start;
  let last = end;
  if (at < last && bytes[at] === BRACE_OPEN) {
    if (bytes[last - 1] !== BRACE_CLOSE) return false;
    at++;
    last--;
  }
  for (let index = 0; index < UUID_BYTES; index++) {
    if (at + 2 > last) return false;
    const highDigit = hexDigitOf(bytes[at]!);
    const lowDigit = hexDigitOf(bytes[at + 1]!);
    if (highDigit < 0 || lowDigit < 0) return false;
    out[index] = (highDigit << 4) | lowDigit;
    at += 2;
    const endsGroup = index % 2 === 1 && index < UUID_BYTES - 1;
    if (endsGroup && at < last && bytes[at] === MINUS) at++;
  }
  return at === last;
}

export function hashUuidBinary(out: Hash64, bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start !== UUID_BYTES) return false;
  hashBytes(out, bytes, start, end);
  return true;
}

function hexDigitOf(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const lowerCase = byte | 0x20;
  return lowerCase >= 0x61 && lowerCase <= 0x66 ? lowerCase - 0x57 : -1;
}
