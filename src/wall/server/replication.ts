/**
 * The standbys that stream from a server, and how far behind each is, in bytes of WAL and by the step at which they wait:
 * to be sent, written, flushed, replayed. By differences of positions: the columns of time (write_lag and its like) stall
 * when nothing is written, and tell the past. Cost: one short query, whatever the load.
 * Source: PostgreSQL documentation, "pg_stat_replication" and "synchronous_standby_names".
 */
import type { ProbeConnection } from './probe-connection.ts';

export interface Standby {
  readonly name: string;
  /** Null: a Unix socket, or not told. */
  readonly address: string | null;
  /** 'streaming', 'catchup', …; null: this user isn't told (pg_monitor is). */
  readonly state: string | null;
  /** 'sync', 'quorum', 'potential', 'async'. */
  readonly syncState: string | null;
  /** Flushed here, not sent yet. */
  readonly unsentBytes: number | null;
  readonly unwrittenBytes: number | null;
  readonly unflushedBytes: number | null;
  readonly unreplayedBytes: number | null;
}

export interface ReplicationState {
  readonly standbys: readonly Standby[];
  /** The setting; empty: commits wait for no standby. */
  readonly synchronousStandbyNames: string;
  /** Standbys that a commit waits for now, or may wait for. */
  readonly waitedFor: number;
  readonly unread: readonly string[];
}

const TEXT = `SELECT application_name AS name, host(client_addr) AS address, state, sync_state,
  (pg_current_wal_flush_lsn() - sent_lsn)::float8 AS unsent, (sent_lsn - write_lsn)::float8 AS unwritten,
  (write_lsn - flush_lsn)::float8 AS unflushed, (flush_lsn - replay_lsn)::float8 AS unreplayed
FROM pg_catalog.pg_stat_replication WHERE state IS DISTINCT FROM 'backup' ORDER BY 1, 2`;

export async function readReplication(connection: ProbeConnection): Promise<ReplicationState> {
  const synchronousStandbyNames = (await connection.setting('synchronous_standby_names')) ?? '';
  let rows: Record<string, unknown>[];
  try {
    rows = await connection.rows(TEXT, [], 'postern_replication');
  } catch (error) {
    // A standby has no flush position of its own to compare with.
    return {
      ...{ standbys: [], synchronousStandbyNames, waitedFor: 0 },
      unread: [`pg_stat_replication (${error instanceof Error ? error.message : String(error)})`],
    };
  }
  const standbys = rows.map(standbyOf);
  return {
    standbys,
    synchronousStandbyNames,
    waitedFor: standbys.filter(({ syncState }) => syncState === 'sync' || syncState === 'quorum').length,
    unread: standbys.some(({ state }) => state === null)
      ? ['positions of standbys (GRANT pg_monitor shows them)']
      : [],
  };
}

/** WAL that is made and not flushed yet; 0 on a standby, which makes none. */
export async function unflushedBytes(connection: ProbeConnection): Promise<number> {
  const { bytes } = await connection.row(
    `SELECT CASE WHEN pg_is_in_recovery() THEN 0
            ELSE (pg_current_wal_insert_lsn() - pg_current_wal_flush_lsn())::float8 END AS bytes`,
    [],
    'postern_unflushed',
  );
  return Number(bytes);
}

function standbyOf(row: Record<string, unknown>): Standby {
  const text = (value: unknown): string | null => (typeof value === 'string' ? value : null);
  const bytes = (value: unknown): number | null => (typeof value === 'number' ? Math.max(0, value) : null);
  return {
    name: text(row.name) ?? '',
    address: text(row.address),
    state: text(row.state),
    syncState: text(row.sync_state),
    unsentBytes: bytes(row.unsent),
    unwrittenBytes: bytes(row.unwritten),
    unflushedBytes: bytes(row.unflushed),
    unreplayedBytes: bytes(row.unreplayed),
  };
}
