import { BlockList, isIP } from 'node:net';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { contains, isLoopback, networkOfMask, parseAddress, parseNetwork } from './ip-network.ts';

describe('addresses', () => {
  it('are those that the system takes', () => {
    const texts = fc.oneof(
      fc.ipV4(),
      fc.ipV6(),
      fc.string({ unit: fc.constantFrom(':', '.', '0', '1', 'f', '9', 'g', '25'), maxLength: 12 }),
    );
    fc.assert(
      fc.property(texts, (text) => {
        expect(parseAddress(text) !== undefined).toBe(isIP(text) !== 0);
      }),
      { seed: 7, numRuns: 2_000 },
    );
  });

  it('within IPv6 are IPv4', () => {
    expect(parseAddress('::ffff:10.1.2.3')).toEqual(Uint8Array.of(10, 1, 2, 3));
    expect(parseAddress('::ffff:a01:203')).toEqual(Uint8Array.of(10, 1, 2, 3));
  });

  it.each([
    ['127.0.0.1', true],
    ['127.8.0.1', true],
    ['::1', true],
    ['::ffff:127.0.0.1', true],
    ['128.0.0.1', false],
    ['::2', false],
    ['::', false],
  ])('%s is loopback: %s', (text, is) => expect(isLoopback(parseAddress(text)!)).toBe(is));
});

describe('networks', () => {
  const network = fc.oneof(
    fc.tuple(fc.ipV4(), fc.integer({ min: 0, max: 32 }), fc.ipV4()),
    fc.tuple(fc.ipV6(), fc.integer({ min: 0, max: 128 }), fc.ipV6()),
  );

  it('contain what the system says', () => {
    fc.assert(
      fc.property(network, fc.boolean(), ([base, bits, other], isNear) => {
        // Two random addresses have little in common: a near one differs in one bit.
        const address = parseAddress(base)!;
        const near = Uint8Array.from(address);
        if (bits > 0) near[(bits - 1) >> 3]! ^= 0x80 >> ((bits - 1) & 7);
        const candidate = isNear ? near : parseAddress(other)!;
        fc.pre(address.length === (base.includes(':') ? 16 : 4));
        const list = new BlockList();
        const family = address.length === 4 ? 'ipv4' : 'ipv6';
        list.addSubnet(base, bits, family);
        const text =
          candidate.length === 4
            ? [...candidate].join('.')
            : [...candidate]
                .map((byte) => byte.toString(16).padStart(2, '0'))
                .join('')
                .match(/..../g)!
                .join(':');
        expect(contains(parseNetwork(`${base}/${bits}`)!, candidate)).toBe(
          candidate.length === address.length && list.check(text, family),
        );
      }),
      { seed: 7, numRuns: 1_000 },
    );
  });

  it.each([
    '10.0.0.0',
    '10.0.0.0/33',
    '10.0.0.0/',
    '10.0.0/8',
    'fd00::/129',
    'a/8',
    '10.0.0.0/8/8',
    '10.0.0.0/-1',
  ])('%s is none', (text) => expect(parseNetwork(text)).toBeUndefined());

  it.each([
    ['10.0.0.0', '255.0.0.0', 8],
    ['10.0.0.1', '255.255.255.255', 32],
    ['10.0.0.1', '0.0.0.0', 0],
    ['fd00::', 'ffff:ffff::', 32],
    ['10.0.0.0', '255.0.255.0', undefined],
    ['10.0.0.0', 'ffff::', undefined],
  ])('%s with mask %s', (address, mask, bits) => {
    expect(networkOfMask(parseAddress(address)!, parseAddress(mask)!)?.prefixBits).toBe(bits);
  });
});
