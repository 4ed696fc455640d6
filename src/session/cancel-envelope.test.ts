import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { cancelKey, openCancel, SECRET_KEY_BYTES_MAX, sealCancel } from './cancel-envelope.ts';

const KEY = cancelKey(Buffer.alloc(32, 7));
const envelope = fc.record({
  sessionId: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
  secretKey: fc
    .uint8Array({ minLength: 1, maxLength: SECRET_KEY_BYTES_MAX })
    .map((bytes) => Buffer.from(bytes)),
  sentAtMs: fc.integer({ min: 0, max: 4_000_000_000_000 }),
});

it('arrives as it was sent, and fits a notification', () => {
  fc.assert(
    fc.property(envelope, (sent) => {
      const text = sealCancel(sent, KEY);
      expect(text.length).toBeLessThan(8_000);
      const { nonce, ...opened } = openCancel(text, KEY)!;
      expect(opened).toEqual(sent);
      expect(nonce).toMatch(/^[\w-]{16}$/);
    }),
  );
});

it('is nothing once a bit of it is changed, or with another key', () => {
  fc.assert(
    fc.property(envelope, fc.nat(), (sent, at) => {
      const bytes = Buffer.from(sealCancel(sent, KEY), 'base64url');
      expect(openCancel(bytes.toString('base64url'), cancelKey(Buffer.alloc(32, 8)))).toBeUndefined();
      bytes[at % bytes.length]! ^= 1 << (at % 8);
      expect(openCancel(bytes.toString('base64url'), KEY)).toBeUndefined();
    }),
  );
});

it('is not among what others write to the channel', () => {
  for (const text of ['', 'x', '\u0000', 'a'.repeat(7_999), randomBytes(60).toString('base64url')])
    expect(openCancel(text, KEY)).toBeUndefined();
});

it('hides the secret key, and is another text each time', () => {
  const sent = { sessionId: 1, secretKey: Buffer.from('secret-secret'), sentAtMs: 0 };
  const texts = [sealCancel(sent, KEY), sealCancel(sent, KEY)];
  expect(texts[0]).not.toBe(texts[1]);
  for (const text of texts) expect(Buffer.from(text, 'base64url').includes('secret')).toBe(false);
});
