/** From runs to findings: sums, shares, and intervals over the windows of each variant. Pure. */
import type { ActivityProfile, WaitCount } from '../server/activity-sampler.ts';
import type { ReplicationState } from '../server/replication.ts';
import type { SystemUse } from '../server/system.ts';
import type { Intervention } from './explanation.ts';
import type { CpuFindings, Findings, FlushFindings, ReplicationFindings } from './findings.ts';
import { meanInterval, ratioInterval } from './interval.ts';
import type { Variant } from './interventions.ts';
import type { LoadRun } from './measured-load.ts';
import { waitShares } from './waits.ts';

/** A page as it stands in the WAL. */
const PAGE_BYTES = 8192;
/** Above this, time spent in a flush is partly time spent waiting for a core. */
const CPU_FULL = 0.8;
const GROUP_LIMIT_USED = 0.8;

export interface MeasuredVariant {
  readonly variant: Variant;
  readonly runs: LoadRun[];
}

/** Medians of one client's commits in milliseconds, with and without waiting for the local flush. */
export interface SingleCommits {
  readonly flushed: number;
  readonly unflushed: number;
}

export interface Collected {
  readonly measured: readonly MeasuredVariant[];
  readonly clients: number;
  readonly single: SingleCommits | undefined;
  readonly replication: ReplicationState;
  readonly settings: Readonly<Record<string, string>>;
  readonly sharesMachine: boolean;
  readonly linkBitsPerSecond: number | undefined;
}

export function collectFindings(collected: Collected): Findings {
  const { measured, clients, settings } = collected;
  const unchanged = measured.find(({ variant }) => variant.name === 'unchanged')!.runs;
  const cpu = cpuOf(unchanged);
  const profile = mergedProfile(unchanged);
  const transactions = total(unchanged, (run) => run.acknowledged)!;
  const each = (of: (wal: WalCounts) => number | undefined): number | undefined => {
    const sum = total(unchanged, (run) => of(run.wal));
    return sum === undefined ? undefined : sum / transactions;
  };
  const bytes = each((wal) => wal.bytes ?? wal.insertLsn);
  const images = each((wal) => wal.fullPageImages);
  return {
    clients,
    tps: meanInterval(unchanged.map(({ tps }) => tps)),
    interventions: measured.flatMap((one) => interventionOf(one, unchanged, cpu)),
    waits: profile === undefined ? undefined : waitShares(profile),
    cpu,
    flush: flushOf(collected, unchanged, cpu),
    wal: {
      bytesPerTransaction: bytes,
      recordsPerTransaction: each((wal) => wal.records),
      fullPageImagesPerTransaction: images,
      fullPageImageShare:
        bytes === undefined || images === undefined || bytes <= 0
          ? undefined
          : Math.min(1, (images * PAGE_BYTES) / bytes),
      buffersFullPerTransaction: each((wal) => wal.buffersFull),
    },
    replication: replicationOf(collected, unchanged),
    client: {
      generatorBound: unchanged.filter((run) => run.generatorBound).length * 2 > unchanged.length,
      cores: mean(unchanged.map((run) => run.generatorCores)),
      sharesMachine: collected.sharesMachine,
    },
    settings,
  };
}

type WalCounts = LoadRun['wal'];

function interventionOf(
  { variant, runs }: MeasuredVariant,
  unchanged: readonly LoadRun[],
  baseCpu: CpuFindings | undefined,
): Intervention[] {
  if (variant.name === 'unchanged' || runs.length === 0) return [];
  const cpu = cpuOf(runs);
  const [own, base] = [cpu?.msPerTransaction, baseCpu?.msPerTransaction];
  return [
    {
      name: variant.name,
      change: variant.change,
      predictions: { ...variant.predictions },
      tps: meanInterval(runs.map(({ tps }) => tps)).value,
      ratio: ratioInterval(
        runs.map(({ tps }) => tps),
        unchanged.map(({ tps }) => tps),
      ),
      cpuRatio: own === undefined || base === undefined || base <= 0 ? null : own / base,
      cpuUtilization: cpu?.utilization ?? null,
    },
  ];
}

/** Busy time, and what the hypervisor took, over what there is: of the machine, or of the server's own limit if that is fuller. */
function cpuOf(runs: readonly LoadRun[]): CpuFindings | undefined {
  const uses = runs.flatMap(({ use }) => (use === undefined ? [] : [use]));
  if (uses.length === 0) return undefined;
  const average = (of: (use: SystemUse) => number): number => mean(uses.map(of));
  const machine = average((use) => (use.busyCores + use.stealCores) / use.cores);
  const limit = uses[0]!.coreLimit;
  const isTold = uses.every(({ serverCores }) => serverCores !== undefined);
  const serverCores = isTold ? average((use) => use.serverCores!) : undefined;
  const group = limit === undefined || serverCores === undefined ? 0 : serverCores / limit;
  const limitedByGroup = group > machine || group >= GROUP_LIMIT_USED;
  const tps = mean(runs.map((run) => run.tps));
  return {
    utilization: Math.min(1, Math.max(machine, group)),
    cores: limitedByGroup ? limit! : uses[0]!.cores,
    serverCores,
    limitedByGroup,
    msPerTransaction: serverCores === undefined ? undefined : (serverCores * 1000) / tps,
  };
}

