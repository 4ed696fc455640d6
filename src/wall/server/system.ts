/**
 * What the system under a server tells of itself: CPU by core, CPU of the server's processes, the limit of its control
 * group, the disk of its WAL, its network interfaces. Of a server on this machine it is read from /proc and /sys, of
 * another one from its node_exporter (node-exporter.ts), which knows no processes. What isn't told is undefined.
 *
 * Cost: one sample reads some files of /proc for each process of the machine, a few milliseconds; take one at each end of
 * a window, or once a second.
 * Source: proc(5), the kernel's iostats.rst and cgroup documentation.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import * as path from 'node:path';
import { processTreesCpuSeconds } from './machine.ts';

/** The unit of /proc in every Linux that Node runs on (USER_HZ). */
const TICKS_PER_SECOND = 100;
const SECTOR_BYTES = 512;

export interface CoreTimes {
  readonly busySeconds: number;
  readonly stealSeconds: number;
  readonly idleSeconds: number;
}

export interface DiskCounters {
  readonly name: string;
  readonly writes: number;
  readonly writtenBytes: number;
  /** Time with at least one request under way. */
  readonly busySeconds: number;
}

export interface InterfaceCounters {
  readonly name: string;
  readonly sentBytes: number;
  /** Undefined: the interface doesn't tell (virtual ones say -1). */
  readonly linkBitsPerSecond: number | undefined;
}

/** Counters since some start; two of them make a SystemUse. */
export interface SystemSample {
  readonly atMs: number;
  readonly cores: readonly CoreTimes[];
  /** Of all processes of the server. */
  readonly serverCpuSeconds: number | undefined;
  /** By what PostgreSQL calls them: 'walwriter', 'walsender', 'checkpointer'. */
  readonly processCpuSeconds: Readonly<Record<string, number>>;
  /** What the server's control group allows, in cores; undefined: no limit of its own. */
  readonly coreLimit: number | undefined;
  readonly throttledSeconds: number | undefined;
  readonly disk: DiskCounters | undefined;
  readonly interfaces: readonly InterfaceCounters[];
}

/** A source of samples. */
export interface SystemProbe {
  readonly unread: readonly string[];
  sample(): Promise<SystemSample>;
}

/** Of a server on this machine. */
export class LocalSystem implements SystemProbe {
  readonly unread: readonly string[];
  private readonly postmasterPid: number;
  private readonly walDevice: string | undefined;

  constructor(options: {
    postmasterPid: number;
    /** As `SHOW data_directory` says; undefined: not told. */
    dataDirectory: string | undefined;
  }) {
    this.postmasterPid = options.postmasterPid;
    this.walDevice = deviceOf(options.dataDirectory);
    this.unread = this.walDevice === undefined ? ['the disk of the WAL (data_directory)'] : [];
  }

  async sample(): Promise<SystemSample> {
    const named = namedChildren(this.postmasterPid);
    const [server, ...each] = processTreesCpuSeconds([this.postmasterPid, ...named.map(({ pid }) => pid)]);
    const processCpuSeconds: Record<string, number> = {};
    named.forEach(({ name }, index) => {
      processCpuSeconds[name] = (processCpuSeconds[name] ?? 0) + (each[index] ?? 0);
    });
    return {
      atMs: performance.now(),
      cores: parseCores(readText('/proc/stat') ?? ''),
      serverCpuSeconds: server,
      processCpuSeconds,
      ...coreLimitOf(this.postmasterPid),
      disk:
        this.walDevice === undefined
          ? undefined
          : parseDisk(readText('/proc/diskstats') ?? '', this.walDevice),
      interfaces: parseInterfaces(readText('/proc/net/dev') ?? '').map((each) => ({
        ...each,
        linkBitsPerSecond: linkSpeed(each.name),
      })),
    };
  }
}

/** What was used between two samples. Cores are counted as such: 1.5 is one core and a half. */
export interface SystemUse {
  readonly seconds: number;
  readonly cores: number;
  /** What the server's control group allows. */
  readonly coreLimit: number | undefined;
  readonly busyCores: number;
  readonly stealCores: number;
  readonly serverCores: number | undefined;
  readonly processCores: Readonly<Record<string, number>>;
  /** Of the time, summed over the cores. */
  readonly throttledShare: number | undefined;
  readonly disk:
    | {
        readonly name: string;
        readonly writesPerSecond: number;
        readonly bytesPerSecond: number;
        readonly busyShare: number;
      }
    | undefined;
  readonly interfaces: readonly {
    readonly name: string;
    readonly sentBytesPerSecond: number;
    readonly linkBitsPerSecond: number | undefined;
  }[];
}

