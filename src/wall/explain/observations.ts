/**
 * The rules: what each measured fact says for and against each cause, as weights on a logarithmic scale: 1 is a hint, 3 is
 * strong, 6 settles it. Two facts about the same thing (the share of waits, the time in flushes) are weighted together as
 * somewhat less than two. The table in observations.test.ts shows each rule; conclude.ts adds the weights up.
 *
 * Two confusions have to be kept apart by more than correlation. A full CPU makes flushes slow and waits for WALWrite many,
 * since who holds the lock waits for a core; and a lighter commit costs less CPU, so that synchronous_commit = off gains on
 * a full CPU too. So what a lighter commit gains counts for the flush only where the CPU had room, or beyond the CPU it saves.
 */
import type { Hypothesis, Interval, Intervention, Observation } from './explanation.ts';
import { type Findings, interventionOf } from './findings.ts';
import { overInterval } from './interval.ts';
import { groupShares } from './waits.ts';

type Weights = Partial<Record<Hypothesis, number>>;

/** From here on the CPU is what more work would wait for. */
const CPU_FULL = 0.9;
const CPU_NEARLY_FULL = 0.8;
const CPU_ROOM = 0.6;
/** A ratio whose interval is above this is a gain; one whose interval is below NO_GAIN is none. */
const GAIN = 1.2;
const NO_GAIN = 1.25;
const LARGE_GAIN = 1.5;
/** Amounts of CPU that differ by less are the same; throughputs that differ by more are not. */
const SAME_CPU = 1.35;
const DIFFERENT_THROUGHPUT = 1.5;
/** Of the WAL's bytes: from here on what is written is images of pages rather than the transactions' own work. */
const FULL_PAGE_IMAGES_MANY = 0.5;

const FOUR_LESS: Weights = { wal_fsync: -3, wal_write: -3, cpu: -3, network: -3 };

/** In the order in which they are told. */
export function observe(findings: Findings): Observation[] {
  return [
    ...cpuIsUsed(findings),
    ...cpuStaysTheSame(findings),
    ...commitsWithoutWaiting(findings),
    ...commitsWithoutReplicas(findings),
    ...standbysFlush(findings),
    ...withoutWal(findings),
    ...commitsAlone(findings),
    ...moreClients(findings),
    ...flushesFollowOneAnother(findings),
    ...walIsWritten(findings),
    ...sessionsWait(findings),
    ...linkIsUsed(findings),
    ...pagesAreImaged(findings),
    ...generatorIsUsed(findings),
    ...settingsSay(findings),
  ];
}

function observation(
  kind: Observation['kind'],
  name: string,
  text: string,
  ...weights: readonly Weights[]
): Observation {
  const sum: Weights = {};
  for (const each of weights) {
    for (const [hypothesis, weight] of Object.entries(each) as [Hypothesis, number][]) {
      if (weight !== 0) sum[hypothesis] = Math.round(((sum[hypothesis] ?? 0) + weight) * 10) / 10;
    }
  }
  return { kind, name, text, weights: sum };
}

function gains({ low }: Interval): boolean {
  return low > GAIN;
}

function gainsNothing({ high }: Interval): boolean {
  return high < NO_GAIN;
}

function isFull(findings: Findings): boolean {
  return (findings.cpu?.utilization ?? 0) >= CPU_NEARLY_FULL;
}

/** What a change gains beyond the CPU that it saves: on a full CPU, throughput is the inverse of the CPU a transaction. */
function beyondSavedCpu(ratio: Interval, cpuRatio: number | null): Interval {
  const saved = Math.max(1, 1 / (cpuRatio ?? 1));
  return { value: ratio.value / saved, low: ratio.low / saved, high: ratio.high / saved };
}