function flushOf(
  collected: Collected,
  runs: readonly LoadRun[],
  cpu: CpuFindings | undefined,
): FlushFindings {
  const { single, settings } = collected;
  const seconds = total(runs, (run) => run.elapsedMs)! / 1000;
  // A file opened for synchronous writing is flushed by each write, and nothing else is counted.
  const byWriting = (settings.wal_sync_method ?? '').startsWith('open_');
  const syncs = total(runs, ({ wal }) => (byWriting ? wal.writes : wal.syncs));
  const timedMs = total(runs, ({ wal }) => (byWriting ? wal.writeMs : wal.syncMs));
  const writeMs = byWriting ? undefined : total(runs, ({ wal }) => wal.writeMs);
  const commits = total(runs, (run) => run.acknowledged)!;
  const unloadedSyncMs = single === undefined ? undefined : Math.max(0, single.flushed - single.unflushed);
  const isTimed = timedMs !== undefined && timedMs > 0 && syncs !== undefined && syncs > 0;
  const timedShare = isTimed ? timedMs / 1000 / seconds : undefined;
  const countedShare =
    syncs === undefined || unloadedSyncMs === undefined
      ? undefined
      : (syncs * unloadedSyncMs) / 1000 / seconds;
  // On a full CPU the time of a flush is partly that of waiting for a core, and what one takes by itself says more.
  const isFull = (cpu?.utilization ?? 0) >= CPU_FULL;
  const shares = [timedShare, countedShare].filter((share) => share !== undefined);
  const busyShare = isFull && shares.length === 2 ? Math.min(...shares) : shares[0];
  return {
    syncsPerSecond: syncs === undefined ? undefined : syncs / seconds,
    commitsPerSync: syncs === undefined || syncs <= 0 ? undefined : commits / syncs,
    unloadedSyncMs,
    loadedSyncMs: isTimed ? timedMs / syncs : undefined,
    busyShare,
    writeBusyShare: writeMs === undefined || !isTimed ? undefined : writeMs / 1000 / seconds,
  };
}

function replicationOf(collected: Collected, runs: readonly LoadRun[]): ReplicationFindings {
  const { replication, linkBitsPerSecond } = collected;
  const replicas = replication.unread.some((each) => each.startsWith('pg_stat_replication'))
    ? undefined
    : replication.standbys.length;
  const bytes = total(runs, ({ wal }) => wal.insertLsn ?? wal.bytes);
  const seconds = total(runs, (run) => run.elapsedMs)! / 1000;
  const looks = runs.flatMap((run) => run.standbys.flatMap(({ standbys }) => standbys));
  const told = looks.filter(({ unsentBytes }) => unsentBytes !== null);
  const sum = (of: (standby: (typeof told)[number]) => number | null): number =>
    told.reduce((total, standby) => total + (of(standby) ?? 0), 0);
  return {
    replicas,
    waitedFor: replicas === undefined ? undefined : replication.waitedFor,
    linkBitsPerSecond,
    linkUtilization:
      linkBitsPerSecond === undefined || bytes === undefined || replicas === undefined || replicas === 0
        ? undefined
        : (bytes * 8 * replicas) / seconds / linkBitsPerSecond,
    behind:
      told.length === 0
        ? undefined
        : {
            send: sum(({ unsentBytes }) => unsentBytes),
            write: sum(({ unwrittenBytes }) => unwrittenBytes),
            flush: sum(({ unflushedBytes }) => unflushedBytes),
            replay: sum(({ unreplayedBytes }) => unreplayedBytes),
          },
  };
}

/** All windows' looks as one; undefined if there was none. */
function mergedProfile(runs: readonly LoadRun[]): ActivityProfile | undefined {
  const merged = new Map<string, WaitCount>();
  for (const { key, event, count } of runs.flatMap(({ profile }) => profile.waits)) {
    merged.set(key, { key, event, count: count + (merged.get(key)?.count ?? 0) });
  }
  const samples = runs.reduce((sum, { profile }) => sum + profile.samples, 0);
  const sessions = runs.reduce((sum, { profile }) => sum + profile.sessions, 0);
  if (sessions === 0) return undefined;
  return { samples, sessions, waits: [...merged.values()].sort((a, b) => b.count - a.count) };
}

/** Undefined if any run lacks it. */
function total(runs: readonly LoadRun[], of: (run: LoadRun) => number | undefined): number | undefined {
  let sum = 0;
  for (const run of runs) {
    const value = of(run);
    if (value === undefined) return undefined;
    sum += value;
  }
  return sum;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
