/**
 * The four ceilings from what was measured, where the model (src/wall/model) has typed numbers. A resource that was busy a
 * part of the time could have served so much more; one that was not seen to be busy gives a lower bound, or nothing.
 *
 * Invariant: a count that is missing makes a ceiling 'unknown'; of what was not near its limit it is 'at_least' or arithmetic.
 */
import type { Explanation, MeasuredCeiling, MeasuredInputs } from './explanation.ts';
import { type Findings, interventionOf } from './findings.ts';
import { coresOfOthers, percent, show } from './observations.ts';
import { groupShares } from './waits.ts';

/** What a message of the replication stream and its packet add to each flush's WAL (XLogData, TCP, IP, Ethernet). */
const WIRE_BYTES_PER_MESSAGE = 96;

export function measuredCeilings(
  findings: Findings,
): Pick<Explanation, 'ceilings' | 'lowestCeiling' | 'inputs'> {
  const ceilings = [fsync(findings), write(findings), cpu(findings), network(findings)];
  const known = ceilings.filter(({ perSecond, bound }) => perSecond !== null && bound === 'about');
  known.sort((a, b) => a.perSecond! - b.perSecond!);
  return { ceilings, lowestCeiling: known[0]?.name ?? null, inputs: inputsOf(findings, ceilings[1]!) };
}

function fsync({ tps, flush, settings }: Findings): MeasuredCeiling {
  const name = 'wal_fsync';
  if (settings.fsync === 'off') return none(name, 'fsync is off');
  const { busyShare, commitsPerSync } = flush;
  const syncMs = flush.loadedSyncMs ?? flush.unloadedSyncMs;
  if (busyShare === undefined || busyShare <= 0 || syncMs === undefined || commitsPerSync === undefined) {
    return unknown(name, 'flushes could not be counted and timed');
  }
  const ms = (busyShare * 1000 * commitsPerSync) / tps.value;
  const perSecond = Math.max(tps.value, tps.value / busyShare);
  const because = `${show(1000 / ms)} flushes/s of ${show(ms)} ms × ${show(commitsPerSync)} commits each`;
  // With room left, later commits would join a flush: groups grow with the load.
  return { name, perSecond, bound: busyShare >= 0.75 ? 'about' : 'at_least', because };
}

function write(findings: Findings): MeasuredCeiling {
  const name = 'wal_write';
  const { tps, flush } = findings;
  const off = interventionOf(findings, 'async_commit');
  const seen = Math.max(tps.value, off?.tps ?? 0);
  if (flush.writeBusyShare !== undefined && flush.writeBusyShare > 0.5) {
    const perSecond = Math.max(seen, tps.value / flush.writeBusyShare);
    return {
      name,
      perSecond,
      bound: 'about',
      because: `WAL was being written ${percent(Math.min(1, flush.writeBusyShare))} of the time`,
    };
  }
  if (off === undefined) return unknown(name, 'needs the load without waiting for flushes');
  const unlogged = interventionOf(findings, 'unlogged');
  const against = unlogged === undefined ? '' : `; without WAL ${count(unlogged.tps)}`;
  const isReached = unlogged !== undefined && (off.cpuUtilization ?? 1) < 0.8 && unlogged.tps > 1.3 * off.tps;
  return {
    ...{ name, perSecond: seen },
    bound: isReached ? 'about' : 'at_least',
    because: `without waiting for flushes the server took ${count(off.tps)}${against}`,
  };
}

/** Server and generator would grow together; what other programs use stays what it is. */
function cpu(findings: Findings): MeasuredCeiling {
  const name = 'cpu';
  const { tps, cpu: used, client } = findings;
  if (used === undefined || used.utilization <= 0) {
    return unknown(name, 'the server’s CPU can’t be seen from here');
  }
  const others = coresOfOthers(findings) ?? 0;
  const own = used.utilization * used.cores - others;
  const room = own > 0 ? Math.max(1, (used.cores - others) / own) : 1;
  const each = used.msPerTransaction === undefined ? '' : `, ${show(used.msPerTransaction)} ms a transaction`;
  const shared = client.sharesMachine && !used.limitedByGroup ? ' (the load generator’s among them)' : '';
  return {
    ...{ name, perSecond: tps.value * room, bound: 'about' },
    because: `${percent(used.utilization)} of ${show(used.cores)} cores used${shared}${each}`,
  };
}

function network(findings: Findings): MeasuredCeiling {
  const name = 'network';
  const { tps, wal, flush, replication, waits } = findings;
  const { replicas, linkBitsPerSecond } = replication;
  if (replicas === 0) return none(name, 'no replica');
  if (replicas === undefined || linkBitsPerSecond === undefined) {
    const waiting = groupShares(waits ?? []).of.replication;
    const local = interventionOf(findings, 'local_commit');
    if (local === undefined || local.ratio.low < 1.2 || waiting < 0.5) {
      return unknown(name, 'the link’s speed is not known: give it with --link');
    }
    const because = `sessions wait for standbys ${percent(waiting)} of the time (the link’s speed is not known)`;
    return { name, perSecond: tps.value, bound: 'about', because };
  }
  if (wal.bytesPerTransaction === undefined) return unknown(name, 'WAL could not be counted');
  const bytes = wal.bytesPerTransaction + WIRE_BYTES_PER_MESSAGE / Math.max(1, flush.commitsPerSync ?? 1);
  return {
    ...{ name, perSecond: linkBitsPerSecond / 8 / (bytes * replicas), bound: 'about' },
    because: `${show(linkBitsPerSecond / 1e6)} Mbit/s / (${show(bytes)} bytes × ${replicas} ${replicas === 1 ? 'replica' : 'replicas'})`,
  };
}

function inputsOf(findings: Findings, writing: MeasuredCeiling): MeasuredInputs {
  const { flush, wal, cpu: used, replication } = findings;
  const records = wal.recordsPerTransaction;
  return {
    syncMs: flush.loadedSyncMs ?? flush.unloadedSyncMs ?? null,
    commitsPerSync: flush.commitsPerSync ?? null,
    walInsertUs:
      writing.perSecond === null || records === undefined || records <= 0
        ? null
        : 1e6 / (writing.perSecond * records),
    walRecordsPerTransaction: records ?? null,
    cores: used?.cores ?? null,
    cpuMsPerTransaction: used?.msPerTransaction ?? null,
    linkBitsPerSecond: replication.linkBitsPerSecond ?? null,
    walBytesPerTransaction: wal.bytesPerTransaction ?? null,
    replicas: replication.replicas ?? null,
  };
}

function none(name: MeasuredCeiling['name'], because: string): MeasuredCeiling {
  return { name, perSecond: null, bound: 'none', because };
}

function unknown(name: MeasuredCeiling['name'], because: string): MeasuredCeiling {
  return { name, perSecond: null, bound: 'unknown', because };
}

function count(perSecond: number): string {
  return `${Math.round(Number(perSecond.toPrecision(3))).toLocaleString('en-US')}/s`;
}
