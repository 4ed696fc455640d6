/** What the machine and the processes that take part spend between two moments: the circumstances of a point. */
import {
  type MachineSample,
  machineShares,
  processTreesCpuSeconds,
  sampleMachine,
} from '../../src/wall/server/machine.ts';

/** Points with more steal than this say nothing and are measured again, or left out. */
export const STEAL_MAX = 0.06;

export interface Circumstances {
  /** Seconds of CPU by process. */
  readonly cpuSeconds: Readonly<Record<string, number>>;
  /** Share of the machine's time that the hypervisor gave to others. */
  readonly steal: number;
  /** Share of the machine's time that processes of this machine spent which are no part of the bench. */
  readonly others: number;
}

interface Sample {
  readonly machine: MachineSample | undefined;
  readonly own: number;
  readonly cpu: Readonly<Record<string, number>>;
}

/** Processes whose CPU is counted, with all their children, by what they are called in the result. */
export type CountedPids = Readonly<Record<string, number | readonly number[]>>;

export class ObservedWindow {
  private readonly pids: CountedPids;
  private before: Sample | undefined;
  private after: Sample | undefined;

  constructor(pids: CountedPids) {
    this.pids = pids;
  }

  open(): void {
    this.before = this.sample();
  }

  close(): void {
    this.after = this.sample();
  }

  circumstances(): Circumstances {
    const { before, after } = this;
    if (before === undefined || after === undefined) throw new Error('the window was not opened and closed');
    const shares = machineShares(before.machine, after.machine);
    const ticks = after.machine && before.machine ? after.machine.total - before.machine.total : 0;
    // The kernel counts the machine's time in hundredths of a second.
    const ownShare = ticks > 0 ? (after.own - before.own) / (ticks / 100) : 0;
    return {
      cpuSeconds: Object.fromEntries(
        Object.keys(this.pids).map((name) => [name, after.cpu[name]! - before.cpu[name]!]),
      ),
      steal: shares?.stealShare ?? 0,
      others: Math.max(0, (shares?.busyShare ?? 0) - ownShare),
    };
  }

  private sample(): Sample {
    const flat = Object.entries(this.pids).flatMap(([name, pids]) =>
      (typeof pids === 'number' ? [pids] : pids).map((pid) => ({ name, pid })),
    );
    // Everything that a bench starts is a child of its process.
    const [own, ...each] = processTreesCpuSeconds([process.pid, ...flat.map(({ pid }) => pid)]);
    const cpu: Record<string, number> = {};
    for (const [index, { name }] of flat.entries()) cpu[name] = (cpu[name] ?? 0) + (each[index] ?? 0);
    return {
      machine: sampleMachine(),
      own: own ?? 0,
      cpu,
    };
  }
}
