/**
 * What the sessions of clients wait for: pg_stat_activity, looked at some twenty times a second over one connection. Of
 * many looks, the share of an event is the share of the sessions' time that went into it.
 *
 * Names are kept with their type, since WALWrite is both an IO and an LWLock, and SyncRep both an IPC and an LWLock; their
 * keys are in lower case, since PostgreSQL 17 changed it (WALSync, WalSync). A session that is active and waits for nothing
 * has a CPU or wants one. (The sleep of commit_delay before 18 shows as nothing either.)
 *
 * Cost: one look at 64 sessions is some 0.3 ms of a backend's CPU, so 20 a second take less than 1% of a core.
 * Source: PostgreSQL documentation, "pg_stat_activity" and "Wait Events".
 */
import type { ProbeConnection } from './probe-connection.ts';

const SAMPLE_INTERVAL_MS = 50;

/** Keys of what is no wait event of the server's. */
export const ON_CPU = 'cpu';
export const IDLE = 'client:idle';
export const IDLE_IN_TRANSACTION = 'client:idleintransaction';
const HIDDEN = 'hidden';

export interface WaitCount {
  /** Lower case, 'type:event', or one of the keys above. */
  readonly key: string;
  /** As this server writes it. */
  readonly event: string;
  /** How often a session was seen in it. */
  readonly count: number;
}

export interface ActivityProfile {
  /** How often it was looked. */
  readonly samples: number;
  /** Most first. */
  readonly waits: readonly WaitCount[];
  /** Sessions seen, over all samples. */
  readonly sessions: number;
}

/** One look's row: sessions in one state and wait. */
export interface ActivityRow {
  readonly state: string | null;
  readonly type: string | null;
  readonly event: string | null;
  readonly count: number;
}

/** What a row counts as. */
function waitOf(row: Omit<ActivityRow, 'count'>): { key: string; event: string } {
  if (row.state === null) return { key: HIDDEN, event: 'hidden (needs pg_monitor)' };
  if (row.state === 'idle') return { key: IDLE, event: 'Client:idle' };
  if (row.state.startsWith('idle in transaction')) {
    return { key: IDLE_IN_TRANSACTION, event: 'Client:idle in transaction' };
  }
  if (row.type === null || row.event === null) return { key: ON_CPU, event: 'CPU' };
  return { key: `${row.type}:${row.event}`.toLowerCase(), event: `${row.type}:${row.event}` };
}

export class ActivityProfileBuilder {
  private samples = 0;
  private sessions = 0;
  private readonly counts = new Map<string, { event: string; count: number }>();

  /** All rows of one look. */
  add(rows: readonly ActivityRow[]): void {
    this.samples++;
    for (const row of rows) {
      const { key, event } = waitOf(row);
      const known = this.counts.get(key);
      this.counts.set(key, { event, count: (known?.count ?? 0) + row.count });
      this.sessions += row.count;
    }
  }

  profile(): ActivityProfile {
    const waits = [...this.counts].map(([key, { event, count }]) => ({ key, event, count }));
    waits.sort((a, b) => b.count - a.count);
    return { samples: this.samples, sessions: this.sessions, waits };
  }
}

const TEXT = `SELECT state, wait_event_type AS type, wait_event AS event, count(*)::int AS count
FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND ($1::text IS NULL OR application_name = $1)
  AND application_name NOT LIKE 'postern wall probe%'
GROUP BY 1, 2, 3`;

export class ActivitySampler {
  private readonly connection: ProbeConnection;
  private readonly applicationName: string | null;
  private readonly intervalMs: number;
  private timer: NodeJS.Timeout | undefined;
  private looking: Promise<void> = Promise.resolve();
  private isLooking = false;
  private failure: unknown;
  private builder = new ActivityProfileBuilder();

  constructor(options: {
    connection: ProbeConnection;
    /** Only sessions that call themselves so; without it, all clients' sessions. */
    applicationName?: string;
    intervalMs?: number;
  }) {
    this.connection = options.connection;
    this.applicationName = options.applicationName ?? null;
    this.intervalMs = options.intervalMs ?? SAMPLE_INTERVAL_MS;
  }

  start(): void {
    this.builder = new ActivityProfileBuilder();
    this.timer = setInterval(() => this.look(), this.intervalMs);
  }

  /** What was seen since `start`. Rejects if the server could not be asked. */
  async stop(): Promise<ActivityProfile> {
    clearInterval(this.timer);
    await this.looking;
    if (this.failure !== undefined) throw this.failure;
    return this.builder.profile();
  }

  /** One look; a server that answers slowly is looked at less often, never twice at a time. */
  private look(): void {
    if (this.isLooking) return;
    this.isLooking = true;
    this.looking = this.connection
      .rows(TEXT, [this.applicationName], 'postern_activity')
      .then(
        (rows) => this.builder.add(rows as unknown as ActivityRow[]),
        (error: unknown) => {
          this.failure ??= error;
        },
      )
      .finally(() => {
        this.isLooking = false;
      });
  }
}
