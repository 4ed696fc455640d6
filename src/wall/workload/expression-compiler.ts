/**
 * Expressions as closures, made once when a load begins: evaluating one walks no tree and looks up no name. Constant
 * parts are evaluated here; a distribution whose parameter is constant is set up here.
 */
import { invalidParameter } from '../../base/errors.ts';
import type { Expression, FunctionName } from './expression.ts';
import {
  drawShaped,
  drawUniform,
  exponential,
  gaussian,
  type RandomSource,
  stringPool,
  zipfian,
} from './random-distributions.ts';
import { hashFnv1a, hashMurmur2, permutation } from './script-hash.ts';
import {
  checkedInteger,
  Double,
  type Integer,
  integer,
  isTrue,
  readText,
  toBoolean,
  toDouble,
  toInteger,
  type Value,
} from './script-value.ts';

/** What an expression sees: the variables of its client by slot, and where randomness comes from. */
export interface Frame {
  /** undefined: not set yet. */
  readonly values: (Value | undefined)[];
  readonly random: RandomSource;
}

export type Evaluate = (frame: Frame) => Value;

/** Gives the slot of a variable, and throws for one that can't be known. */
export type SlotOf = (name: string) => number;

/** Of the usual size: an integer of 32 bits, for which JavaScript's own operators do. */
const isInt32 = (value: Value): value is number => typeof value === 'number' && value === (value | 0);

export function compileExpression(expression: Expression, slotOf: SlotOf): Evaluate {
  switch (expression.kind) {
    case 'constant': {
      const { value } = expression;
      return () => value;
    }
    case 'variable':
      return compileVariable(expression.name, slotOf(expression.name));
    case 'case': {
      const branches = expression.branches.map(({ when, result }) => ({
        when: compileExpression(when, slotOf),
        result: compileExpression(result, slotOf),
      }));
      const otherwise = compileExpression(expression.otherwise, slotOf);
      return (frame) => {
        for (const { when, result } of branches) if (isTrue(when(frame))) return result(frame);
        return otherwise(frame);
      };
    }
    case 'call':
      return compileCall(expression.name, expression.arguments, slotOf);
  }
}

function compileVariable(name: string, slot: number): Evaluate {
  return (frame) => {
    const value = frame.values[slot];
    if (value === undefined) throw invalidParameter(`undefined variable "${name}"`);
    return typeof value === 'string' ? readText(value) : value;
  };
}

function compileCall(name: FunctionName, given: readonly Expression[], slotOf: SlotOf): Evaluate {
  const parts = given.map((expression) => compileExpression(expression, slotOf));
  const [first, second] = parts;
  if (name === 'and' || name === 'or') return compileLogical(name, first!, second!);
  if (name.startsWith('random')) return compileRandom(name, given, parts);
  if (name.startsWith('hash') || name === 'permute') return compileScatter(name, given, parts, slotOf);
  const evaluate = compilePlain(name, parts);
  if (!given.every(({ kind }) => kind === 'constant')) return evaluate;
  // An error of a constant part is told when it is reached, as it may never be.
  try {
    const value = evaluate({ values: [], random: () => 0 });
    return () => value;
  } catch {
    return evaluate;
  }
}

/** AND and OR look at their right side only if the left one leaves it open; null on either side makes null. */
function compileLogical(name: 'and' | 'or', left: Evaluate, right: Evaluate): Evaluate {
  const decides = name === 'or';
  return (frame) => {
    const one = left(frame);
    if (one === null) return null;
    if (toBoolean(one) === decides) return decides;
    const other = right(frame);
    return other === null ? null : toBoolean(other);
  };
}

function compilePlain(name: FunctionName, parts: readonly Evaluate[]): Evaluate {
  const [first, second] = parts as readonly [Evaluate, Evaluate];
  switch (parts.length) {
    case 1: {
      const unary = UNARY[name];
      if (unary === undefined) break;
      return (frame) => {
        const value = first(frame);
        return value === null ? null : unary(value);
      };
    }
    case 2: {
      if (name === 'is') return (frame) => first(frame) === second(frame);
      const binary = BINARY[name];
      if (binary === undefined) break;
      return (frame) => {
        const [left, right] = [first(frame), second(frame)];
        return left === null || right === null ? null : binary(left, right);
      };
    }
  }
  if (name === 'pi') return () => new Double(Math.PI);
  return compileExtremum(name === 'greatest' ? 1 : -1, parts);
}

