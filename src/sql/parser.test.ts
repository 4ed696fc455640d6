import { beforeAll, describe, expect, test } from 'vitest';
import { BOUNDS } from '../base/bounds.ts';
import { loadParser, parserIsLoaded, parseSql } from './parser.ts';

beforeAll(loadParser);

describe('statements', () => {
  test.each([
    ['', []],
    [' -- nothing\n ;;', []],
    ['select 1', ['select 1']],
    ['select 1; select 2 ;', ['select 1', 'select 2 ']],
    ["select 'é😀'; /* ü */ select 'ñ'", ["select 'é😀'", "select 'ñ'"]],
  ])('%j', (text, expected) => {
    const parsed = parseSql(text);
    if (parsed.kind !== 'parsed') throw new Error(parsed.kind);
    const bytes = Buffer.from(text);
    expect(parsed.statements.map(({ start, end }) => bytes.toString('utf8', start, end))).toEqual(expected);
  });

  test('locations are byte offsets', () => {
    const text = "select 'é😀', $1";
    const parsed = parseSql(text);
    const json = JSON.stringify(parsed);
    expect(json).toContain(
      `{"ParamRef":{"number":1,"location":${Buffer.byteLength(text.slice(0, text.indexOf('$')))}}`,
    );
  });

  test.each(['selec 1', 'select (', "select 'open", 'select 1\0; drop table x'])(
    '%j is not parsed',
    (text) => {
      expect(parseSql(text)).toEqual({ kind: 'syntaxError' });
    },
  );

  test('a text beyond the bound is refused before it is parsed', () => {
    expect(parseSql(`select '${'x'.repeat(BOUNDS.parsedTextBytesMax)}'`)).toMatchObject({
      kind: 'tooComplex',
    });
  });
});

describe('deep nesting', () => {
  /** Each shape nests once per repetition. */
  const shapes: [string, (depth: number) => string, number][] = [
    ['operators', (depth) => `select ${'1+'.repeat(depth)}1`, 2],
    ['signs', (depth) => `select ${'- '.repeat(depth)}x`, 2],
    ['operator names', (depth) => `select ~${' ~'.repeat(depth)} x`, 2],
    ['subqueries', (depth) => `select ${'(select '.repeat(depth)}1${')'.repeat(depth)}`, 9],
    ['FROM', (depth) => `select 1 from ${'(select*from '.repeat(depth)}x${')a'.repeat(depth)}`, 15],
    ['calls', (depth) => `select ${'f('.repeat(depth)}1${')'.repeat(depth)}`, 3],
    ['arrays', (depth) => `select ${'array['.repeat(depth)}1${']'.repeat(depth)}`, 7],
    ['rows', (depth) => `select ${'(1,'.repeat(depth)}1${')'.repeat(depth)}`, 4],
    ['CASE', (depth) => `select ${'case when '.repeat(depth)}a${' then 1 end'.repeat(depth)}`, 21],
    ['casts', (depth) => `select 1${'::a'.repeat(depth)}`, 3],
    ['joins', (depth) => `select 1 from a,b${' cross join b'.repeat(depth)}`, 13],
    ['unions', (depth) => `select 1${' union select 1'.repeat(depth)}`, 15],
    ['CTEs', (depth) => `${'with a as('.repeat(depth)}select 1${')select 1'.repeat(depth)}`, 19],
  ];

  test.each(shapes)('%s: a short text never breaks the parser', (_name, shape, bytesPerLevel) => {
    const text = shape(Math.floor(6000 / bytesPerLevel));
    expect(Buffer.byteLength(text)).toBeLessThan(6144);
    expect(parseSql(text).kind).not.toBe('tooComplex');
  });

  test('a parser that overflowed is replaced, and short texts are served meanwhile', async () => {
    const deep = `select ${'1+'.repeat(50_000)}1`;
    for (let round = 0; round < 40; round++) {
      expect(parseSql(deep).kind).not.toBe('parsed');
      expect(parseSql('select 1').kind).toBe('parsed');
      expect(parserIsLoaded() || parseSql(deep).kind === 'tooComplex').toBe(true);
      await loadParser();
    }
    expect(parseSql(`select ${'1+'.repeat(3000)}1`).kind).toBe('parsed');
  });
});
