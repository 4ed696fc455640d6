/**
 * The server's own counters of WAL: how much was made (pg_stat_wal, and the insert position), and how often and how long it
 * was written and flushed. The latter are columns of pg_stat_wal from 14 to 17 and rows of pg_stat_io from 18 on; what is
 * there is asked of the catalog, never concluded from a version.
 *
 * Times are counted only under track_wal_io_timing, which a superuser may switch on for a session of his own. A session
 * hands its counts in once a second and at its end: exact figures need all of them to have ended.
 * Source: PostgreSQL documentation, "pg_stat_wal" and "pg_stat_io".
 */
import type { ProbeConnection } from './probe-connection.ts';

/** Since the statistics were reset; undefined: this server doesn't tell. */
export interface WalCounters {
  readonly atMs: number;
  /** The insert position as a number of bytes. */
  readonly insertLsn: number | undefined;
  readonly records: number | undefined;
  readonly fullPageImages: number | undefined;
  readonly bytes: number | undefined;
  /** How often a session had to write WAL out because its buffers were full. */
  readonly buffersFull: number | undefined;
  readonly writes: number | undefined;
  readonly syncs: number | undefined;
  /** 0 unless track_wal_io_timing was on for who wrote. */
  readonly writeMs: number | undefined;
  readonly syncMs: number | undefined;
}

const NAMES = [
  ...(['insertLsn', 'records', 'fullPageImages', 'bytes', 'buffersFull'] as const),
  ...(['writes', 'syncs', 'writeMs', 'syncMs'] as const),
];
type CounterName = (typeof NAMES)[number];
export type WalDifference = Readonly<Record<CounterName, number | undefined>> & {
  readonly elapsedMs: number;
};

/** By the counter's name here: its column in pg_stat_wal. */
const WAL_COLUMNS: readonly (readonly [CounterName, string])[] = [
  ['records', 'wal_records'],
  ['fullPageImages', 'wal_fpi'],
  ['bytes', 'wal_bytes'],
  ['buffersFull', 'wal_buffers_full'],
  ['writes', 'wal_write'],
  ['syncs', 'wal_sync'],
  ['writeMs', 'wal_write_time'],
  ['syncMs', 'wal_sync_time'],
];

/** The same of pg_stat_io, summed over its rows of WAL. */
const IO_COLUMNS: readonly (readonly [CounterName, string])[] = [
  ['writes', 'writes'],
  ['syncs', 'fsyncs'],
  ['writeMs', 'write_time'],
  ['syncMs', 'fsync_time'],
];

export class WalCounterProbe {
  /** What this server doesn't tell, in words. */
  readonly unread: readonly string[];
  private readonly connection: ProbeConnection;
  private readonly text: string;
  private readonly known: ReadonlySet<CounterName>;

  private constructor(connection: ProbeConnection, text: string, known: ReadonlySet<CounterName>) {
    this.connection = connection;
    this.text = text;
    this.known = known;
    this.unread = NAMES.filter((name) => !known.has(name)).map((name) => `WAL counter ${name}`);
  }

  static async open(connection: ProbeConnection): Promise<WalCounterProbe> {
    const wal = await connection.columnsOf('pg_stat_wal');
    const io = await connection.columnsOf('pg_stat_io');
    const known = new Map<CounterName, string>();
    for (const [name, column] of WAL_COLUMNS) if (wal.has(column)) known.set(name, `w.${column}::float8`);
    for (const [name, column] of IO_COLUMNS) {
      if (io.has('object') && io.has(column) && !known.has(name)) known.set(name, `io.${name.toLowerCase()}`);
    }
    known.set(
      'insertLsn',
      `(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_insert_lsn() END - '0/0'::pg_lsn)::float8`,
    );
    const columns = [...known].map(([name, expression]) => `${expression} AS "${name}"`);
    const sums = IO_COLUMNS.filter(([, column]) => io.has(column)).map(
      ([name, column]) => `coalesce(sum(${column}), 0)::float8 AS ${name.toLowerCase()}`,
    );
    const from = [
      ...(wal.size > 0 ? ['pg_catalog.pg_stat_wal w'] : []),
      ...(io.has('object')
        ? [`(SELECT ${sums.join(', ')} FROM pg_catalog.pg_stat_io WHERE object = 'wal') io`]
        : []),
    ];
    const text = `SELECT ${columns.join(', ')}${from.length > 0 ? ` FROM ${from.join(', ')}` : ''}`;
    return new WalCounterProbe(connection, text, new Set(known.keys()));
  }

  async read(): Promise<WalCounters> {
    const row = await this.connection.row(this.text, [], 'postern_wal_counters');
    const of = (name: CounterName): number | undefined =>
      this.known.has(name) && row[name] !== null ? Number(row[name]) : undefined;
    return {
      atMs: performance.now(),
      ...(Object.fromEntries(NAMES.map((name) => [name, of(name)])) as CounterValues),
    };
  }
}

type CounterValues = Omit<WalCounters, 'atMs'>;

/** What happened between two readings; a counter that went backwards (a reset between them) is undefined. */
export function walDifference(before: WalCounters, after: WalCounters): WalDifference {
  const entries = NAMES.map((name) => {
    const [from, to] = [before[name], after[name]];
    return [name, from === undefined || to === undefined || to < from ? undefined : to - from] as const;
  });
  const values = Object.fromEntries(entries) as Record<CounterName, number | undefined>;
  return { ...values, elapsedMs: after.atMs - before.atMs };
}

/** Whether a session of this user may switch the timing of WAL writes and flushes on for itself. */
export async function mayTimeWal(connection: ProbeConnection): Promise<boolean> {
  try {
    const { super: isSuper } = await connection.row(
      `SELECT rolsuper AS super FROM pg_catalog.pg_roles WHERE rolname = current_user`,
    );
    if ((await connection.setting('track_wal_io_timing')) === undefined) return false;
    if (isSuper === true) return true;
    // The function is there from PostgreSQL 15 on.
    const { may } = await connection.row(
      `SELECT has_parameter_privilege(current_user, 'track_wal_io_timing', 'SET') AS may`,
    );
    return may === true;
  } catch {
    return false;
  }
}
