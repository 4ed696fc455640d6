/**
 * pgbench's hash functions and its pseudorandom permutation, equal to its own bit for bit: keys that a script scatters
 * here are the keys that pgbench scatters.
 * Sources: MurmurHash2, 64-bit (Austin Appleby); FNV-1a, 64-bit (Fowler, Noll, Vo) over the eight bytes of the value from
 * the lowest; xoroshiro128** and splitmix64 (Blackman, Vigna), which PostgreSQL's src/common/pg_prng.c uses.
 */
import { type Integer, integer } from './script-value.ts';

const MASK_64 = 2n ** 64n - 1n;
const MURMUR_MULTIPLIER = 0xc6a4a7935bd1e995n;
const MURMUR_SHIFT = 47n;
const MURMUR_LENGTH = (8n * MURMUR_MULTIPLIER) & MASK_64;
const FNV_PRIME = 0x100000001b3n;
const FNV_OFFSET_BASIS = 0xcbf29ce484222325n;
const PERMUTE_ROUNDS = 6;

export function hashMurmur2(value: Integer, seed: Integer): Integer {
  let k = (BigInt(value) * MURMUR_MULTIPLIER) & MASK_64;
  k ^= k >> MURMUR_SHIFT;
  k = (k * MURMUR_MULTIPLIER) & MASK_64;
  let hash = (BigInt(seed) & MASK_64) ^ MURMUR_LENGTH ^ k;
  hash = (hash * MURMUR_MULTIPLIER) & MASK_64;
  hash ^= hash >> MURMUR_SHIFT;
  hash = (hash * MURMUR_MULTIPLIER) & MASK_64;
  hash ^= hash >> MURMUR_SHIFT;
  return integer(BigInt.asIntN(64, hash));
}

export function hashFnv1a(value: Integer, seed: Integer): Integer {
  let rest = BigInt(value) & MASK_64;
  let hash = (BigInt(seed) & MASK_64) ^ FNV_OFFSET_BASIS;
  for (let octet = 0; octet < 8; octet++) {
    hash = ((hash ^ (rest & 0xffn)) * FNV_PRIME) & MASK_64;
    rest >>= 8n;
  }
  return integer(BigInt.asIntN(64, hash));
}

/** Where 0 … size − 1 go; the random numbers of the rounds depend on size and seed alone and are drawn once. */
export function permutation(size: Integer, seed: Integer): (value: Integer) => Integer {
  const count = BigInt(size);
  if (count < 2n) return () => 0;
  const maskBits = BigInt(count.toString(2).length - 1);
  const mask = (1n << maskBits) - 1n;
  const next = xoroshiro128(BigInt(seed) & MASK_64);
  const rounds = Array.from({ length: PERMUTE_ROUNDS }, () => ({
    lowerFactor: (next() & mask) | 1n,
    lowerXor: next() & mask,
    upperFactor: (next() & mask) | 1n,
    upperXor: next() & mask,
    offset: below(next, count),
  }));
  const stir = (value: bigint, factor: bigint, xor: bigint): bigint => {
    const mixed = ((value * factor) ^ xor) & mask;
    return ((mixed << 1n) & mask) | (mixed >> (maskBits - 1n));
  };
  return (value) => {
    let place = (BigInt(value) & MASK_64) % count;
    for (const round of rounds) {
      if (place <= mask) place = stir(place, round.lowerFactor, round.lowerXor);
      const mirrored = count - 1n - place;
      if (mirrored <= mask) place = count - 1n - stir(mirrored, round.upperFactor, round.upperXor);
      place = (place + round.offset) % count;
    }
    return integer(place);
  };
}

/** Evenly from [0, count), by throwing away what is too large, as pg_prng_uint64_range does. */
function below(next: () => bigint, count: bigint): bigint {
  const shift = BigInt(64 - (count - 1n).toString(2).length);
  for (;;) {
    const drawn = next() >> shift;
    if (drawn < count) return drawn;
  }
}

function xoroshiro128(seed: bigint): () => bigint {
  let counter = seed;
  const splitmix = (): bigint => {
    counter = (counter + 0x9e3779b97f4a7c15n) & MASK_64;
    let mixed = counter;
    mixed = ((mixed ^ (mixed >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK_64;
    mixed = ((mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn) & MASK_64;
    return mixed ^ (mixed >> 31n);
  };
  let [s0, s1] = [splitmix(), splitmix()];
  const rotate = (value: bigint, bits: bigint): bigint =>
    ((value << bits) | (value >> (64n - bits))) & MASK_64;
  return () => {
    const crossed = s0 ^ s1;
    const drawn = (rotate((s0 * 5n) & MASK_64, 7n) * 9n) & MASK_64;
    s0 = (rotate(s0, 24n) ^ crossed ^ (crossed << 16n)) & MASK_64;
    s1 = rotate(crossed, 37n);
    return drawn;
  };
}
