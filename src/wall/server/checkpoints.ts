/**
 * How many checkpoints a server has made, and how long they took: columns of pg_stat_bgwriter up to 16, and of
 * pg_stat_checkpointer from 17 on. What is there is asked of the catalog.
 * Source: PostgreSQL documentation, "pg_stat_checkpointer" and (16) "pg_stat_bgwriter".
 */
import type { ProbeConnection } from './probe-connection.ts';

/** Since the statistics were reset. */
export interface CheckpointCounters {
  readonly timed: number;
  /** By the amount of WAL, or by somebody's CHECKPOINT. */
  readonly requested: number;
  readonly writeMs: number;
  readonly syncMs: number;
}

const SOURCES = [
  {
    view: 'pg_stat_checkpointer',
    columns: ['num_timed', 'num_requested', 'write_time', 'sync_time'],
  },
  {
    view: 'pg_stat_bgwriter',
    columns: ['checkpoints_timed', 'checkpoints_req', 'checkpoint_write_time', 'checkpoint_sync_time'],
  },
] as const;

export class CheckpointProbe {
  readonly unread: readonly string[];
  private readonly connection: ProbeConnection;
  private readonly text: string | undefined;

  private constructor(connection: ProbeConnection, text: string | undefined) {
    this.connection = connection;
    this.text = text;
    this.unread = text === undefined ? ['checkpoints'] : [];
  }

  static async open(connection: ProbeConnection): Promise<CheckpointProbe> {
    for (const { view, columns } of SOURCES) {
      const known = await connection.columnsOf(view);
      if (!columns.every((column) => known.has(column))) continue;
      const [timed, requested, write, sync] = columns;
      return new CheckpointProbe(
        connection,
        `SELECT ${timed}::float8 AS timed, ${requested}::float8 AS requested, ${write} AS write_ms, ${sync} AS sync_ms FROM pg_catalog.${view}`,
      );
    }
    return new CheckpointProbe(connection, undefined);
  }

  async read(): Promise<CheckpointCounters | undefined> {
    if (this.text === undefined) return undefined;
    const row = await this.connection.row(this.text, [], 'postern_checkpoints');
    return {
      timed: Number(row.timed),
      requested: Number(row.requested),
      writeMs: Number(row.write_ms),
      syncMs: Number(row.sync_ms),
    };
  }
}
