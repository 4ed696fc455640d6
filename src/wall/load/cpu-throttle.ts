/**
 * How long a CPU quota has kept this process from computing: what a container's limit, or a control group by hand, does to a
 * load generator, and what neither its own CPU time nor the machine's tells.
 * Sources: the kernel's admin-guide/cgroup-v2.rst (cpu.stat) and scheduler/sched-bwc.rst; cgroups(7).
 */
import { readFileSync } from 'node:fs';
import * as path from 'node:path';

/** Of this process's group and all above it, since they were made; undefined: the system doesn't tell. */
export function throttledSeconds(): number | undefined {
  const groups = readText('/proc/self/cgroup');
  const mounts = readText('/proc/self/mounts');
  if (groups === undefined || mounts === undefined) return undefined;
  const texts = statFilesOf(groups, mounts).flatMap((file) => readText(file) ?? []);
  const seconds = texts.flatMap((text) => parseThrottledSeconds(text) ?? []);
  return seconds.length === 0 ? undefined : seconds.reduce((sum, each) => sum + each, 0);
}

/** The cpu.stat of the group that accounts CPU, and of its ancestors, by the texts of /proc/self/cgroup and mounts. */
export function statFilesOf(groups: string, mounts: string): string[] {
  const lines = mounts.split('\n').map((line) => line.split(' '));
  const memberships = groups.split('\n').flatMap((line) => {
    const [, controllers, group] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    return controllers === undefined || group === undefined
      ? []
      : [{ controllers: controllers.split(','), group }];
  });
  return memberships.flatMap(({ controllers, group }) => {
    const isV2 = controllers.join() === '';
    if (!isV2 && !controllers.includes('cpu')) return [];
    const mount = lines.find(([, , type, options]) =>
      isV2 ? type === 'cgroup2' : type === 'cgroup' && options?.split(',').includes('cpu'),
    )?.[1];
    if (mount === undefined) return [];
    const names = group.split('/').filter(Boolean);
    return [...names.keys(), names.length].map((depth) =>
      path.posix.join(mount, ...names.slice(0, depth), 'cpu.stat'),
    );
  });
}

/** Version 2 says microseconds, version 1 nanoseconds. */
export function parseThrottledSeconds(text: string): number | undefined {
  const found = /^throttled_(usec|time) (\d+)$/m.exec(text);
  if (found === null) return undefined;
  return Number(found[2]) / (found[1] === 'usec' ? 1e6 : 1e9);
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return undefined;
  }
}