function cpuIsUsed(findings: Findings): Observation[] {
  const { cpu, client } = findings;
  if (cpu === undefined) return [];
  const { utilization, cores, serverCores, limitedByGroup } = cpu;
  const where = limitedByGroup
    ? `the ${show(cores)} cores of the server’s control group`
    : `${show(cores)} cores`;
  const others = coresOfOthers(findings);
  const whose = [
    ...(serverCores === undefined ? [] : [`the server ${show(serverCores)}`]),
    ...(client.sharesMachine ? [`the load generator ${show(client.cores)}`] : []),
    ...(others === undefined || others < 0.05 ? [] : [`other programs ${show(others)}`]),
  ];
  const text = `${percent(utilization)} of ${where} used${whose.length > 0 ? ` (${whose.join(', ')})` : ''}`;
  const tell = (weights: Weights) => [observation('system', 'CPU', text, weights)];
  // What others use, they would share: a machine that they fill says little of this load.
  const isOthers = isFilledByOthers(findings);
  if (utilization >= CPU_FULL) return tell({ cpu: isOthers ? 1 : 3, client_bound: -1 });
  if (utilization >= CPU_NEARLY_FULL) return tell({ cpu: isOthers ? 0.5 : 1.5 });
  return tell({ cpu: utilization >= CPU_ROOM ? -2 : -4 });
}

/**
 * The law of a resource that is full: throughput times CPU a transaction, the cores that the server uses, is the same
 * whatever is changed, while throughput itself is not.
 */
function cpuStaysTheSame(findings: Findings): Observation[] {
  const changed = findings.interventions.filter(
    ({ name, cpuRatio }) => name !== 'more_clients' && cpuRatio !== null,
  );
  const ratios = changed.map(({ ratio }) => ratio.value).concat(1);
  const cores = changed.map(({ ratio, cpuRatio }) => ratio.value * cpuRatio!).concat(1);
  if (!isFull(findings) || spread(ratios) < DIFFERENT_THROUGHPUT || spread(cores) > SAME_CPU) return [];
  const text = `throughput differs × ${show(spread(ratios))} between the variants, the CPU that the server uses × ${show(spread(cores))} only`;
  return [observation('intervention', 'CPU in use', text, { cpu: 2 })];
}

function spread(values: readonly number[]): number {
  return Math.max(...values) / Math.min(...values);
}

function isFilledByOthers(findings: Findings): boolean {
  return (coresOfOthers(findings) ?? 0) > 0.5 * (findings.cpu?.cores ?? 0);
}

/** Of the machine, beside server and generator; undefined where it can't be told apart. */
export function coresOfOthers({ cpu, client }: Findings): number | undefined {
  if (cpu?.serverCores === undefined || cpu.limitedByGroup) return undefined;
  return Math.max(
    0,
    cpu.utilization * cpu.cores - cpu.serverCores - (client.sharesMachine ? client.cores : 0),
  );
}

function commitsWithoutWaiting(findings: Findings): Observation[] {
  const off = interventionOf(findings, 'async_commit');
  if (off === undefined) return [];
  const local = interventionOf(findings, 'local_commit');
  // With replicas waited for, what is left of the gain once nobody waits for them is the local flush's.
  const ratio = local === undefined ? off.ratio : overInterval(off.ratio, local.ratio);
  const over = local === undefined ? '' : ' over waiting for the local flush alone';
  const text = `synchronous_commit = off: ${times(ratio)}${over}${cpuText(off)}`;
  const tell = (weights: Weights) => [observation('intervention', 'no wait at commit', text, weights)];
  if (gainsNothing(ratio)) return tell({ wal_fsync: -4 });
  if (!gains(ratio)) return tell({});
  const wasFull = local === undefined ? isFull(findings) : (local.cpuUtilization ?? 0) >= CPU_NEARLY_FULL;
  if (wasFull) {
    const saved = local === undefined ? off.cpuRatio : cpuOver(off, local);
    return tell(gains(beyondSavedCpu(ratio, saved)) ? { wal_fsync: 1.5 } : {});
  }
  // Replicas bind before the flush does when most of the whole gain is theirs.
  if (local !== undefined && Math.log(local.ratio.value) > 2 * Math.log(ratio.value))
    return tell({ wal_fsync: 0.5 });
  const weight = ratio.low > LARGE_GAIN ? 4 : 2;
  const known = findings.cpu !== undefined;
  return tell({
    wal_fsync: known ? weight : weight - 1.5,
    cpu: known ? -1 : 0,
    wal_write: -1,
    lock_contention: -1,
  });
}

