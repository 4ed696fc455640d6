/** The ways that are tried to get past a primary's write ceiling, with what each costs and risks, and what it gave. */
import type { PairsResult } from './pairs.ts';

/** Where an exit was measured: what it says holds there first of all. */
export type Place = 'given server' | 'scratch server' | 'scale model';

export interface ExitDescription {
  readonly id: string;
  readonly title: string;
  /** Of reads, which is not what the wall is about; said beside, because it is what replicas are for. */
  readonly ofReads?: boolean;
  readonly costs: string;
  readonly risks: string;
}

const NOTHING = 'nothing';

const EXITS = [
  {
    id: 'commit_delay',
    title: 'commit_delay of half a flush',
    costs: 'each commit waits that much longer when others are under way',
    risks: NOTHING,
  },
  {
    id: 'commit_delay_1ms',
    title: 'commit_delay of 1 ms',
    costs: 'each commit waits 1 ms longer when others are under way',
    risks: NOTHING,
  },
  {
    id: 'synchronous_commit_off',
    title: 'synchronous_commit off',
    costs: 'an OK no longer means durable',
    risks: 'a crash loses the last commits, up to three times wal_writer_delay',
  },
  {
    id: 'coalescing',
    title: 'Postern before it (front mode)',
    costs: 'a process beside, with CPU of its own',
    risks: 'no loss: an OK still means durable; writes of several clients share a transaction',
  },
  {
    id: 'full_page_writes_off',
    title: 'full_page_writes off',
    costs: NOTHING,
    risks: 'a power failure in the middle of a page leaves it torn for good',
  },
  {
    id: 'wal_minimal',
    title: 'wal_level minimal',
    costs: 'no replicas, no archive, no point-in-time recovery',
    risks: 'a lost disk is lost data',
  },
  {
    id: 'fsync_off',
    title: 'fsync off',
    costs: 'an OK no longer means durable',
    risks: 'a crash of the machine may destroy the whole database',
  },
  {
    id: 'replicas_async',
    title: 'two asynchronous replicas',
    costs: 'two machines',
    risks: 'a failover loses what had not been sent',
  },
  {
    id: 'replicas_first',
    title: 'two replicas, FIRST 1 waited for',
    costs: 'two machines; each commit waits for the first of them',
    risks: 'writes stop when both are gone',
  },
  {
    id: 'replicas_any',
    title: 'two replicas, ANY 1 waited for',
    costs: 'two machines; each commit waits for the faster of them',
    risks: 'writes stop when both are gone',
  },
  {
    id: 'replicas_cascaded',
    title: 'two replicas, the second fed by the first',
    costs: 'two machines',
    risks: 'the second lags behind the first',
  },
  {
    id: 'reads_on_replicas',
    title: 'reads on the primary and two replicas',
    ofReads: true,
    costs: 'two machines',
    risks: 'reads of replicas may be old',
  },
  {
    id: 'more_cpu',
    title: 'twice the CPU',
    costs: 'a machine twice as large',
    risks: 'there is a largest machine',
  },
  {
    id: 'all_combined',
    title: 'all of them that go together',
    costs: 'no durability, no replicas, a machine twice as large',
    risks: 'a crash of the machine may destroy the whole database',
  },
  ...[2, 4, 8].map((primaries) => ({
    id: `primaries_${primaries}`,
    title: `${primaries} primaries behind Postern, against one behind it`,
    costs: `${primaries} machines and a router; a shard key for each table`,
    risks: 'no loss: an OK still means durable; a write names its shard key',
  })),
] as const satisfies readonly ExitDescription[];

export const EXIT_IDS: readonly string[] = EXITS.map((exit) => exit.id);

export interface MeasuredExit {
  readonly id: string;
  readonly place: Place;
  readonly pairs: PairsResult;
}

export interface SkippedExit {
  readonly id: string;
  readonly skipped: string;
}

export type ExitOutcome = MeasuredExit | SkippedExit;

export function descriptionOf(id: string): ExitDescription {
  const found = EXITS.find((exit) => exit.id === id);
  if (found === undefined) throw new Error(`there is no exit ${id}`);
  return found;
}

export interface ExitsReport {
  /** The server that was given, without its password; undefined: all on scratch servers. */
  readonly target: string | undefined;
  readonly startedAt: string;
  readonly clients: number;
  readonly windowSeconds: number;
  /** How the scale model caps its servers, or why there are no caps. */
  readonly model: string;
  readonly outcomes: readonly ExitOutcome[];
}
