/**
 * Wait events by what they stand for. Keys are 'type:event' in lower case (server/activity-sampler.ts); names are those of
 * PostgreSQL 14 to 18. An event that is in no group stands for itself, so that a bottleneck nobody thought of is named.
 * Source: PostgreSQL documentation, "Wait Event Tables".
 */
import type { ActivityProfile } from '../server/activity-sampler.ts';
import { IDLE, IDLE_IN_TRANSACTION, ON_CPU } from '../server/activity-sampler.ts';
import type { WaitShare } from './explanation.ts';

export type WaitGroup = 'flush' | 'insertion' | 'replication' | 'lock' | 'cpu' | 'client' | 'named';

/**
 * What the sessions wait for while WAL is written and flushed: the one that does it (IO), and those that wait for it
 * (LWLock:WALWrite). Which of the two takes the time, only counters and interventions tell.
 */
const FLUSH = new Set([
  'lwlock:walwrite',
  'io:walsync',
  'io:walwrite',
  'io:walsyncmethodassign',
  'io:walinitsync',
]);
const INSERTION = new Set(['lwlock:walinsert', 'lwlock:walbufmapping', 'io:walinitwrite']);
const REPLICATION = new Set(['ipc:syncrep', 'lwlock:syncrep']);
/** Rows and the transactions that hold them. Lock:extend and its like are a table's, not a row's. */
const LOCK = new Set([
  ...['lock:transactionid', 'lock:tuple', 'lock:relation', 'lock:advisory', 'lock:object', 'lock:virtualxid'],
  ...['lock:spectoken', 'lock:userlock', 'lock:applytransaction'],
]);
const CLIENT = new Set([IDLE, IDLE_IN_TRANSACTION, 'client:clientread', 'client:clientwrite']);

export function groupOf(key: string): WaitGroup {
  if (key === ON_CPU) return 'cpu';
  if (FLUSH.has(key)) return 'flush';
  if (INSERTION.has(key)) return 'insertion';
  if (REPLICATION.has(key)) return 'replication';
  if (LOCK.has(key)) return 'lock';
  return CLIENT.has(key) ? 'client' : 'named';
}

export function waitShares(profile: ActivityProfile): WaitShare[] {
  if (profile.sessions === 0) return [];
  return profile.waits.map(({ key, event, count }) => ({ key, event, share: count / profile.sessions }));
}

/** The sum of each group; of 'named' the largest single event. */
export interface GroupShares {
  readonly of: Readonly<Record<Exclude<WaitGroup, 'named'>, number>>;
  readonly named: WaitShare | undefined;
}

export function groupShares(waits: readonly WaitShare[]): GroupShares {
  const of = { flush: 0, insertion: 0, replication: 0, lock: 0, cpu: 0, client: 0 };
  let named: WaitShare | undefined;
  for (const wait of waits) {
    const group = groupOf(wait.key);
    if (group !== 'named') of[group] += wait.share;
    else if (named === undefined || wait.share > named.share) named = wait;
  }
  return { of, named };
}