function cpuOver(a: Intervention, b: Intervention): number | null {
  return a.cpuRatio === null || b.cpuRatio === null ? null : a.cpuRatio / b.cpuRatio;
}

function commitsWithoutReplicas(findings: Findings): Observation[] {
  const { replication } = findings;
  if (replication.waitedFor === 0) {
    return [
      observation(
        'counters',
        'replicas',
        replication.replicas === 0 ? 'no replica streams from it' : 'no commit waits for a replica',
        { network: -8 },
      ),
    ];
  }
  const local = interventionOf(findings, 'local_commit');
  if (local === undefined) return [];
  const text = `synchronous_commit = local: ${times(local.ratio)}${cpuText(local)}`;
  const tell = (weights: Weights) => [observation('intervention', 'no wait for replicas', text, weights)];
  if (gainsNothing(local.ratio)) return tell({ network: -5 });
  if (!gains(local.ratio)) return tell({});
  if (isFull(findings) && !gains(beyondSavedCpu(local.ratio, local.cpuRatio))) return tell({ network: 1 });
  return tell({ network: local.ratio.low > LARGE_GAIN ? 4 : 3, cpu: -1 });
}

function standbysFlush(findings: Findings): Observation[] {
  const remote = interventionOf(findings, 'remote_write');
  const local = interventionOf(findings, 'local_commit');
  if (remote === undefined || local === undefined || !gains(local.ratio)) return [];
  const text = `synchronous_commit = remote_write: ${times(remote.ratio)}${cpuText(remote)}`;
  const tell = (weights: Weights) => [observation('intervention', STANDBY_FLUSH, text, weights)];
  // A standby receives nothing while it flushes, so leaving out the wait for its flush shows a part of what that costs.
  if (gains(remote.ratio) && remote.ratio.value > LARGE_GAIN)
    return tell({ other: 8, network: -5, wal_fsync: -1 });
  if (gains(remote.ratio)) return tell({ other: 5, network: -1 });
  return tell(gainsNothing(remote.ratio) ? { network: 1 } : {});
}

export const STANDBY_FLUSH = 'the standby’s disk';

function withoutWal(findings: Findings): Observation[] {
  const unlogged = interventionOf(findings, 'unlogged');
  const off = interventionOf(findings, 'async_commit');
  if (unlogged === undefined || off === undefined) return [];
  const ratio = overInterval(unlogged.ratio, off.ratio);
  const text = `the same tables unlogged: ${times(ratio)} over synchronous_commit = off${cpuText(unlogged)}`;
  const tell = (weights: Weights) => [observation('intervention', 'no WAL', text, weights)];
  if (gainsNothing(ratio)) return tell({ wal_write: -4 });
  if (!gains(ratio)) return tell({});
  const wasFull = (off.cpuUtilization ?? 0) >= CPU_NEARLY_FULL;
  if (wasFull) return tell(gains(beyondSavedCpu(ratio, cpuOver(unlogged, off))) ? { wal_write: 1.5 } : {});
  return tell({ wal_write: off.cpuUtilization === null ? 2.5 : 4, cpu: -0.5 });
}

function commitsAlone(findings: Findings): Observation[] {
  const alone = interventionOf(findings, 'commit_only');
  if (alone === undefined) return [];
  const { ratio } = alone;
  const text = `a commit with almost nothing in it: ${times(ratio)}${cpuText(alone)}`;
  const tell = (weights: Weights) => [observation('intervention', 'commits alone', text, weights)];
  if (ratio.high < 1.3)
    return tell({ wal_fsync: 1, network: 0.5, cpu: -0.5, wal_write: -1, lock_contention: -2, other: -1 });
  if (ratio.low > 2)
    return tell({ wal_fsync: -1, cpu: 0.5, wal_write: 0.5, lock_contention: 0.5, other: 0.5 });
  return tell({});
}

function moreClients(findings: Findings): Observation[] {
  const more = interventionOf(findings, 'more_clients');
  if (more === undefined) return [];
  const text = `twice the clients: ${times(more.ratio)}`;
  return [
    observation(
      'intervention',
      'more clients',
      text,
      gains(more.ratio) ? { cpu: -1.5, client_bound: 1 } : {},
    ),
  ];
}