function compileExtremum(sign: 1 | -1, parts: readonly Evaluate[]): Evaluate {
  return (frame) => {
    const values = parts.map((part) => part(frame));
    if (values.includes(null)) return null;
    if (values.some((value) => value instanceof Double)) {
      const doubles = values.map(toDouble);
      return new Double(sign > 0 ? Math.max(...doubles) : Math.min(...doubles));
    }
    return values.map(toInteger).reduce((best, value) => (sign > 0 === value > best ? value : best));
  };
}

const UNARY: Partial<Record<FunctionName, (value: Value) => Value>> = {
  not: (value) => !toBoolean(value),
  abs: (value) => {
    if (value instanceof Double) return new Double(Math.abs(value.value));
    const whole = toInteger(value);
    // The absolute value of −2^63 is itself, as in C.
    return typeof whole === 'number'
      ? Math.abs(whole)
      : integer(BigInt.asIntN(64, whole < 0 ? -whole : whole));
  },
  double: (value) => new Double(toDouble(value)),
  sqrt: (value) => new Double(Math.sqrt(toDouble(value))),
  ln: (value) => new Double(Math.log(toDouble(value))),
  exp: (value) => new Double(Math.exp(toDouble(value))),
  int: toInteger,
};

const BINARY: Partial<Record<FunctionName, (left: Value, right: Value) => Value>> = {
  '+': (left, right) => {
    if (typeof left === 'number' && typeof right === 'number') {
      const sum = left + right;
      if (Number.isSafeInteger(sum)) return sum;
    }
    if (left instanceof Double || right instanceof Double)
      return new Double(toDouble(left) + toDouble(right));
    return checkedInteger(BigInt(toInteger(left)) + BigInt(toInteger(right)), 'add');
  },
  '-': (left, right) => {
    if (typeof left === 'number' && typeof right === 'number') {
      const difference = left - right;
      if (Number.isSafeInteger(difference)) return difference;
    }
    if (left instanceof Double || right instanceof Double)
      return new Double(toDouble(left) - toDouble(right));
    return checkedInteger(BigInt(toInteger(left)) - BigInt(toInteger(right)), 'sub');
  },
  '*': (left, right) => {
    if (typeof left === 'number' && typeof right === 'number') {
      const product = left * right;
      // Adding 0 makes an integer's 0 of −0.
      if (Number.isSafeInteger(product)) return product + 0;
    }
    if (left instanceof Double || right instanceof Double)
      return new Double(toDouble(left) * toDouble(right));
    return checkedInteger(BigInt(toInteger(left)) * BigInt(toInteger(right)), 'mul');
  },
  '/': (left, right) => {
    if (left instanceof Double || right instanceof Double)
      return new Double(toDouble(left) / toDouble(right));
    const [dividend, divisor] = [toInteger(left), divisorOf(right)];
    if (typeof dividend === 'number' && typeof divisor === 'number') {
      return (dividend - (dividend % divisor)) / divisor + 0;
    }
    return checkedInteger(BigInt(dividend) / BigInt(divisor), 'div');
  },
  mod: (left, right) => {
    const [dividend, divisor] = [toInteger(left), divisorOf(right)];
    if (typeof dividend === 'number' && typeof divisor === 'number') return (dividend % divisor) + 0;
    return integer(BigInt(dividend) % BigInt(divisor));
  },
  '=': (left, right) => comparable(left, right, (one, other) => one === other),
  '<>': (left, right) => comparable(left, right, (one, other) => one !== other),
  '<': (left, right) => comparable(left, right, (one, other) => one < other),
  '<=': (left, right) => comparable(left, right, (one, other) => one <= other),
  '&': (left, right) =>
    isInt32(left) && isInt32(right) ? left & right : bits(left, right, (one, other) => one & other),
  '|': (left, right) =>
    isInt32(left) && isInt32(right) ? left | right : bits(left, right, (one, other) => one | other),
  '#': (left, right) =>
    isInt32(left) && isInt32(right) ? left ^ right : bits(left, right, (one, other) => one ^ other),
  // The processor takes the lowest six bits of how far to shift.
  '<<': (left, right) => bits(left, right, (one, other) => one << (other & 63n)),
  '>>': (left, right) => bits(left, right, (one, other) => one >> (other & 63n)),
  pow: power,
  power,
};

