import { describe, expect, it } from 'vitest';
import { conclude } from './conclude.ts';
import type { Explanation, Intervention, InterventionName } from './explanation.ts';
import type { Findings } from './findings.ts';
import { observe } from './observations.ts';

type CpuChange = Pick<Intervention, 'cpuRatio' | 'cpuUtilization'>;

function changed(name: InterventionName, ratio: number, cpu: Partial<CpuChange> = {}): Intervention {
  return {
    ...{ name, change: name, predictions: {}, tps: 1000 * ratio },
    ratio: { value: ratio, low: ratio * 0.95, high: ratio * 1.05 },
    ...{ cpuRatio: 1, cpuUtilization: 0.3, ...cpu },
  };
}

function waits(shares: Record<string, number>): Findings['waits'] {
  return Object.entries(shares).map(([event, share]) => ({ event, key: event.toLowerCase(), share }));
}

/** A server with room everywhere, of which nothing is told. */
const NOTHING: Findings = {
  clients: 32,
  tps: { value: 1000, low: 980, high: 1020 },
  interventions: [],
  waits: undefined,
  cpu: undefined,
  flush: {
    syncsPerSecond: undefined,
    commitsPerSync: undefined,
    unloadedSyncMs: undefined,
    loadedSyncMs: undefined,
    busyShare: undefined,
    writeBusyShare: undefined,
  },
  wal: {
    bytesPerTransaction: 200,
    recordsPerTransaction: 3,
    fullPageImagesPerTransaction: 0,
    fullPageImageShare: 0,
    buffersFullPerTransaction: 0,
  },
  replication: {
    replicas: 0,
    waitedFor: 0,
    linkBitsPerSecond: undefined,
    linkUtilization: undefined,
    behind: undefined,
  },
  client: { generatorBound: false, cores: 0.1, sharesMachine: false },
  settings: { fsync: 'on', synchronous_commit: 'on' },
};

function cpu(utilization: number): Findings['cpu'] {
  return {
    utilization,
    cores: 4,
    serverCores: 4 * utilization,
    limitedByGroup: false,
    msPerTransaction: 4 * utilization,
  };
}

function flush(busyShare: number, rest: Partial<Findings['flush']> = {}): Findings['flush'] {
  return { ...NOTHING.flush, busyShare, commitsPerSync: 10, writeBusyShare: 0.02, ...rest };
}

const REPLICAS = { ...NOTHING.replication, replicas: 2, waitedFor: 1 };

const SLOW_FLUSH: Findings = {
  ...NOTHING,
  cpu: cpu(0.2),
  flush: flush(0.95),
  interventions: [changed('async_commit', 5), changed('unlogged', 5.2), changed('commit_only', 1.05)],
  waits: waits({ 'LWLock:WALWrite': 0.9, 'IO:WALSync': 0.05, CPU: 0.05 }),
};

const FULL_CPU: Findings = {
  ...NOTHING,
  cpu: cpu(0.97),
  flush: flush(0.3),
  interventions: [
    changed('async_commit', 1.6, { cpuRatio: 0.62, cpuUtilization: 0.98 }),
    changed('unlogged', 1.9, { cpuRatio: 0.53, cpuUtilization: 0.97 }),
    changed('commit_only', 1.4, { cpuRatio: 0.7, cpuUtilization: 0.97 }),
  ],
  waits: waits({ 'LWLock:WALWrite': 0.5, 'Client:idle': 0.4, CPU: 0.1 }),
};

type Expected = Pick<Explanation, 'verdict'> & Partial<Pick<Explanation, 'confidence' | 'causes'>>;