function flushesFollowOneAnother(findings: Findings): Observation[] {
  const { busyShare, commitsPerSync } = findings.flush;
  if (busyShare === undefined) return [];
  const groups = commitsPerSync === undefined ? '' : `, ${show(commitsPerSync)} commits to each`;
  const text = `WAL was being flushed ${percent(Math.min(1, busyShare))} of the time${groups}`;
  const tell = (weights: Weights) => [observation('counters', 'flushes', text, weights)];
  // Who waits for cores too can't flush without a pause.
  if (busyShare >= (isFull(findings) ? 0.6 : 0.75)) return tell({ wal_fsync: 3 });
  if (busyShare >= 0.5) return tell({ wal_fsync: 1 });
  return tell({ wal_fsync: busyShare >= 0.25 ? -1 : -3 });
}

function walIsWritten(findings: Findings): Observation[] {
  const { writeBusyShare } = findings.flush;
  const full = findings.wal.buffersFullPerTransaction;
  const told: Observation[] = [];
  if (writeBusyShare !== undefined) {
    const text = `WAL was being written ${percent(Math.min(1, writeBusyShare))} of the time`;
    // On a full CPU the time of a write is mostly that of waiting for a core.
    const trust = isFull(findings) ? 0.3 : 1;
    const weight = writeBusyShare >= 0.5 ? 3 : writeBusyShare >= 0.25 ? 1 : writeBusyShare < 0.1 ? -1 : 0;
    told.push(
      observation('counters', 'writes of WAL', text, { wal_write: weight * (weight > 0 ? trust : 1) }),
    );
  }
  if (full !== undefined && full >= 0.05) {
    told.push(
      observation('counters', 'WAL buffers', `WAL buffers were full ${show(full)} times a transaction`, {
        wal_write: 1,
      }),
    );
  }
  return told;
}

function sessionsWait(findings: Findings): Observation[] {
  if (findings.waits === undefined || findings.waits.length === 0) return [];
  const { of, named } = groupShares(findings.waits);
  const full = isFull(findings);
  const cpuUnknown = findings.cpu === undefined;
  const top = findings.waits.slice(0, 4).map(({ event, share }) => `${event} ${percent(share)}`);
  const flush: Weights =
    of.flush >= 0.5
      ? { wal_fsync: full ? 0.5 : 1.5 }
      : of.flush < 0.1
        ? { wal_fsync: -3, wal_write: -1 }
        : {};
  const insertion: Weights =
    of.insertion >= 0.2
      ? { wal_write: 3 }
      : of.insertion >= 0.1
        ? { wal_write: 1 }
        : { wal_write: of.insertion < 0.03 && of.flush < 0.5 ? -1.5 : 0 };
  const replication: Weights = {
    network: of.replication >= 0.5 ? 2 : of.replication >= 0.2 ? 1 : of.replication < 0.1 ? -3 : 0,
  };
  const cpu: Weights = cpuUnknown
    ? { cpu: of.cpu >= 0.5 ? 2.5 : of.cpu < 0.2 ? -3 : 0 }
    : { cpu: of.cpu >= 0.4 ? 1 : 0 };
  // What fills the CPU may be others’ programs; then it is not for this that the server’s sessions have nothing to do.
  const isIdle = of.client >= 0.7 && (!full || isFilledByOthers(findings));
  const idle: Weights = {
    client_bound: isIdle ? 4 : of.client >= 0.5 && !full ? 1.5 : of.client < 0.3 ? -4 : 0,
    ...(isIdle ? { wal_fsync: -3, network: -3, wal_write: -2 } : {}),
  };
  return [
    observation(
      'waits',
      'sessions',
      top.join(', '),
      flush,
      insertion,
      replication,
      cpu,
      idle,
      lockWeights(of.lock),
      namedWeights(named?.share ?? 0),
    ),
  ];
}

function lockWeights(share: number): Weights {
  if (share >= 0.4) return { ...FOUR_LESS, lock_contention: 6, other: -1 };
  if (share >= 0.2) return { lock_contention: 2 };
  return { lock_contention: share < 0.1 ? -4 : 0 };
}

