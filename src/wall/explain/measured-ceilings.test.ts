import { describe, expect, it } from 'vitest';
import type { Intervention } from './explanation.ts';
import type { Findings } from './findings.ts';
import { measuredCeilings } from './measured-ceilings.ts';

function changed(name: Intervention['name'], tps: number, cpuUtilization = 0.5): Intervention {
  const ratio = { value: tps / 1000, low: tps / 1100, high: tps / 900 };
  return { ...{ name, change: name, predictions: {}, tps, ratio, cpuRatio: 1 }, cpuUtilization };
}

const FINDINGS: Findings = {
  clients: 8,
  tps: { value: 1000, low: 950, high: 1050 },
  interventions: [changed('async_commit', 3000), changed('unlogged', 3100)],
  waits: [],
  cpu: { utilization: 0.5, cores: 4, serverCores: 1, limitedByGroup: false, msPerTransaction: 1 },
  flush: {
    syncsPerSecond: 200,
    commitsPerSync: 5,
    unloadedSyncMs: 4,
    loadedSyncMs: 4,
    busyShare: 0.8,
    writeBusyShare: 0.1,
  },
  wal: {
    bytesPerTransaction: 200,
    recordsPerTransaction: 2,
    fullPageImagesPerTransaction: 0,
    fullPageImageShare: 0,
    buffersFullPerTransaction: 0,
  },
  replication: {
    ...{ replicas: 2, waitedFor: 0, linkBitsPerSecond: 8e6, linkUtilization: 0.4, behind: undefined },
  },
  client: { generatorBound: false, cores: 0.5, sharesMachine: true },
  settings: { fsync: 'on' },
};

const of = (findings: Findings, name: string) =>
  measuredCeilings(findings).ceilings.find((ceiling) => ceiling.name === name)!;

describe('measuredCeilings', () => {
  it('is each resource’s throughput over the time that it was busy', () => {
    expect(of(FINDINGS, 'wal_fsync')).toMatchObject({ perSecond: 1250, bound: 'about' });
    expect(of(FINDINGS, 'wal_write')).toMatchObject({ perSecond: 3000, bound: 'at_least' });
    // Half a core is other programs'; of the 3.5 left, server and generator use 1.5.
    expect(of(FINDINGS, 'cpu').perSecond).toBeCloseTo((1000 * 3.5) / 1.5);
    // 1 MB/s, two replicas, 200 bytes and a fifth of a message's head each.
    expect(of(FINDINGS, 'network').perSecond).toBeCloseTo(1e6 / (2 * (200 + 96 / 5)));
    expect(measuredCeilings(FINDINGS)).toMatchObject({
      lowestCeiling: 'wal_fsync',
      inputs: {
        syncMs: 4,
        commitsPerSync: 5,
        cores: 4,
        cpuMsPerTransaction: 1,
        linkBitsPerSecond: 8e6,
        replicas: 2,
      },
    });
  });

  it('is a lower bound for flushes with room between them', () => {
    const idle = { ...FINDINGS, flush: { ...FINDINGS.flush, busyShare: 0.1 } };
    expect(of(idle, 'wal_fsync')).toMatchObject({ perSecond: 10_000, bound: 'at_least' });
  });

  it('ends the writing of WAL where less of it is faster and the CPU has room', () => {
    const bound = { ...FINDINGS, interventions: [changed('async_commit', 1100), changed('unlogged', 9000)] };
    expect(of(bound, 'wal_write')).toMatchObject({ perSecond: 1100, bound: 'about' });
    const full = {
      ...FINDINGS,
      interventions: [changed('async_commit', 1100, 0.95), changed('unlogged', 9000)],
    };
    expect(of(full, 'wal_write')).toMatchObject({ perSecond: 1100, bound: 'at_least' });
  });

  it('takes what was measured for the network where a link of unknown speed is waited for', () => {
    const unknown = { ...FINDINGS, replication: { ...FINDINGS.replication, linkBitsPerSecond: undefined } };
    expect(of(unknown, 'network')).toMatchObject({ perSecond: null, bound: 'unknown' });
    const waiting = {
      ...unknown,
      interventions: [changed('local_commit', 5000)],
      waits: [{ event: 'IPC:SyncRep', key: 'ipc:syncrep', share: 0.9 }],
    };
    expect(of(waiting, 'network')).toMatchObject({ perSecond: 1000, bound: 'about' });
  });

  it('tells none from unknown', () => {
    const bare: Findings = {
      ...FINDINGS,
      interventions: [],
      cpu: undefined,
      flush: { ...FINDINGS.flush, busyShare: undefined, writeBusyShare: undefined },
      replication: { ...FINDINGS.replication, replicas: 0 },
    };
    const { ceilings, lowestCeiling } = measuredCeilings(bare);
    expect(ceilings.map(({ bound }) => bound)).toEqual(['unknown', 'unknown', 'unknown', 'none']);
    expect(lowestCeiling).toBeNull();
    expect(of({ ...bare, settings: { fsync: 'off' } }, 'wal_fsync').bound).toBe('none');
  });
});
