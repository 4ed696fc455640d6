import { spawn } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import {
  machineFacts,
  machineShares,
  parseProcPidStat,
  parseProcStat,
  processTreeCpuSeconds,
} from './machine.ts';

describe('machine', () => {
  it('reads /proc/stat: waiting for a disk is idle, stolen time is neither busy nor idle', () => {
    const before = parseProcStat('cpu  100 10 50 800 40 5 5 10 7 3\ncpu0 1 1 1 1\n');
    expect(before).toEqual({ busy: 170, steal: 10, total: 1020 });
    const after = { busy: 250, steal: 20, total: 1120 };
    expect(machineShares(before, after)).toEqual({ busyShare: 0.8, stealShare: 0.1 });
    expect(machineShares(undefined, after)).toBeUndefined();
    expect(machineShares(before, before)).toBeUndefined();
    expect(parseProcStat('intr 1 2 3')).toBeUndefined();
  });

  it('reads /proc/[pid]/stat, whatever the name holds', () => {
    const text = '42 (a) b (c) S 7 42 42 0 -1 0 0 0 0 0 150 50 1000 20 20 0 1';
    expect(parseProcPidStat(text)).toEqual({
      ...{ parentPid: 7, name: 'a) b (c' },
      ...{ ownCpuSeconds: 2, waitedForCpuSeconds: 10.2 },
    });
    expect(parseProcPidStat('')).toBeUndefined();
  });

  it.runIf(process.platform === 'linux')(
    'tells the CPU time of a process tree that lives, and of none that does not',
    () => {
      const own = processTreeCpuSeconds(process.pid);
      expect(own).toBeGreaterThan(0);
      // Its parent's tree holds this process.
      expect(processTreeCpuSeconds(process.ppid)).toBeGreaterThanOrEqual(own!);
      expect(processTreeCpuSeconds(2 ** 30)).toBeUndefined();
    },
  );

  it.runIf(process.platform === 'linux')(
    'counts children that have used less than a hundredth of a second',
    () => {
      const children = Array.from({ length: 8 }, () => spawn('sleep', ['60']));
      try {
        // A program's start is some hundred microseconds, which /proc/[pid]/stat alone shows as nothing.
        for (const child of children) expect(processTreeCpuSeconds(child.pid!)).toBeGreaterThan(0);
      } finally {
        for (const child of children) child.kill();
      }
    },
  );

  it('names the machine', () => {
    expect(machineFacts()).toMatchObject({ cores: expect.any(Number), nodeVersion: process.version });
  });
});