function namedWeights(share: number): Weights {
  if (share >= 0.4) return { ...FOUR_LESS, other: 6, lock_contention: -1 };
  if (share >= 0.2) return { other: 2 };
  return { other: share < 0.1 ? -2 : 0 };
}

function linkIsUsed(findings: Findings): Observation[] {
  const { linkUtilization, linkBitsPerSecond, waitedFor, behind } = findings.replication;
  const told: Observation[] = [];
  if (linkUtilization !== undefined && linkBitsPerSecond !== undefined) {
    const text = `WAL to the replicas took ${percent(linkUtilization)} of ${show(linkBitsPerSecond / 1e6)} Mbit/s`;
    const weight = linkUtilization >= 0.75 ? 3 : linkUtilization < 0.3 ? -0.5 : 0;
    told.push(
      observation('system', 'link', text, { network: (waitedFor ?? 0) > 0 ? weight : Math.min(0, weight) }),
    );
  }
  if (behind !== undefined && (waitedFor ?? 0) > 0) {
    const all = behind.send + behind.write + behind.flush;
    if (all > 0) {
      const text = `what the standbys were behind by: ${percent(behind.send / all)} not sent, ${percent(behind.write / all)} on its way, ${percent(behind.flush / all)} not flushed there`;
      const onTheWay = (behind.send + behind.write) / all;
      told.push(observation('counters', 'standbys', text, { network: onTheWay >= 0.6 ? 0.5 : 0 }));
    }
  }
  return told;
}

function pagesAreImaged(findings: Findings): Observation[] {
  const share = findings.wal.fullPageImageShare;
  if (share === undefined || share < FULL_PAGE_IMAGES_MANY) return [];
  const unlogged = interventionOf(findings, 'unlogged');
  const off = interventionOf(findings, 'async_commit');
  const text = `about ${percent(Math.min(1, share))} of the WAL were full-page images, as after each checkpoint`;
  // They are the cause only if the amount of WAL is: without any, the load must run faster than without flushes.
  const isCause =
    unlogged !== undefined &&
    gains(off === undefined ? unlogged.ratio : overInterval(unlogged.ratio, off.ratio));
  const weights: Weights = isCause
    ? { other: 7, wal_fsync: -2, wal_write: -6, cpu: -2, network: -1 }
    : { wal_fsync: -0.5, wal_write: -0.5 };
  return [observation('counters', FULL_PAGE_IMAGES, text, weights)];
}

export const FULL_PAGE_IMAGES = 'full-page images';

function generatorIsUsed({ client }: Findings): Observation[] {
  const text = `the load generator used ${show(client.cores)} cores${client.generatorBound ? ', all that its threads could' : ''}`;
  return [
    observation(
      'client',
      'generator',
      text,
      client.generatorBound ? { client_bound: 8, ...FOUR_LESS } : { client_bound: -0.5 },
    ),
  ];
}

function settingsSay({ settings }: Findings): Observation[] {
  const told: Observation[] = [];
  if (settings.fsync === 'off') {
    told.push(observation('counters', 'fsync', 'fsync is off: nothing is flushed', { wal_fsync: -8 }));
  }
  if (settings.synchronous_commit === 'off') {
    told.push(
      observation('counters', 'synchronous_commit', 'commits wait for nothing (synchronous_commit = off)', {
        wal_fsync: -8,
        network: -8,
      }),
    );
  }
  return told;
}

function cpuText(intervention: Intervention): string {
  const parts = [
    ...(intervention.cpuRatio === null ? [] : [`${show(intervention.cpuRatio)} of the CPU a transaction`]),
    ...(intervention.cpuUtilization === null
      ? []
      : [`CPU then ${percent(intervention.cpuUtilization)} used`]),
  ];
  return parts.length === 0 ? '' : ` (${parts.join(', ')})`;
}

export function times(ratio: Interval): string {
  return `× ${ratio.value.toFixed(2)} (${ratio.low.toFixed(2)} to ${ratio.high.toFixed(2)})`;
}

export function percent(value: number): string {
  return `${Math.round(value * 100)}%`;
}

export function show(value: number): string {
  return String(Number(value.toPrecision(3)));
}
