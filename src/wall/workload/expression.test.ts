import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Expression, type FunctionName, parseExpression } from './expression.ts';
import { compileExpression } from './expression-compiler.ts';
import { Double, type Value, valueText } from './script-value.ts';

const variables: Record<string, Value> = {
  a: 7,
  b: -3,
  big: 2n ** 62n,
  half: new Double(0.5),
  yes: true,
  none: null,
};
const names = Object.keys(variables);

function evaluate(expression: Expression): Value {
  const compiled = compileExpression(expression, (name) => names.indexOf(name));
  return compiled({ values: Object.values(variables), random: () => 0.5 });
}

function result(text: string): string {
  const value = evaluate(parseExpression(text));
  return value === null ? 'null' : `${value instanceof Double ? 'double ' : ''}${valueText(value)}`;
}

/** The dumb evaluator: every integer a bigint, every double a number, null undefined. */
type Plain = bigint | number | boolean | undefined;

class Refusal extends Error {}

function plain(value: Value): Plain {
  if (value instanceof Double) return value.value;
  if (typeof value === 'number') return BigInt(value);
  return value === null ? undefined : (value as bigint | boolean);
}

function whole(value: Plain): bigint {
  if (typeof value === 'bigint') return value;
  if (typeof value !== 'number') throw new Refusal();
  let rounded = Math.round(value);
  if (Math.abs(value % 1) === 0.5 && rounded % 2 !== 0) rounded--;
  if (!(rounded >= -(2 ** 63) && rounded < 2 ** 63)) throw new Refusal();
  return BigInt(rounded);
}

function double(value: Plain): number {
  if (typeof value !== 'number' && typeof value !== 'bigint') throw new Refusal();
  return Number(value);
}

function fits(value: bigint): bigint {
  if (value !== BigInt.asIntN(64, value)) throw new Refusal();
  return value;
}

function truth(value: Plain): boolean {
  return typeof value === 'bigint' ? value !== 0n : typeof value === 'number' ? value !== 0 : value === true;
}

function dumb(expression: Expression): Plain {
  if (expression.kind === 'constant') return plain(expression.value);
  if (expression.kind === 'variable') return plain(variables[expression.name]!);
  if (expression.kind === 'case') {
    for (const { when, result: then } of expression.branches) if (truth(dumb(when))) return dumb(then);
    return dumb(expression.otherwise);
  }
  const { name, arguments: given } = expression;
  if (name === 'and' || name === 'or') {
    const left = dumb(given[0]!);
    if (left === undefined) return undefined;
    if (typeof left !== 'boolean') throw new Refusal();
    if (left === (name === 'or')) return left;
    const right = dumb(given[1]!);
    if (right !== undefined && typeof right !== 'boolean') throw new Refusal();
    return right;
  }
  const values = given.map(dumb);
  if (name === 'is') return values[0] === values[1];
  if (values.includes(undefined)) return undefined;
  const [x, y] = values;
  const doubles = values.some((value) => typeof value === 'number');
  switch (name) {
    case '+':
      return doubles ? double(x) + double(y) : fits(whole(x) + whole(y));
    case '-':
      return doubles ? double(x) - double(y) : fits(whole(x) - whole(y));
    case '*':
      return doubles ? double(x) * double(y) : fits(whole(x) * whole(y));
    case '/':
      if (doubles) return double(x) / double(y);
      if (whole(x) === undefined || whole(y) === 0n) throw new Refusal();
      return fits(whole(x) / whole(y));
    case 'mod': {
      const dividend = whole(x);
      if (whole(y) === 0n) throw new Refusal();
      return dividend % whole(y);
    }
    case '<':
      return doubles ? double(x) < double(y) : whole(x) < whole(y);
    case '<=':
      return doubles ? double(x) <= double(y) : whole(x) <= whole(y);
    case '=':
      return doubles ? double(x) === double(y) : whole(x) === whole(y);
    case '<>':
      return doubles ? double(x) !== double(y) : whole(x) !== whole(y);
    case '&':
      return BigInt.asIntN(64, whole(x) & whole(y));
    case '|':
      return BigInt.asIntN(64, whole(x) | whole(y));
    case '#':
      return BigInt.asIntN(64, whole(x) ^ whole(y));
    case '<<':
      return BigInt.asIntN(64, whole(x) << BigInt.asUintN(6, whole(y)));
    case '>>':
      return whole(x) >> BigInt.asUintN(6, whole(y));
    case 'not':
      if (typeof x !== 'boolean') throw new Refusal();
      return !x;
    case 'abs':
      if (typeof x === 'number') return Math.abs(x);
      return whole(x) < 0n ? BigInt.asIntN(64, -whole(x)) : whole(x);
    case 'int':
      return whole(x);
    case 'double':
      return double(x);
    case 'least':
    case 'greatest': {
      const sign = name === 'least' ? -1 : 1;
      if (doubles) return sign * Math.max(...values.map((value) => sign * double(value)));
      return values
        .map(whole)
        .reduce((best, value) => ((sign > 0 ? value > best : value < best) ? value : best));
    }
    default:
      throw new Error(`${name} is not generated`);
  }
}

