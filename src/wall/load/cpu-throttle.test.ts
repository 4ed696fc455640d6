import { describe, expect, it } from 'vitest';
import { parseThrottledSeconds, statFilesOf } from './cpu-throttle.ts';

describe('statFilesOf', () => {
  it('names the group and those above it, in version 2', () => {
    expect(statFilesOf('0::/pod/one\n', 'cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n')).toEqual([
      '/sys/fs/cgroup/cpu.stat',
      '/sys/fs/cgroup/pod/cpu.stat',
      '/sys/fs/cgroup/pod/one/cpu.stat',
    ]);
  });

  it('takes the group of the cpu controller in version 1, and no other', () => {
    const mounts = [
      'cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0',
      'cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0',
    ].join('\n');
    expect(statFilesOf('4:memory:/m\n3:cpuset:/\n2:cpu,cpuacct:/q\n0::/\n', mounts)).toEqual([
      '/sys/fs/cgroup/cpu,cpuacct/cpu.stat',
      '/sys/fs/cgroup/cpu,cpuacct/q/cpu.stat',
    ]);
  });

  it('finds none where none is mounted', () => {
    expect(statFilesOf('0::/\n', 'proc /proc proc rw 0 0\n')).toEqual([]);
  });
});

describe('parseThrottledSeconds', () => {
  it.each([
    ['usage_usec 5\nnr_throttled 1\nthrottled_usec 2500000\n', 2.5],
    ['nr_periods 9\nnr_throttled 3\nthrottled_time 1500000000\n', 1.5],
    ['usage_usec 5\n', undefined],
  ])('reads %j', (text, seconds) => {
    expect(parseThrottledSeconds(text)).toBe(seconds);
  });
});
