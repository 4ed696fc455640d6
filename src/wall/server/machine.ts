/**
 * What the machine that the load generator runs on tells of itself: its cores and memory, how busy it was, how much the
 * hypervisor took, and the CPU time of processes. Only Linux tells all of it; elsewhere the answers are undefined.
 * Source: proc(5), /proc/stat and /proc/[pid]/stat.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';

/** The unit of /proc in every Linux that Node runs on (USER_HZ); the kernel's own tick may differ. */
const TICKS_PER_SECOND = 100;

export interface MachineFacts {
  readonly cores: number;
  readonly memoryBytes: number;
  readonly cpuModel: string;
  readonly platform: string;
  readonly nodeVersion: string;
}

export function machineFacts(): MachineFacts {
  return {
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    cpuModel: cpus()[0]?.model ?? 'unknown',
    platform: `${process.platform} ${process.arch}`,
    nodeVersion: process.version,
  };
}

/** Counters of all cores since the start of the machine, in ticks. */
export interface MachineSample {
  readonly busy: number;
  readonly steal: number;
  readonly total: number;
}

export function sampleMachine(): MachineSample | undefined {
  const text = readProc('/proc/stat');
  return text === undefined ? undefined : parseProcStat(text);
}

/** user nice system idle iowait irq softirq steal; guest time, behind them, is already part of user and nice. */
export function parseProcStat(text: string): MachineSample | undefined {
  const line = /^cpu +(.*)$/m.exec(text);
  if (!line) return undefined;
  const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0] = line[1]!
    .split(' ')
    .map(Number);
  const busy = user + nice + system + irq + softirq;
  return { busy, steal, total: busy + idle + iowait + steal };
}

/** Shares of all cores together between two samples; stolen time counts neither as busy nor as idle. */
export function machineShares(
  before: MachineSample | undefined,
  after: MachineSample | undefined,
): { busyShare: number; stealShare: number } | undefined {
  if (before === undefined || after === undefined || after.total <= before.total) return undefined;
  const total = after.total - before.total;
  return { busyShare: (after.busy - before.busy) / total, stealShare: (after.steal - before.steal) / total };
}

interface ProcessTimes {
  readonly parentPid: number;
  readonly name: string;
  readonly ownCpuSeconds: number;
  /** Of its children that have ended and been waited for. */
  readonly waitedForCpuSeconds: number;
}

/**
 * CPU time of a process, its descendants, and those of them that have ended: for a postmaster, of the whole server, as
 * it waits for each of its backends. Undefined: there is no such process, or the system doesn't tell.
 */
export function processTreeCpuSeconds(pid: number): number | undefined {
  return processTreesCpuSeconds([pid])[0];
}

/** The same of several trees at one moment. */
export function processTreesCpuSeconds(pids: readonly number[]): (number | undefined)[] {
  const processes = readProcesses();
  const children = new Map<number, number[]>();
  for (const [child, { parentPid }] of processes) {
    const siblings = children.get(parentPid);
    if (siblings) siblings.push(child);
    else children.set(parentPid, [child]);
  }
  const known = new Map<number, number>();
  const cpuSecondsOf = (pid: number): number => {
    const seconds = known.get(pid) ?? cpuSecondsOfProcess(pid, processes.get(pid));
    known.set(pid, seconds);
    return seconds;
  };
  return pids.map((root) => {
    if (!processes.has(root)) return undefined;
    let sum = 0;
    const pending = [root];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      sum += cpuSecondsOf(next);
      pending.push(...(children.get(next) ?? []));
    }
    return sum;
  });
}

/**
 * /proc/[pid]/stat is cut to hundredths of a second, for each process anew: hundreds of backends of which none has yet
 * used one would sum up to nothing. The scheduler's own figure, to the nanosecond, is had from each living thread.
 */
function cpuSecondsOfProcess(pid: number, times: ProcessTimes | undefined): number {
  if (times === undefined) return 0;
  let scheduled = 0;
  let threads: string[] = [];
  try {
    threads = readdirSync(`/proc/${pid}/task`);
  } catch {
    // It has ended since.
  }
  for (const thread of threads) {
    const text = readProc(`/proc/${pid}/task/${thread}/schedstat`);
    if (text !== undefined) scheduled += Number(text.split(' ', 1)[0]) / 1e9;
  }
  // Threads that have ended are in the coarse figure only.
  return Math.max(scheduled, times.ownCpuSeconds) + times.waitedForCpuSeconds;
}

/** The postmaster of a backend, if that backend runs on this machine and is visible from here. */
export function postmasterOf(backendPid: number): number | undefined {
  const backend = readProcess(backendPid);
  if (backend === undefined || !backend.name.startsWith('postgres')) return undefined;
  const postmaster = readProcess(backend.parentPid);
  return postmaster?.name.startsWith('postgres') ? backend.parentPid : undefined;
}

function readProcesses(): Map<number, ProcessTimes> {
  const processes = new Map<number, ProcessTimes>();
  let entries: string[];
  try {
    entries = readdirSync('/proc');
  } catch {
    return processes;
  }
  for (const entry of entries) {
    if (!/^\d+$/.test(entry)) continue;
    const times = readProcess(Number(entry));
    if (times !== undefined) processes.set(Number(entry), times);
  }
  return processes;
}

function readProcess(pid: number): ProcessTimes | undefined {
  const text = readProc(`/proc/${pid}/stat`);
  return text === undefined ? undefined : parseProcPidStat(text);
}

/** The name stands in parentheses and may itself hold blanks and parentheses: the last one ends it. */
export function parseProcPidStat(text: string): ProcessTimes | undefined {
  const nameEnd = text.lastIndexOf(')');
  const nameStart = text.indexOf('(');
  if (nameStart < 0 || nameEnd < nameStart) return undefined;
  // From the third field on: state, ppid, …; utime, stime, cutime and cstime are the 14th to 17th.
  const fields = text.slice(nameEnd + 2).split(' ');
  const seconds = (index: number): number =>
    (Number(fields[index] ?? 0) + Number(fields[index + 1] ?? 0)) / TICKS_PER_SECOND;
  return {
    parentPid: Number(fields[1]),
    name: text.slice(nameStart + 1, nameEnd),
    ownCpuSeconds: seconds(11),
    waitedForCpuSeconds: seconds(13),
  };
}

function readProc(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return undefined;
  }
}
