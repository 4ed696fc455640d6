/** An explanation for tests of what is done with one. */
import type { Explanation } from '../../src/wall/explain/explanation.ts';

export function sampleExplanation(): Explanation {
  const interval = { value: 1.6, low: 1.5, high: 1.7 };
  return {
    ...{ kind: 'postern wall explanation', version: 1, target: 'u@h:5432/d', workload: 'events' },
    ...{ startedAt: '2026-01-01T00:00:00.000Z', seconds: 60, clients: 8 },
    ...{
      verdict: 'wal_fsync',
      causes: ['wal_fsync'],
      confidence: 'high',
      sentence: 'The WAL flush binds it.',
    },
    remarks: ['<b>hostile</b>'],
    scores: {
      wal_fsync: 2,
      wal_write: 0,
      cpu: -1,
      network: 0,
      lock_contention: 0,
      client_bound: 0,
      other: 0,
    },
    observations: [{ name: 'waits', text: '<b>hostile</b>', kind: 'waits', weights: { wal_fsync: 1 } }],
    tps: { value: 1400, low: 1380, high: 1420 },
    interventions: [
      {
        ...{ name: 'async_commit', change: 'synchronous_commit off', predictions: {}, tps: 2240 },
        ...{ ratio: interval, cpuRatio: null, cpuUtilization: null },
      },
    ],
    waits: [{ event: 'LWLock:WALWrite', key: 'lwlock:walwrite', share: 0.41 }],
    ceilings: [
      { name: 'wal_fsync', perSecond: 12_000, bound: 'at_least', because: 'commits per sync times syncs' },
      { name: 'network', perSecond: null, bound: 'none', because: 'no standby' },
    ],
    lowestCeiling: 'wal_fsync',
    inputs: {
      ...{ syncMs: 0.4, commitsPerSync: 3, walInsertUs: null, walRecordsPerTransaction: 2, cores: 2 },
      ...{ cpuMsPerTransaction: 0.1, linkBitsPerSecond: null, walBytesPerTransaction: 200, replicas: 0 },
    },
    counters: {
      ...{ walBytesPerTransaction: 200, fullPageImagesPerTransaction: 0, fullPageImageShare: 0 },
      ...{ walBuffersFullPerTransaction: 0, commitsPerSync: 3, syncMs: 0.4, syncBusyShare: 0.9 },
      ...{ writeBusyShare: 0.1, checkpoints: 0, replicasWaitedFor: 0, cpuUtilization: 0.5 },
      linkUtilization: null,
    },
    probeCost: { samples: 100, milliseconds: 50, cpuShare: 0.01 },
    settings: { fsync: 'on' },
    unread: [],
  };
}