export function systemUse(before: SystemSample, after: SystemSample): SystemUse | undefined {
  const seconds = (after.atMs - before.atMs) / 1000;
  if (seconds <= 0 || after.cores.length !== before.cores.length || after.cores.length === 0)
    return undefined;
  const sum = (of: (core: CoreTimes) => number): number =>
    after.cores.reduce((total, core, index) => total + of(core) - of(before.cores[index]!), 0);
  const rate = (from: number | undefined, to: number | undefined): number | undefined =>
    from === undefined || to === undefined ? undefined : Math.max(0, to - from) / seconds;
  // The kernel's own clock of these counters, which two readings apart in time may cut at other moments than ours.
  const clock = sum((core) => core.busySeconds + core.idleSeconds + core.stealSeconds) / after.cores.length;
  const perClock = (of: (core: CoreTimes) => number): number => (clock > 0 ? sum(of) / clock : 0);
  return {
    seconds,
    cores: after.cores.length,
    coreLimit: after.coreLimit,
    busyCores: perClock((core) => core.busySeconds),
    stealCores: perClock((core) => core.stealSeconds),
    serverCores: rate(before.serverCpuSeconds, after.serverCpuSeconds),
    processCores: Object.fromEntries(
      Object.entries(after.processCpuSeconds).map(([name, to]) => [
        name,
        Math.max(0, to - (before.processCpuSeconds[name] ?? 0)) / seconds,
      ]),
    ),
    throttledShare: rate(before.throttledSeconds, after.throttledSeconds),
    disk:
      before.disk === undefined || after.disk === undefined
        ? undefined
        : {
            name: after.disk.name,
            writesPerSecond: (after.disk.writes - before.disk.writes) / seconds,
            bytesPerSecond: (after.disk.writtenBytes - before.disk.writtenBytes) / seconds,
            busyShare: Math.min(1, (after.disk.busySeconds - before.disk.busySeconds) / seconds),
          },
    interfaces: after.interfaces.flatMap((each) => {
      const sent = rate(before.interfaces.find(({ name }) => name === each.name)?.sentBytes, each.sentBytes);
      if (sent === undefined) return [];
      return [{ name: each.name, sentBytesPerSecond: sent, linkBitsPerSecond: each.linkBitsPerSecond }];
    }),
  };
}

/** Lines `cpu0 user nice system idle iowait irq softirq steal …`; guest time is already part of user and nice. */
export function parseCores(procStat: string): CoreTimes[] {
  return [...procStat.matchAll(/^cpu\d+ (.*)$/gm)].map(([, line]) => {
    const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0] = line!
      .split(' ')
      .map((text) => Number(text) / TICKS_PER_SECOND);
    return {
      busySeconds: user + nice + system + irq + softirq,
      stealSeconds: steal,
      idleSeconds: idle + iowait,
    };
  });
}

/** `major minor name reads merged sectors ms writes merged sectors ms in-flight busy-ms …`; `device` is 'major:minor'. */
export function parseDisk(diskstats: string, device: string): DiskCounters | undefined {
  for (const line of diskstats.split('\n')) {
    const fields = line.trim().split(/\s+/);
    if (`${fields[0]}:${fields[1]}` !== device) continue;
    return {
      name: fields[2]!,
      writes: Number(fields[7]),
      writtenBytes: Number(fields[9]) * SECTOR_BYTES,
      busySeconds: Number(fields[12]) / 1000,
    };
  }
  return undefined;
}

/** `name: received-bytes … (eight columns) sent-bytes …` */
export function parseInterfaces(procNetDev: string): { name: string; sentBytes: number }[] {
  return [...procNetDev.matchAll(/^\s*([^\s:|]+):\s*(.*)$/gm)].map(([, name, rest]) => ({
    name: name!,
    sentBytes: Number(rest!.trim().split(/\s+/)[8]),
  }));
}

/** The interface by which an IPv4 address is reached: the longest prefix of /proc/net/route, whose numbers are little-endian. */
export function interfaceTo(address: string, procNetRoute: string): string | undefined {
  const wanted = address.split('.').reduceRight((sum, part) => sum * 256 + Number(part), 0);
  if (!/^\d+(\.\d+){3}$/.test(address)) return undefined;
  if (address.startsWith('127.')) return 'lo';
  let best: { name: string; mask: number } | undefined;
  for (const line of procNetRoute.split('\n').slice(1)) {
    const [name, destination, , , , , , maskText] = line.split(/\s+/);
    if (name === undefined || destination === undefined || maskText === undefined) continue;
    const mask = Number.parseInt(maskText, 16);
    // Bitwise operators work on signed 32 bits; both sides are cut alike.
    if ((wanted & mask) !== (Number.parseInt(destination, 16) & mask)) continue;
    if (best === undefined || bitCount(mask) > bitCount(best.mask)) best = { name, mask };
  }
  return best?.name;
}

