/** What was measured, as the core gets it: plain numbers, each undefined where it could not be had. */
import type { Interval, Intervention, InterventionName, WaitShare } from './explanation.ts';

export interface Findings {
  readonly clients: number;
  /** Of the unchanged load. */
  readonly tps: Interval;
  readonly interventions: readonly Intervention[];
  /** Of the load's sessions, under the unchanged load; undefined: nothing was sampled. */
  readonly waits: readonly WaitShare[] | undefined;
  readonly cpu: CpuFindings | undefined;
  readonly flush: FlushFindings;
  readonly wal: {
    readonly bytesPerTransaction: number | undefined;
    readonly recordsPerTransaction: number | undefined;
    readonly fullPageImagesPerTransaction: number | undefined;
    /** Of the bytes; an upper bound, since images are stored without the hole in the page. */
    readonly fullPageImageShare: number | undefined;
    readonly buffersFullPerTransaction: number | undefined;
  };
  readonly replication: ReplicationFindings;
  readonly client: {
    /** The generator says of itself that it was the bottleneck. */
    readonly generatorBound: boolean;
    /** Cores that it took. */
    readonly cores: number;
    readonly sharesMachine: boolean;
  };
  readonly settings: Readonly<Record<string, string>>;
}

export interface CpuFindings {
  /** Busy time over what there is: of the machine, or of the server's control group if that is fuller. */
  readonly utilization: number;
  /** What the server may use. */
  readonly cores: number;
  /** Of the server's processes; undefined: only the whole machine could be seen. */
  readonly serverCores: number | undefined;
  readonly limitedByGroup: boolean;
  readonly msPerTransaction: number | undefined;
}

export interface FlushFindings {
  readonly syncsPerSecond: number | undefined;
  readonly commitsPerSync: number | undefined;
  /** Of one flush: with one client, what a commit that waits for it takes longer than one that doesn't. */
  readonly unloadedSyncMs: number | undefined;
  /** As the server itself timed it under the load; waiting for a CPU is in it. */
  readonly loadedSyncMs: number | undefined;
  /** Time in flushes over elapsed time. */
  readonly busyShare: number | undefined;
  /** Time in writes of WAL over elapsed time. */
  readonly writeBusyShare: number | undefined;
}

export interface ReplicationFindings {
  readonly replicas: number | undefined;
  /** Commits wait for standbys. */
  readonly waitedFor: number | undefined;
  readonly linkBitsPerSecond: number | undefined;
  /** WAL bytes to all replicas over the link. */
  readonly linkUtilization: number | undefined;
  /** Under the load, summed over standbys and looks: the part of what a standby was behind by, at each step. */
  readonly behind:
    | { readonly send: number; readonly write: number; readonly flush: number; readonly replay: number }
    | undefined;
}

export function interventionOf(findings: Findings, name: InterventionName): Intervention | undefined {
  return findings.interventions.find((each) => each.name === name);
}