const OPERATORS = '+ - * / mod < <= = <> & | # << >> and or is'.split(' ') as FunctionName[];

const generated = fc.letrec<{ expression: Expression }>((tie) => ({
  expression: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.oneof(
      fc.constantFrom(...names).map((name): Expression => ({ kind: 'variable', name })),
      fc
        .oneof(
          fc.integer({ min: -9, max: 70 }),
          fc.maxSafeInteger(),
          fc.constantFrom<Value>(
            true,
            false,
            null,
            -(2n ** 63n),
            2n ** 63n - 1n,
            new Double(2.5),
            new Double(1e19),
          ),
        )
        .map((value): Expression => ({ kind: 'constant', value })),
    ),
    fc.tuple(fc.constantFrom(...OPERATORS), tie('expression'), tie('expression')).map(
      ([name, left, right]): Expression => ({
        kind: 'call',
        name,
        arguments: name === 'is' ? [left, { kind: 'constant', value: null }] : [left, right],
      }),
    ),
    fc
      .tuple(fc.constantFrom<FunctionName>('not', 'abs', 'int', 'double'), tie('expression'))
      .map(([name, given]): Expression => ({ kind: 'call', name, arguments: [given] })),
    fc
      .tuple(
        fc.constantFrom<FunctionName>('least', 'greatest'),
        fc.array(tie('expression'), { minLength: 1, maxLength: 3 }),
      )
      .map(([name, given]): Expression => ({ kind: 'call', name, arguments: given })),
    fc.tuple(tie('expression'), tie('expression'), tie('expression')).map(
      ([when, then, otherwise]): Expression => ({
        kind: 'case',
        branches: [{ when, result: then }],
        otherwise,
      }),
    ),
  ),
})).expression;

/** With every parenthesis. */
function print(expression: Expression): string {
  switch (expression.kind) {
    case 'constant': {
      const { value } = expression;
      if (value === null) return 'NULL';
      return value instanceof Double ? value.value.toExponential() : String(value);
    }
    case 'variable':
      return `:${expression.name}`;
    case 'case': {
      const whens = expression.branches.map(
        ({ when, result: then }) => `WHEN ${print(when)} THEN ${print(then)}`,
      );
      return `CASE ${whens.join(' ')} ELSE ${print(expression.otherwise)} END`;
    }
    case 'call': {
      const given = expression.arguments.map(print);
      if (expression.name === 'mod') return `(${given[0]} % ${given[1]})`;
      if (expression.name === 'not') return `(NOT ${given[0]})`;
      if (OPERATORS.includes(expression.name)) return `(${given[0]} ${expression.name} ${given[1]})`;
      return `${expression.name}(${given.join(', ')})`;
    }
  }
}

