import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { isMd5Hash, md5Hash, md5Response } from './md5-password.ts';

const md5 = (data: Buffer | string) => createHash('md5').update(data).digest('hex');

test('what is stored and answered is as PostgreSQL documents it', () => {
  const salt = Buffer.from([1, 2, 253, 254]);
  expect(md5Hash('me', 'secret')).toBe(`md5${md5('secretme')}`);
  expect(isMd5Hash(md5Hash('me', 'secret'))).toBe(true);
  expect(isMd5Hash('md5 is a nice password of its own')).toBe(false);
  const expected = `md5${md5(Buffer.concat([Buffer.from(md5('secretme')), salt]))}`;
  expect(md5Response(md5Hash('me', 'secret'), salt)).toBe(expected);
});
