/**
 * pgbench's random distributions over the whole numbers from `min` to `max`, both included. The distributions are
 * pgbench's; the sequences are not, since they come from the generator's own seeded source.
 * Source: PostgreSQL documentation, pgbench, "Built-In Functions", where each shape is given as a formula.
 */
import { invalidParameter } from '../../base/errors.ts';
import { type Integer, integer } from './script-value.ts';

/** Doubles in [0, 1), of 53 bits. */
export type RandomSource = () => number;
/** Draws from 0 … count − 1. */
type Draw = (random: RandomSource, count: number) => number;

const GAUSSIAN_PARAMETER_MIN = 2;
const ZIPFIAN_PARAMETER_MAX = 1000;
/** A draw is a double of 53 bits: above it, uneven steps would show. */
const RANGE_MAX = 2 ** 53;

export function drawUniform(random: RandomSource, min: Integer, max: Integer): Integer {
  const count = rangeSize(min, max);
  if (typeof count === 'number' && typeof min === 'number') return min + Math.floor(random() * count);
  // Two draws of 32 bits each and one more try for what is beyond the range.
  const wide = BigInt(count);
  const bits = BigInt(wide.toString(2).length);
  for (;;) {
    const high = BigInt(Math.floor(random() * 2 ** 32));
    const drawn = ((high << 32n) | BigInt(Math.floor(random() * 2 ** 32))) >> (64n - bits);
    if (drawn < wide) return integer(BigInt(min) + drawn);
  }
}

/** By one of the shapes below; throws for an empty range, and for one of 2^53 numbers or more. */
export function drawShaped(random: RandomSource, min: Integer, max: Integer, draw: Draw): Integer {
  const count = rangeSize(min, max);
  if (typeof count !== 'number') throw invalidParameter('the range of a random function is too large');
  const drawn = draw(random, count);
  return typeof min === 'number' && Number.isSafeInteger(min + drawn)
    ? min + drawn
    : integer(BigInt(min) + BigInt(drawn));
}

function rangeSize(min: Integer, max: Integer): Integer {
  if (min > max) throw invalidParameter('empty range given to random');
  if (typeof min === 'number' && typeof max === 'number') {
    const count = max - min + 1;
    if (count < RANGE_MAX) return count;
  }
  const count = BigInt(max) - BigInt(min) + 1n;
  if (count >= 2n ** 63n) throw invalidParameter('random range is too large');
  return count < RANGE_MAX ? Number(count) : count;
}

/** A normal distribution over the range, cut at `parameter` standard deviations on each side of the middle. */
export function gaussian(parameter: number): Draw {
  if (!(parameter >= GAUSSIAN_PARAMETER_MIN)) {
    throw invalidParameter(`the gaussian parameter must be at least 2.0, not ${parameter}`);
  }
  return (random, count) => {
    let deviation: number;
    do {
      // Box and Muller's transform; 1 − random() is never 0.
      deviation = Math.sqrt(-2 * Math.log(1 - random())) * Math.sin(2 * Math.PI * random());
    } while (deviation < -parameter || deviation >= parameter);
    return Math.min(count - 1, Math.floor((count * (deviation + parameter)) / (2 * parameter)));
  };
}

/** Falls from the start of the range on; at its end the density is e^−parameter of what it was. */
export function exponential(parameter: number): Draw {
  if (!(parameter > 0))
    throw invalidParameter(`the exponential parameter must be above zero, not ${parameter}`);
  const cut = Math.exp(-parameter);
  return (random, count) => {
    const share = -Math.log(cut + (1 - cut) * (1 - random())) / parameter;
    return Math.min(count - 1, Math.floor(count * share));
  };
}

/**
 * The k-th number of the range is drawn with a probability proportional to 1 / k^parameter. By rejection-inversion
 * (Hörmann, Derflinger: "Rejection-inversion to generate variates from monotone discrete distributions", 1996), which
 * needs no table and takes parameters below 1 too (YCSB's 0.99), where pgbench begins at 1.001.
 */
export function zipfian(parameter: number): Draw {
  if (!(parameter > 0 && parameter <= ZIPFIAN_PARAMETER_MAX)) {
    throw invalidParameter(`the zipfian parameter must be above 0 and at most 1000, not ${parameter}`);
  }
  /** The integral of x^−parameter, and its inverse, exact near the logarithm that it is for a parameter of 1. */
  const integral = (x: number): number => {
    const logarithm = Math.log(x);
    const power = (1 - parameter) * logarithm;
    return (Math.abs(power) > 1e-8 ? Math.expm1(power) / power : 1 + power / 2) * logarithm;
  };
  const inverse = (area: number): number => {
    const power = Math.max(-1, area * (1 - parameter));
    return Math.exp((Math.abs(power) > 1e-8 ? Math.log1p(power) / power : 1 - power / 2) * area);
  };
  const density = (x: number): number => Math.exp(-parameter * Math.log(x));
  const areaFirst = integral(1.5) - 1;
  const acceptedAtOnce = 2 - inverse(integral(2.5) - density(2));
  let countBefore = 0;
  let areaLast = 0;
  return (random, count) => {
    if (count !== countBefore) {
      countBefore = count;
      areaLast = integral(count + 0.5);
    }
    for (;;) {
      const area = areaLast + random() * (areaFirst - areaLast);
      const x = inverse(area);
      const k = Math.max(1, Math.min(count, Math.floor(x + 0.5)));
      if (k - x <= acceptedAtOnce || area >= integral(k + 0.5) - density(k)) return k - 1;
    }
  };
}

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
const POOL_CHARACTERS = 65_536;
const STRING_CHARACTERS_MAX = 1_000_000;

/** Gives texts of letters and digits, cut out of a pool of random ones at a random place: payloads, not keys. */
export function stringPool(): (random: RandomSource, length: Integer) => string {
  let pool = '';
  return (random, length) => {
    if (typeof length !== 'number' || length < 0 || length > STRING_CHARACTERS_MAX) {
      throw invalidParameter(`random_string makes 0 to ${STRING_CHARACTERS_MAX} characters, not ${length}`);
    }
    while (pool.length < POOL_CHARACTERS + length) {
      pool += Array.from(
        { length: POOL_CHARACTERS },
        () => ALPHABET[Math.floor(random() * ALPHABET.length)],
      ).join('');
    }
    const start = Math.floor(random() * POOL_CHARACTERS);
    return pool.slice(start, start + length);
  };
}
