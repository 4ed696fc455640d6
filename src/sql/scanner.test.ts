import fc from 'fast-check';
import { loadModule, scanSync } from 'libpg-query';
import { beforeAll, describe, expect, test } from 'vitest';
import { closingParen, endOfName, keywordOf, nextToken, skipSpace } from './scanner.ts';

beforeAll(loadModule);

const pieces = fc.constantFrom(
  ...['a', 'E', 'é', 'x1$y', '"q"', '"a""b"', 'U&"d\\0061"', "'s'", "'it''s'", "E'a\\'b'", "e'\\\\'"],
  ...[
    "B'01'",
    "x'1F'",
    "N'n'",
    "U&'\\00e9'",
    '$1',
    '$23',
    '$$ \' " $$',
    '$t$ $$ ) $t$',
    '1',
    '1.5e3',
    '.5',
    "E'a'\n'b\\'c'",
  ],
  ...['(', ')', ',', ';', '.', '[', ']', '::', '=', '<=', '->>', '||', '*', '+', ' ', '\n', '\t', '-- c )\n'],
  ...['/* ( */', '/* a /* ) */ b */', 'select', 'VALUES'],
);

describe('tokens', () => {
  test("begin and end where PostgreSQL's own scanner says", () => {
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 12 }), (parts) => {
        // White space keeps pieces apart that would be other tokens together.
        const text = parts.join(' ');
        const sql = Buffer.from(text);
        let expected: { start: number; end: number; tokenName: string }[];
        try {
          expected = scanSync(text || ' ').tokens;
        } catch {
          return;
        }
        const starts = new Map<number, number>();
        for (let at = 0; ; ) {
          const token = nextToken(sql, at);
          if (token.kind === 'end') break;
          starts.set(token.start, token.end);
          at = token.end;
        }
        for (const { start, end, tokenName } of expected) {
          if (tokenName.includes('COMMENT')) expect(starts.has(start)).toBe(false);
          // Operators come one character at a time.
          else if (/^[^\w"'$\u0080-\uffff.]/.test(sql.toString('utf8', start, end))) {
            expect(starts.get(start)).toBe(start + 1);
          } else if (!/^\.\d/.test(sql.toString('utf8', start, end))) expect(starts.get(start)).toBe(end);
        }
      }),
      { numRuns: 2000 },
    );
  });

  test('a closing parenthesis is the one of the same depth', () => {
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 12 }), (parts) => {
        const text = `( ${parts.join(' ')}`;
        let expected = Buffer.byteLength(text);
        let depth = 0;
        try {
          for (const token of scanSync(text).tokens) {
            if (token.text === '(') depth++;
            else if (token.text === ')' && --depth === 0) {
              expected = token.start;
              break;
            }
          }
        } catch {
          return;
        }
        expect(closingParen(Buffer.from(text), 0)).toBe(expected);
      }),
      { numRuns: 2000 },
    );
  });

  test('names, keywords and comments', () => {
    const sql = Buffer.from('  /* x */ "a.b" . /* y */ Cd -- z\n . e *');
    expect(skipSpace(sql, 0)).toBe(sql.indexOf('"'));
    expect(endOfName(sql, skipSpace(sql, 0), 2)).toBe(sql.indexOf(' -- z'));
    expect(endOfName(sql, skipSpace(sql, 0), 3)).toBe(sql.lastIndexOf(' *'));
    expect(endOfName(sql, skipSpace(sql, 0), 4)).toBeUndefined();
    expect(keywordOf(sql, nextToken(sql, sql.indexOf('Cd')))).toBe('cd');
  });
});
