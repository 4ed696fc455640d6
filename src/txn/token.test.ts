import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatToken, parseToken } from './token.ts';

const KEY = Buffer.from('5f'.repeat(32), 'hex');

const tokens = fc.record({
  transactionId: fc.uuid(),
  commitPointNodeId: fc.integer({ min: 1 }),
  commitPointBackend: fc.record({ processId: fc.integer({ min: 1 }), startedAtUs: fc.nat() }),
  // NAMEDATALEN − 1, of any characters.
  owner: fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }),
  issuedAtUs: fc.nat({ max: Number.MAX_SAFE_INTEGER }),
});

test('what was written is read', () => {
  fc.assert(
    fc.property(tokens, (token) => {
      expect(parseToken(formatToken(token, KEY), KEY)).toEqual(token);
    }),
    { seed: 1 },
  );
});

const TOKEN = formatToken(
  {
    transactionId: '00000000-0000-4000-8000-000000000000',
    commitPointNodeId: 1,
    commitPointBackend: { processId: 2, startedAtUs: 3 },
    owner: 'app',
    issuedAtUs: 4,
  },
  KEY,
);

test('one character changed anywhere is refused', () => {
  for (let i = 4; i < TOKEN.length - 1; i++) {
    const other = TOKEN[i] === 'A' ? 'B' : 'A';
    expect(() => parseToken(TOKEN.slice(0, i) + other + TOKEN.slice(i + 1), KEY)).toThrow(
      /not an outcome token/,
    );
  }
});

test.each(['', 'pt1_', 'pt2_abc', 'pt1_AAAA', `pt1_${'A'.repeat(10_000)}`, TOKEN.slice(0, 40), "pt1_'; --"])(
  'what is no token is refused: %s',
  (text) => {
    expect(() => parseToken(text, KEY)).toThrow(expect.objectContaining({ sqlState: '22023' }));
  },
);

test('a token of another cluster is refused', () => {
  expect(() => parseToken(TOKEN, randomBytes(32))).toThrow(expect.objectContaining({ sqlState: '22023' }));
});