export function localInterfaceTo(address: string): string | undefined {
  return interfaceTo(address, readText('/proc/net/route') ?? '');
}

function bitCount(value: number): number {
  return value.toString(2).replaceAll('0', '').length;
}

function linkSpeed(name: string): number | undefined {
  const megabits = Number(readText(`/sys/class/net/${name}/speed`) ?? -1);
  return megabits > 0 ? megabits * 1e6 : undefined;
}

/** Where the WAL is, be it a symbolic link to another disk. */
function deviceOf(dataDirectory: string | undefined): string | undefined {
  if (dataDirectory === undefined) return undefined;
  try {
    const { dev } = statSync(path.join(dataDirectory, 'pg_wal'));
    return `${(dev >> 8) & 0xfff}:${(dev & 0xff) | ((dev >> 12) & 0xfff00)}`;
  } catch {
    return undefined;
  }
}

/** The server's processes that have a name of their own for what is asked here. */
function namedChildren(postmasterPid: number): { pid: number; name: string }[] {
  const children = readText(`/proc/${postmasterPid}/task/${postmasterPid}/children`) ?? '';
  return children
    .split(' ')
    .filter(Boolean)
    .flatMap((pid) => {
      const title = readText(`/proc/${pid}/cmdline`) ?? '';
      const match = /^postgres: (?:[^:]*: )?(walwriter|walsender|checkpointer)/.exec(title);
      return match ? [{ pid: Number(pid), name: match[1]! }] : [];
    });
}

/** The lowest limit among the process's control group and those above it, of either version of the controller. */
function coreLimitOf(pid: number): { coreLimit: number | undefined; throttledSeconds: number | undefined } {
  let coreLimit: number | undefined;
  let throttledSeconds: number | undefined;
  for (const directory of groupDirectories(pid)) {
    const limit = parseGroupLimit({
      cpuMax: readText(path.join(directory, 'cpu.max')),
      quotaUs: readText(path.join(directory, 'cpu.cfs_quota_us')),
      periodUs: readText(path.join(directory, 'cpu.cfs_period_us')),
    });
    if (limit === undefined || limit >= (coreLimit ?? Number.POSITIVE_INFINITY)) continue;
    coreLimit = limit;
    throttledSeconds = parseThrottled(readText(path.join(directory, 'cpu.stat')) ?? '');
  }
  return { coreLimit, throttledSeconds };
}

export function parseGroupLimit(files: {
  cpuMax: string | undefined;
  quotaUs: string | undefined;
  periodUs: string | undefined;
}): number | undefined {
  const [quota, period] = files.cpuMax?.trim().split(' ') ?? [files.quotaUs?.trim(), files.periodUs?.trim()];
  const cores = Number(quota) / Number(period);
  return Number.isFinite(cores) && cores > 0 ? cores : undefined;
}

function parseThrottled(cpuStat: string): number | undefined {
  const microseconds = /^throttled_usec (\d+)$/m.exec(cpuStat);
  if (microseconds) return Number(microseconds[1]) / 1e6;
  const nanoseconds = /^throttled_time (\d+)$/m.exec(cpuStat);
  return nanoseconds ? Number(nanoseconds[1]) / 1e9 : undefined;
}

function groupDirectories(pid: number): string[] {
  const mounts = (readText('/proc/self/mounts') ?? '').split('\n').map((line) => line.split(' '));
  const groups = (readText(`/proc/${pid}/cgroup`) ?? '').split('\n').map((line) => line.split(':'));
  const found: string[] = [];
  for (const [id, controllers, group] of groups) {
    if (group === undefined) continue;
    const isUnified = id === '0' && controllers === '';
    if (!isUnified && !controllers!.split(',').includes('cpu')) continue;
    const mount = mounts.find(([, , type, options]) =>
      isUnified ? type === 'cgroup2' : type === 'cgroup' && options?.split(',').includes('cpu'),
    )?.[1];
    for (let at = group; mount !== undefined && at.startsWith('/'); at = path.dirname(at)) {
      found.push(path.join(mount, at));
      if (at === '/') break;
    }
  }
  return found;
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return undefined;
  }
}

/** Whether anything of /proc can be read at all. */
export function hasProc(): boolean {
  try {
    return readdirSync('/proc').length > 0 && readText('/proc/stat') !== undefined;
  } catch {
    return false;
  }
}
