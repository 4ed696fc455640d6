/**
 * The expressions of \set, \if and \elif: text to tree. Operators become calls, as in pgbench.
 * Precedence, from the weakest: OR; AND; NOT; IS, ISNULL, NOTNULL; comparisons; | # & << >> ~; + -; * / %; unary + and -.
 * Source: PostgreSQL documentation, pgbench, "Built-In Operators" and "Built-In Functions".
 */
import { invalidParameter } from '../../base/errors.ts';
import { Double, type Integer, integer, type Value } from './script-value.ts';

export type Expression =
  | { readonly kind: 'constant'; readonly value: Value }
  | { readonly kind: 'variable'; readonly name: string }
  | { readonly kind: 'call'; readonly name: FunctionName; readonly arguments: readonly Expression[] }
  | {
      readonly kind: 'case';
      readonly branches: readonly { readonly when: Expression; readonly result: Expression }[];
      readonly otherwise: Expression;
    };

/** Name → how many arguments, at least and at most. Those up to 'not' are written as operators. */
const FUNCTIONS = {
  '+': [2, 2],
  '-': [2, 2],
  '*': [2, 2],
  '/': [2, 2],
  mod: [2, 2],
  '=': [2, 2],
  '<>': [2, 2],
  '<': [2, 2],
  '<=': [2, 2],
  '&': [2, 2],
  '|': [2, 2],
  '#': [2, 2],
  '<<': [2, 2],
  '>>': [2, 2],
  is: [2, 2],
  and: [2, 2],
  or: [2, 2],
  not: [1, 1],
  abs: [1, 1],
  double: [1, 1],
  exp: [1, 1],
  greatest: [1, 16],
  hash: [1, 2],
  hash_fnv1a: [1, 2],
  hash_murmur2: [1, 2],
  int: [1, 1],
  least: [1, 16],
  ln: [1, 1],
  permute: [2, 3],
  pi: [0, 0],
  pow: [2, 2],
  power: [2, 2],
  random: [2, 2],
  random_exponential: [3, 3],
  random_gaussian: [3, 3],
  random_string: [1, 1],
  random_zipfian: [3, 3],
  sqrt: [1, 1],
} as const satisfies Record<string, readonly [number, number]>;

export type FunctionName = keyof typeof FUNCTIONS;

interface Token {
  readonly kind: 'number' | 'variable' | 'word' | 'symbol' | 'end';
  readonly text: string;
}