function divisorOf(value: Value): Integer {
  const divisor = toInteger(value);
  if (divisor === 0) throw invalidParameter('division by zero');
  return divisor;
}

function power(left: Value, right: Value): Value {
  return new Double(toDouble(left) ** toDouble(right));
}

function comparable(left: Value, right: Value, compare: (one: Integer, other: Integer) => boolean): boolean {
  if (left instanceof Double || right instanceof Double) return compare(toDouble(left), toDouble(right));
  return compare(toInteger(left), toInteger(right));
}

function bits(left: Value, right: Value, combine: (one: bigint, other: bigint) => bigint): Integer {
  const combined = combine(BigInt(toInteger(left)), BigInt(toInteger(right)));
  return integer(BigInt.asIntN(64, combined));
}

function compileRandom(
  name: FunctionName,
  given: readonly Expression[],
  parts: readonly Evaluate[],
): Evaluate {
  const [low, high, parameter] = parts as readonly [Evaluate, Evaluate, Evaluate];
  if (name === 'random_string') {
    const cut = stringPool();
    return (frame) => {
      const length = low(frame);
      return length === null ? null : cut(frame.random, toInteger(length));
    };
  }
  if (name === 'random') {
    const [min, max] = given.map((one) => (one.kind === 'constant' ? one.value : undefined));
    if (
      typeof min === 'number' &&
      typeof max === 'number' &&
      min <= max &&
      Number.isSafeInteger(max - min + 1)
    ) {
      const count = max - min + 1;
      return (frame) => min + Math.floor(frame.random() * count);
    }
    return (frame) => {
      const [from, to] = [low(frame), high(frame)];
      return from === null || to === null ? null : drawUniform(frame.random, toInteger(from), toInteger(to));
    };
  }
  const shape = { random_gaussian: gaussian, random_exponential: exponential, random_zipfian: zipfian }[
    name as 'random_gaussian' | 'random_exponential' | 'random_zipfian'
  ];
  let shapedBy: number | undefined;
  let draw: ReturnType<typeof shape> | undefined;
  return (frame) => {
    const [from, to, shapeOf] = [low(frame), high(frame), parameter(frame)];
    if (from === null || to === null || shapeOf === null) return null;
    const wanted = toDouble(shapeOf);
    if (draw === undefined || wanted !== shapedBy) {
      draw = shape(wanted);
      shapedBy = wanted;
    }
    return drawShaped(frame.random, toInteger(from), toInteger(to), draw);
  };
}

/** The hash functions and permute; a seed that is left out is :default_seed. */
function compileScatter(
  name: FunctionName,
  given: readonly Expression[],
  parts: readonly Evaluate[],
  slotOf: SlotOf,
): Evaluate {
  const seeds = name === 'permute' ? 2 : 1;
  const seedOf =
    given.length > seeds ? parts[seeds]! : compileVariable('default_seed', slotOf('default_seed'));
  const [value, size] = parts as readonly [Evaluate, Evaluate];
  if (name !== 'permute') {
    const hash = name === 'hash_fnv1a' ? hashFnv1a : hashMurmur2;
    return (frame) => {
      const [hashed, seed] = [value(frame), seedOf(frame)];
      return hashed === null || seed === null ? null : hash(toInteger(hashed), toInteger(seed));
    };
  }
  let madeFor: { size: Integer; seed: Integer } | undefined;
  let permute: (place: Integer) => Integer = (place) => place;
  return (frame) => {
    const [place, ofSize, ofSeed] = [value(frame), size(frame), seedOf(frame)];
    if (place === null || ofSize === null || ofSeed === null) return null;
    const wanted = { size: toInteger(ofSize), seed: toInteger(ofSeed) };
    if (wanted.size <= 0) throw invalidParameter('permute needs a size above zero');
    if (madeFor === undefined || madeFor.size !== wanted.size || madeFor.seed !== wanted.seed) {
      permute = permutation(wanted.size, wanted.seed);
      madeFor = wanted;
    }
    return permute(toInteger(place));
  };
}
