/**
 * Whether a server has other traffic on it: its transactions over a second or so, and the sessions that are at work
 * meanwhile. A measurement beside other traffic harms that, and tells nothing of the server.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type MeasuredServer, MeasureError } from '../server/measured-server.ts';
import type { ProbeConnection } from '../server/probe-connection.ts';

export interface TrafficSample {
  /** Committed and rolled back in all databases since the statistics began. */
  readonly transactions: number | undefined;
  readonly busySessions: readonly BusySession[];
}

export interface BusySession {
  readonly pid: number;
  readonly user: string;
  readonly database: string;
  readonly application: string;
}

export interface Traffic {
  readonly isQuiet: boolean;
  /** What was seen, in a sentence. */
  readonly seen: string;
}

/** A busy session hands in its counts once a second, so a shorter look sees nothing of it. */
const WATCH_MS = 1_300;
const SAMPLE_INTERVAL_MS = 130;
/** Monitoring and autovacuum do a few. */
const TRANSACTIONS_PER_SECOND_MAX = 10;
/** Of all samples: a session that is at work as often as this is no monitoring. */
const BUSY_SHARE_MAX = 0.5;
const NAMED_MAX = 3;

const SAMPLE = `SELECT
  (SELECT sum(xact_commit + xact_rollback)::float8 FROM pg_catalog.pg_stat_database) AS transactions,
  (SELECT coalesce(json_agg(json_build_object('pid', pid, 'user', usename, 'database', datname,
      'application', application_name)), '[]') FROM pg_catalog.pg_stat_activity
    WHERE state IN ('active', 'fastpath function call') AND pid <> pg_backend_pid()
      AND backend_type = 'client backend' AND NOT pid = ANY($1)) AS busy,
  pg_stat_clear_snapshot()`;

/** Gives what was seen; rejects with MeasureError if the server has other traffic on it. */
export async function refuseTraffic(
  server: MeasuredServer,
  probe: ProbeConnection,
  signal?: AbortSignal,
): Promise<string> {
  const pid = await server.backendPid();
  const { isQuiet, seen } = await watchTraffic(probe, pid === undefined ? [] : [pid], signal);
  if (isQuiet) return seen;
  throw new MeasureError(
    `the server has other traffic on it (${seen}), which a measurement would harm and be spoilt by; measure another server, or say --i-know`,
  );
}

/** `ownPids`: sessions that don't count. */
async function watchTraffic(
  connection: ProbeConnection,
  ownPids: readonly number[],
  signal?: AbortSignal,
): Promise<Traffic> {
  const samples: TrafficSample[] = [];
  const startedAtMs = performance.now();
  let elapsedMs = 0;
  try {
    // One transaction for all samples: then none of what is counted meanwhile is this session's own.
    await connection.rows('BEGIN READ ONLY');
    do {
      if (samples.length > 0) await sleep(SAMPLE_INTERVAL_MS, undefined, signal ? { signal } : {});
      samples.push(sampleOf(await connection.row(SAMPLE, [ownPids])));
      elapsedMs = performance.now() - startedAtMs;
    } while (elapsedMs < WATCH_MS);
  } catch (error) {
    signal?.throwIfAborted();
    const reason = error instanceof Error ? error.message : String(error);
    return { isQuiet: true, seen: `other traffic could not be looked for: ${reason}` };
  } finally {
    await connection.rows('ROLLBACK').catch(() => {});
  }
  return judgeTraffic(samples, elapsedMs / 1000);
}

export function judgeTraffic(samples: readonly TrafficSample[], seconds: number): Traffic {
  const [first, last] = [samples[0]?.transactions, samples.at(-1)?.transactions];
  const rate = first === undefined || last === undefined ? undefined : Math.max(0, last - first) / seconds;
  const often = new Map<number, { session: BusySession; count: number }>();
  for (const session of samples.flatMap(({ busySessions }) => busySessions)) {
    often.set(session.pid, { session, count: (often.get(session.pid)?.count ?? 0) + 1 });
  }
  const busy = [...often.values()].filter(({ count }) => count >= BUSY_SHARE_MAX * samples.length);
  const rateText =
    rate === undefined ? 'transactions are not told' : `${Math.round(rate)} transactions a second`;
  const named = busy.slice(0, NAMED_MAX).map(({ session }) => describeSession(session));
  const more = busy.length > NAMED_MAX ? ` and ${busy.length - NAMED_MAX} more` : '';
  return {
    isQuiet: (rate ?? 0) <= TRANSACTIONS_PER_SECOND_MAX && busy.length === 0,
    seen: `${rateText} by others${busy.length === 0 ? ', no session at work' : `, at work: ${named.join(', ')}${more}`}`,
  };
}

function describeSession({ pid, user, database, application }: BusySession): string {
  const name = application === '' ? '' : ` (${application})`;
  return `${user}@${database}${name}, pid ${pid}`;
}

function sampleOf(row: Record<string, unknown>): TrafficSample {
  const busy = Array.isArray(row.busy) ? (row.busy as Record<string, unknown>[]) : [];
  return {
    transactions: typeof row.transactions === 'number' ? row.transactions : undefined,
    busySessions: busy.map(({ pid, user, database, application }) => ({
      pid: Number(pid),
      user: String(user ?? ''),
      database: String(database ?? ''),
      application: String(application ?? ''),
    })),
  };
}