const TABLE: readonly (readonly [name: string, findings: Findings, expected: Expected])[] = [
  ['flushes that follow one another', SLOW_FLUSH, { verdict: 'wal_fsync', confidence: 'high' }],
  ['waits for WALWrite on a full CPU', FULL_CPU, { verdict: 'cpu', confidence: 'high' }],
  [
    'a full CPU whose flushes are never idle either',
    { ...FULL_CPU, flush: flush(0.95) },
    { verdict: 'mixed', causes: ['the CPU', 'the WAL’s flush'], confidence: 'low' },
  ],
  [
    'less WAL that helps where no wait does',
    {
      ...NOTHING,
      cpu: cpu(0.3),
      flush: flush(0.05, { writeBusyShare: 0.9 }),
      interventions: [changed('async_commit', 1.02), changed('unlogged', 8), changed('commit_only', 6)],
      waits: waits({ 'LWLock:WALWrite': 0.8, 'IO:WALWrite': 0.1, CPU: 0.1 }),
    },
    { verdict: 'wal_write', confidence: 'high' },
  ],
  [
    'the same where the WAL is images of pages',
    {
      ...NOTHING,
      cpu: cpu(0.3),
      flush: flush(0.05, { writeBusyShare: 0.9 }),
      wal: { ...NOTHING.wal, fullPageImageShare: 0.9 },
      interventions: [changed('async_commit', 1.02), changed('unlogged', 8), changed('commit_only', 6)],
      waits: waits({ 'LWLock:WALWrite': 0.8, 'IO:WALWrite': 0.1, CPU: 0.1 }),
    },
    { verdict: 'other', causes: ['full-page images'] },
  ],
  [
    'commits that wait for replicas',
    {
      ...NOTHING,
      cpu: cpu(0.3),
      flush: flush(0.1),
      replication: { ...REPLICAS, linkBitsPerSecond: 1e7, linkUtilization: 0.95 },
      interventions: [
        changed('async_commit', 6),
        changed('local_commit', 5),
        changed('remote_write', 1.03),
        changed('commit_only', 1.5),
      ],
      waits: waits({ 'IPC:SyncRep': 0.9, CPU: 0.1 }),
    },
    { verdict: 'network', confidence: 'high' },
  ],
  [
    'commits that wait for a standby’s disk',
    {
      ...NOTHING,
      cpu: cpu(0.3),
      flush: flush(0.1),
      replication: REPLICAS,
      interventions: [changed('async_commit', 6), changed('local_commit', 5), changed('remote_write', 2)],
      waits: waits({ 'IPC:SyncRep': 0.9, CPU: 0.1 }),
    },
    { verdict: 'other', causes: ['the standby’s disk'] },
  ],
  [
    'a local flush that binds beside fast replicas',
    {
      ...SLOW_FLUSH,
      replication: REPLICAS,
      interventions: [changed('async_commit', 5), changed('local_commit', 1.02), changed('remote_write', 1)],
    },
    { verdict: 'wal_fsync', confidence: 'high' },
  ],
  [
    'a hot row, whose commits flush one by one',
    {
      ...SLOW_FLUSH,
      flush: flush(0.95, { commitsPerSync: 1 }),
      interventions: [changed('async_commit', 20), changed('unlogged', 21), changed('commit_only', 15)],
      waits: waits({ 'Lock:transactionid': 0.8, 'Lock:tuple': 0.15, 'IO:WALSync': 0.03 }),
    },
    { verdict: 'lock_contention', causes: ['Lock:transactionid'] },
  ],
  [
    'pages read from disk',
    {
      ...NOTHING,
      cpu: cpu(0.3),
      flush: flush(0.1),
      interventions: [changed('async_commit', 1.02), changed('unlogged', 1.03), changed('commit_only', 9)],
      waits: waits({ 'IO:DataFileRead': 0.85, CPU: 0.1 }),
    },
    { verdict: 'other', causes: ['IO:DataFileRead'] },
  ],
  [
    'sessions that wait for their clients',
    {
      ...NOTHING,
      cpu: cpu(0.2),
      flush: flush(0.2),
      interventions: [
        changed('async_commit', 1.05),
        changed('unlogged', 1.06),
        changed('more_clients', 1.95),
      ],
      waits: waits({ 'Client:idle': 0.9, CPU: 0.05 }),
    },
    { verdict: 'client_bound' },
  ],
  [
    'a generator at its end',
    { ...FULL_CPU, client: { generatorBound: true, cores: 1, sharesMachine: false }, cpu: cpu(0.4) },
    { verdict: 'client_bound' },
  ],
  ['nothing that could be read', NOTHING, { verdict: 'unknown', confidence: 'low' }],
  [
    'nothing that binds',
    {
      ...NOTHING,
      cpu: cpu(0.3),
      flush: flush(0.2),
      interventions: [changed('async_commit', 1.02), changed('unlogged', 1.03), changed('commit_only', 1.5)],
      waits: waits({ CPU: 0.4, 'Client:idle': 0.4 }),
    },
    { verdict: 'unknown', confidence: 'low' },
  ],
  [
    'a remote server of which only SQL tells',
    { ...SLOW_FLUSH, cpu: undefined, flush: flush(0.95, { writeBusyShare: undefined }) },
    { verdict: 'wal_fsync' },
  ],
  [
    'a full machine that others fill',
    { ...SLOW_FLUSH, cpu: { ...cpu(0.98)!, serverCores: 0.4 }, interventions: [] },
    { verdict: 'wal_fsync' },
  ],
];