const TOKEN =
  /\s+|(?<number>\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)|:(?<variable>[\w\u0080-\uffff]+)|(?<word>[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)|(?<symbol><=|>=|<>|!=|<<|>>|[-+*/%(),<>=&|#~])/y;

/** How strongly a binary operator binds; those of 5 can't follow each other (`a < b < c`). */
const BINARY: Readonly<Record<string, { readonly level: number; readonly name: FunctionName }>> = {
  or: { level: 1, name: 'or' },
  and: { level: 2, name: 'and' },
  '<': { level: 5, name: '<' },
  '>': { level: 5, name: '<' },
  '<=': { level: 5, name: '<=' },
  '>=': { level: 5, name: '<=' },
  '=': { level: 5, name: '=' },
  '<>': { level: 5, name: '<>' },
  '!=': { level: 5, name: '<>' },
  '|': { level: 6, name: '|' },
  '#': { level: 6, name: '#' },
  '&': { level: 6, name: '&' },
  '<<': { level: 6, name: '<<' },
  '>>': { level: 6, name: '>>' },
  '+': { level: 7, name: '+' },
  '-': { level: 7, name: '-' },
  '*': { level: 8, name: '*' },
  '/': { level: 8, name: '/' },
  '%': { level: 8, name: 'mod' },
};
const NOT_LEVEL = 3;
const IS_LEVEL = 4;
const COMPARISON_LEVEL = 5;
const BITWISE_LEVEL = 6;
const UNARY_LEVEL = 9;
const NESTING_MAX = 200;
const INT64_MAX = 2n ** 63n - 1n;

/** Throws PosternError (22023), without a place: the caller knows the line. */
export function parseExpression(text: string): Expression {
  const parser = new Parser(tokensOf(text));
  const expression = parser.expression(0);
  parser.expectEnd();
  return expression;
}

function tokensOf(text: string): Token[] {
  const tokens: Token[] = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.length) {
    const at = TOKEN.lastIndex;
    const groups = TOKEN.exec(text)?.groups;
    if (groups === undefined) throw invalidParameter(`unexpected character "${text[at]}" in an expression`);
    const { number, variable, word, symbol } = groups;
    if (number !== undefined) tokens.push({ kind: 'number', text: number });
    else if (variable !== undefined) tokens.push({ kind: 'variable', text: variable });
    else if (word !== undefined) tokens.push({ kind: 'word', text: word.toLowerCase() });
    else if (symbol !== undefined) tokens.push({ kind: 'symbol', text: symbol });
  }
  return tokens;
}

class Parser {
  private readonly tokens: readonly Token[];
  private position = 0;
  private nesting = 0;

  constructor(tokens: readonly Token[]) {
    this.tokens = tokens;
  }

  expectEnd(): void {
    if (this.peek().kind !== 'end')
      throw invalidParameter(`syntax error in an expression at "${this.peek().text}"`);
  }

  /** What binds more strongly than `level`. */
  expression(level: number): Expression {
    if (++this.nesting > NESTING_MAX) throw invalidParameter('an expression is nested too deeply');
    let left = this.operand();
    for (;;) {
      const token = this.peek();
      const operator = token.kind === 'number' ? undefined : BINARY[token.text];
      if (operator !== undefined && token.kind !== 'variable') {
        if (operator.level <= level) break;
        this.position++;
        const right = this.expression(operator.level);
        const mirrored = token.text === '>' || token.text === '>=';
        left = call(operator.name, mirrored ? [right, left] : [left, right]);
        if (operator.level === COMPARISON_LEVEL && BINARY[this.peek().text]?.level === COMPARISON_LEVEL) {
          throw invalidParameter(`syntax error in an expression at "${this.peek().text}"`);
        }
      } else if (token.kind === 'word' && ['is', 'isnull', 'notnull'].includes(token.text)) {
        if (IS_LEVEL <= level) break;
        this.position++;
        left = this.test(left, token.text);
      } else break;
    }
    this.nesting--;
    return left;
  }

  private test(left: Expression, word: string): Expression {
    if (word !== 'is') {
      const isNull = call('is', [left, constant(null)]);
      return word === 'isnull' ? isNull : call('not', [isNull]);
    }
    const isNot = this.take('not');
    const token = this.next();
    const values: Record<string, boolean | null> = { null: null, true: true, false: false };
    const value = values[token.text];
    if (value === undefined)
      throw invalidParameter('IS is followed by NULL, TRUE or FALSE, or NOT and one of these');
    const isIt = call('is', [left, constant(value)]);
    return isNot ? call('not', [isIt]) : isIt;
  }

  private operand(): Expression {
    const token = this.next();
    switch (token.kind) {
      case 'number':
        return constant(numberOf(token.text, INT64_MAX));
      case 'variable':
        return { kind: 'variable', name: token.text };
      case 'word':
        return this.word(token.text);
      case 'symbol':
        return this.symbol(token.text);
      case 'end':
        throw invalidParameter('an expression ends too early');
    }
  }

  private symbol(text: string): Expression {
    if (text === '(') {
      const inner = this.expression(0);
      this.expect(')');
      return inner;
    }
    if (text === '+') return this.expression(UNARY_LEVEL);
    if (text === '-') {
      const token = this.peek();
      // −2^63 is an integer, and 2^63 is not.
      if (token.kind === 'number') {
        this.position++;
        return constant(negated(numberOf(token.text, INT64_MAX + 1n)));
      }
      return call('-', [constant(0), this.expression(UNARY_LEVEL)]);
    }
    if (text === '~') return call('#', [constant(-1), this.expression(BITWISE_LEVEL)]);
    throw invalidParameter(`syntax error in an expression at "${text}"`);
  }

  private word(word: string): Expression {
    if (word === 'null') return constant(null);
    if (word === 'true' || word === 'false') return constant(word === 'true');
    if (word === 'not') return call('not', [this.expression(NOT_LEVEL)]);
    if (word === 'case') return this.case();
    if (!Object.hasOwn(FUNCTIONS, word) || !/^[a-z]/.test(word) || ['is', 'and', 'or'].includes(word)) {
      throw invalidParameter(`unknown function "${word}" in an expression`);
    }
    const name = word as FunctionName;
    this.expect('(');
    const given: Expression[] = [];
    if (!this.take(')')) {
      do given.push(this.expression(0));
      while (this.take(','));
      this.expect(')');
    }
    const [least, most] = FUNCTIONS[name];
    if (given.length < least || given.length > most) {
      const wanted = least === most ? `${least}` : `${least} to ${most}`;
      throw invalidParameter(`${name} takes ${wanted} arguments, not ${given.length}`);
    }
    return call(name, given);
  }

  private case(): Expression {
    const branches: { when: Expression; result: Expression }[] = [];
    while (this.take('when')) {
      const when = this.expression(0);
      this.expect('then');
      branches.push({ when, result: this.expression(0) });
    }
    if (branches.length === 0) throw invalidParameter('CASE is followed by WHEN');
    const otherwise = this.take('else') ? this.expression(0) : constant(null);
    this.expect('end');
    return { kind: 'case', branches, otherwise };
  }

  private peek(): Token {
    return this.tokens[this.position] ?? { kind: 'end', text: 'its end' };
  }

  private next(): Token {
    const token = this.peek();
    this.position++;
    return token;
  }

  private take(text: string): boolean {
    const token = this.peek();
    if (token.text !== text || (token.kind !== 'symbol' && token.kind !== 'word')) return false;
    this.position++;
    return true;
  }

  private expect(text: string): void {
    if (!this.take(text)) {
      throw invalidParameter(`an expression has "${this.peek().text}" where "${text}" belongs`);
    }
  }
}

function constant(value: Value): Expression {
  return { kind: 'constant', value };
}

function call(name: FunctionName, given: readonly Expression[]): Expression {
  return { kind: 'call', name, arguments: given };
}

function numberOf(text: string, max: bigint): Integer | Double {
  if (!/^\d+$/.test(text)) return new Double(Number(text));
  const value = BigInt(text);
  if (value > max) throw invalidParameter(`"${text}" does not fit into a 64-bit integer`);
  return integer(value);
}

function negated(value: Integer | Double): Integer | Double {
  if (value instanceof Double) return new Double(-value.value);
  return integer(-BigInt(value));
}
