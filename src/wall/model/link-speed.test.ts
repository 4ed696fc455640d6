import { expect, it } from 'vitest';
import { parseLinkSpeed } from './link-speed.ts';

it('reads a speed as people write it', () => {
  const texts = ['1gbps', '10 Gbit/s', '2.5G', '100mbps', '100Mb/s', '64kbit'];
  expect(texts.map(parseLinkSpeed)).toEqual([1e9, 1e10, 2.5e9, 1e8, 1e8, 64_000]);
  for (const text of ['', 'fast', '0gbps', '-1g', '1', '1 GB', 'gbps', '1gbpsx']) {
    expect(parseLinkSpeed(text), text).toBeUndefined();
  }
});
