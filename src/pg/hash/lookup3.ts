/**
 * Bob Jenkins' lookup3 (burtleburtle.net/bob/hash, public domain) as PostgreSQL runs it for hash partitioning: 64 bits
 * out, HASH_PARTITION_SEED in (PostgreSQL source: src/common/hashfn.c, src/include/partitioning/partbounds.h), and the
 * bucket that such a hash falls into.
 *
 * PostgreSQL reads the words of a key in the byte order of its machine; this is the little-endian reading, the one of
 * x86-64 and ARM64 servers.
 *
 * Invariant: everything stays in 32-bit integers and in a Hash64 that the caller owns, so hashing allocates nothing.
 */
import { assert } from '../../base/assert.ts';

/** The two halves of a 64-bit hash, each a signed 32-bit integer (what the engine keeps unboxed). */
export interface Hash64 {
  high: number;
  low: number;
}

/** HASH_PARTITION_SEED, 0x7A5B22367996DCFD. */
const SEED_HIGH = 0x7a5b2236;
const SEED_LOW = 0x7996dcfd;
/** The start of all three words of state, to which the key's length is added: 0x9e3779b9 + 3923095. */
const INITIAL_STATE = 0x9e735650;
const BLOCK_BYTES = 12;

/** The state after the seed for a key of four bytes: it is always the same, so hashUint32 starts from there. */
const SEEDED_4_A = 0xe933553e | 0;
const SEEDED_4_B = 0xc5da07a8 | 0;
const SEEDED_4_C = 0xfdfd95ed | 0;

/** What hash_combine64 adds to the hash of a single key column: its other terms vanish when it combines with 0. */
const COMBINE_HIGH = 0x49a0f4dd;
const COMBINE_LOW = 0x15e5a8e3;

const TWO_32 = 4294967296;
/** A remainder by it, shifted by 16 bits, still is a uint32: so bucketOfHash needs no wider arithmetic. */
const BUCKET_COUNT_MAX = 65_536;

/** hash_bytes_extended() of bytes[start, end) with the partition seed. */
export function hashBytes(out: Hash64, bytes: Uint8Array, start: number, end: number): void {
  let at = start;
  let a = (INITIAL_STATE + end - start) | 0;
  let b = a;
  let c = a;
  // PostgreSQL mixes the seed in as if it were a block before the key's own.
  let wordA = SEED_HIGH;
  let wordB = SEED_LOW;
  let wordC = 0;
  for (;;) {
    a = (a + wordA) | 0;
    b = (b + wordB) | 0;
    c = (c + wordC) | 0;
    a = ((a - c) | 0) ^ ((c << 4) | (c >>> 28));
    c = (c + b) | 0;
    b = ((b - a) | 0) ^ ((a << 6) | (a >>> 26));
    a = (a + c) | 0;
    c = ((c - b) | 0) ^ ((b << 8) | (b >>> 24));
    b = (b + a) | 0;
    a = ((a - c) | 0) ^ ((c << 16) | (c >>> 16));
    c = (c + b) | 0;
    b = ((b - a) | 0) ^ ((a << 19) | (a >>> 13));
    a = (a + c) | 0;
    c = ((c - b) | 0) ^ ((b << 4) | (b >>> 28));
    b = (b + a) | 0;
    if (end - at < BLOCK_BYTES) break;
    wordA = wordAt(bytes, at);
    wordB = wordAt(bytes, at + 4);
    wordC = wordAt(bytes, at + 8);
    at += BLOCK_BYTES;
  }
  const rest = end - at;
  if (rest >= 4) {
    a = (a + wordAt(bytes, at)) | 0;
    if (rest >= 8) {
      b = (b + wordAt(bytes, at + 4)) | 0;
      // The lowest byte of c has the length in it, so the last word stands one byte higher.
      c = (c + (partialWordAt(bytes, at + 8, rest - 8) << 8)) | 0;
    } else {
      b = (b + partialWordAt(bytes, at + 4, rest - 4)) | 0;
    }
  } else {
    a = (a + partialWordAt(bytes, at, rest)) | 0;
  }
  finish(out, a, b, c);
}

/** hash_bytes_uint32_extended() with the partition seed; `value` may be signed or unsigned. */
export function hashUint32(out: Hash64, value: number): void {
  finish(out, (SEEDED_4_A + value) | 0, SEEDED_4_B, SEEDED_4_C);
}

/** Sets `out` to the seed plus `addend` (0 or −1): what hash functions of PostgreSQL return for values they don't hash. */
export function hashIsSeedPlus(out: Hash64, addend: 0 | -1): void {
  out.high = SEED_HIGH;
  out.low = SEED_LOW + addend;
}

/**
 * The bucket of a row whose only key column hashes to `hash`: compute_partition_hash_value() modulo `bucketCount`,
 * unsigned. Equal to the remainder in satisfies_hash_partition.
 */
export function bucketOfHash(hash: Hash64, bucketCount: number): number {
  assert(bucketCount >= 1 && bucketCount <= BUCKET_COUNT_MAX, `bucket count ${bucketCount} out of range`);
  const lowSum = (hash.low >>> 0) + COMBINE_LOW;
  const low = lowSum >>> 0;
  if ((bucketCount & (bucketCount - 1)) === 0) return low & (bucketCount - 1);
  const high = ((hash.high >>> 0) + COMBINE_HIGH + (lowSum >= TWO_32 ? 1 : 0)) >>> 0;
  // Long division, sixteen bits at a time.
  const upper = (((high % bucketCount) << 16) | (low >>> 16)) >>> 0;
  const lower = (((upper % bucketCount) << 16) | (low & 0xffff)) >>> 0;
  return lower % bucketCount;
}

/** lookup3's last mixing; b and c are the two halves of the result. */
function finish(out: Hash64, stateA: number, stateB: number, stateC: number): void {
  let a = stateA;
  let b = stateB;
  let c = stateC;
  c = ((c ^ b) - ((b << 14) | (b >>> 18))) | 0;
  a = ((a ^ c) - ((c << 11) | (c >>> 21))) | 0;
  b = ((b ^ a) - ((a << 25) | (a >>> 7))) | 0;
  c = ((c ^ b) - ((b << 16) | (b >>> 16))) | 0;
  a = ((a ^ c) - ((c << 4) | (c >>> 28))) | 0;
  b = ((b ^ a) - ((a << 14) | (a >>> 18))) | 0;
  c = ((c ^ b) - ((b << 24) | (b >>> 8))) | 0;
  out.high = b;
  out.low = c;
}

function wordAt(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
}

/** The first `count` (0 to 3) bytes of a word. */
function partialWordAt(bytes: Uint8Array, at: number, count: number): number {
  let word = 0;
  for (let index = count - 1; index >= 0; index--) word = (word << 8) | bytes[at + index]!;
  return word;
}
