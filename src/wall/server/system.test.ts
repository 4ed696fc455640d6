import { describe, expect, it } from 'vitest';
import {
  interfaceTo,
  parseCores,
  parseDisk,
  parseGroupLimit,
  parseInterfaces,
  type SystemSample,
  systemUse,
} from './system.ts';

const STAT = `cpu  300 0 100 1000 50 0 50 200 0 0
cpu0 100 0 50 500 25 0 25 100 0 0
cpu1 200 0 50 500 25 0 25 100 0 0
intr 1 2 3
`;

const ROUTE = `Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth2\t0105A8C0\t00000000\t0001\t0\t0\t0\tFFFFFFFF\t0\t0\t0
`;

describe('what /proc tells', () => {
  it('is the time of each core in seconds', () => {
    expect(parseCores(STAT)).toEqual([
      { busySeconds: 1.75, stealSeconds: 1, idleSeconds: 5.25 },
      { busySeconds: 2.75, stealSeconds: 1, idleSeconds: 5.25 },
    ]);
    expect(parseCores('nonsense')).toEqual([]);
  });

  it('is the disk of a device number', () => {
    const text =
      '   8       0 sda 1 2 3 4 5 6 7 8 9 10 11\n 253       1 dm-1 10 0 80 4 20 0 160 8 0 1500 12\n';
    expect(parseDisk(text, '253:1')).toEqual({
      name: 'dm-1',
      writes: 20,
      writtenBytes: 81_920,
      busySeconds: 1.5,
    });
    expect(parseDisk(text, '253:2')).toBeUndefined();
  });

  it('is what each interface has sent', () => {
    const text = `Inter-|   Receive                            |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets
    lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0
  eth0:5000 9 0 0 0 0 0 0 7000 8 0 0 0 0 0 0
`;
    expect(parseInterfaces(text)).toEqual([
      { name: 'lo', sentBytes: 100 },
      { name: 'eth0', sentBytes: 7000 },
    ]);
  });

  it.each([
    ['127.0.0.1', 'lo'],
    ['192.168.9.9', 'eth1'],
    ['192.168.5.1', 'eth2'],
    ['8.8.8.8', 'eth0'],
    ['fe80::1', undefined],
  ])('leads to %s by %s', (address, name) => {
    expect(interfaceTo(address, ROUTE)).toBe(name);
  });

  it.each([
    [{ cpuMax: '150000 100000\n', quotaUs: undefined, periodUs: undefined }, 1.5],
    [{ cpuMax: 'max 100000\n', quotaUs: undefined, periodUs: undefined }, undefined],
    [{ cpuMax: undefined, quotaUs: '40000\n', periodUs: '100000\n' }, 0.4],
    [{ cpuMax: undefined, quotaUs: '-1\n', periodUs: '100000\n' }, undefined],
    [{ cpuMax: undefined, quotaUs: undefined, periodUs: undefined }, undefined],
  ])('limits a group: %j', (files, cores) => {
    expect(parseGroupLimit(files)).toBe(cores);
  });
});

describe('systemUse', () => {
  const sample = (atMs: number, busySeconds: number, rest: Partial<SystemSample> = {}): SystemSample => ({
    atMs,
    cores: [
      { busySeconds, stealSeconds: 0, idleSeconds: atMs / 1000 - busySeconds },
      { busySeconds: 0, stealSeconds: 0, idleSeconds: atMs / 1000 },
    ],
    serverCpuSeconds: undefined,
    processCpuSeconds: {},
    coreLimit: undefined,
    throttledSeconds: undefined,
    disk: undefined,
    interfaces: [],
    ...rest,
  });

  it('is per second of the time between', () => {
    const before = sample(1000, 0.5, {
      serverCpuSeconds: 1,
      processCpuSeconds: { walwriter: 0.1 },
      interfaces: [{ name: 'eth0', sentBytes: 1000, linkBitsPerSecond: 1e9 }],
    });
    const after = sample(3000, 2, {
      serverCpuSeconds: 2,
      processCpuSeconds: { walwriter: 0.3, walsender: 0.2 },
      interfaces: [{ name: 'eth0', sentBytes: 5000, linkBitsPerSecond: 1e9 }],
    });
    const use = systemUse(before, after)!;
    expect(use).toMatchObject({ seconds: 2, cores: 2, busyCores: 0.75, stealCores: 0, serverCores: 0.5 });
    expect(use.processCores.walwriter).toBeCloseTo(0.1);
    expect(use.processCores.walsender).toBeCloseTo(0.1);
    expect(use.interfaces).toEqual([{ name: 'eth0', sentBytesPerSecond: 2000, linkBitsPerSecond: 1e9 }]);
  });

  it('is nothing without time or cores between', () => {
    expect(systemUse(sample(1000, 0.5), sample(1000, 0.5))).toBeUndefined();
    expect(systemUse({ ...sample(1000, 0), cores: [] }, { ...sample(2000, 0), cores: [] })).toBeUndefined();
  });
});
