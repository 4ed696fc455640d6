/** Bottlenecks made real, each with the verdict that is true of it by construction. */
import type { Explanation } from '../../src/wall/explain/explanation.ts';
import { workloadByName } from '../../src/wall/workload/built-in-workloads.ts';
import { type Workload, workloadFromScript } from '../../src/wall/workload/workload.ts';
import { SlowWire } from './slow-wire.ts';
import { dsnOf, type VerdictStage } from './verdict-stage.ts';

export interface VerdictCase {
  readonly name: string;
  /** What makes it so, in words. */
  readonly made: string;
  readonly truth: Explanation['verdict'];
  /** What `causes` has to name besides, for `other` and `mixed`. */
  readonly causes?: readonly RegExp[];
  readonly needs?: readonly ('disk' | 'quota')[];
  readonly workload: Workload;
  readonly clients: number;
  /** Only in the long run. */
  readonly isLong?: boolean;
  arrange(stage: VerdictStage, earlier: ReadonlyMap<string, Explanation>): Promise<Arranged>;
}

export interface Arranged {
  readonly dsn: string;
  readonly linkBitsPerSecond?: number;
  undo?(): Promise<void>;
}

const EVENTS = workloadByName('events');
const SLOW_FLUSH = 'slow flush';
const LINK_BYTES_PER_SECOND = 900_000;

/** Rows whose WAL is many times that of a commit. */
const WIDE = workloadFromScript("INSERT INTO {schema}wide (payload) SELECT repeat('x', 1500);", {
  name: 'wide rows',
  setup: [
    'CREATE TABLE {schema}wide (payload text)',
    'ALTER TABLE {schema}wide ALTER COLUMN payload SET STORAGE PLAIN',
  ],
});

export const VERDICT_CASES: readonly VerdictCase[] = [
  {
    name: SLOW_FLUSH,
    made: 'each flush takes 4 ms more',
    truth: 'wal_fsync',
    needs: ['disk'],
    workload: EVENTS,
    clients: 32,
    async arrange(stage) {
      stage.slowDisk({ syncMs: 4 });
      return { dsn: stage.dsn };
    },
  },
  {
    name: 'slow flush, updates',
    made: 'each flush takes 2 ms more',
    truth: 'wal_fsync',
    needs: ['disk'],
    workload: workloadByName('counters'),
    clients: 16,
    async arrange(stage) {
      stage.slowDisk({ syncMs: 2 });
      return { dsn: stage.dsn };
    },
  },
  {
    name: 'little CPU',
    made: 'the server may use 0.3 cores',
    truth: 'cpu',
    needs: ['quota'],
    workload: EVENTS,
    clients: 32,
    async arrange(stage) {
      stage.quota!.set(0.3);
      return { dsn: stage.dsn };
    },
  },
  {
    name: 'joins and foreign keys',
    made: 'three joins and five foreign keys to each row',
    truth: 'cpu',
    workload: workloadByName('foreign-keys'),
    clients: 32,
    async arrange(stage) {
      return { dsn: stage.dsn };
    },
  },
  {
    name: 'slow WAL writes',
    made: 'the WAL’s disk takes 4 MB/s',
    truth: 'wal_write',
    needs: ['disk'],
    workload: WIDE,
    clients: 16,
    async arrange(stage) {
      stage.slowDisk({ writtenBytesPerSecond: 4e6 });
      return { dsn: stage.dsn };
    },
  },
  {
    name: 'full-page images',
    made: 'a checkpoint a moment ago at any time, and the WAL’s disk takes 15 MB/s',
    truth: 'other',
    causes: [/full-page images/],
    needs: ['disk'],
    workload: workloadByName('counters', { scale: 2 }),
    clients: 16,
    async arrange(stage) {
      stage.slowDisk({ writtenBytesPerSecond: 15e6 });
      let isOver = false;
      const checkpoints = (async () => {
        while (!isOver) {
          await stage.query('CHECKPOINT');
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
      })();
      return {
        dsn: stage.dsn,
        undo: async () => {
          isOver = true;
          await checkpoints;
        },
      };
    },
  },
  {
    name: 'hot row',
    made: 'every client updates the same row',
    truth: 'lock_contention',
    workload: workloadByName('hot-row'),
    clients: 32,
    async arrange(stage) {
      if (stage.hasSlowDisk) stage.slowDisk({ syncMs: 1 });
      return { dsn: stage.dsn };
    },
  },
  {
    name: 'slow client',
    made: 'each client takes 5 ms for an answer',
    truth: 'client_bound',
    workload: EVENTS,
    clients: 8,
    async arrange(stage) {
      const wire = await SlowWire.open(stage.server.port);
      wire.delayMs = 5;
      return { dsn: dsnOf(wire.port), undo: () => wire.close() };
    },
  },
  {
    name: 'little CPU and slow flush',
    made: 'both at the same throughput',
    truth: 'mixed',
    causes: [/flush/, /CPU/],
    needs: ['disk', 'quota'],
    workload: EVENTS,
    clients: 32,
    async arrange(stage, earlier) {
      const { tps, inputs } = earlier.get(SLOW_FLUSH)!;
      stage.slowDisk({ syncMs: 4 });
      stage.quota!.set((tps.value * inputs.cpuMsPerTransaction!) / 1000);
      return { dsn: stage.dsn };
    },
  },
  {
    name: 'narrow link',
    made: 'commits wait for a standby behind 7.2 Mbit/s',
    truth: 'network',
    workload: EVENTS,
    clients: 32,
    async arrange(stage) {
      const wire = await stage.synchronousStandbys(1);
      wire.bytesPerSecond = LINK_BYTES_PER_SECOND;
      return { dsn: stage.dsn, linkBitsPerSecond: LINK_BYTES_PER_SECOND * 8 };
    },
  },
  {
    name: 'narrow link, not declared',
    made: 'the same, and the link’s speed is not told',
    truth: 'network',
    isLong: true,
    workload: EVENTS,
    clients: 32,
    async arrange(stage) {
      const wire = await stage.synchronousStandbys(1);
      wire.bytesPerSecond = LINK_BYTES_PER_SECOND;
      return { dsn: stage.dsn };
    },
  },
  {
    name: 'slow standby',
    made: 'commits wait for a standby whose flush takes 5 ms more',
    truth: 'other',
    causes: [/standby/],
    needs: ['disk'],
    workload: EVENTS,
    clients: 32,
    async arrange(stage) {
      await stage.synchronousStandbys(1);
      stage.slowStandbys({ syncMs: 5 });
      return { dsn: stage.dsn };
    },
  },
  {
    name: 'replicas, skinny records',
    made: 'commits of one integer wait for two standbys behind one link of 7.2 Mbit/s',
    truth: 'network',
    isLong: true,
    workload: workloadByName('skinny'),
    clients: 64,
    async arrange(stage) {
      const wire = await stage.synchronousStandbys(2);
      wire.bytesPerSecond = LINK_BYTES_PER_SECOND;
      return { dsn: stage.dsn, linkBitsPerSecond: 8 * LINK_BYTES_PER_SECOND };
    },
  },
  {
    name: 'small inserts, 64 clients',
    made: 'nothing: tiny commits on the cores and the disk that there are',
    truth: 'cpu',
    isLong: true,
    workload: workloadByName('skinny'),
    clients: 64,
    async arrange(stage) {
      return { dsn: stage.dsn };
    },
  },
];