describe('conclude', () => {
  it.each(TABLE)('%s', (_, findings, expected) => {
    expect(conclude(findings)).toMatchObject(expected);
  });

  it('is never confident on a noisy machine', () => {
    expect(conclude({ ...SLOW_FLUSH, tps: { value: 1000, low: 700, high: 1300 } }).confidence).toBe('medium');
    expect(conclude({ ...SLOW_FLUSH, tps: { value: 1000, low: 500, high: 2000 } }).confidence).toBe('low');
  });

  it('does not take fsync = off or synchronous_commit = off for a slow flush', () => {
    for (const setting of ['fsync', 'synchronous_commit']) {
      const { verdict, scores } = conclude({
        ...SLOW_FLUSH,
        settings: { [setting]: 'off' },
        interventions: [],
      });
      expect(verdict).not.toBe('wal_fsync');
      expect(scores.wal_fsync).toBeLessThan(0);
    }
  });

  it('lets no single observation of the sessions settle one of the four', () => {
    const { verdict } = conclude({ ...NOTHING, waits: SLOW_FLUSH.waits });
    expect(verdict).toBe('unknown');
  });

  it('adds its observations up to the scores', () => {
    const { scores, observations } = conclude(SLOW_FLUSH);
    expect(observations).toEqual(observe(SLOW_FLUSH));
    const flushed = observations.reduce((sum, { weights }) => sum + (weights.wal_fsync ?? 0), 0);
    expect(scores.wal_fsync).toBe(flushed);
  });
});

describe('observe', () => {
  const weightsOf = (findings: Findings, name: string) =>
    observe(findings).find((observation) => observation.name === name)?.weights;

  it('counts what a lighter commit gains on a full CPU only beyond the CPU that it saves', () => {
    expect(weightsOf(FULL_CPU, 'no wait at commit')).toEqual({});
    const more = { ...FULL_CPU, interventions: [changed('async_commit', 3, { cpuRatio: 0.62 })] };
    expect(weightsOf(more, 'no wait at commit')).toEqual({ wal_fsync: 1.5 });
  });

  it('sees that the CPU in use stays the same while throughput changes', () => {
    expect(weightsOf(FULL_CPU, 'CPU in use')).toEqual({ cpu: 2 });
    const more = { ...FULL_CPU, interventions: [changed('async_commit', 3, { cpuRatio: 0.62 })] };
    expect(weightsOf(more, 'CPU in use')).toBeUndefined();
    expect(weightsOf({ ...FULL_CPU, cpu: cpu(0.5) }, 'CPU in use')).toBeUndefined();
  });

  it('takes an interval that reaches 1 for no gain', () => {
    const wide = { ...changed('async_commit', 3), ratio: { value: 3, low: 0.9, high: 10 } };
    expect(weightsOf({ ...SLOW_FLUSH, interventions: [wide] }, 'no wait at commit')).toEqual({});
  });

  it('doubts the network where no commit waits for a replica', () => {
    expect(weightsOf(SLOW_FLUSH, 'replicas')).toEqual({ network: -8 });
  });
});