describe('expressions', () => {
  it('are what a dumb evaluator says, printed and parsed too', () => {
    fc.assert(
      fc.property(generated, (expression) => {
        let expected: Plain | 'refused';
        try {
          expected = dumb(expression);
        } catch (error) {
          if (!(error instanceof Refusal)) throw error;
          expected = 'refused';
        }
        const evaluated = (one: Expression): Plain | 'refused' => {
          let value: Value;
          try {
            value = evaluate(one);
          } catch {
            return 'refused';
          }
          // Integers have one form each, or comparing them would go wrong.
          if (typeof value === 'number')
            expect(Number.isSafeInteger(value) && !Object.is(value, -0)).toBe(true);
          if (typeof value === 'bigint') expect(Number.isSafeInteger(Number(value))).toBe(false);
          return plain(value);
        };
        expect(evaluated(expression)).toEqual(expected);
        expect(evaluated(parseExpression(print(expression)))).toEqual(expected);
      }),
      { numRuns: 2000 },
    );
  });

  it.each([
    ['1 + 2 * 3', '7'],
    ['(1 + 2) * 3', '9'],
    ['2 - 3 - 4', '-5'],
    ['-2 * -3', '6'],
    ['- 7 / 2', '-3'],
    ['-7 % 2', '-1'],
    ['7 / 2.0', 'double 3.5'],
    ['1 << 3 | 1', '9'],
    ['~1 + 2', '-4'],
    ['5 & 3 + 1', '4'],
    ['not false and false', 'false'],
    ['not 1 = 2', 'true'],
    ['1 < 2 is true', 'true'],
    [':none isnull or :yes', 'true'],
    [':a notnull', 'true'],
    [':none is not null', 'false'],
    ['null and false', 'null'],
    ['false and null', 'false'],
    ['1 != 2', 'true'],
    ['3 >= 3', 'true'],
    ['3 > 3', 'false'],
    ['CASE WHEN :a > 100 THEN 1 WHEN 0.1 THEN 2 END', '2'],
    ['case when null then 1 end', 'null'],
    ['int(2.5) + int(3.5)', '6'],
    ['greatest(1, 2.0, -3)', 'double 2'],
    ['least(1, :none)', 'null'],
    ['abs(-9223372036854775807)', '9223372036854775807'],
    ['-9223372036854775808', '-9223372036854775808'],
    ['pow(2, 10) + sqrt(4)', 'double 1026'],
    ['exp(0) + ln(1)', 'double 1'],
    ['PI()', 'double 3.14159265358979'],
    ['1e3', 'double 1000'],
    ['.5', 'double 0.5'],
    ['9007199254740991 + 1', '9007199254740992'],
  ])('%s is %s', (text, expected) => {
    expect(result(text)).toBe(expected);
  });

  it.each([
    ['', /ends too early/],
    ['1 +', /ends too early/],
    ['1 2', /syntax error .* "2"/],
    ['1 < 2 < 3', /syntax error .* "<"/],
    ['(1', /where "\)" belongs/],
    ['foo(1)', /unknown function "foo"/],
    ['abs(1, 2)', /abs takes 1 arguments, not 2/],
    ['least()', /least takes 1 to 16 arguments/],
    ['case 1 end', /CASE is followed by WHEN/],
    ['1 is 2', /IS is followed by/],
    ['9223372036854775808', /64-bit/],
    ['1 ? 2', /unexpected character "\?"/],
    ['('.repeat(5000), /nested too deeply/],
    ['1 / 0', /division by zero/],
    ['9223372036854775807 + 1', /bigint add out of range/],
    ['-9223372036854775808 / -1', /bigint div out of range/],
    ['1 + true', /cannot coerce boolean to int/],
    ['not 1', /cannot coerce int to boolean/],
    ['int(1e30)', /double to int overflow/],
    ['random(2, 1)', /empty range/],
    ['random(-9223372036854775808, 9223372036854775807)', /too large/],
    ['random_gaussian(1, 10, 1.9)', /at least 2/],
    ['random_exponential(1, 10, 0)', /above zero/],
    ['random_zipfian(1, 10, 1001)', /at most 1000/],
    ['permute(1, 0, 1)', /above zero/],
    ['random_string(-1)', /0 to 1000000/],
  ])('%s is refused', (text, message) => {
    expect(() => result(text)).toThrow(message);
  });
});
