import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatGid, parseGid } from './gid.ts';

const CLUSTER = '7d1f0f6e-8f5c-4f0e-9b57-0d0b7a1c2d3e';

const gids = fc.record({
  transactionId: fc.uuid(),
  commitPointNodeId: fc.integer({ min: 1, max: 2_147_483_647 }),
  commitPointBackend: fc.record({
    processId: fc.integer({ min: 1, max: 2_147_483_647 }),
    startedAtUs: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
  }),
});

test('what was written is read, and fits into what PostgreSQL has for it', () => {
  fc.assert(
    fc.property(gids, (gid) => {
      const text = formatGid(CLUSTER, gid);
      expect(Buffer.byteLength(text)).toBeLessThan(200);
      expect(parseGid(CLUSTER, text)).toEqual(gid);
    }),
    { seed: 1 },
  );
});

const GOOD = `postern:${CLUSTER}:00000000-0000-4000-8000-000000000000:2:4711:1763856000123456`;

test.each([
  ['another cluster', GOOD.replace('7d1f', '7d1e')],
  ['a prefix', GOOD.slice(0, -17)],
  ['something behind it', `${GOOD}:1`],
  ['a line behind it', `${GOOD}\n`],
  ['another program', GOOD.replace('postern', 'citus')],
  ['no transaction id', GOOD.replace('0000-4000', '0000_4000')],
  ['a node that there is not', GOOD.replace(':2:', ':0:')],
  ['a pid with a sign', GOOD.replace(':4711:', ':-4711:')],
  ['a number that is none in JavaScript', GOOD.replace('1763856000123456', '9999999999999999')],
  ['upper case', GOOD.toUpperCase()],
])('%s is not ours', (_what, text) => {
  expect(parseGid(CLUSTER, GOOD)).toBeDefined();
  expect(parseGid(CLUSTER, text)).toBeUndefined();
});
