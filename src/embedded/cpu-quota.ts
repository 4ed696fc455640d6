/**
 * A cap on the CPU time of a process and all its children, by a control group of cgroup v1's `cpu` controller: in each
 * period they run for the quota and then wait for the next. Needs root.
 * Source: the kernel's Documentation/scheduler/sched-bwc.rst.
 */
import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import * as path from 'node:path';

/** The kernel's own default. In much shorter periods a process spends its share on filling the CPU's caches again. */
const PERIOD_US = 100_000;
const NAME = 'postern-quota-';

/** The directory in which groups can be made, or why there is none. */
export function findCpuController(): { directory: string } | { missing: string } {
  if (process.platform !== 'linux') return { missing: 'control groups are Linux’s' };
  if (process.getuid?.() !== 0) return { missing: 'only root can make control groups' };
  const mount = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .find(([, , type, options]) => type === 'cgroup' && options?.split(',').includes('cpu'));
  if (mount === undefined) return { missing: 'cgroup v1’s cpu controller is not mounted here' };
  const own = readFileSync('/proc/self/cgroup', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
    .find(([, controllers]) => controllers?.split(',').includes('cpu'))?.[2];
  const directory = path.join(mount[1]!, own ?? '/');
  try {
    removeLeftovers(directory);
    new CpuQuota({ directory, name: 'probe', share: 0.5 }).remove();
  } catch (error) {
    return { missing: `no control group can be made in ${directory}: ${(error as Error).message}` };
  }
  return { directory };
}

export class CpuQuota {
  private readonly directory: string;

  /** `share`: of one core, at least a hundredth. */
  constructor(options: { directory: string; name: string; share: number }) {
    this.directory = path.join(options.directory, `${NAME}${process.pid}-${options.name}`);
    mkdirSync(this.directory);
    this.write('cpu.cfs_period_us', PERIOD_US);
    this.set(options.share);
  }

  /** Another cap, from the next period on; Infinity: none. */
  set(share: number): void {
    this.write('cpu.cfs_quota_us', Number.isFinite(share) ? Math.round(PERIOD_US * share) : -1);
  }

  /** With the children it has; those that it starts later are in the group by birth. */
  add(pid: number): void {
    this.write('cgroup.procs', pid);
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean);
    for (const child of children) {
      try {
        this.write('cgroup.procs', Number(child));
      } catch (error) {
        // It has ended since it was listed.
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    }
  }

  /** Once its processes have ended. */
  remove(): void {
    rmdirSync(this.directory);
  }

  private write(file: string, value: number): void {
    writeFileSync(path.join(this.directory, file), String(value));
  }
}

/** Groups of a process that was killed. One that still has processes can't be removed, and is not ours. */
function removeLeftovers(directory: string): void {
  for (const entry of readdirSync(directory)) {
    if (!entry.startsWith(NAME)) continue;
    try {
      rmdirSync(path.join(directory, entry));
    } catch {
      // In use by another process.
    }
  }
}
