/**
 * The interventions: the same load with one thing changed, each so chosen that the causes predict different outcomes. All
 * of them are settings of the load's own sessions, or tables of its own; none changes the server.
 *
 * - async_commit: what the wait at commit costs, local flush and replicas together.
 * - local_commit, remote_write (only where commits wait for standbys): what the wait for them costs, and their disks in it.
 * - unlogged: the same statements on unlogged twins of the workload's tables. Their commits don't wait for a flush either,
 *   so over async_commit what is left is inserting and writing WAL.
 * - commit_only: a transaction that writes one WAL record of some bytes, so that its commit waits as any other does. (An
 *   XID alone would not do: a transaction without WAL of its own is not flushed.) What it can't do faster than the load
 *   is not the statements' doing.
 * - more_clients: whether this is the wall at all.
 */
import { type Workload, workloadFromScript } from '../workload/workload.ts';
import type { Hypothesis, InterventionName } from './explanation.ts';

export interface Variant {
  readonly name: 'unchanged' | InterventionName;
  readonly change: string;
  readonly predictions: Readonly<Partial<Record<Hypothesis, string>>>;
  readonly workload: Workload;
  /** Empty, or ends in a dot. */
  readonly schema: string;
  readonly clients: number;
  /** Settings of the load's sessions. */
  readonly settings: Readonly<Record<string, string>>;
}

/** What the choice depends on. */
export interface Situation {
  readonly workload: Workload;
  readonly schema: string;
  /** The twin's; undefined: there is none. */
  readonly unloggedSchema: string | undefined;
  readonly clients: number;
  /** Twice the clients, if the server has connections for them. */
  readonly moreClients: number | undefined;
  readonly waitsForReplicas: boolean;
  readonly synchronousCommit: string;
  /** Under each variant alike. */
  readonly settings: Readonly<Record<string, string>>;
}

const SAME = 'as before';

/** The unchanged load first, and then what it is compared with. */
export function variantsOf(situation: Situation): readonly Variant[] {
  const { workload, schema, unloggedSchema, clients, moreClients, settings } = situation;
  const load = { workload, schema, clients, settings };
  const off = { ...settings, synchronous_commit: 'off' };
  const waits = situation.synchronousCommit !== 'off';
  const variants: (Variant | undefined)[] = [
    { ...load, name: 'unchanged', change: 'nothing', predictions: {} },
    waits
      ? {
          ...load,
          name: 'async_commit',
          change: 'synchronous_commit = off',
          predictions: {
            wal_fsync: 'much faster',
            network: 'much faster',
            wal_write: SAME,
            cpu: 'faster by the CPU saved',
            lock_contention: 'faster if locks are held over the flush',
            client_bound: SAME,
          },
          settings: off,
        }
      : undefined,
    waits && situation.waitsForReplicas && situation.synchronousCommit !== 'local'
      ? {
          ...load,
          name: 'local_commit',
          change: 'synchronous_commit = local',
          predictions: { network: 'much faster', wal_fsync: SAME, wal_write: SAME, cpu: 'little faster' },
          settings: { ...settings, synchronous_commit: 'local' },
        }
      : undefined,
    waits && situation.waitsForReplicas && !['local', 'remote_write'].includes(situation.synchronousCommit)
      ? {
          ...load,
          name: 'remote_write',
          change: 'synchronous_commit = remote_write',
          predictions: { network: SAME, other: 'faster if the standbys’ disks bind' },
          settings: { ...settings, synchronous_commit: 'remote_write' },
        }
      : undefined,
    unloggedSchema === undefined
      ? undefined
      : {
          ...load,
          name: 'unlogged',
          change: 'the same tables, unlogged',
          predictions: {
            wal_write: 'faster than synchronous_commit = off',
            wal_fsync: 'as synchronous_commit = off',
            cpu: 'faster by the CPU saved',
          },
          schema: unloggedSchema,
          settings: off,
        },
    {
      ...load,
      name: 'commit_only',
      change: 'one small WAL record and a commit',
      predictions: {
        wal_fsync: SAME,
        network: SAME,
        cpu: 'faster',
        wal_write: 'faster',
        lock_contention: 'faster',
      },
      workload: COMMIT_ONLY,
      schema: '',
    },
    moreClients === undefined
      ? undefined
      : {
          ...load,
          name: 'more_clients',
          change: `${moreClients} clients`,
          predictions: { cpu: 'no faster', wal_fsync: 'little faster', client_bound: 'faster' },
          clients: moreClients,
        },
  ];
  return variants.filter((variant) => variant !== undefined);
}

export const COMMIT_ONLY: Workload = workloadFromScript(
  "SELECT pg_logical_emit_message(true, 'postern', 'x');",
  { name: 'commit only' },
);

/** Each in turn, then in the opposite order: what drifts with time falls on all alike. */
export function turns<T>(variants: readonly T[], pairs: number): T[] {
  const there = Array.from({ length: pairs }, () => [...variants, ...[...variants].reverse()]);
  return there.flat();
}
